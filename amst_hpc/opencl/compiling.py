"""Programs for a device, compiled once per node."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from amst_hpc.parallel.node_cache import kept_on_node


@contextmanager
def compiled_once(device: Any, *key: str) -> Iterator[bool]:
    """See `kept_on_node`.

    device : of pyopencl. What its driver compiled is of no use to another driver.
    """
    import pyopencl as cl

    platform = device.platform
    driver = (platform.vendor, platform.name, platform.version, device.driver_version)
    versions = (cl.VERSION_TEXT, *driver, device.vendor, device.name, device.version)
    with kept_on_node(*versions, *key) as there:
        yield there


def build(context: Any, source: str) -> Any:
    """The program of a source; what compilers say of it is not for users. Raises their errors."""
    import pyopencl as cl

    with warnings.catch_warnings(), compiled_once(context.devices[0], source):
        warnings.simplefilter("ignore")
        return cl.Program(context, source).build()
