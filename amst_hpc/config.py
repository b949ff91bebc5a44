"""The configuration: one frozen dataclass per stage. `settings` reads it.

Every field has a default, a unit where it has one, and a line of help that ``amst-hpc config``
prints. A value out of range is an `InputError` that names the key.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amst_hpc.elastix_defaults import ELASTIX


class InputError(Exception):
    """Bad input or configuration (exit code 2).

    One line that names what, where and what was expected.
    """


PASSING_ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT)
"""Faults of a file system that another start may not meet: no fault of the input (exit code 1)."""


FORMATS = {"bdv": ".h5", "ome-zarr": ".zarr", "tif": ""}
"""Of the output, and how its name ends."""


def _field(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


def require(section: str, key: str, value: object, ok: bool, expected: str) -> None:
    """Raises `InputError` that names the key and the value where it is not `ok`."""
    if not ok:
        raise InputError(f"{section}.{key} = {value!r}: expected {expected}")


@dataclass(frozen=True)
class Input:
    """Which slice of PREALIGNED belongs to which of RAW, and whether that is so."""

    pair_by: str = _field(
        "number",
        "number: in their order, and the numbers in the names of both must not disagree; position: "
        "in their order, whatever the names say",
    )
    compare: bool = _field(
        True, "refuse a PREALIGNED that does not show the tissue of RAW (a sample is looked at)"
    )

    def __post_init__(self) -> None:
        ok = self.pair_by in ("number", "position")
        require("input", "pair_by", self.pair_by, ok, "number or position")


@dataclass(frozen=True)
class Template:
    """The fixed image of each slice: median along z of the pre-aligned slices."""

    radius: int = _field(7, "slices on each side of the slice that enter the median")

    def __post_init__(self) -> None:
        ok = 1 <= self.radius <= 1000
        require("template", "radius", self.radius, ok, "a whole number from 1 to 1000")


@dataclass(frozen=True)
class Registration:
    """What the coarse step and the affine registration see of a slice."""

    working_size: int = _field(
        700,
        "px: slices are averaged down by the whole factor that brings their shorter side next to "
        "it (0: full size)",
    )

    def __post_init__(self) -> None:
        size = self.working_size
        require("registration", "working_size", size, size == 0 or size >= 64, "0, or 64 or more")

    def factor(self, shape: Sequence[int]) -> int:
        """By how much slices of this (y, x) size are averaged down."""
        return max(1, round(min(shape) / self.working_size)) if self.working_size else 1


@dataclass(frozen=True)
class Coarse:
    """The whole-pixel translation of each raw slice to its template."""

    method: str = _field("sift", "sift, xcorr or none")
    sigma: float = _field(1.6, "gaussian smoothing before SIFT, px (0: none)")
    downsample: int = _field(2, "SIFT sees the slice averaged down by this factor")
    device: str = _field(
        "auto", "OpenCL device for SIFT: auto, gpu, cpu, PLATFORM:DEVICE numbers, or a name"
    )

    def __post_init__(self) -> None:
        methods = ("sift", "xcorr", "none")
        require("coarse", "method", self.method, self.method in methods, "sift, xcorr or none")
        require("coarse", "sigma", self.sigma, 0 <= self.sigma <= 100, "a number from 0 to 100")
        ok = 1 <= self.downsample <= 64
        require("coarse", "downsample", self.downsample, ok, "a number from 1 to 64")


@dataclass(frozen=True)
class Refine:
    """The affine registration of the shifted slice to its template."""

    backend: str = _field(
        "itk",
        "itk (elastix in process), pyelastix (the elastix program), gauss-newton (no elastix, "
        "on coarse.device) or none",
    )
    parameter_file: str = _field("", "an elastix parameter file to use instead of the defaults")
    elastix: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: dict(ELASTIX),
        metadata={"help": "any elastix parameter by its name, as in an elastix parameter file"},
    )

    def __post_init__(self) -> None:
        backends = ("itk", "pyelastix", "gauss-newton", "none")
        expected = "itk, pyelastix, gauss-newton or none"
        require("refine", "backend", self.backend, self.backend in backends, expected)
        path = self.parameter_file
        require(
            "refine", "parameter_file", path, not path or Path(path).is_file(), "an existing file"
        )


@dataclass(frozen=True)
class Neighbours:
    """Each raw slice registered to its raw neighbours as well, and all solved together."""

    enabled: bool = _field(True, "false: AMST as published, each slice by its template alone")
    reach: int = _field(2, "neighbours on each side that a slice is registered to")

    def __post_init__(self) -> None:
        require("neighbours", "reach", self.reach, 1 <= self.reach <= 8, "1 to 8")


@dataclass(frozen=True)
class Prealign:
    """The pre-alignment of raw slices where no PREALIGNED is given (--prealign)."""

    transform: str = _field(
        "translation",
        "of slices in templates, and of those that the prealign command writes: translation (by "
        "whole pixels, nothing is interpolated), rigid or affine",
    )
    drift: str = _field(
        "smooth",
        "slow motion of raw: keep (what takes more than 100 slices), smooth (keep what takes more "
        "than 700; both: or than drift.period) or remove",
    )
    canvas: str = _field(
        "grow", "grow (no pixel of raw is cut), crop (what all slices show) or raw (its frame)"
    )

    def __post_init__(self) -> None:
        known = {
            "transform": ("translation", "rigid", "affine"),
            "drift": ("keep", "smooth", "remove"),
            "canvas": ("grow", "crop", "raw"),
        }
        for key, value in vars(self).items():
            require("prealign", key, value, value in known[key], ", ".join(known[key]))


@dataclass(frozen=True)
class Drift:
    """What holds the stack over long distances."""

    period: int = _field(
        0,
        "slices beyond which the pre-alignment is trusted rather than the neighbours (0: from the "
        "errors of both; of raw alone as prealign.drift)",
    )

    def __post_init__(self) -> None:
        ok = self.period == 0 or self.period >= 4
        require("drift", "period", self.period, ok, "0, or a number >= 4")


@dataclass(frozen=True)
class Output:
    """The BigDataViewer file (or OME-Zarr, or TIFF folder) and how it is written."""

    format: str = _field(
        "bdv", "bdv (BigDataViewer HDF5), ome-zarr (OME-Zarr 0.5) or tif (a folder of slices)"
    )
    voxel_size_nm: tuple[float, ...] = _field(
        (), "z, y, x in nm; empty: as RAW or PREALIGNED say it, or else the view is in pixels"
    )
    chunk: int = _field(128, "edge of a chunk in y and x, px; its depth follows from the layer")
    layer: int = _field(0, "slices in a layer, a power of two (0: chosen from the stack)")
    compression: int = _field(
        0,
        "0: uncompressed, each rank writes its own bytes; gzip level 1 to 9: a tenth smaller, "
        "several times slower, and made anew after a crash (ome-zarr: zstd level, without these)",
    )
    levels: int = _field(
        0, "mipmap levels with the full size counted (0: until a level fits a screen)"
    )
    factors: tuple[tuple[int, ...], ...] = _field(
        (), "z, y, x factor of each further level; empty: by the voxel size"
    )
    writer: str = _field(
        "auto", "auto, direct (uncompressed), collective (needs parallel HDF5) or funnel"
    )
    stripes: int = _field(
        -1,
        "of the file on Lustre: OSTs that it lies on (-1: all, for 1 GiB or more; 0: as its folder "
        "says, as always with ome-zarr and tif)",
    )
    intermediates: bool = _field(
        False, "also write the templates (refs/) and the shifted slices (sift/) as TIFF"
    )
    legacy: bool = _field(False, "for BigDataViewer before 10.4.6 (old Fiji)")
    report: bool = _field(True, "OUT.amst/report.html at the end")

    def __post_init__(self) -> None:
        require("output", "format", self.format, self.format in FORMATS, "bdv, ome-zarr or tif")
        voxel = self.voxel_size_nm
        voxel_ok = len(voxel) in (0, 3) and all(v > 0 for v in voxel)
        require("output", "voxel_size_nm", list(voxel), voxel_ok, "three numbers > 0 (z, y, x)")
        require("output", "chunk", self.chunk, 8 <= self.chunk <= 1024, "a number from 8 to 1024")
        power = self.layer >= 0 and self.layer & (self.layer - 1) == 0
        require(
            "output",
            "layer",
            self.layer,
            power and self.layer <= 256,
            "0 or a power of two up to 256",
        )
        require("output", "compression", self.compression, 0 <= self.compression <= 9, "0 to 9")
        stripes_ok = -1 <= self.stripes <= 2000
        require("output", "stripes", self.stripes, stripes_ok, "-1, 0, or a number up to 2000")
        require("output", "levels", self.levels, 0 <= self.levels <= 12, "0 to 12")
        factors_ok = all(len(f) == 3 and all(v in (1, 2, 3, 4, 8) for v in f) for f in self.factors)
        require(
            "output",
            "factors",
            self.factors,
            factors_ok,
            "[z, y, x] factors of 1, 2, 3, 4 or 8 each",
        )
        writers = ("auto", "direct", "collective", "funnel")
        require("output", "writer", self.writer, self.writer in writers, ", ".join(writers))
        free = self.format != "ome-zarr"
        auto = free or self.writer == "auto"
        require("output", "writer", self.writer, auto, "auto for ome-zarr")
        require("output", "legacy", self.legacy, free or not self.legacy, "false for ome-zarr")
        direct = self.writer != "direct" or self.compression == 0
        require("output", "writer", self.writer, direct, "output.compression = 0 with it")


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    input: Input = dataclasses.field(default_factory=Input)
    prealign: Prealign = dataclasses.field(default_factory=Prealign)
    template: Template = dataclasses.field(default_factory=Template)
    registration: Registration = dataclasses.field(default_factory=Registration)
    coarse: Coarse = dataclasses.field(default_factory=Coarse)
    refine: Refine = dataclasses.field(default_factory=Refine)
    neighbours: Neighbours = dataclasses.field(default_factory=Neighbours)
    drift: Drift = dataclasses.field(default_factory=Drift)
    output: Output = dataclasses.field(default_factory=Output)


def as_list(value: Any) -> list[Any]:
    """A list as it is; a single value as a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]
