"""A folder that passes for one on Lustre, and an `lfs` that takes notes."""

import os
from pathlib import Path

LFS = """#!/bin/sh
echo "$@" >> {notes}
for file; do :; done
[ -e "$file" ] && exit 17  # as lfs does with a file that has stripes
{work}
"""


def install_lfs(folder: Path, work: str = ': > "$file"') -> Path:
    """The program, which does `work` with "$file"; returns where its arguments are kept."""
    program, notes = folder / "bin/lfs", folder / "lfs.txt"
    program.parent.mkdir()
    program.write_text(LFS.format(notes=notes, work=work))
    program.chmod(0o755)
    return notes


def make_mounts(folder: Path) -> Path:
    """A /proc/mounts that has Lustre there."""
    path = folder / "mounts"
    path.write_text(f"/dev/vda / ext4 rw 0 0\n10.0.0.1@o2ib:/work {folder} lustre rw,flock 0 0\n")
    return path


def path_with(folder: Path) -> str:
    """PATH, with that `lfs`."""
    return f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
