"""What stands under OUT is never lost and never lied about: odd names, damage, signals, no room."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import h5py
import pytest
from jobs import (
    FAST,
    SLOWED,
    Job,
    call,
    command_line,
    contents,
    environment,
    finished,
    journal,
    registrations,
    run,
    send,
)
from spoilt import nothing_written, refused
from stacks import inputs

SETTINGS = ("--set", "output.layer=8", "--set", "output.chunk=64")


def line(tissue: Path, out: Path, *more: str) -> list[str | Path]:
    return ["align", *inputs(tissue), out, *FAST, *SETTINGS, *more]


@pytest.fixture(scope="module")
def make(tissue, tmp_path_factory):
    """A function compression -> OUT that is finished, made once."""
    made = {}

    def make(compression):
        if compression not in made:
            made[compression] = tmp_path_factory.mktemp("damage") / "out.h5"
            more = ("--set", f"output.compression={compression}")
            finished(call(*line(tissue, made[compression], *more)))
        return made[compression]

    return make


# ---- stdout, mpirun, and the room around


@pytest.mark.parametrize("arguments", [("--version",), ("config",), ("align",)])
def test_a_reader_that_has_gone_is_no_failure(tissue, tmp_path, arguments):
    if arguments == ("align",):
        arguments = line(tissue, tmp_path / "out.h5")
    command = [str(word) for word in command_line(0, arguments)]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            command, env=environment(), stdout=gone, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
def test_a_signal_to_mpirun_itself(tissue, tmp_path, monkeypatch, number):
    """It forwards SIGUSR1 and waits; else it kills its ranks at once: then status says so."""
    out = tmp_path / "out.h5"
    monkeypatch.setenv("FAULTS", json.dumps({"register": 0.2}))
    job = Job(2, *line(tissue, out), program=SLOWED)
    monkeypatch.delenv("FAULTS")
    job.wait_for(lambda: job.registered() >= 2)
    if number == signal.SIGKILL:
        for pid in job.ranks():
            send(pid, number)
    send(job.process.pid, number)
    ended = job.end(60)
    found = finished(call("status", out)).stdout
    if number == signal.SIGUSR1:
        assert ended.code == 75
    assert ended.code != 0
    assert "running" not in found
    assert ("stopped" if number == signal.SIGUSR1 else "ed") in found
    before = len(registrations(job.folder))
    finished(call(*line(tissue, out)))
    assert len(registrations(job.folder)) == 24 >= before


def test_without_a_home(tissue, tmp_path):
    variables = {key: value for key, value in environment().items() if key != "HOME"}
    finished(run(0, *line(tissue, tmp_path / "out.h5"), env=variables))


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    done = subprocess.run(mount, capture_output=True, check=False)
    assert done.returncode == 0, "no tmpfs can be mounted (not root?)"
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_scratch_folder_is_named(tissue, tmp_path, small_disk):
    variables = environment() | {"TMPDIR": str(small_disk)}
    refused(
        run(0, *line(tissue, tmp_path / "out.h5"), env=variables),
        f"TMPDIR {small_disk}: .* GB free",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_without_a_scratch_folder(tissue, tmp_path, monkeypatch):
    import tempfile

    def none(*_args: object, **_more: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "mkdtemp", none)
    with nothing_written(tmp_path):
        refused(call(*line(tissue, tmp_path / "out.h5")), "TMPDIR: No usable temporary directory")


# ---- names


def test_a_folder_in_the_place_of_the_file(tissue, tmp_path):
    (tmp_path / "out.h5").mkdir()
    for more in ((), ("--overwrite",)):
        with nothing_written(tmp_path):
            ended = call(*line(tissue, tmp_path / "out.h5", *more))
        refused(ended, r"out\.h5: is a folder; expected a file")


def test_a_file_in_the_place_of_the_folder(tissue, tmp_path):
    (tmp_path / "out").write_text("mine")
    for more in ((), ("--overwrite",)):
        with nothing_written(tmp_path):
            ended = call(*line(tissue, tmp_path / "out", "--output-format", "tif", *more))
        refused(ended, "out: is a file; expected a folder")


@pytest.mark.parametrize("length", [240, 252, 300])
def test_a_name_that_is_too_long(tissue, tmp_path, length):
    out = tmp_path / f"{'n' * length}.h5"
    with nothing_written(tmp_path):
        refused(call(*line(tissue, out)), "too long; expected at most")


@pytest.mark.parametrize("there", [False, True])
def test_a_link_is_followed(tissue, tmp_path, there):
    (tmp_path / "big").mkdir()
    link, out = tmp_path / "out.h5", tmp_path / "big" / "volume.h5"
    link.symlink_to(out)
    if there:
        finished(call(*line(tissue, out)))
    ended = finished(call(*line(tissue, link)))
    assert f"open {out.with_suffix('.xml')}" in ended.stdout
    assert link.is_symlink()
    assert len(registrations(out.with_suffix(".amst"))) == 24
    assert {path.name for path in tmp_path.iterdir()} == {"big", "out.h5"}
    for command in ("verify", "status", "report"):
        finished(call(command, link))


def test_a_link_that_leads_nowhere(tissue, tmp_path):
    (tmp_path / "out.h5").symlink_to(tmp_path / "out.h5")
    with nothing_written(tmp_path):
        refused(call(*line(tissue, tmp_path / "out.h5")), r"out\.h5: is a link that leads nowhere")


def test_an_output_in_the_folder_that_linked_slices_stand_in(tissue, tmp_path):
    """RAW is a folder of links; TIFF output would replace the slices themselves."""
    shutil.copytree(tissue / "raw", tmp_path / "store")
    (tmp_path / "raw").mkdir()
    for path in (tmp_path / "store").iterdir():
        (tmp_path / "raw" / path.name).symlink_to(path)
    options = (*FAST, "--output-format", "tif", "--overwrite")
    with nothing_written(tmp_path):
        ended = call("align", tmp_path / "raw", tissue / "pre", tmp_path / "store", *options)
    refused(ended, "store: is RAW .* or inside it")


def test_an_output_that_an_xml_of_the_input_names(make, tissue, tmp_path):
    """Neither its HDF5 file is overwritten, nor the XML that another OUT would have."""
    shutil.copytree(make(0).parent, tmp_path / "in")
    view, volume = tmp_path / "in" / "out.xml", tmp_path / "in" / "out.h5"
    moved = tmp_path / "in" / "view.xml"
    view.rename(moved)
    for raw, out in ((moved, volume), (moved, moved.with_suffix(".h5"))):
        with nothing_written(tmp_path):
            ended = call("align", raw, tissue / "pre", out, *FAST, "--overwrite")
        refused(ended, "is RAW .* or inside it")


# ---- damage


def voxels(out: Path) -> dict[str, str]:
    return {key: value for key, value in contents(out).items() if "cells" in key}


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble_tables(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(96)
        file.write(b"\xa5" * 4000)


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("damage", [cut_short, empty, garble_tables])
def test_the_same_command_repairs_a_file_that_does_not_open(
    make, tissue, tmp_path, damage, compression
):
    shutil.copytree(make(compression).parent, tmp_path / "copy")
    out = tmp_path / "copy" / "out.h5"
    damage(out)
    again = line(tissue, out, "--set", f"output.compression={compression}")
    finished(call(*again))
    assert voxels(out) == voxels(make(compression))
    assert len(registrations(out.with_suffix(".amst"))) == 24
    finished(call("verify", out))


def flip(out: Path, *places: tuple[int, tuple[int, int, int]]) -> None:
    """A byte in the chunks at (level, (z, y, x))."""
    with h5py.File(out, "r") as file:
        cells = [file[f"t00000/s00/{level}/cells"].id for level, _ in places]
        at = [c.get_chunk_info_by_coord(p).byte_offset for c, (_, p) in zip(cells, places)]  # noqa: B905
    for offset in at:
        with out.open("r+b") as file:
            file.seek(offset + 4)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize(("compression", "again"), [(0, [0, 2]), (1, [0, 1, 2])])
def test_what_verify_finds_is_repaired(make, tissue, tmp_path, compression, again):
    """Of an uncompressed file the damaged layers alone are written again."""
    shutil.copytree(make(compression).parent, tmp_path / "copy")
    out = tmp_path / "copy" / "out.h5"
    flip(out, (0, (16, 64, 128)), (0, (0, 0, 0)), (0, (16, 0, 0)))
    command = line(tissue, out, "--set", f"output.compression={compression}")
    ended = finished(call("verify", out), 1)
    assert "verify --repair" in ended.stderr
    assert len(ended.faults) == 2, "one for each layer"
    finished(call(*command))
    finished(call("verify", out), 1)
    ended = finished(run(2, "verify", "--repair", out), 1)
    assert "the command that aligned it writes it again" in ended.stderr
    layers = len([r for r in journal(out.with_suffix(".amst"), "write") if r["kind"] == "layer"])
    finished(call(*command))
    written = [r for r in journal(out.with_suffix(".amst"), "write") if r["kind"] == "layer"]
    new = written[layers:] if compression == 0 else written
    assert sorted(r["layer"] for r in new) == again
    finished(call("verify", out))
    assert voxels(out) == voxels(make(compression))
    assert len(registrations(out.with_suffix(".amst"))) == 24


def test_a_damaged_xml_is_written_again(make, tissue, tmp_path):
    shutil.copytree(make(0).parent, tmp_path / "copy")
    out = tmp_path / "copy" / "out.h5"
    out.with_suffix(".xml").write_text("<SpimData/>")
    finished(call("verify", "--repair", out), 1)
    finished(call(*line(tissue, out, "--set", "output.compression=0")))
    finished(call("verify", out))
