"""What the report shows of the slices, kept while they are in hand anyway.

Of each slice of raw, of the pre-aligned and of the aligned stack: its central row and column (a
line of an XZ and of a YZ reslice) and how a central patch fits that of the slice before.
`OUT.amst/thumbnails/` holds one file per rank, attempt and pass, in the lines of the journal: what
a killed job has kept, its successor reads.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amst_hpc.averaging import average_line
from amst_hpc.content import blackened, margin_values
from amst_hpc.job.journal import encode, undecoded, whole
from amst_hpc.quality.adjacent import measure_pair
from amst_hpc.registration.correlation import cross_correlation
from amst_hpc.transform import FloatImage, Image

LINE_LENGTH = 2048  # px: longer lines are averaged down
LINE_WIDTH = 3  # px averaged across a line
PATCH = 192  # px
PATCH_SIGMA = 1.5  # px
SAMPLES = 12  # along y and along x
PLANES = ("xz", "yz")
ITEMS = {"uint8": 1, "uint16": 2}  # bytes
# of a line of a file, which is long and is not decoded until it is shown
HEAD = re.compile(rb'\{"z":(\d+),"stack":"(\w+)","dtype":"(\w+)","xz":"')


@dataclass(frozen=True)
class Thumbnails:
    """Of one stack of n slices: the step from the slice before, px, and ncc, nan where none is
    known; and where the lines of each slice are, which are not read before they are shown.

    sizes : px of a line, by plane. places : (n, 2) index of the file and byte in it, -1 for none.
    """

    sizes: Mapping[str, int]
    dtype: str
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    ncc: NDArray[np.float64]
    files: Sequence[Path]
    places: NDArray[np.int64]

    def lines(self, plane: str, rows: Sequence[int]) -> NDArray[np.generic]:
        """The central row (`xz`) or column (`yz`) of the slices at `rows`, (rows, px); 0 where none
        was kept. Raises OSError.
        """
        found = np.zeros((len(rows), self.sizes[plane]), self.dtype)
        wanted = sorted((*self.places[row].tolist(), i) for i, row in enumerate(rows))
        for number, places in groupby(wanted, lambda place: place[0]):
            if number < 0:
                continue
            with self.files[number].open("rb") as file:
                for _, offset, i in places:
                    file.seek(offset)
                    if line := whole(file.readline()):
                        text = line[slice(*_find(line, plane.encode()))]
                        found[i] = np.frombuffer(base64.b64decode(text), self.dtype)
        return found


@dataclass(frozen=True)
class Look:
    """What is kept of a slice: its central row and column, the smoothed middle, grey values."""

    lines: tuple[Image, Image]
    patch: FloatImage
    grey: list[int]


def look_at(image: Image) -> Look:
    """Of a (y, x) slice."""
    return Look(_lines(image), _patch(image), _sample(image))


class ThumbnailWriter:
    """The file of one rank in one pass over the slices."""

    def __init__(self, folder: Path, name: str, work: str) -> None:
        """name : of the attempt and the rank, as in the journal."""
        folder.mkdir(exist_ok=True)
        self._file: IO[bytes] = (folder / f"{name}.{work}.log").open("wb")
        self._last: dict[str, tuple[int, FloatImage]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, stack: str, z: int, look: Look) -> None:
        """Slice z of `stack` (raw, prealigned, aligned); best called with ascending z."""
        patch = look.patch
        before = self._last.get(stack)
        self._last[stack] = (z, patch)
        record = self.record(stack, z, look.lines)
        if stack == "aligned":
            record["grey"] = look.grey
        if before is not None and before[0] == z - 1:
            area = (0, patch.shape[0], 0, patch.shape[1])
            pair = measure_pair(z - 1, before[1], patch, [area], cross_correlation)
            if not pair.reason:
                record["step"] = [round(v, 3) for v in (pair.y, pair.x, pair.ncc)]
        self._file.write(encode(record))
        self._file.flush()

    @staticmethod
    def record(stack: str, z: int, lines: tuple[Image, Image]) -> dict[str, Any]:
        """The central row and column of a slice as a line of the file holds them."""
        xz, yz = (base64.b64encode(line.tobytes()).decode() for line in lines)
        return {"z": z, "stack": stack, "dtype": lines[0].dtype.name, "xz": xz, "yz": yz}


def _sample(image: Image) -> list[int]:
    """Grey values on a grid of `SAMPLES` x `SAMPLES` points, 0 in margins."""
    rows, columns = (((np.arange(SAMPLES) + 0.5) * n / SAMPLES).astype(int) for n in image.shape)
    margins = {*margin_values(image)}
    return [0 if v in margins else int(v) for v in image[np.ix_(rows, columns)].ravel()]


def grey_range(folder: Path) -> tuple[float, float]:
    """Grey values to show as black and white: 0.5 and 99.5 % of samples of the aligned slices.

    Zeros are left out: the border, and black slices.
    """
    kept: dict[int, NDArray[np.uint16]] = {}
    for path in sorted(folder.glob("*.write.log")):
        for line in undecoded(path):
            head, (first, end) = HEAD.match(line), _find(line, b"grey")
            if head and first < end:
                kept[int(head[1])] = np.array(line[first:end].split(b","), np.uint16)
    values = np.concatenate([*kept.values(), np.empty(0, np.uint16)])
    values = values[values > 0]
    low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0.0, 255.0)
    return float(low), float(max(high, low + 1))


def _patch(image: Image) -> FloatImage:
    """The smoothed middle of a slice."""
    edges = [min(PATCH, size) for size in image.shape]
    y, x = ((size - edge) // 2 for size, edge in zip(image.shape, edges, strict=True))
    middle = blackened(image[y : y + edges[0], x : x + edges[1]]).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(middle, PATCH_SIGMA), np.float32)


def _lines(image: Image) -> tuple[Image, Image]:
    """The central row and the central column, in the dtype of the image."""
    found = []
    for axis, size in enumerate(image.shape):
        first = max(0, (size - LINE_WIDTH) // 2)
        band = np.take(image, range(first, min(size, first + LINE_WIDTH)), axis=axis)
        line = band.mean(axis=axis)
        factor = -(-len(line) // LINE_LENGTH)
        found.append(np.rint(average_line(line, factor)).astype(image.dtype))
    return found[0], found[1]


def read_thumbnails(folder: Path, select: Sequence[int]) -> dict[str, Thumbnails]:
    """What was kept of the slices `select`, by stack; a later attempt counts, alone where the
    slices were of another size before.
    """
    row, files = {z: i for i, z in enumerate(select)}, sorted(folder.glob("*.log"))
    found: dict[str, Thumbnails] = {}
    for number, path in enumerate(files):
        with path.open("rb") as file:
            offset = 0
            for line in file:
                place, offset = offset, offset + len(line)
                head = HEAD.match(text := whole(line))
                i = row.get(int(head[1])) if head else None
                if head is None or i is None:
                    continue
                stack, dtype = head[2].decode(), head[3].decode()
                sizes = _sizes(text, head.end(), ITEMS[dtype])
                kept = found.get(stack)
                if kept is None or (kept.sizes, kept.dtype) != (sizes, dtype):
                    y, x, ncc = np.full((3, len(row)), np.nan)
                    places = np.full((len(row), 2), -1, np.int64)
                    kept = found[stack] = Thumbnails(sizes, dtype, y, x, ncc, files, places)
                kept.places[i] = number, place
                first, end = _find(text, b"step")
                if first < end:
                    kept.y[i], kept.x[i], kept.ncc[i] = map(float, text[first:end].split(b","))
    return found


def _find(line: bytes, key: bytes) -> tuple[int, int]:
    """Where the value of a key is, between its quotes or brackets; nothing where it is not."""
    first = line.find(b',"%s":' % key) + len(key) + 5
    if first < len(key) + 5:
        return 0, 0
    return first, line.find(b'"' if line[first - 1 : first] == b'"' else b"]", first)


def _sizes(line: bytes, first: int, item: int) -> dict[str, int]:
    """How many px of `item` bytes the two lines hold in base64, of which the first begins there."""
    sizes = {}
    for plane in PLANES:
        end = line.index(b'"', first)
        sizes[plane] = ((end - first) // 4 * 3 - line.count(b"=", end - 2, end)) // item
        first = end + len(b'","yz":"')
    return sizes
