"""What a run did, and what to tell the user at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amst_hpc.slice_result import SliceResult


@dataclass(frozen=True)
class Outcome:
    """What a run did with each slice, and the file to open.

    strict : a slice that fell back is an error. next_step : what is to be done before there is a
    file to open; empty: nothing. placing : slices were to be placed, and no more. report : the
    output whose report is still to be drawn; None: there is to be none.
    """

    results: Sequence[SliceResult]
    view: Path
    strict: bool = False
    next_step: str = ""
    placing: bool = False
    report: Path | None = None

    @property
    def fallen_back(self) -> list[SliceResult]:
        """Slices that stand on a lower rung than `affine`, unasked."""
        return [result for result in self.results if result.fell_back]

    @property
    def refused(self) -> bool:
        """True if nothing was written because a slice fell back."""
        return self.strict and bool(self.fallen_back)

    def summary(self) -> str:
        """What to tell the user at the end."""
        if self.next_step:
            return self.next_step
        lines = [f"{len(self.results)} slices written: open {self.view}"]
        if self.refused:
            lines = [f"--strict: {len(self.results)} slices registered, nothing written"]
        if self.fallen_back:
            shown = [f"{result.z} ({result.status})" for result in self.fallen_back]
            how = "placed by pairs" if self.placing else "by affine registration"
            lines.append(f"{len(shown)} of them not {how}: {_some(shown)}")
        if shown := [f"{r.z} ({r.status})" for r in self.results if r.overridden]:
            lines.append(f"{len(shown)} of them by overrides: {_some(shown)}")
        if lacking := [result for result in self.results if result.missed]:
            names = list(dict.fromkeys(name for result in lacking for name in result.missed))
            lines.append(
                f"the templates of {len(lacking)} slices lack pre-aligned slices that cannot be "
                f"read: {_some(names)}; the same command registers them again when these are back"
            )
        return "\n".join(lines)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
