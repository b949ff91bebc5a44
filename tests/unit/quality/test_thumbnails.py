"""What the report shows of slices is of the last time that they were written."""

import tracemalloc

import numpy as np

from amst_hpc.job.journal import encode
from amst_hpc.quality.thumbnails import ThumbnailWriter, look_at, read_thumbnails


def test_a_later_attempt_counts_also_on_another_canvas(tmp_path):
    rng = np.random.default_rng(0)
    for attempt, shape in enumerate([(60, 90), (40, 50)]):
        images = rng.integers(1, 255, (3, *shape), np.uint8)
        with ThumbnailWriter(tmp_path, f"{attempt:04d}-00000", "write") as thumbnails:
            for z, image in enumerate(images):
                thumbnails.add("aligned", z, look_at(image))
    found = read_thumbnails(tmp_path, range(3))["aligned"]
    xz, yz = (found.lines(plane, range(3)) for plane in ("xz", "yz"))
    assert (xz.shape, yz.shape) == ((3, 50), (3, 40))
    for z, image in enumerate(images):
        np.testing.assert_array_equal(xz[z], look_at(image).lines[0])


def test_lines_are_not_held_before_they_are_shown(tmp_path):
    """Of 30,000 slices they are a gigabyte."""
    random = np.random.default_rng(1)
    lines = random.integers(1, 60000, (500, 2000)).astype(np.uint16)
    with (tmp_path / "0001-00000.register.log").open("wb") as file:
        for z, line in enumerate(lines):
            file.write(encode(ThumbnailWriter.record("raw", z, (line, line[:700]))))
    tracemalloc.start()
    found = read_thumbnails(tmp_path, range(500))["raw"]
    shown = found.lines("yz", [499, 3])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(shown, lines[[499, 3], :700])
    assert found.sizes == {"xz": 2000, "yz": 700}
    assert peak < lines.nbytes / 5
