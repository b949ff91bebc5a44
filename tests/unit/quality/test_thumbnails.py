"""What the report shows of slices is of the last time that they were written."""

import numpy as np

from amst_hpc.quality.thumbnails import ThumbnailWriter, look_at, read_thumbnails


def test_a_later_attempt_counts_also_on_another_canvas(tmp_path):
    rng = np.random.default_rng(0)
    for attempt, shape in enumerate([(60, 90), (40, 50)]):
        images = rng.integers(1, 255, (3, *shape), np.uint8)
        with ThumbnailWriter(tmp_path, f"{attempt:04d}-00000", "write") as thumbnails:
            for z, image in enumerate(images):
                thumbnails.add("aligned", z, look_at(image))
    found = read_thumbnails(tmp_path, range(3))["aligned"]
    assert (found.xz.shape, found.yz.shape) == ((3, 50), (3, 40))
    for z, image in enumerate(images):
        np.testing.assert_array_equal(found.xz[z], look_at(image).lines[0])
