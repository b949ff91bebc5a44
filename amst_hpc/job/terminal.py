"""Tables for a terminal or a log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def render_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], width: int | None
) -> str:
    """A table as text; `width` in characters, None: that of the terminal."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()
