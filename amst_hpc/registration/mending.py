"""What a person has decided about single slices, applied to the settled stack (`overrides`).

Here each changes its own slice alone. That an excluded slice stays out of the templates and pairs
of the others is seen to where these are made, and out of their solution by `hide`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from amst_hpc.overrides import Override, excluded
from amst_hpc.registration.fallback import ANCHORS, from_neighbours
from amst_hpc.slice_result import OVERRIDE, SliceResult
from amst_hpc.transform import Matrix, compose, invert, translation

GOOD = (*ANCHORS, "neighbours", "shifted")  # `interpolate` is between slices of this status


def hide(found: Sequence[SliceResult], overrides: Sequence[Override]) -> list[SliceResult]:
    """The slices as the others may see them: of an excluded one nothing is known."""
    out = excluded(overrides)
    return [
        SliceResult(s.z, s.file, s.blank, s.unreadable, reason=s.reason) if s.z in out else s
        for s in found
    ]


def apply_overrides(
    overrides: Sequence[Override],
    own: Sequence[SliceResult],
    chosen: Sequence[SliceResult],
    solved: Sequence[SliceResult],
) -> list[SliceResult]:
    """The settled slices, changed as was asked for; black ones stay black.

    Such a slice is not held by its pairs any more: nothing is said of them.
    own : by `choose_transforms`, nothing hidden. chosen : the same with what `hide` hides, solved :
    what the neighbours made of it.
    """
    now, place = list(solved), {s.z: i for i, s in enumerate(solved)}
    wanted = {place[o.z]: o for o in overrides if o.z in place}
    anchors = [i for i, s in enumerate(chosen) if s.status in ANCHORS]
    for i, o in wanted.items():
        before = solved[i].transform
        if o.action == "blank":
            now[i] = _mended(own[i], o, "blank", None)
        elif before is None:
            now[i] = own[i]
        elif o.action == "shift":
            now[i] = _mended(own[i], o, "shifted", compose(before, translation(-o.x, -o.y)))
        elif o.action == "exclude":
            between = from_neighbours(solved[i], solved, anchors, i).transform
            now[i] = _mended(own[i], o, "excluded", _follow(own[i], chosen[i].transform, between))
    later = {i: o for i, o in wanted.items() if o.action == "interpolate"}
    good = [i for i, s in enumerate(now) if s.status in GOOD and i not in later]
    for i, o in later.items():
        if now[i].transform is not None:
            found = from_neighbours(own[i], now, good, i)
            now[i] = _mended(own[i], o, found.status, found.transform)
    return now


def _follow(own: SliceResult, before: Matrix | None, now: Matrix | None) -> Matrix | None:
    """The slice's own transform, corrected as the slices beside it were.

    before, now : what these showed for it without and with their neighbours.
    """
    if before is None or now is None or own.status not in (*ANCHORS, "prealigned"):
        return now
    if own.transform is None or np.array_equal(before, now):
        return own.transform
    return compose(own.transform, compose(invert(before), now))


def _mended(s: SliceResult, o: Override, status: str, transform: Matrix | None) -> SliceResult:
    reason = f"{OVERRIDE}{o}" + (f" ({s.reason})" if s.reason else "")
    return replace(s, status=status, transform=transform, reason=reason)
