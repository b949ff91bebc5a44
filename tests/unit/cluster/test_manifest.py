"""Manifests: read whole, checked whole, written so that they read back."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from amst_hpc.cluster.manifest import check_entries, pick_entry, read_manifest, write_manifest
from amst_hpc.config import InputError

HEADER = "raw\tprealigned\toutput\ttemplate.radius\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("raw", "pre", "short"):
        (tmp_path / name).mkdir()
        for z in range(2 if name == "short" else 3):
            tifffile.imwrite(tmp_path / name / f"{z}.tif", np.full((8, 9), z, np.uint8))
    return tmp_path


def manifest(folder: Path, text: str, name: str = "stacks.tsv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_paths_start_at_the_manifest_and_cells_become_settings(folder: Path) -> None:
    path = manifest(folder, f"# a note\n{HEADER}raw\tpre\tout.h5\t5\n\nraw\tpre\tother.h5\t\n")
    first, second = read_manifest(path)
    assert (first.raw, first.output) == (str(folder / "raw"), folder / "out.h5")
    assert first.settings(None, ["template.radius=3"]).template.radius == 5
    assert second.settings(None, ["template.radius=3"]).template.radius == 3
    assert second.where == "stacks.tsv line 5"
    assert pick_entry(path, 2) == second


def test_comma_separated_by_its_name(folder: Path) -> None:
    path = manifest(folder, 'output,raw,prealigned\nout.h5,"raw",pre\n', "stacks.csv")
    assert read_manifest(path)[0].output == folder / "out.h5"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", ["\t", ";", ","])
@pytest.mark.parametrize("name", ["stacks.csv", "stacks.tsv"])
def test_tables_as_spreadsheets_write_them(
    folder: Path, mark: str, delimiter: str, name: str
) -> None:
    lines = f"{mark}raw,prealigned,output,template.radius\nraw,pre,out.h5,5\n"
    (entry,) = read_manifest(manifest(folder, lines.replace(",", delimiter), name))
    assert (entry.raw, entry.output) == (str(folder / "raw"), folder / "out.h5")
    assert entry.settings(None, []).template.radius == 5


@pytest.mark.parametrize("text", [HEADER + "raw\t\tout.h5\t5\n", "raw\toutput\nraw\tout.h5\n"])
def test_without_a_pre_alignment_there_is_raw_alone(folder: Path, text: str) -> None:
    entries = read_manifest(manifest(folder, text))
    (entry,), copy = entries, folder / "copy.tsv"
    assert entry.prealigned == ""
    assert entry.job().prealign
    write_manifest(copy, entries)
    assert read_manifest(copy)[0].job() == entry.job()
    faults, (found,) = check_entries(entries, None, [])
    assert not faults
    assert (found.depth, found.shape) == (3, (8, 9))


def test_it_reads_back_what_it_writes(folder: Path) -> None:
    entries = read_manifest(manifest(folder, HEADER + "raw\tpre\tout.h5\t5\n"))
    copy = folder / "deep" / "copy.tsv"
    copy.parent.mkdir()
    write_manifest(copy, entries)
    again = read_manifest(copy)
    assert again[0].job() == entries[0].job()
    assert again[0].overrides == entries[0].overrides


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a header line"),
        ("raw\tprealigned\na\tb\n", "the header has no column output"),
        ("raw\tprealigned\toutput\tradius\na\tb\tc\td\n", "column 'radius'"),
        (HEADER + "\tpre\tout.h5\t\n", "line 2: raw is empty"),
        (HEADER + "raw\tpre\tout.h5\t1\t2\n", "line 2: 5 cells, expected 4"),
        (HEADER + "raw\tpre\t" + "o" * 200_000 + "\t\n", "expected a table .field larger than"),
    ],
)
def test_a_table_that_is_none_is_refused(folder: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_manifest(manifest(folder, text))


def test_every_faulty_line_is_named(folder: Path) -> None:
    rows = [
        "raw\tpre\tgood.h5\t", "gone\tpre\ta.h5\t", "raw\tshort\tb.h5\t", "raw\tpre\tc.tif\t",
        "raw\tpre\tno/d.h5\t", "raw\tpre\tgood.h5\t", "raw\tpre\te.h5\t0",
    ]  # fmt: skip
    entries = read_manifest(manifest(folder, HEADER + "\n".join(rows)))
    faults, found = check_entries(entries, None, [])
    expected = [
        "line 3: RAW", "line 4: RAW", "line 5: output", "line 6: output",
        "line 7: output is that of stacks.tsv line 2", "line 8: template.radius",
    ]  # fmt: skip
    assert len(found) == 1
    assert len(faults) == len(expected)
    for fault, said in zip(faults, expected, strict=True):
        assert said in fault


def test_stacks_whose_numbers_disagree_are_named(folder: Path) -> None:
    (folder / "pre" / "1.tif").rename(folder / "pre" / "7.tif")
    header = HEADER.replace("template.radius", "input.pair_by")
    path = manifest(folder, f"{header}raw\tpre\ta.h5\t\nraw\tpre\tb.h5\tposition\n")
    (fault,), (found,) = check_entries(read_manifest(path), None, [])
    assert "line 2: RAW" in fault
    assert "the numbers disagree" in fault
    assert found.depth == 3


def test_a_line_that_is_not_there(folder: Path) -> None:
    path = manifest(folder, HEADER + "raw\tpre\tout.h5\t\n")
    with pytest.raises(InputError, match="stack 2: expected 1 to 1"):
        pick_entry(path, 2)
