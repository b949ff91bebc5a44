"""containers/requirements.lock holds what pyproject.toml asks for."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[2]
EXTRAS = ("opencl", "pyelastix")


def test_every_requirement_is_pinned_as_asked() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wanted = list(project["project"]["dependencies"])
    for extra in EXTRAS:
        wanted += project["project"]["optional-dependencies"][extra]
    wanted += project["build-system"]["requires"]
    lines = (CHECKOUT / "containers/requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in map(Requirement, wanted):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement}: not in the lock; run containers/lock"
        assert requirement.specifier.contains(version), f"{requirement}: the lock has {version}"
