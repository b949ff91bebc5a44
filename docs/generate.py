"""docs/commands.md and docs/settings.md, from the program itself.

    python docs/generate.py

Options and help texts as typer has them, settings from the dataclasses. Nothing here depends on the
terminal. tests/unit/test_docs.py says when a page is out of date.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main

from amst_hpc.cli.app import app
from amst_hpc.cluster.site import Site
from amst_hpc.settings import SECTIONS

DOCS = Path(__file__).resolve().parent
MADE = "<!-- made by docs/generate.py: change the help texts in the program, then run it -->\n"

TYPES = {
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "str": "text",
    "tuple[float, ...]": "list of numbers",
    "tuple[str, ...]": "list of texts",
    "tuple[tuple[int, ...], ...]": "list of [z, y, x]",
    "Mapping[str, Any]": "table",
}


def pages() -> dict[str, str]:
    """The text of each page that is made here, by the name of its file."""
    return {"commands.md": commands(), "settings.md": settings()}


def _cell(text: str) -> str:
    """A text on one line, as a cell of a table takes it."""
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines)]


# ---- commands


def commands() -> str:
    """Every command with its arguments and options."""
    group: Any = typer.main.get_command(app)
    lines = [MADE, "# Commands", "", _sentence(group.help)]
    lines += [
        "`align`, `prealign`, `apply`, `task`, `verify`, `evaluate` and `devices` run on one",
        "process, under `mpirun -n N` and under `srun`; the others on one process.",
        "`amst-hpc COMMAND --help` shows this, too; `python -m amst_hpc` is the same program.",
    ]
    lines += _options(group)
    lines += ["", ", ".join(f"[{name}](#{name})" for name in group.commands)]
    for name, command in group.commands.items():
        lines += ["", f"## {name}", "", f"    {_usage(name, command)}"]
        lines += ["", _sentence(command.help), *_options(command)]
    return "\n".join(lines) + "\n"


def _sentence(help: str) -> str:
    return inspect.cleandoc(help)


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _usage(name: str, command: Any) -> str:
    arguments = [_name(p) for p in command.params if _is_argument(p)]
    return " ".join(["amst-hpc", name, *arguments, "[OPTIONS]"])


def _name(parameter: Any) -> str:
    """`RAW`, `--strict` or `--config CONFIG`."""
    placeholder = str(parameter.metavar or parameter.name.strip("_").upper())
    if _is_argument(parameter):
        return placeholder
    flags = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return flags if parameter.is_flag else f"{flags} {placeholder}"


def _options(command: Any) -> list[str]:
    rows = [(f"`{_cell(_name(p))}`", _cell(_help(p))) for p in command.params if not p.hidden]
    return _table(("argument or option", "means"), rows) if rows else []


def _help(parameter: Any) -> str:
    default = parameter.default
    notes = ["may be given more than once"] if parameter.multiple else []
    if isinstance(default, int | float | str | Path) and default not in (False, ""):
        notes += [f"default: {default}"]
    told = str(parameter.help or "")
    return f"{told} ({'; '.join(notes)})" if notes else told


# ---- settings


def settings() -> str:
    """Every key of the configuration and of the site file."""
    lines = [MADE, "# Settings", ""]
    lines += [
        "For `--config FILE` (TOML) or `--set section.key=value`; `amst-hpc config` prints them as",
        "a file to edit. A key that is not named keeps its default; an unknown one is refused.",
        "What a job used stands in `OUT.amst/config.toml`. The last table is",
        "[the site file](#sitetoml).",
    ]
    for name, section in SECTIONS.items():
        lines += ["", f"## {name}", "", _sentence(section.__doc__ or "")]
        lines += _table(("key", "type", "default", "means"), list(_rows(section, f"{name}.")))
        for field in dataclasses.fields(section):
            value = getattr(section(), field.name)
            if isinstance(value, Mapping):
                lines += [
                    "",
                    f"`{name}.{field.name}` begins with this; names given are changes to it:",
                ]
                rows = [(f"`{key}`", _value(item)) for key, item in value.items()]
                lines += _table(("name", "default"), rows)
    lines += ["", "## site.toml", ""]
    lines += [
        "`~/.config/amst-hpc/site.toml`, or the file that `submit --site` names: what a cluster",
        "wants to hear, said once.",
    ]
    lines += _table(("key", "type", "default", "means"), list(_rows(Site, "")))
    return "\n".join(lines) + "\n"


def _rows(table: type, prefix: str) -> Iterator[tuple[str, ...]]:
    default = table()
    for field in dataclasses.fields(table):
        value = getattr(default, field.name)
        shown = "see below" if isinstance(value, Mapping) else _value(value)
        told = _cell(field.metadata["help"])
        yield f"`{prefix}{field.name}`", TYPES[str(field.type)], shown, told


def _value(value: object) -> str:
    """As TOML has it."""
    return f"`{json.dumps(value)}`"


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
