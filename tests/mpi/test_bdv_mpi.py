"""The writers under 1, 2, 3 and 5 ranks: the same values, checksums and errors everywhere."""

import json
import pickle
import threading
import zlib
from pathlib import Path

import h5py
import npy2bdv
import numpy as np
import pytest
from launch import mpirun
from lustre import install_lfs, make_mounts, path_with
from mpi4py import MPI

from amst_hpc.bdv.collective import CollectiveStore
from amst_hpc.bdv.file import make_target
from amst_hpc.bdv.funnel import FunnelStore
from amst_hpc.bdv.metadata import write_xml
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.bdv.verify import verify_layer
from amst_hpc.bdv.writer import BdvWriter
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout

JOB = Path(__file__).with_name("bdv_job.py")
SHAPE = (13, 70, 75)
LAYER = 4  # four layers, the last of one slice: of five ranks one has no work
DTYPES = ("uint8", "uint16")
PARALLEL = bool(h5py.get_config().mpi)
WRITERS = ["funnel", "collective"] if PARALLEL else ["funnel"]
ALL = ["direct", *WRITERS]


def make_stack(dtype):
    """Noise on a ramp over the whole range of the dtype."""
    rng = np.random.default_rng(7)
    ramp = np.linspace(0, np.iinfo(dtype).max - 16, int(np.prod(SHAPE))).reshape(SHAPE)
    return (ramp + rng.integers(0, 16, SHAPE)).astype(dtype)


def layout_of(job):
    return make_layout(np.load(job["source"]).shape, job["layer"], Output(**job["output"]))


def make_job(path, volume, layers=(0, 1, 2, 3), append=False, fail=False, disk=0, **output):
    source = path.with_suffix(".npy")
    np.save(source, volume)
    return {
        "path": str(path),
        "source": str(source),
        "output": {"chunk": 32, "levels": 3, "compression": 0, **output},
        "layer": LAYER,
        "layers": list(layers),
        "append": append,
        "fail": fail,
        "disk": disk,
        "mounts": "/proc/mounts",
    }


def launch(ranks, *jobs):
    return mpirun(ranks, [JOB, json.dumps(jobs)])


def run(ranks, *jobs):
    done = launch(ranks, *jobs)
    assert done.returncode == 0, done.stderr


def check(job):
    """Every voxel, and every checksum, is what one rank in memory makes of the stack."""
    layout = layout_of(job)
    levels = pyramid(np.load(job["source"]), layout)
    checksums = pickle.loads(Path(job["path"] + ".crc").read_bytes())
    with h5py.File(job["path"]) as file:
        for k, level in enumerate(levels):
            found = file[f"t00000/s00/{k}/cells"][:]
            np.testing.assert_array_equal(found.view(level.dtype), level)  # legacy: signed
        for layer in job["layers"]:
            assert verify_layer(file, layout, layer, checksums[layer]) is None
    for layer in job["layers"]:
        z = layer * LAYER
        first = levels[0][z : z + LAYER, :32, :32]
        assert checksums[layer][0][0, 0] == zlib.crc32(first.tobytes())


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("writer", ALL)
def test_values_do_not_depend_on_ranks_or_writer(tmp_path, writer, ranks):
    jobs = [
        make_job(
            tmp_path / f"{dtype}_{gzip}_{legacy}.h5",
            make_stack(dtype),
            writer=writer,
            compression=gzip,
            legacy=legacy,
        )
        for dtype in DTYPES
        for gzip in ((0,) if writer == "direct" else (0, 1, 5))
        for legacy in (False, True)
    ]
    run(ranks, *jobs)
    for job in jobs:
        check(job)


@pytest.mark.parametrize("writer", ALL)
def test_npy2bdv_reads_what_three_ranks_wrote(tmp_path, writer):
    jobs = [make_job(tmp_path / f"{d}.h5", make_stack(d), writer=writer) for d in DTYPES]
    run(3, *jobs)
    for job in jobs:
        path = Path(job["path"])
        write_xml(path.with_suffix(".xml"), path, ())
        editor = npy2bdv.BdvEditor(str(path.with_suffix(".xml")), mode="r")
        volume = np.load(job["source"])
        assert editor.dtype == volume.dtype
        np.testing.assert_array_equal(editor.read_view(), volume)
        editor._file_object_h5.close()


@pytest.mark.parametrize("writer", ALL)
def test_another_number_of_ranks_appends(tmp_path, writer):
    path, volume = tmp_path / "out.h5", make_stack("uint16")
    run(2, make_job(path, volume, layers=[0, 1, 3], writer=writer))
    job = make_job(path, volume, layers=[2], append=True, writer=writer)
    run(3, job)
    check(job)


@pytest.mark.parametrize("writer", ALL)
def test_ranks_fill_the_file_that_lfs_has_made(tmp_path, writer):
    notes = install_lfs(tmp_path, f': > "$file"; stat -c %i "$file" > {tmp_path}/inode')
    job = make_job(tmp_path / "out.h5", make_stack("uint16"), writer=writer, stripes=2)
    job["mounts"] = str(make_mounts(tmp_path))
    done = mpirun(2, [JOB, json.dumps([job])], env={"PATH": path_with(tmp_path)})
    assert done.returncode == 0, done.stderr
    check(job)
    assert len(notes.read_text().splitlines()) == 1
    assert Path(job["path"]).stat().st_ino == int((tmp_path / "inode").read_text())


@pytest.mark.parametrize("writer", WRITERS)
def test_append_is_refused_on_every_rank(tmp_path, writer):
    path, volume = tmp_path / "out.h5", make_stack("uint8")
    made = make_job(path, volume, writer=writer)
    done = launch(3, made, make_job(path, volume, append=True, writer=writer, chunk=16))
    assert done.returncode != 0
    assert "InputError" in done.stderr
    assert "cannot be continued" in done.stderr


@pytest.mark.parametrize("writer", WRITERS)
def test_failing_rank_does_not_hang_in_the_writer(tmp_path, writer):
    done = launch(3, make_job(tmp_path / "out.h5", make_stack("uint8"), fail=True, writer=writer))
    assert done.returncode != 0
    assert "RuntimeError: the last rank fails" in done.stderr


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_is_an_error_that_names_the_file(tmp_path, writer, compression):
    settings = {"writer": writer, "compression": compression, "disk": 30_000}
    done = launch(2, make_job(tmp_path / "out.h5", make_stack("uint16"), **settings))
    assert done.returncode != 0
    assert "OSError" in done.stderr
    assert "out.h5: cannot be written" in done.stderr


@pytest.mark.parametrize("writer", ALL)
def test_layers_of_several_messages_arrive(tmp_path, writer):
    """Chunks of 1 MiB that do not compress: 36 MiB a layer is more than one batch."""
    rng = np.random.default_rng(1)
    volume = rng.integers(0, 256, (12, 3072, 3072), np.uint8)
    job = make_job(tmp_path / "out.h5", volume, layers=(0, 1, 2), writer=writer, chunk=512)
    run(3, job)
    with h5py.File(job["path"]) as file:
        np.testing.assert_array_equal(file["t00000/s00/0/cells"][:], volume)


def test_a_rank_does_not_wait_until_rank_0_has_its_layer(tmp_path):
    path = tmp_path / "out.h5"
    done = mpirun(2, [JOB.with_name("funnel_job.py"), path], timeout=60)
    assert done.returncode == 0, done.stderr
    wanted = [np.random.default_rng(r).integers(0, 256, (8, 1024, 1024), np.uint8) for r in (0, 1)]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["t00000/s00/0/cells"][:], np.concatenate(wanted))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_layer_is_made_while_the_one_before_is_stored(tmp_path, monkeypatch, writer):
    storing = {"funnel": (FunnelStore, "_put"), "collective": (CollectiveStore, "_write_layer")}
    kind, name = storing[writer]
    store, go, waited = getattr(kind, name), threading.Event(), []

    def wait(*args):
        waited.append(go.wait(30))
        return store(*args)

    monkeypatch.setattr(kind, name, wait)
    volume, output = make_stack("uint8"), Output(chunk=32, levels=3, compression=1, writer=writer)
    target = make_target(tmp_path / "out.h5", make_layout(SHAPE, 16, output), "uint8", output)
    with BdvWriter(target, MPI.COMM_SELF) as out:
        out.write(0, volume)
        go.set()  # `write` has returned
    assert waited
    assert all(waited)
    with h5py.File(target.path) as file:
        np.testing.assert_array_equal(file["t00000/s00/0/cells"][:], volume)


def test_collective_writer_needs_parallel_hdf5(tmp_path):
    done = launch(2, make_job(tmp_path / "out.h5", make_stack("uint8"), writer="collective"))
    assert (done.returncode == 0) == PARALLEL, done.stderr
    assert ("InputError: output.writer" in done.stderr) != PARALLEL
