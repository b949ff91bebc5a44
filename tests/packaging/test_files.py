"""pyproject.toml, the Makefile and what calls it agree."""

import re
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_bound_is_one_that_can_be_pinned():
    """.ci/lowest turns `name>=version` into `name==version`."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["mpi"], *extras["opencl"]]:
        assert re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", requirement)


@pytest.mark.parametrize("file", [".pre-commit-config.yaml", ".github/workflows/ci.yml"])
def test_they_call_targets_of_the_makefile(file):
    targets = re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    called = re.findall(r"^ *(?:- run|entry): (.*)$", (CHECKOUT / file).read_text(), re.MULTILINE)
    assert called
    assert all(command.removeprefix("make ") in targets for command in called), called
