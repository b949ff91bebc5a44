"""What an HDF5 dataset is made of.

HDF5 reads what is not there as zeros, without a word: a missing source of a virtual dataset, the
rest of an external file that is short, a chunk that was never written.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py

AXES = "zyx"


def source_files(dataset: h5py.Dataset) -> list[Path]:
    """The files that hold its voxels: that of the dataset itself, behind links, first.

    Raises LookupError for one that is missing or short, and for a filter that is not installed.
    """
    _require_filters(dataset)
    own = Path(dataset.file.filename)
    if dataset.is_virtual:
        return list(dict.fromkeys([own, *_virtual_sources(dataset, own)]))
    if dataset.external:
        return [own, *_external_files(dataset)]
    if dataset.size and not dataset.id.get_storage_size():
        raise LookupError(f"nothing was ever written to {dataset.name}")
    return [own]


def _require_filters(dataset: h5py.Dataset) -> None:
    plan = dataset.id.get_create_plist()
    for n in range(plan.get_nfilters()):
        code, _, _, name = plan.get_filter(n)
        if not h5py.h5z.filter_avail(code):
            told = name.decode(errors="replace") or "unnamed"
            raise LookupError(f"its filter {code} ({told}) is not installed")


def _virtual_sources(dataset: h5py.Dataset, own: Path) -> list[Path]:
    """A source without end, or a name with %, is as deep as what is there: not looked at."""
    found, covered = list[Path](), 0
    for source in dataset.virtual_sources():
        try:
            wanted = source.vspace.get_select_npoints()
        except RuntimeError:
            return found
        if "%" in source.file_name:
            return found
        places = [own.parent / source.file_name, Path(source.file_name)]
        places.append(own.parent / Path(source.file_name).name)
        path = own if source.file_name == "." else next((p for p in places if p.is_file()), None)
        if path is None:
            raise LookupError(f"its source {source.file_name} is missing")
        with h5py.File(path, "r") as file:
            held = file.get(source.dset_name)
            if not isinstance(held, h5py.Dataset):
                raise LookupError(f"its source {path} has no dataset {source.dset_name}")
            if held.size < wanted:
                raise LookupError(f"its source {path} has {held.size} of {wanted} voxels")
        covered += wanted
        found.append(path)
    if covered < dataset.size:
        raise LookupError(f"{dataset.size - covered} of its {dataset.size} voxels have no source")
    return found


def _external_files(dataset: h5py.Dataset) -> list[Path]:
    left, found = dataset.nbytes, []
    for name, offset, size in dataset.external:
        path, want = Path(name), min(size, left)
        have = path.stat().st_size - offset if path.is_file() else 0
        if have < want:
            raise LookupError(f"its external file {path} holds {max(0, have)} of {want} bytes")
        left -= want
        found.append(path)
    return found


def unwritten_chunks(dataset: h5py.Dataset) -> tuple[int, int]:
    """How many of its chunks were never written, and how many it has."""
    if dataset.chunks is None or dataset.is_virtual:
        return 0, 0
    pairs = zip(dataset.shape, dataset.chunks, strict=True)
    count = math.prod(-(-size // chunk) for size, chunk in pairs)
    return count - dataset.id.get_num_chunks(), count


def axis_order(dataset: h5py.Dataset) -> str:
    """Such as zyx, where labels of its dimensions or ilastik's axistags say it; empty: unknown."""
    order = "".join(dimension.label for dimension in dataset.dims).lower()
    try:
        tags = json.loads(dataset.attrs.get("axistags", "{}"))
        order = order or "".join(axis["key"] for axis in tags["axes"])
    except (ValueError, TypeError, KeyError):
        pass
    return order if sorted(order) == sorted(AXES) else ""


def element_size_nm(dataset: h5py.Dataset) -> tuple[float, ...]:
    """z, y, x of the attribute element_size_um (ilastik, Fiji); empty where it is not there."""
    try:
        size = tuple(float(v) * 1e3 for v in dataset.attrs["element_size_um"])
    except (KeyError, TypeError, ValueError, OSError):
        return ()
    return size if len(size) == len(AXES) else ()
