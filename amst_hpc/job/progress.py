"""Progress of long work on rank 0: a bar in a terminal, a plain line at times in a batch log."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
LINE_SECONDS = 15.0


class ProgressMeter:
    """Counts slices done out of `total`; silent unless `shown`."""

    def __init__(self, what: str, total: int, done: int, shown: bool) -> None:
        self.what, self.total, self.first = what, total, done
        self.start = self.told = time.monotonic()
        self.shown = shown and total > 0
        console = Console(stderr=True)
        self.bar: Progress | None = None
        if self.shown and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=console)
            self.task = self.bar.add_task(what, total=total, completed=done, note="")

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()

    def due(self) -> bool:
        """True when it is time to count and tell again."""
        return self.shown and time.monotonic() - self.told >= (1.0 if self.bar else LINE_SECONDS)

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` slices are done."""
        if not self.shown:
            return
        self.told = time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=done, note=note)
            return
        seconds = self.told - self.start
        rate = (done - self.first) / seconds if seconds > 0 else 0.0
        left = (
            f", {duration((self.total - done) / rate)} left"
            if rate > 0 and done < self.total
            else ""
        )
        log.info(
            "%s: %d of %d slices, %.2f per second%s%s",
            self.what,
            done,
            self.total,
            rate,
            left,
            note and f", {note}",
        )


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class StageTimer:
    """Seconds by stage, in `laps`."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to `stage`."""
        now = time.monotonic()
        self.laps[stage] = round(self.laps.get(stage, 0.0) + now - self.last, 4)
        self.last = now
