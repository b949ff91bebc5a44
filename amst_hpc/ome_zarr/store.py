"""Arrays as tensorstore opens them, and its errors as those of Python.

One rank has one core, so tensorstore takes one as well. It locks no file: all writers are ours, and
not every parallel file system has locks. It is imported where it is used, since few jobs use it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amst_hpc.transform import Block

FILES_AT_ONCE = 4  # a network file system answers slowly
ERRORS = (ValueError, LookupError, NotImplementedError, RuntimeError, OSError)  # of tensorstore


def open_array(folder: Path, zarr_format: int, write: bool = False, fill: bool = False) -> Any:
    """A Zarr array. fill : a chunk that is not there is of the fill value, else an error.

    Raises OSError that names it.
    """
    import tensorstore

    context = {
        "data_copy_concurrency": {"limit": 1},
        "file_io_concurrency": {"limit": FILES_AT_ONCE},
        "file_io_sync": False,  # the writer does it, for many files together
        "file_io_locking": {"mode": "none"},
    }
    spec = {
        "driver": "zarr3" if zarr_format == 3 else "zarr",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "store_data_equal_to_fill_value": True,
        "fill_missing_data_reads": fill,
        "context": context,
    }
    with naming_errors(folder, "opened"):
        return tensorstore.open(spec, open=True, read=not write, write=write).result()


def write_whole(array: Any, place: tuple[slice, ...], part: Block) -> None:
    """Write a shard at once: without a transaction, some at the edge are written twice."""
    import tensorstore

    with tensorstore.Transaction() as transaction:
        write = array.with_transaction(transaction)[place].write
        write(part, can_reference_source_data_indefinitely=True).result()


@contextmanager
def naming_errors(path: Path, done: str) -> Iterator[None]:
    """What tensorstore raises, as an OSError that names the file. done : what cannot be done."""
    try:
        yield
    except ERRORS as error:
        text = " ".join(str(error).split())
        found = re.search(r"(?:OS error |os_error_code=')(\d+)", text)
        own = error.errno if isinstance(error, OSError) else None
        number = int(found[1]) if found else own or errno.EINVAL
        named = OSError(f"{path}: cannot be {done} ({text})")
        named.errno = number
        raise named from error
