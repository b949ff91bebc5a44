"""Site files: read, and refused by name."""

from pathlib import Path

import pytest

from amst_hpc.cluster.site import Site, load_site
from amst_hpc.config import InputError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes = 0", "nodes = 0: expected a whole number of at least 1"),
        ("modules = 'mpi'", "modules = 'mpi': expected a list of texts"),
        ("queue = 'x'", "queue: no such key"),
        ("container = 'a.sif'\ncommand = 'b'", "expected one of them"),
        ("nodes", "not valid TOML"),
        ("hours = 0", "hours = 0: expected a number of hours > 0"),
        ("hours = inf", "hours = inf: expected a number of hours > 0"),
        ("memory_gb_per_node = nan", "memory_gb_per_node = nan: expected a number of at least 0"),
    ],
)
def test_a_site_file_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load_site(path)


def test_a_site_file(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('nodes = 4\nhours = 12\nmodules = ["mpi"]\n')
    assert load_site(path) == Site(nodes=4, hours=12.0, modules=("mpi",))


def test_a_byte_order_mark_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("nodes = 4\n", encoding="utf-8-sig")
    assert load_site(path) == Site(nodes=4)


@pytest.mark.parametrize(("hours", "minutes"), [(24, 1440), (0.01, 1), (1.1, 66), (0.025, 2)])
def test_a_part_of_a_minute_is_one(hours: float, minutes: int) -> None:
    """No time at all is no limit to Slurm."""
    assert Site(hours=hours).minutes == minutes
