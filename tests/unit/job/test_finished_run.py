"""What is read of a finished run, and how it may be named."""

import json

import pytest

from amst_hpc.config import Config, InputError
from amst_hpc.job.finished_run import find_run, read_run
from amst_hpc.settings import to_toml
from amst_hpc.slice_result import SliceResult, to_csv
from amst_hpc.transform import translation

RUN = {"shape_zyx": [2, 30, 40], "range": [1, 3]}


@pytest.fixture
def out(tmp_path):
    """Slices 1 and 2 of 4; the second is blank."""
    folder = tmp_path / "out.amst"
    (folder / "journal").mkdir(parents=True)
    (folder / "journal" / "fingerprint.json").write_text(json.dumps({"out": "out.h5"}))
    matrix = translation(3, 4).tolist()
    (folder / "transforms.json").write_text(json.dumps([None, matrix, None, None]))
    results = [SliceResult(1, "s_011.tif", status="affine"), SliceResult(2, "s_012.tif")]
    (folder / "slices.csv").write_text(to_csv(results))
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "config.toml").write_text(to_toml(Config()))
    return tmp_path / "out.h5"


@pytest.mark.parametrize("name", ["out.h5", "out.xml", "out.amst", "out"])
def test_a_run_has_several_names(out, name):
    expected = out.with_name("out") if name == "out" else out
    assert find_run(out.with_name(name)) == expected


def test_transforms_and_sizes_are_read(out):
    run = read_run(out)
    assert (run.depth, run.select, run.shape, run.numbers) == (4, range(1, 3), (30, 40), [11, 12])
    assert run.results[0].transform.tolist() == translation(3, 4).tolist()
    assert run.results[1].transform is None
    assert run.raw_size(1) == (30, 40)  # an older run does not say
    told = {"raw_yx": [20, 21], "raw_yx_others": {"2": [9, 8]}, "raw_numbered": False}
    (out.parent / "out.amst" / "run.json").write_text(json.dumps(RUN | told))
    run = read_run(out)
    assert (run.raw_size(1), run.raw_size(2), run.numbers) == ((20, 21), (9, 8), None)


@pytest.mark.parametrize("name", ["transforms.json", "slices.csv", "run.json", "config.toml"])
@pytest.mark.parametrize("text", [None, "", "[", "{}"])
def test_damage_is_one_line(out, name, text):
    path = out.parent / "out.amst" / name
    path.unlink() if text is None else path.write_text(text)
    if (name, text) == ("config.toml", ""):  # the defaults
        assert read_run(out).config == Config()
        return
    with pytest.raises(InputError, match=r"OUT .*out.h5: .*out.amst cannot be read"):
        read_run(out)
