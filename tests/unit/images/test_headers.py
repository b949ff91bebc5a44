"""Headers are looked at once; a task looks at its part, and a start only at what is new."""

import numpy as np
import pytest
import tifffile
from mpi4py import MPI
from stacks import save_stack

from amst_hpc.images.headers import SAMPLE, Looked, Part, look_at_slices, sample_of
from amst_hpc.images.opening import open_stack
from amst_hpc.images.stack import SliceError

COMM = MPI.COMM_SELF


@pytest.fixture
def stacks(tmp_path):
    """Twelve raw and pre-aligned slices, and the headers that are read of them."""
    volume = np.random.default_rng(1).integers(1, 255, (12, 16, 20), np.uint8)
    found = {}
    for name in ("raw", "prealigned"):
        stack = open_stack(str(save_stack(tmp_path / name, volume)), name)
        found[name] = Watched(stack)
    return found


class Watched:
    """A stack that keeps what it is asked for."""

    def __init__(self, stack):
        self.stack, self.opened, self.decoded = stack, [], []

    def __getattr__(self, name):
        return getattr(self.stack, name)

    def header(self, z):
        self.opened.append(z)
        return self.stack.header(z)

    def read(self, z):
        self.decoded.append(z)
        return self.stack.read(z)


def test_each_slice_is_opened_once_and_known_ones_never_again(stacks, tmp_path):
    faults, seen = look_at_slices(stacks, range(12), (), COMM)
    assert not faults
    for stack in stacks.values():
        assert sorted(stack.opened) == [0, *range(12)]  # the first tells what the others shall be
        stack.opened.clear()
    kept = Looked.from_json(seen.to_json())
    assert kept == seen
    assert look_at_slices(stacks, range(12), (kept,), COMM) == ([], seen)
    assert [stack.opened for stack in stacks.values()] == [[0], [0]]
    path = tmp_path / "raw" / "slice_00007.tif"
    path.write_bytes(path.read_bytes()[:200])
    faults, _ = look_at_slices(stacks, range(12), (kept,), COMM)
    assert stacks["raw"].opened == [0, 0, 7]
    assert len(faults) == 1
    assert "RAW " in faults[0]
    assert "slice_00007.tif: cut short" in faults[0]


def test_slices_are_compared_again_where_the_first_one_is_another(stacks, tmp_path):
    _, seen = look_at_slices(stacks, range(12), (), COMM)
    tifffile.imwrite(tmp_path / "raw" / "slice_00000.tif", np.ones((16, 20), np.uint16))
    faults, _ = look_at_slices(stacks, range(12), (seen,), COMM)
    assert len(faults) == 11
    assert all("dtype uint8, expected uint16" in fault for fault in faults)


def test_a_block_looks_at_its_slices_and_the_halo():
    part = Part(2, 4, 3)
    assert part.slices(40) == range(7, 23)
    assert part.near(40) == {1, 2, 3}
    assert Part(1, 4, 3).slices(40) == range(13)
    assert Part(2, 20, 5).near(40) == {1, 2, 3, 4, 5}  # blocks smaller than the halo
    assert (Part().slices(40), Part().near(40)) == (range(40), frozenset())


@pytest.mark.parametrize("inner", [True, False])
def test_of_larger_raw_slices_a_sample_is_decoded(stacks, tmp_path, inner):
    """Their margins may be empty; the rest is found when it is registered."""
    large = np.zeros((30, 40), np.uint8)
    large[2:18, 5:25] = 9
    large[-1, -1] = not inner
    for z in range(12):
        tifffile.imwrite(tmp_path / "raw" / f"slice_{z:05d}.tif", large)
    faults, seen = look_at_slices(stacks, range(12), (), COMM)
    assert len(stacks["raw"].decoded) == SAMPLE
    assert not stacks["prealigned"].decoded
    assert len(faults) == (0 if inner else SAMPLE)
    assert not seen.sizes  # other than that of the first
    stacks["raw"].decoded.clear()
    look_at_slices(stacks, range(12), (seen,), COMM)
    assert not stacks["raw"].decoded


def test_smaller_raw_slices_fit_and_are_not_decoded(stacks, tmp_path):
    tifffile.imwrite(tmp_path / "raw" / "slice_00004.tif", np.ones((10, 20), np.uint8))
    faults, seen = look_at_slices(stacks, range(12), (), COMM)
    assert (faults, seen.sizes) == ([], {4: (10, 20)})
    assert not stacks["raw"].decoded
    assert look_at_slices(stacks, range(12), (seen,), COMM)[1].sizes == {4: (10, 20)}


def test_a_sample_is_spread_evenly():
    assert sample_of(range(5)) == [0, 1, 2, 3, 4]
    assert sample_of(range(0, 71, 1)) == [0, 10, 20, 30, 40, 50, 60, 70]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"first": 1, "stamps": {}, "sizes": {}}'])
def test_what_is_damaged_is_not_believed(text):
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        Looked.from_json(text)


def test_headers_of_files_that_differ_in_their_pixels_alone_are_parsed_once(stacks, monkeypatch):
    raw = stacks["raw"].stack
    first = raw.header(0)
    monkeypatch.setattr("amst_hpc.images.tiff.check_page", None)
    assert [raw.header(z) for z in range(1, 12)] == [first] * 11


def test_a_file_of_the_same_size_with_another_header_is_parsed(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    for z in range(2):
        turned = [(274, "H", 1, 1 + 2 * z, True)]
        tifffile.imwrite(folder / f"s_{z}.tif", np.ones((16, 20), np.uint8), extratags=turned)
    sizes = {path.stat().st_size for path in folder.iterdir()}
    stack = open_stack(str(folder), "RAW")
    assert len(sizes) == 1
    assert stack.header(0).shape == (16, 20)
    with pytest.raises(SliceError, match="orientation 3"):
        stack.header(1)


def test_compressed_files_are_parsed_one_by_one(tmp_path):
    """Pixels of the same length can be damaged in the table of their strips."""
    folder = tmp_path / "s"
    folder.mkdir()
    for z in range(2):
        tifffile.imwrite(folder / f"s_{z}.tif", np.ones((16, 20), np.uint8), compression="zlib")
    whole = (folder / "s_1.tif").read_bytes()
    (folder / "s_1.tif").write_bytes(whole[:-4])
    stack = open_stack(str(folder), "RAW")
    stack.header(0)
    with pytest.raises(SliceError, match="cut short"):
        stack.header(1)
