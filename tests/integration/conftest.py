"""Stacks aligned once and looked at by many tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from jobs import FAST, XCORR, Ended, finished, run
from stacks import inputs

HOW = {"fast": FAST, "elastix": (*XCORR, "--set", "output.report=false")}


@pytest.fixture(scope="session", autouse=True)
def first_of_all(opencl_ready):
    """Jobs that run in this process would leave pyopencl with a cache folder that they remove."""


@dataclass(frozen=True)
class Aligned:
    """A stack aligned without disturbance, on two ranks."""

    folder: Path
    out: Path
    options: tuple[str, ...]

    def line(self, out: Path, *more: str) -> tuple[str | Path, ...]:
        """The arguments of the program that give the same in another file."""
        return ("align", *inputs(self.folder), out, *self.options, *more)


@pytest.fixture(scope="session")
def make_aligned(tissue, tmp_path_factory):
    """A function (fast or elastix) -> `Aligned`, made once each."""
    made = {}

    def make(how):
        if how not in made:
            made[how] = Aligned(tissue, tmp_path_factory.mktemp(how) / "out.h5", HOW[how])
            finished(run(2, *made[how].line(made[how].out)))
        return made[how]

    return make


@pytest.fixture
def small(make_aligned) -> Aligned:
    return make_aligned("fast")


@pytest.fixture(params=["fast", pytest.param("elastix", marks=pytest.mark.slow)])
def either(make_aligned, request) -> Aligned:
    """Without elastix and, among the slow tests, with it."""
    return make_aligned(request.param)


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> tuple[Path, Ended]:
    """`amst-hpc demo`, with all its defaults: the folder and how it ended."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    return folder, run(0, "demo", folder)
