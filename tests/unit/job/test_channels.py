"""Stacks that OUT.xml shows beside OUT.h5: added once, kept while they lie over it."""

import json

import pytest

from amst_hpc.bdv.metadata import Channel
from amst_hpc.config import InputError
from amst_hpc.job.channels import add_channel, keep_current, read_channels


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out.amst"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"range": [4, 20]}))
    (folder / "transforms.json").write_text("[null]")
    for name in ("b.h5", "c.h5"):
        (tmp_path / name).touch()
    return tmp_path / "out.h5"


def test_the_same_file_is_added_once(out):
    assert read_channels(out) == []
    b, c = (Channel(out.with_name(n), 0, n[0], (1.0, 9.0), 2.0, 3) for n in ("b.h5", "c.h5"))
    for channel in (b, c, b):
        add_channel(out, channel, 4)
    found = read_channels(out)
    assert [(f.file, f.setup, f.name) for f in found] == [(b.file, 1, "b"), (c.file, 2, "c")]
    assert (found[0].grey, found[0].scale, found[0].first) == ((1, 9), 2, 3)
    # OUT that begins with another slice
    (out.parent / "out.amst" / "run.json").write_text(json.dumps({"range": [0, 20]}))
    assert read_channels(out)[0].first == 7


def test_what_does_not_lie_over_it_any_more_is_forgotten(out, caplog):
    for name in ("b.h5", "c.h5"):
        add_channel(out, Channel(out.with_name(name), 0, name, (1, 9)), 4)
    assert len(keep_current(out)) == 2
    out.with_name("b.h5").unlink()
    assert [c.setup for c in keep_current(out)] == [2]
    assert "b.h5 is gone: OUT.xml does not show it any more" in caplog.text
    (out.parent / "out.amst" / "transforms.json").write_text("[[[1, 0, 0], [0, 1, 0]]]")
    assert keep_current(out) == []
    assert "c.h5 was made with other transforms" in caplog.text
    assert read_channels(out) == []


def test_a_damaged_list_is_named(out):
    (out.parent / "out.amst" / "channels.json").write_text("[{}]")
    with pytest.raises(InputError, match=r"channels\.json is damaged"):
        read_channels(out)
