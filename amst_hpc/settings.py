"""Settings as text: TOML, and ``--set section.key=value``.

A value of the wrong type or out of range and an unknown key are an `InputError` that names the key.
"""

from __future__ import annotations

import copy
import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, get_type_hints

import tomlkit

from amst_hpc.config import Config, InputError, Refine, as_list, require
from amst_hpc.elastix_defaults import ELASTIX

SECTIONS: dict[str, type] = get_type_hints(Config)


def load_config(
    path: Path | None = None,
    overrides: Iterable[str] = (),
    base: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """The defaults, changed by `base`, by a TOML file, by ``section.key=value`` strings.

    Raises `InputError` for an unreadable file, an unknown key, a value of the wrong type or out of
    range.
    """
    tree: dict[str, Any] = copy.deepcopy(dict(base or {}))
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
        require(section, key, value, isinstance(value, list | tuple), "a list")
        value = tuple(tuple(v) if isinstance(v, list) else v for v in value)
        deep = key == "factors"
        flat = [x for v in value for x in (v if isinstance(v, tuple) else (v,))]
        nested = all(isinstance(v, tuple) == deep for v in value)
        good = nested and all(_is_number(x, whole=deep) for x in flat)
        expected = "a list of [z, y, x] numbers" if deep else "numbers"
        require(section, key, value, good, expected)
        return value
    if isinstance(default, Mapping):
        require(section, key, value, isinstance(value, Mapping), "a table of names and values")
        for name, item in value.items():
            good = as_list(item) != [] and all(_is_plain(x) for x in as_list(item))
            expected = "a value or a list of values, numbers not endless"
            require(section, f"{key}.{name}", item, good, expected)
        return dict(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[
        type(default)
    ]
    require(section, key, value, type(value) is type(default) and _is_plain(value), kind)
    return value


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
