"""The size of a voxel as a file says it: nm, in the order z, y, x, None where it does not say.

What no electron microscope has is not believed: 72 dpi and the like are numbers of a screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

SMALLEST, LARGEST = 0.1, 10_000.0  # nm
SCREEN_DPI = (1, 72, 96, 300)
"""Written by programs that know nothing of the voxel: not worth a word."""
INCH = 25.4e6  # nm
SAME = 0.01  # sizes that differ by less than this part are one: files round
AXES = "zyx"


@dataclass(frozen=True)
class VoxelSize:
    """z, y, x in nm, None: not known.

    source : what in the file says it. ignored : what it says that is no size of a voxel, for the
    reader.
    """

    zyx: tuple[float | None, ...] = (None, None, None)
    source: str = ""
    ignored: str = ""

    def __str__(self) -> str:
        known = [(axis, size) for axis, size in zip(AXES, self.zyx, strict=True) if size]
        axes, sizes = ", ".join(axis for axis, _ in known), ", ".join(f"{s:g}" for _, s in known)
        return f"{axes} = {sizes} nm"

    @property
    def nm(self) -> tuple[float, ...]:
        """z, y, x; empty unless all three are known."""
        found = tuple(size for size in self.zyx if size)
        return found if len(found) == len(AXES) else ()

    @property
    def is_known(self) -> bool:
        """True if it says anything."""
        return any(self.zyx)

    @property
    def missing(self) -> str:
        """The axes that are not known."""
        return ", ".join(axis for axis, size in zip(AXES, self.zyx, strict=True) if not size)

    def differs(self, other: VoxelSize) -> bool:
        """True if an axis that both know has another size."""
        pairs = zip(self.zyx, other.zyx, strict=True)
        return any(a and b and abs(a - b) > SAME * max(a, b) for a, b in pairs)

    def enlarge(self, factor: int) -> VoxelSize:
        """Of slices that are averaged down by `factor`."""
        z, y, x = self.zyx
        return replace(self, zyx=(z, y and y * factor, x and x * factor))


UNKNOWN = VoxelSize()


def accept(zyx_nm: Sequence[float | None], source: str) -> VoxelSize:
    """What can be believed of a size: see `VoxelSize`."""
    kept: list[float | None] = []
    ignored = []
    for axis, size in zip(AXES, zyx_nm, strict=True):
        ok = size is not None and SMALLEST <= size <= LARGEST
        kept.append(float(f"{size:.6g}") if ok else None)
        if size and 0 < size < inf and not ok and not _is_screen(size):
            ignored.append(f"{axis} = {size:.5g} nm")
    told = f"{', '.join(ignored)} ({source})" if ignored else ""
    return VoxelSize(tuple(kept), source if any(kept) else "", told)


def _is_screen(size: float) -> bool:
    return any(abs(INCH / size - dpi) < 0.01 * dpi for dpi in SCREEN_DPI)
