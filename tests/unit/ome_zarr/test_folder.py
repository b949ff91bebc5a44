"""What in a folder is ours, and how it gets its name."""

import json

import pytest
from zarr_files import make_target, write

from amst_hpc.ome_zarr.folder import (
    disk_bytes,
    find_fault,
    find_foreign,
    put_in_place,
    read_token,
    remove,
    remove_leftovers,
)


def test_what_is_ours_is_known_by_its_token(tmp_path):
    target, _ = make_target(tmp_path / "a.zarr", "uint8")
    assert read_token(target.path) == "0123456789abcdef"
    assert find_foreign(target.path) == []
    (target.path / "zarr.json").write_text("{}")
    assert find_foreign(target.path) == []
    for name in ("labels", "7"):
        (target.path / name).mkdir()
    assert find_foreign(target.path) == ["7", "labels"]
    (target.path / "0/zarr.json").write_text("damaged")
    assert read_token(target.path) == "0123456789abcdef"  # of another level
    assert find_foreign(tmp_path) == ["a.zarr"]
    assert read_token(tmp_path) == read_token(tmp_path / "gone") == ""
    assert find_foreign(tmp_path / "gone") == []


def test_an_older_output_makes_way(tmp_path):
    old, _ = make_target(tmp_path / "out.zarr", "one level")
    (old.path / "zarr.json").touch()
    new, _ = make_target(tmp_path / "new.zarr", "uint8")
    (tmp_path / "aside" / "left by a kill").mkdir(parents=True)
    put_in_place(new.path, old.path, tmp_path / "aside")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zarr"]
    assert sorted(path.name for path in old.path.iterdir()) == ["0", "1", "2"]


def test_what_is_not_ours_stays(tmp_path):
    new, _ = make_target(tmp_path / "new.zarr", "uint8")
    place = tmp_path / "out.zarr"
    (place / "0").mkdir(parents=True)
    with pytest.raises(OSError, match="holds 0, which amst-hpc did not write there"):
        put_in_place(new.path, place, tmp_path / "aside")
    assert new.path.is_dir()
    assert (place / "0").is_dir()
    (place / "0").rmdir()
    put_in_place(new.path, place, tmp_path / "aside")
    assert (place / "0/zarr.json").is_file()


def test_metadata_that_differ_are_named(tmp_path):
    target, _ = make_target(tmp_path / "a.zarr", "uint16")
    assert find_fault(target) == ""
    path = target.path / "1/zarr.json"
    table = json.loads(path.read_text())
    path.write_text(json.dumps({**table, "shape": [1, 2, 3]}))
    assert find_fault(target) == "1/zarr.json has shape [1, 2, 3], not [7, 35, 38]"
    path.write_text("[]")
    assert "1/zarr.json cannot be read" in find_fault(target)


def test_what_a_killed_rank_had_begun_is_removed(tmp_path):
    target, volume = make_target(tmp_path / "a.zarr", "uint8")
    write(target, volume, [0])
    before = disk_bytes(target.path)
    assert before >= volume[:4].nbytes
    place = target.path / "0/c/0/0"
    (place / "0_77.__lock").write_bytes(bytes(10_000))
    assert disk_bytes(target.path) > before
    remove_leftovers(target.path)
    assert disk_bytes(target.path) == before
    remove(target.path)
    remove(target.path)
    assert not target.path.exists()
