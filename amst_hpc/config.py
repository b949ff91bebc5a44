"""The configuration: one frozen dataclass per stage, from TOML and ``--set section.key=value``.

Every field has a default, a unit where it has one, and a line of help that ``amst-hpc config``
prints. A value of the wrong type or out of range and an unknown key are an `InputError` that names
the key.
"""

from __future__ import annotations

import dataclasses
import errno
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import tomlkit

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


def _require(section: str, key: str, value: object, ok: bool, expected: str) -> None:
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
        _require("input", "pair_by", self.pair_by, ok, "number or position")


@dataclass(frozen=True)
class Template:
    """The fixed image of each slice: median along z of the pre-aligned slices."""

    radius: int = _field(7, "slices on each side of the slice that enter the median")

    def __post_init__(self) -> None:
        ok = 1 <= self.radius <= 1000
        _require("template", "radius", self.radius, ok, "a whole number from 1 to 1000")


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
        _require("registration", "working_size", size, size == 0 or size >= 64, "0, or 64 or more")

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
        _require("coarse", "method", self.method, self.method in methods, "sift, xcorr or none")
        _require("coarse", "sigma", self.sigma, 0 <= self.sigma <= 100, "a number from 0 to 100")
        ok = 1 <= self.downsample <= 64
        _require("coarse", "downsample", self.downsample, ok, "a number from 1 to 64")


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
        _require("refine", "backend", self.backend, self.backend in backends, expected)
        path = self.parameter_file
        _require(
            "refine", "parameter_file", path, not path or Path(path).is_file(), "an existing file"
        )


@dataclass(frozen=True)
class Neighbours:
    """Each raw slice registered to its raw neighbours as well, and all solved together."""

    enabled: bool = _field(True, "false: AMST as published, each slice by its template alone")
    reach: int = _field(2, "neighbours on each side that a slice is registered to")

    def __post_init__(self) -> None:
        _require("neighbours", "reach", self.reach, 1 <= self.reach <= 8, "1 to 8")


@dataclass(frozen=True)
class Drift:
    """What holds the stack over long distances."""

    period: int = _field(
        0,
        "slices beyond which the pre-alignment is trusted rather than the neighbours "
        "(0: from the errors of both)",
    )

    def __post_init__(self) -> None:
        ok = self.period == 0 or self.period >= 4
        _require("drift", "period", self.period, ok, "0, or a number >= 4")


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
    intermediates: bool = _field(
        False, "also write the templates (refs/) and the shifted slices (sift/) as TIFF"
    )
    legacy: bool = _field(False, "for BigDataViewer before 10.4.6 (old Fiji)")
    report: bool = _field(True, "OUT.amst/report.html at the end")

    def __post_init__(self) -> None:
        _require("output", "format", self.format, self.format in FORMATS, "bdv, ome-zarr or tif")
        voxel = self.voxel_size_nm
        voxel_ok = len(voxel) in (0, 3) and all(v > 0 for v in voxel)
        _require("output", "voxel_size_nm", list(voxel), voxel_ok, "three numbers > 0 (z, y, x)")
        _require("output", "chunk", self.chunk, 8 <= self.chunk <= 1024, "a number from 8 to 1024")
        power = self.layer >= 0 and self.layer & (self.layer - 1) == 0
        _require(
            "output",
            "layer",
            self.layer,
            power and self.layer <= 256,
            "0 or a power of two up to 256",
        )
        _require("output", "compression", self.compression, 0 <= self.compression <= 9, "0 to 9")
        _require("output", "levels", self.levels, 0 <= self.levels <= 12, "0 to 12")
        factors_ok = all(len(f) == 3 and all(v in (1, 2, 3, 4, 8) for v in f) for f in self.factors)
        _require(
            "output",
            "factors",
            self.factors,
            factors_ok,
            "[z, y, x] factors of 1, 2, 3, 4 or 8 each",
        )
        writers = ("auto", "direct", "collective", "funnel")
        _require("output", "writer", self.writer, self.writer in writers, ", ".join(writers))
        free = self.format != "ome-zarr"
        _require(
            "output", "writer", self.writer, free or self.writer == "auto", "auto for ome-zarr"
        )
        _require("output", "legacy", self.legacy, free or not self.legacy, "false for ome-zarr")
        direct = self.writer != "direct" or self.compression == 0
        _require("output", "writer", self.writer, direct, "output.compression = 0 with it")


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    input: Input = dataclasses.field(default_factory=Input)
    template: Template = dataclasses.field(default_factory=Template)
    registration: Registration = dataclasses.field(default_factory=Registration)
    coarse: Coarse = dataclasses.field(default_factory=Coarse)
    refine: Refine = dataclasses.field(default_factory=Refine)
    neighbours: Neighbours = dataclasses.field(default_factory=Neighbours)
    drift: Drift = dataclasses.field(default_factory=Drift)
    output: Output = dataclasses.field(default_factory=Output)


SECTIONS: dict[str, type] = {
    "input": Input,
    "template": Template,
    "registration": Registration,
    "coarse": Coarse,
    "refine": Refine,
    "neighbours": Neighbours,
    "drift": Drift,
    "output": Output,
}


def load_config(
    path: Path | None = None,
    overrides: Iterable[str] = (),
    base: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """The defaults, changed by `base`, by a TOML file, by ``section.key=value`` strings.

    Raises `InputError` for an unreadable file, an unknown key, a value of the wrong type or out of
    range.
    """
    tree: dict[str, Any] = {name: dict(table) for name, table in (base or {}).items()}
    if path is not None:
        try:
            for name, table in read_toml(path).items():
                both = isinstance(table, dict) and name in tree
                tree[name] = tree[name] | table if both else table
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--config {path}: cannot be read ({error})") from None
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"--config {path}: not valid TOML ({error})") from None
    for text in overrides:
        _merge(tree, text)
    return from_tree(tree)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file, with or without a byte order mark.

    Raises OSError, UnicodeDecodeError, TOMLDecodeError.
    """
    return tomllib.loads(path.read_text(encoding="utf-8-sig"))


def _merge(tree: dict[str, Any], text: str) -> None:
    """Put one ``section.key=value`` (or ``refine.elastix.Name=value``) into the tree."""
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or len(parts) < 2 or not all(parts):
        raise InputError(f"--set {text}: expected section.key=value")
    try:
        found = tomllib.loads(f"v = {value.strip()}")
    except tomllib.TOMLDecodeError:
        found = {}
    parsed = found["v"] if len(found) == 1 else value.strip()
    for part in parts[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {text}: {part} is a value, not a section")
    tree[parts[-1]] = parsed


def from_tree(tree: Mapping[str, Any]) -> Config:
    """A `Config` from nested tables, as TOML gives them."""
    for name in tree:
        if name not in SECTIONS:
            raise InputError(f"{name}: no such section; expected {', '.join(SECTIONS)}")
    return Config(**{name: _build(name, cls, tree.get(name, {})) for name, cls in SECTIONS.items()})


def _build(section: str, cls: type, table: object) -> Any:
    if not isinstance(table, Mapping):
        raise InputError(f"{section} = {table!r}: expected a section")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise InputError(f"{section}.{key}: no such key; expected {', '.join(fields)}")
    default = cls()
    values = {
        key: _convert(section, key, getattr(default, key), value) for key, value in table.items()
    }
    if cls is Refine:  # names given are changes to the defaults, or to the parameter file
        values["elastix"] = ({} if values.get("parameter_file") else dict(ELASTIX)) | values.get(
            "elastix", {}
        )
    return cls(**values)


def _is_plain(value: object) -> bool:
    """True for a text, a truth value or a finite number."""
    return isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))


def _is_number(value: object, whole: bool) -> bool:
    return _is_plain(value) and not isinstance(value, bool | str | (float if whole else bool))


def _convert(section: str, key: str, default: object, value: Any) -> Any:
    """`value` as the type of `default`; lists become tuples."""
    if isinstance(default, tuple):
        _require(section, key, value, isinstance(value, list | tuple), "a list")
        value = tuple(tuple(v) if isinstance(v, list) else v for v in value)
        deep = key == "factors"
        flat = [x for v in value for x in (v if isinstance(v, tuple) else (v,))]
        nested = all(isinstance(v, tuple) == deep for v in value)
        good = nested and all(_is_number(x, whole=deep) for x in flat)
        expected = "a list of [z, y, x] numbers" if deep else "numbers"
        _require(section, key, value, good, expected)
        return value
    if isinstance(default, Mapping):
        _require(section, key, value, isinstance(value, Mapping), "a table of names and values")
        for name, item in value.items():
            good = as_list(item) != [] and all(_is_plain(x) for x in as_list(item))
            expected = "a value or a list of values, numbers not endless"
            _require(section, f"{key}.{name}", item, good, expected)
        return dict(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[
        type(default)
    ]
    _require(section, key, value, type(value) is type(default) and _is_plain(value), kind)
    return value


def as_list(value: Any) -> list[Any]:
    """A list as it is; a single value as a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def to_tree(config: Config) -> dict[str, Any]:
    """Nested plain tables (JSON and TOML can hold them)."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return {name: plain(dataclasses.asdict(getattr(config, name))) for name in SECTIONS}


def to_toml(config: Config) -> str:
    """TOML with the help line of each key as a comment; `load_config` reads it back."""
    document = tomlkit.document()
    for name, table in to_tree(config).items():
        section = tomlkit.table()
        for field in dataclasses.fields(SECTIONS[name]):
            section.add(tomlkit.comment(field.metadata["help"]))
            section.add(field.name, table[field.name])
        document.add(name, section)
    return tomlkit.dumps(document)
