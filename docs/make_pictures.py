"""The pictures of the README, from the output of `amst-hpc demo DIR`.

    python docs/make_pictures.py DIR

reslices.png: before and after; report.png: the top of the report.
"""

from __future__ import annotations

import io
import sys
import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from amst_hpc.quality.plots import draw_steps
from amst_hpc.quality.reslices import draw_reslices
from amst_hpc.quality.run_results import RunResults, read_run_results, sentences

DOCS = Path(__file__).resolve().parent
WIDTH = 1160  # px


def picture(figure: Figure, width: int = WIDTH) -> Image.Image:
    """A figure as pixels, `width` px wide."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=width / figure.get_figwidth())
    return Image.open(data).convert("RGB")


def below(images: list[Image.Image], gap: int = 12) -> Image.Image:
    """Images one below the other on white."""
    height = sum(image.height + gap for image in images) - gap
    sheet = Image.new("RGB", (max(image.width for image in images), height), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + gap
    return sheet


def save_png(image: Image.Image, name: str) -> None:
    """With 128 colours: plots and grey values need no more."""
    image.quantize(128, dither=Image.Dither.NONE).save(DOCS / name, optimize=True)


def summary(found: RunResults) -> Image.Image:
    """The title and the words at the top of the report."""
    lines = [
        line
        for text in sentences(found)
        for line in textwrap.wrap(text, 120, initial_indent="•  ", subsequent_indent="    ")
    ]
    high = 70 + 22 * len(lines)
    figure = Figure(figsize=(WIDTH / 100, high / 100), facecolor="white")
    figure.text(0.01, 1 - 12 / high, found.out.name, fontsize=17, weight="bold", va="top")
    for i, line in enumerate(lines):
        figure.text(0.01, 1 - (54 + 22 * i) / high, line, fontsize=10.5, va="top")
    return picture(figure)


def main() -> None:
    """Make all pictures."""
    out = Path(sys.argv[1]) / "aligned.h5"
    found = read_run_results(out, out.with_suffix(".amst"))
    reslices = [picture(figure) for p in ("xz", "yz") if (figure := draw_reslices(found, p))]
    steps = draw_steps(found)
    if not reslices or steps is None:
        sys.exit(f"{out}: was made without thumbnails")
    save_png(below(reslices), "reslices.png")
    save_png(below([summary(found), *reslices, picture(steps)]), "report.png")
    total = sum(path.stat().st_size for path in DOCS.glob("*.png"))
    if total > 600_000:
        sys.exit(f"{total} bytes of pictures; expected at most 600,000")


if __name__ == "__main__":
    main()
