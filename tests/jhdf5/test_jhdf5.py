"""Files of the direct writer in JHDF5, with which BigDataViewer and N5-HDF5 read.

The old JHDF5 14.12 (HDF5 1.8), with which old BigDataViewers read, must read `output.legacy`.
"""

import hashlib
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from direct_files import CASES, make_case, write

from amst_hpc.bdv.channels import write_master
from amst_hpc.bdv.direct import DirectFile, create_file
from amst_hpc.bdv.file import cells, make_target
from amst_hpc.bdv.metadata import Channel
from amst_hpc.bdv.mipmaps import pyramid
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout

SOURCE = Path(__file__).with_name("ReadLevels.java")
JARS = Path(__file__).resolve().parents[2] / ".venv"


@pytest.fixture(scope="session")
def read_levels(tmp_path_factory):
    """A function: what ReadLevels.java prints with a jar for some files, as lists of words."""

    def read(jar, *files):
        if not (JARS / jar).exists():
            pytest.fail(f"{JARS / jar} is missing: make {JARS.name}/{jar}")
        classes = tmp_path_factory.mktemp("classes")
        subprocess.run(["javac", "-d", classes, "-cp", JARS / jar, SOURCE], check=True)
        command = ["java", "-cp", f"{JARS / jar}:{classes}", "ReadLevels", *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [line.split() for line in done.stdout.splitlines()]

    return read


def digest(level):
    return hashlib.sha256(level.tobytes()).hexdigest()


def words(values):
    return str(values).replace(" ", "")


def facts(target, volume):
    """What is expected of each level: as h5py reads it, and as it was made."""
    lines = []
    with h5py.File(target.path) as file:
        for k, level in enumerate(pyramid(volume, target.layout)):
            np.testing.assert_array_equal(file[cells(k)][:].view(volume.dtype), level)
            shape, chunk = (words(list(s)) for s in (level.shape, file[cells(k)].chunks))
            lines.append([cells(k), shape, chunk, str(level.itemsize), digest(level)])
    return lines


@pytest.mark.parametrize(
    ("jar", "cases"),
    [
        ("bioformats_package.jar", list(CASES)),
        ("loci_tools.jar", [name for name in CASES if "legacy" in name]),
    ],
    ids=["JHDF5 19.04", "JHDF5 14.12"],
)
def test_every_level_is_read_as_by_h5py(read_levels, tmp_path, jar, cases):
    expected = []
    for name in cases:
        target, volume = make_case(tmp_path / f"{name.replace(' ', '_')}.h5", name)
        create_file(target)
        write(target, volume)
        with h5py.File(target.path) as file:
            tables = [words(file["s00"][t][:].tolist()) for t in ("resolutions", "subdivisions")]
            kind = "-" if target.legacy else volume.dtype.name
            expected.append([str(target.path), kind, *tables])
        expected += facts(target, volume)
    assert read_levels(jar, *(line[0] for line in expected if len(line) == 4)) == expected


def test_two_stacks_of_one_xml_are_read_as_by_h5py(read_levels, tmp_path):
    """What an XML of two stacks names: links to files of other dtypes, one in another folder."""
    (tmp_path / "other").mkdir()
    places = {"uint8": tmp_path / "out.h5", "anisotropic": tmp_path / "other" / "esb.h5"}
    levels = []
    for setup, (case, path) in enumerate(places.items()):
        target, volume = make_case(path, case)
        create_file(target)
        write(target, volume)
        levels += [
            [f"t00000/s{setup:02d}/{line[0][-7:]}", *line[1:]] for line in facts(target, volume)
        ]
    write_master(places["uint8"], [Channel(places["anisotropic"], 1, "ESB", (0, 1))])
    master = tmp_path / "out.setups.h5"
    read = read_levels("bioformats_package.jar", master, f"{master}#1")
    heads = [line for line in read if len(line) == 4]
    assert [head[:2] for head in heads] == [[str(master), "uint8"], [str(master), "uint16"]]
    assert [line for line in read if len(line) == 5] == levels


def test_the_last_of_17_million_chunks(read_levels, tmp_path):
    """4 TB, sparse: addresses beyond 32 bits."""
    output = Output(compression=0, levels=1, chunk=512)
    layout = make_layout((30_000, 12_000, 12_000), 1, output)
    target = make_target(tmp_path / "out.h5", layout, "uint8", output, False)
    rng = np.random.default_rng(2)
    slices = {z: rng.integers(0, 256, (1, 12_000, 12_000), np.uint8) for z in (0, 29_999)}
    with DirectFile(target.path, layout, create_file(target)) as file:
        for z, level in slices.items():
            file.write_layer(z, [level])
    files = [f"{target.path}@{z}" for z in slices]
    read = read_levels("bioformats_package.jar", *files)
    target.path.unlink()
    assert [line[-1] for line in read[1::2]] == [digest(level) for level in slices.values()]
