"""What `demo` does with its folder and an alignment that fails; tests/integration runs it whole."""

import pytest

from amst_hpc.config import InputError
from amst_hpc.synthetic import demo


@pytest.fixture
def started(monkeypatch):
    """What was started, in place of an alignment, which ends with exit code 1."""
    notes = []

    def launch(ranks, arguments):
        notes.append((ranks, arguments))
        return 1

    monkeypatch.setattr(demo, "launch", launch)
    monkeypatch.setattr(demo, "DEPTH", 3)
    monkeypatch.setattr(demo, "SIZE", 64)
    return notes


def test_an_alignment_that_fails_ends_the_demo_with_its_code(started, tmp_path):
    assert demo.run_demo(tmp_path, 5) == (1, ["the alignment ended with exit code 1"])
    ((ranks, arguments),) = started
    assert ranks == 5
    assert arguments[:4] == ["align", f"{tmp_path}/raw", f"{tmp_path}/aligned.h5", "--prealign"]
    assert len(list((tmp_path / "raw").iterdir())) == 3


def test_slices_that_are_no_demo_are_left_alone(started, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine.tif").touch()
    with pytest.raises(InputError, match="not a demo"):
        demo.run_demo(tmp_path, 2)
    assert not started
