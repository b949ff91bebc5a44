"""`amst-hpc verify` finds every kind of damage and names the first bad chunk."""

import shutil

import h5py
import numpy as np
import pytest
from jobs import FAST, UNPRIVILEGED, call, finished, run
from spoilt import refused_at_once
from stacks import inputs

SETTINGS = tuple(
    part
    for text in ("output.chunk=32", "output.layer=8", "output.levels=3")
    for part in ("--set", text)
)


KINDS = {
    "gzip": ("output.compression=1",),
    "plain": ("output.compression=0",),
    "legacy": ("output.legacy=true",),  # no attribute dataType where the voxels are uint16
}


@pytest.fixture(scope="module")
def make(tissue, tmp_path_factory):
    """A function kind -> OUT.h5 of 24 slices in 3 layers and 3 levels, made once."""
    made = {}

    def make(kind):
        if kind not in made:
            out = tmp_path_factory.mktemp("verify") / "out.h5"
            more = [part for text in KINDS[kind] for part in ("--set", text)]
            finished(run(2, "align", *inputs(tissue), out, *FAST, *SETTINGS, *more))
            made[kind] = out
        return made[kind]

    return make


def test_the_xml_stands_for_the_file(make):
    out = make("plain")
    view = out.with_suffix(".xml")
    for command in ("verify", "status", "report", "evaluate"):
        said = [finished(call(command, name)).stdout for name in (out, view)]
        assert said[0]
        assert said[0] == said[1]


def test_a_report_in_a_folder_that_may_not_be_written(make, tmp_path):
    out = copy(make("plain"), tmp_path)
    out.with_suffix(".amst").chmod(0o555)
    ended = run(0, "report", out, before=UNPRIVILEGED)
    out.with_suffix(".amst").chmod(0o755)
    refused_at_once(ended, f"{out.with_suffix('.amst')}.*: Permission denied")


def copy(out, folder):
    shutil.copytree(out.parent, folder / "copy")
    return folder / "copy" / out.name


@pytest.fixture
def out(make, tmp_path):
    """A copy to damage."""
    return copy(make("gzip"), tmp_path)


def bad(out, expected):
    ended = call("verify", out)
    assert ended.code == 1, ended.stderr
    assert len(ended.faults) == 1
    assert expected in ended.faults[0]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_as_it_was_written(make, kind):
    ended = call("verify", make(kind))
    assert ended.code == 0, ended.stderr
    assert "chunks on 3 levels, tables and XML as written" in ended.stdout


@pytest.mark.parametrize("kind", ["gzip", "plain"])
@pytest.mark.parametrize(
    ("level", "index"), [(0, (0, 0, 0)), (0, (16, 96, 128)), (1, (4, 32, 64)), (2, (4, 32, 32))]
)
def test_one_flipped_byte_in_a_chunk(make, tmp_path, kind, level, index):
    out = copy(make(kind), tmp_path)
    with h5py.File(out, "r") as file:
        info = file[f"t00000/s00/{level}/cells"].id.get_chunk_info_by_coord(index)
    with out.open("r+b") as file:
        file.seek(info.byte_offset + 4)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x10]))
    bad(out, f"out.h5: level {level}: the chunk at (z, y, x) = {index} is damaged")


def test_a_changed_voxel(out):
    with h5py.File(out, "r+") as file:
        cells = file["t00000/s00/1/cells"]
        cells[5, 40, 70] = cells[5, 40, 70] + 1
    bad(out, "level 1: the chunk at (z, y, x) = (4, 32, 64) is damaged")


@pytest.mark.parametrize("table", ["s00/resolutions", "s00/subdivisions", "t00000/s00/2/cells"])
def test_a_missing_table(out, table):
    with h5py.File(out, "r+") as file:
        del file[table]
    bad(out, table.split("/")[1] if table.startswith("s00") else table)


def test_a_changed_table(out):
    with h5py.File(out, "r+") as file:
        file["s00/resolutions"][1, 0] = 3.0
    bad(out, "its resolutions are not those of this run")


def test_a_changed_attribute(out):
    with h5py.File(out, "r+") as file:
        file["s00"].attrs["dataType"] = np.bytes_("uint16")
    bad(out, "its dataType is 'uint16', not 'uint8'")


def test_a_file_cut_short(out):
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) * 2 // 3])
    bad(out, "out.h5: it cannot be read")


def test_a_file_of_zeros(out):
    out.write_bytes(bytes(out.stat().st_size))
    bad(out, "out.h5: it cannot be read")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("<size>160 144 24</size>", "<size>160 144 25</size>", "<size> 160 144 25 where"),
        ("1.0 0.0 0.0 0.0 0.0 1.0", "2.0 0.0 0.0 0.0 0.0 1.0", "<affine> 2.0 0.0"),
        ("out.h5", "other.h5", "other.h5 where"),
        ("</SpimData>", "<More/></SpimData>", "<More> where nothing belongs"),
        ("</SpimData>", "", "cannot be read"),
    ],
)
def test_a_changed_xml(out, old, new, expected):
    path = out.with_suffix(".xml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    bad(out, expected)
    path.unlink()
    bad(out, "out.xml: cannot be read")


def test_spaces_in_the_xml_do_not_count(out):
    path = out.with_suffix(".xml")
    path.write_text(path.read_text().replace("    ", "\t"))
    assert call("verify", out).code == 0


def test_nothing_to_verify(out, tmp_path):
    for path in (tmp_path / "gone.h5", out.with_suffix(".settings.xml")):
        ended = call("verify", path)
        assert ended.code == 2
        assert len(ended.faults) == 1
    shutil.rmtree(out.with_suffix(".amst"))
    ended = call("verify", out)
    assert ended.code == 2
    assert "cannot be verified without" in ended.faults[0]
