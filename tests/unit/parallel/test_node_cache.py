"""What was compiled is there again; what is damaged or somebody else's is as if it were not."""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from amst_hpc.parallel import node_cache
from amst_hpc.parallel.node_cache import SCRATCH, kept_on_node, node_folder


@pytest.fixture
def scratch(tmp_path, kernels_elsewhere, monkeypatch):
    """A function that makes the scratch folder of a new process."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv(SCRATCH, str(folder))
        return folder

    return make


def compile_into(folder: Path, text: str = "binary") -> None:
    (folder / "pyopencl" / "abc").mkdir(parents=True)
    (folder / "pyopencl" / "abc" / "binary").write_text(text)
    (folder / "pyopencl" / "lock").touch()
    (folder / "pytools").mkdir()
    (folder / "pytools" / "open.sqlite").write_text("of one process")


def archive() -> Path:
    (path,) = node_folder().glob("*.zip")
    return path


def test_a_later_process_finds_what_one_made(scratch):
    first = scratch("first")
    (first / "before").write_text("not made in the block")
    with kept_on_node("key") as there:
        assert not there
        compile_into(first)
    second = scratch("second")
    with kept_on_node("key") as there:
        assert there
    assert [p.relative_to(second) for p in second.rglob("*") if p.is_file()] == [
        Path("pyopencl/abc/binary")
    ]
    with kept_on_node("another", "key") as there:
        assert not there
    assert node_folder().stat().st_mode & 0o777 == 0o700


def test_what_fails_is_not_kept(scratch):
    def compile_and_fail(folder):
        with kept_on_node("key"):
            compile_into(folder)
            raise RuntimeError("the compiler")

    with pytest.raises(RuntimeError):
        compile_and_fail(scratch("first"))
    scratch("second")
    with kept_on_node("key") as there:
        assert not there


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"binary" * 9, b"binarz" * 9),
        lambda data: os.urandom(len(data)),
        lambda data: data[:-30] + os.urandom(30),
    ],
)
def test_a_damaged_archive_is_made_again(scratch, damage):
    first = scratch("first")
    with kept_on_node("key"):
        compile_into(first, "binary" * 99)
    archive().write_bytes(damage(archive().read_bytes()))
    second = scratch("second")
    with kept_on_node("key") as there:
        assert not there
        assert not list(second.iterdir())
        compile_into(second, "binary" * 99)
    assert zipfile.ZipFile(archive()).testzip() is None
    scratch("third")
    with kept_on_node("key") as there:
        assert there


def readable_by_others(folder: Path) -> None:
    folder.chmod(0o750)


def of_somebody_else(folder: Path) -> None:
    other = folder.with_name("other")
    folder.rename(other)
    folder.symlink_to(other)  # as a link of his to a folder of ours


def a_file(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.touch()


@pytest.mark.parametrize("foreign", [readable_by_others, of_somebody_else, a_file])
def test_a_foreign_folder_counts_as_none(scratch, foreign):
    first = scratch("first")
    with kept_on_node("key"):
        compile_into(first)
    foreign(Path(node_folder()))
    assert node_folder() is None
    second = scratch("second")
    with kept_on_node("key") as there:
        assert not there
        compile_into(second)


def test_of_another_user(kernels_elsewhere, monkeypatch):
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    name = f"amst_hpc-kernels-{other}-{node_cache.platform.node()}"
    Path(tempfile.gettempdir(), name).mkdir(mode=0o700)
    assert node_folder() is None


def test_a_folder_that_cannot_be_written_is_no_fault(scratch, monkeypatch):
    monkeypatch.setattr(node_cache.zipfile.ZipFile, "write", lambda *_: _full())
    first = scratch("first")
    with kept_on_node("key"):
        compile_into(first)
    assert not list(node_folder().glob("*.zip"))


def _full() -> None:
    raise OSError(28, "No space left on device")


def test_without_a_scratch_folder_nothing_is_kept(kernels_elsewhere, monkeypatch):
    monkeypatch.delenv(SCRATCH, raising=False)
    with kept_on_node("key") as there:
        assert not there
    assert not list(node_folder().iterdir())


WAITS = """
import os, sys, time
from pathlib import Path
from amst_hpc.parallel.node_cache import kept_on_node
with kept_on_node("key") as there:
    if not there:
        time.sleep(1.0)
        Path(os.environ["AMST_HPC_SCRATCH"], "made").write_text("once")
print(there, Path(os.environ["AMST_HPC_SCRATCH"], "made").read_text())
"""


def test_one_process_compiles_and_the_others_wait(tmp_path, kernels_elsewhere):
    processes = []
    for i in range(4):
        (tmp_path / str(i)).mkdir()
        environment = {**os.environ, SCRATCH: str(tmp_path / str(i))}
        environment["TMPDIR"] = str(kernels_elsewhere.parent)
        command = [sys.executable, "-c", WAITS]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    said = sorted(process.communicate()[0].strip() for process in processes)
    assert said == ["False once", "True once", "True once", "True once"]


def test_a_process_that_is_killed_holds_nobody_up(tmp_path, kernels_elsewhere, scratch):
    (tmp_path / "killed").mkdir()
    environment = {**os.environ, SCRATCH: str(tmp_path / "killed")}
    environment["TMPDIR"] = str(kernels_elsewhere.parent)
    waits = WAITS.replace("1.0", "1000")
    with subprocess.Popen([sys.executable, "-c", waits], env=environment) as process:
        while not list(kernels_elsewhere.glob("*.lock")):
            time.sleep(0.05)
        process.kill()
    began = time.monotonic()
    scratch("next")
    with kept_on_node("key") as there:
        assert not there
    assert time.monotonic() - began < 10


def test_nobody_waits_for_ever(scratch, monkeypatch):
    monkeypatch.setattr(node_cache, "PATIENCE", 0.2)
    scratch("first")
    with kept_on_node("key"), kept_on_node("key") as there:  # another descriptor: another process
        assert not there


def test_old_archives_go(scratch, monkeypatch):
    first = scratch("first")
    with kept_on_node("old"):
        compile_into(first)
    os.utime(archive(), (0, time.time() - 2 * node_cache.KEPT))
    scratch("second")
    with kept_on_node("new"):
        pass
    assert len(list(node_folder().glob("*.zip"))) == 1
