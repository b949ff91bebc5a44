"""Stripes on Lustre, by an `lfs` that takes notes, and where Lustre is."""

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from bdv_files import SHAPE, small, stack, write
from lustre import install_lfs, make_mounts, path_with

from amst_hpc.bdv import storage
from amst_hpc.bdv.collective import choose_hints
from amst_hpc.bdv.direct import create_file
from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.storage import create_striped, file_system
from amst_hpc.config import InputError, Output
from amst_hpc.geometry import make_layout

MOUNTS = r"""/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
10.1.1.1@o2ib:/scratch /scratch lustre rw,flock,lazystatfs 0 0
nas:/data /scratch2 nfs4 rw 0 0
tmpfs /scratch/cache tmpfs rw 0 0
10.1.1.1@o2ib:/home /mnt/my\040cells lustre rw 0 0
none /late tmpfs rw 0 0
10.1.1.1@o2ib:/late /late lustre rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/scratch", "lustre"),
        ("/scratch/em/run", "lustre"),
        ("/scratch2/em", "nfs4"),
        ("/scratch/cache/x", "tmpfs"),
        ("/mnt/my cells/a", "lustre"),
        ("/mnt", "ext4"),
        ("/late/x", "lustre"),
    ],
)
def test_a_folder_is_on_the_file_system_of_the_nearest_mount(folder, kind):
    assert file_system(Path(folder), MOUNTS) == kind


def test_the_file_system_of_a_folder_here_is_known(tmp_path):
    assert file_system(tmp_path.resolve(), storage.MOUNTS.read_text())
    assert file_system(Path("/proc/self"), storage.MOUNTS.read_text()) == "proc"


@pytest.fixture
def lustre(tmp_path, monkeypatch):
    """A folder that passes for one on Lustre."""
    monkeypatch.setattr(storage, "MOUNTS", make_mounts(tmp_path))
    monkeypatch.setattr(storage, "SMALL_BYTES", 1)
    monkeypatch.setenv("PATH", path_with(tmp_path))
    return tmp_path


def target_in(folder, **settings):
    output = Output(**{"chunk": 32, "levels": 3, **settings})
    return make_target(folder / "out.h5", make_layout(SHAPE, 4, output), np.dtype("uint8"), output)


KEEP_INODE = ': > "$file"; stat -c %i "$file" > {}'


@pytest.mark.parametrize("stripes", [-1, 4])
def test_the_direct_writer_fills_the_file_that_lfs_has_made(lustre, stripes):
    notes = install_lfs(lustre, KEEP_INODE.format(lustre / "inode"))
    target = target_in(lustre, stripes=stripes)
    create_file(target)
    create_file(target)  # over one that is there
    wanted = f"setstripe -c {stripes} -S 4194304 {lustre}/.out.h5.part"
    assert notes.read_text().splitlines() == [wanted] * 2
    assert target.path.stat().st_ino == int((lustre / "inode").read_text())
    with h5py.File(target.path) as file:
        assert file["t00000/s00/0/cells"].shape == SHAPE


def test_the_funnel_fills_the_file_that_lfs_has_made_and_continues_it(lustre):
    notes = install_lfs(lustre, KEEP_INODE.format(lustre / "inode"))
    path, volume = lustre / "out.h5", stack("uint8")
    path.touch()
    write(path, volume, small(), layers=[0, 1])
    write(path, volume, small(), layers=[2, 3], append=True)
    assert notes.read_text() == f"setstripe -c -1 -S 4194304 {path}\n"
    assert path.stat().st_ino == int((lustre / "inode").read_text())
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["t00000/s00/0/cells"][:], volume)


def test_a_failing_lfs_is_a_warning(lustre, caplog):
    install_lfs(lustre, 'echo "lfs setstripe: cannot: Invalid argument (22)" >&2; exit 22')
    target = target_in(lustre)
    with caplog.at_level(logging.WARNING):
        create_file(target)
    assert "Invalid argument (22); the file has the stripes of its folder" in caplog.text
    assert target.path.exists()


@pytest.mark.parametrize("case", ["elsewhere", "not asked for", "no lfs", "small"])
def test_otherwise_the_folder_decides(lustre, monkeypatch, case):
    notes = install_lfs(lustre)
    if case == "elsewhere":
        monkeypatch.undo()
    if case == "no lfs":
        monkeypatch.setenv("PATH", str(lustre))
    if case == "small":
        monkeypatch.setattr(storage, "SMALL_BYTES", 10**6)
    target = target_in(lustre, stripes=0 if case == "not asked for" else -1)
    create_striped(target.path, target)
    assert not notes.exists()
    assert not target.path.exists()
    if case == "small":
        create_striped(target.path, target_in(lustre, stripes=4))
        assert target.path.exists()


@pytest.mark.parametrize("stripes", [-2, 2001])
def test_stripes_that_cannot_be(stripes):
    with pytest.raises(InputError, match=r"output.stripes = .*: expected -1, 0, or a number"):
        Output(stripes=stripes)


def test_hints_to_mpi_io(lustre):
    usual = {"romio_ds_write": "disable", "romio_cb_write": "enable"}
    stripes = {"striping_unit": "4194304"}
    assert choose_hints(target_in(lustre)) == usual | stripes
    assert choose_hints(target_in(lustre, stripes=0)) == usual
    assert choose_hints(target_in(lustre, stripes=8)) == usual | stripes | {"striping_factor": "8"}
    assert choose_hints(target_in(Path("/proc"))) == {}
