"""The direct writer: every byte at the address where HDF5 and its readers look for it."""

import errno
import itertools
import os
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import npy2bdv
import numpy as np
import pytest
from direct_files import CASES, LAYER, make_case, write

from amst_hpc.bdv import direct
from amst_hpc.bdv.checksums import ChecksumFile
from amst_hpc.bdv.direct import PAGE, DirectFile, create_file, file_bytes, read_addresses
from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.metadata import cells, write_xml
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.bdv.overlap import StoringThread
from amst_hpc.bdv.verify import find_bad_layers, find_fault
from amst_hpc.config import InputError, Output
from amst_hpc.geometry import make_layout


def assert_holds(target, volume):
    with h5py.File(target.path) as file:
        for k, level in enumerate(pyramid(volume, target.layout)):
            stored = file[cells(k)]
            assert stored.dtype == target.stored
            np.testing.assert_array_equal(stored[()].view(volume.dtype), level)


def assert_verified(target, checksums):
    assert find_fault(target) == ""
    path = target.path.with_name("checksums")
    with ChecksumFile(path, target.layout, write=True) as kept:
        for layer, grids in checksums.items():
            kept.write(layer, grids)
        assert find_bad_layers(target, kept, checksums, lambda: None) == {}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    return make_case(tmp_path / "out.h5", request.param)


def test_every_level_is_read_back_whatever_the_order(case):
    target, volume = case
    create_file(target)
    layers = list(range(len(target.layout.layers)))
    write(target, volume[::-1].copy())
    checksums = write(target, volume, layers[::2][::-1] + layers[1::2] + layers[:1])
    assert_holds(target, volume)
    assert_verified(target, checksums)


def test_many_write_at_once_some_the_same_layer(tmp_path):
    target, volume = make_case(tmp_path / "out.h5", "many chunks")
    create_file(target)
    layers = list(range(len(target.layout.layers)))
    orders = (layers[::2], layers[1::2], layers[::-3])
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda order: write(target, volume, order), orders))
    assert_holds(target, volume)
    checksums = found[0] | found[1] | found[2]
    assert_verified(target, checksums)


def test_every_chunk_stands_at_its_address(case):
    target, _ = case
    addresses = create_file(target)
    assert read_addresses(target) == addresses
    taken = []
    with h5py.File(target.path) as file:
        for k, (level, address) in enumerate(zip(target.layout.levels, addresses, strict=True)):
            stored = file[cells(k)].id
            chunks = map(stored.get_chunk_info, range(stored.get_num_chunks()))
            found = {chunk.chunk_offset: chunk for chunk in chunks}
            places = (range(0, n, c) for n, c in zip(level.shape, level.chunk, strict=True))
            runs = itertools.groupby(itertools.product(*places), lambda place: place[0])
            for layer, (_, run) in enumerate(runs):
                for number, place in enumerate(run):
                    chunk = found.pop(place)
                    assert chunk.byte_offset == address.chunk(layer, number)
                end = address.chunk(layer, number) + chunk.size
                taken.append(range(address.chunk(layer, 0), end))
            assert not found
    size = target.path.stat().st_size
    assert all(run.stop <= size for run in taken)
    taken.sort(key=lambda run: run.start)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(taken))


def test_no_two_layers_share_a_page(case):
    target, _ = case
    addresses = create_file(target)
    for level, address in zip(target.layout.levels, addresses, strict=True):
        assert address.base % PAGE == 0
        assert address.layer_bytes % PAGE == 0 or level.shape[0] == level.chunk[0]


def test_the_size_of_the_file_is_known_before_and_no_more_than_its_chunks_need(case):
    target, _ = case
    addresses = create_file(target)
    size = target.path.stat().st_size
    chunks = sum(a.layer_bytes for a in addresses) * len(target.layout.layers)
    assert size <= file_bytes(target) <= 1.2 * size + 4 * PAGE
    index = direct.BTREE_BYTES * (chunks // PAGE) if target.output.legacy else 0
    assert size <= chunks + index + (18 + 9 * len(addresses)) * PAGE


@pytest.mark.parametrize(("legacy", "interval"), [(False, 1 << 20), (True, PAGE)])
def test_levels_of_a_large_file_begin_where_stripes_do(tmp_path, legacy, interval):
    output = Output(chunk=64, legacy=legacy)
    layout = make_layout((64, 1100, 1030), 16, output)
    target = make_target(tmp_path / "out.h5", layout, "uint8", output)
    assert all(address.base % interval == 0 for address in create_file(target))
    assert target.path.stat().st_size <= file_bytes(target)


def test_only_the_old_format_has_an_index_of_chunks(tmp_path):
    for name, low in (("uint16", "v110"), ("legacy", "earliest")):
        target, _ = make_case(tmp_path / f"{name}.h5", name)
        create_file(target)
        with h5py.File(target.path) as file:
            superblock = file.id.get_create_plist().get_version()[0]
            assert superblock == (3 if low == "v110" else 0)
            assert ("dataType" in file["s00"].attrs) == (name == "uint16")


@pytest.mark.parametrize("name", ["uint8", "uint16", "odd chunks", "one chunk a layer"])
def test_npy2bdv_reads_every_level(tmp_path, name):
    target, volume = make_case(tmp_path / "out.h5", name)
    create_file(target)
    write(target, volume)
    write_xml(tmp_path / "out.xml", target.path, (8.0, 5.0, 4.0))
    editor = npy2bdv.BdvEditor(str(tmp_path / "out.xml"), mode="r")
    for k, level in enumerate(pyramid(volume, target.layout)):
        np.testing.assert_array_equal(editor.read_view(ilevel=k), level)
    editor._file_object_h5.close()


def test_checksums_are_crc32_of_the_valid_region(tmp_path):
    target, volume = make_case(tmp_path / "out.h5", "uint16")
    create_file(target)
    sums = write(target, volume)
    assert [s.shape for s in sums[3]] == [(3, 3), (2, 2), (1, 1)]
    assert sums[3][0].dtype == np.uint32
    assert sums[3][0][2, 1] == zlib.crc32(volume[12:, 64:, 32:64].tobytes())


@pytest.mark.parametrize("piece", [1, 3 * 4 * 32 * 32, 1 << 30])
@pytest.mark.parametrize("name", ["uint8", "legacy"])
def test_pieces_of_any_size(monkeypatch, tmp_path, name, piece):
    monkeypatch.setattr(direct, "PIECE_BYTES", piece)
    target, volume = make_case(tmp_path / "out.h5", name)
    create_file(target)
    write(target, volume)
    assert_holds(target, volume)


def test_short_writes_are_gone_on_with(monkeypatch, tmp_path):
    target, volume = make_case(tmp_path / "out.h5", "uint8")
    create_file(target)
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, data[:1000], at))
    write(target, volume)
    assert_holds(target, volume)


@pytest.mark.parametrize("name", ["uint8", "legacy"])
@pytest.mark.parametrize("missing", [1, 5000, 10**6])
def test_truncated_file_is_refused(tmp_path, name, missing):
    target, volume = make_case(tmp_path / "out.h5", name)
    create_file(target)
    write(target, volume)
    size = target.path.stat().st_size
    os.truncate(target.path, max(100, size - missing))
    with pytest.raises(InputError, match=r"out\.h5: cannot be (opened|continued: it has)"):
        read_addresses(target)


@pytest.mark.parametrize("name", ["uint8", "uint16", "legacy"])
def test_file_of_another_writer_is_refused(tmp_path, name):
    """Uncompressed, the same datasets and tables, but its chunks stand elsewhere."""
    target, volume = make_case(tmp_path / "out.h5", name)
    create_file(target)
    write(target, volume)
    with h5py.File(target.path) as file, h5py.File(tmp_path / "copy.h5", "w") as copy:
        file.copy("s00", copy)
        for k in range(len(target.layout.levels)):
            data = file[cells(k)]
            shapes = {"chunks": data.chunks, "maxshape": tuple(np.maximum(data.shape, data.chunks))}
            made = copy.create_dataset(cells(k), data.shape, data.dtype, **shapes)
            for z in reversed(range(data.shape[0])):
                made[z] = data[z]
    (tmp_path / "copy.h5").replace(target.path)
    with pytest.raises(InputError, match=r"out\.h5: cannot be continued: .* stands at"):
        read_addresses(target)


def test_file_without_all_its_chunks_is_refused(tmp_path):
    target, _ = make_case(tmp_path / "out.h5", "uint8")
    create_file(target)
    with h5py.File(target.path, "r+") as file:
        old = file[cells(1)]
        shape, chunks = old.shape, old.chunks
        del file[cells(1)]
        file.create_dataset(cells(1), shape, "uint8", chunks=chunks)
    with pytest.raises(InputError, match="0 chunks of 16"):
        read_addresses(target)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chunk": 16}, "subdivisions"),
        ({"levels": 2}, "resolutions"),
        ({"compression": 1}, "gzip"),
    ],
)
def test_file_of_other_settings_is_refused(tmp_path, changed, message):
    target, volume = make_case(tmp_path / "out.h5", "uint8")
    create_file(target)
    output = Output(**{"chunk": 32, "levels": 3, "compression": 0, **changed})
    other = make_target(
        target.path, make_layout(volume.shape, LAYER, output), "uint8", output, False
    )
    with pytest.raises(InputError, match=rf"cannot be continued: .*{message}"):
        read_addresses(other)


def test_file_that_cannot_be_made_is_bad_input_and_leaves_nothing(tmp_path):
    target, _ = make_case(tmp_path / "missing" / "out.h5", "uint8")
    with pytest.raises(InputError, match=r"out\.h5: cannot be laid out"):
        create_file(target)
    assert list(tmp_path.iterdir()) == []


def test_old_format_with_many_broken_chunks_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(direct, "MOST_BROKEN_CHUNKS", 1000)
    target, _ = make_case(tmp_path / "out.h5", "broken chunks legacy")
    with pytest.raises(InputError, match=r"1960 chunks \(1, 8, 8\), no whole pages"):
        create_file(target)
    assert list(tmp_path.iterdir()) == []


def test_layout_that_cannot_be_addressed_leaves_nothing(monkeypatch, tmp_path):
    """A B-tree that finds no room in the first metadata block stands between the chunks."""
    monkeypatch.setattr(direct, "BTREE_BYTES", 0)
    monkeypatch.setattr(direct, "ALIGNMENT", 2048)
    target, _ = make_case(tmp_path / "out.h5", "many chunks legacy")
    with pytest.raises(InputError, match=r"cannot be laid out .* stands at"):
        create_file(target)
    assert list(tmp_path.iterdir()) == []


def test_space_is_reserved_and_kept(tmp_path):
    target, volume = make_case(tmp_path / "out.h5", "uint8")
    addresses = create_file(target)
    write(target, volume)
    with DirectFile(target.path, target.layout, addresses) as file:
        assert file.reserve(4) == file.reserve(4)
    assert_holds(target, volume)


def test_space_is_asked_for_the_layers_that_are_missing(monkeypatch, tmp_path):
    """A file system that compresses holds fewer blocks than bytes: they are not missing."""
    output = Output(compression=0, levels=1)
    layout = make_layout((30_000, 12_000, 12_000), 64, output)
    target = make_target(tmp_path / "out.h5", layout, "uint8", output, False)
    monkeypatch.setattr(direct, "allocate", lambda *_: 0)
    with DirectFile(target.path, layout, create_file(target)) as file:
        assert file.reserve(0)
    target.path.unlink()


def test_what_a_killed_job_left_of_a_layout_is_in_nobodys_way(tmp_path):
    target, volume = make_case(tmp_path / "out.h5", "uint8")
    (tmp_path / ".out.h5.part").write_bytes(b"half a file")
    create_file(target)
    write(target, volume)
    assert_holds(target, volume)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_that_cannot_reserve(monkeypatch, tmp_path, code):
    target, _ = make_case(tmp_path / "out.h5", "uint8")
    addresses = create_file(target)
    monkeypatch.setattr(direct, "allocate", lambda *_: code)
    with DirectFile(target.path, target.layout, addresses) as file:
        before = target.path.stat().st_blocks
        assert not file.reserve(4)
        assert target.path.stat().st_blocks == before


def test_quota_is_met_before_the_work(monkeypatch, tmp_path):
    target, _ = make_case(tmp_path / "out.h5", "uint8")
    addresses = create_file(target)
    monkeypatch.setattr(direct, "allocate", lambda *_: errno.EDQUOT)
    with (
        DirectFile(target.path, target.layout, addresses) as file,
        pytest.raises(OSError, match=r"GB are free.*out\.h5") as raised,
    ):
        file.reserve(4)
    assert raised.value.errno == errno.EDQUOT


def test_failed_write_names_the_file(monkeypatch, tmp_path):
    target, volume = make_case(tmp_path / "out.h5", "uint8")
    create_file(target)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match=r"cannot be written .*out\.h5") as raised:
        write(target, volume)
    assert raised.value.errno == errno.ENOSPC


LARGE = """
import sys, time, resource
from pathlib import Path
from amst_hpc.bdv.direct import create_file
from amst_hpc.bdv.file import make_target
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout
output = Output(compression=0, factors=((1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2)))
layout = make_layout((30_000, 12_000, 12_000), int(sys.argv[2]), output)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
create_file(make_target(Path(sys.argv[1]), layout, "uint8", output, False))
print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_30000_slices_of_12000_by_12000(tmp_path):
    """4 TB and 33 million chunks (a layer of 8): sparse, so laid out in seconds."""
    command = [sys.executable, "-c", LARGE, tmp_path / "out.h5", "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 5
    assert kilobytes < 200_000
    assert (tmp_path / "out.h5").stat().st_blocks * 512 < 50 << 20
    (tmp_path / "out.h5").unlink()


def test_layers_of_30000_slices_of_12000_by_12000(tmp_path):
    """Three layers, of one slice and in large chunks to keep it cheap: 23 million chunks."""
    shape = (30_000, 12_000, 12_000)
    output = Output(compression=0, chunk=512, factors=((1, 2, 2), (1, 2, 2)))
    layout = make_layout(shape, 1, output)
    target = make_target(tmp_path / "out.h5", layout, "uint8", output, False)
    addresses = create_file(target)
    assert read_addresses(target) == addresses
    rng = np.random.default_rng(1)
    for z in (0, 17_123, 29_999):
        levels = pyramid(rng.integers(0, 256, (1, *shape[1:]), np.uint8), layout)
        with DirectFile(target.path, layout, addresses) as direct_file:
            direct_file.write_layer(z, levels)
        with h5py.File(target.path) as file:
            for k, level in enumerate(levels):
                np.testing.assert_array_equal(file[cells(k)][z], level[0])
    target.path.unlink()


def test_full_file_system_is_met_before_the_work(monkeypatch, tmp_path):
    """30,000 slices do not fit here (if they do: as if not); nothing is taken."""
    monkeypatch.setattr(direct, "allocate", lambda *_: errno.ENOSPC)
    output = Output(compression=0, levels=1)
    layout = make_layout((30_000, 12_000, 12_000), 64, output)
    target = make_target(tmp_path / "out.h5", layout, "uint8", output, False)
    with DirectFile(target.path, layout, create_file(target)) as file:
        with pytest.raises(OSError, match=r"No space .* 43\d\d\.\d GB are still to be") as raised:
            file.reserve(len(layout.layers))
        assert raised.value.errno == errno.ENOSPC
    assert target.path.stat().st_blocks * 512 < 50 << 20
    target.path.unlink()


def test_storing_overlaps_and_keeps_the_order():
    stored, going = [], threading.Event()

    def store(layer, levels):
        assert going.wait(10)
        stored.append((layer, levels))

    with StoringThread(store, depth=2) as thread:
        thread.put(0, [])
        thread.put(1, [])
        assert stored == []  # both are under way, and this thread goes on
        going.set()
        for layer in range(2, 9):
            thread.put(layer, [])
    assert stored == [(layer, []) for layer in range(9)]


@pytest.mark.parametrize("depth", [1, 2])
def test_no_more_layers_are_under_way_than_asked_for(depth):
    going, under_way, most = threading.Semaphore(0), set(), []

    def store(layer, _):
        assert going.acquire(timeout=10)
        under_way.discard(layer)

    with StoringThread(store, depth) as thread:
        for layer in range(6):
            if layer >= depth:
                going.release()
            thread.put(layer, [])
            under_way.add(layer)
            most.append(len(under_way))
        going.release(depth)
    assert max(most) <= depth


def fail(layer, levels):
    raise OSError(errno.EIO, f"layer {layer}")


def test_error_of_the_thread_comes_up_at_the_next_put():
    with StoringThread(fail) as thread:
        thread.put(0, [])
        with pytest.raises(OSError, match="layer 0"):
            thread.put(1, [])


def test_error_of_the_thread_comes_up_at_the_end():
    with pytest.raises(OSError, match="layer 7"), StoringThread(fail, depth=2) as thread:
        thread.put(7, [])


def test_error_of_the_caller_is_not_hidden():
    def work():
        with StoringThread(fail) as thread:
            thread.put(0, [])
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()
