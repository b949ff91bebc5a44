"""Checksums of layers come back, whoever wrote them and in whatever order."""

import numpy as np

from amst_hpc.bdv.checksums import ChecksumFile
from amst_hpc.bdv.chunks import chunk_grid
from amst_hpc.config import Output
from amst_hpc.geometry import make_layout


def test_layers_in_any_order_and_by_several_writers(tmp_path):
    layout = make_layout((13, 70, 300), 4, Output(chunk=16, levels=3))
    rng = np.random.default_rng(1)
    wanted = [
        [rng.integers(0, 2**32, chunk_grid(level), np.uint32) for level in layout.levels]
        for _ in layout.layers
    ]
    path = tmp_path / "checksums"
    with ChecksumFile(path, layout, write=True) as one, ChecksumFile(path, layout, True) as two:
        one.write(3, wanted[3])
        two.write(0, wanted[3])
        two.write(0, wanted[0])
        one.write(1, wanted[1])
        one.sync()
    assert path.stat().st_size % 4096 == 0
    with ChecksumFile(path, layout) as kept:
        for layer in (0, 1, 3):
            for found, grid in zip(kept.read(layer), wanted[layer], strict=True):
                np.testing.assert_array_equal(found, grid)
        for layer in (2, 9):
            assert not any(grid.any() for grid in kept.read(layer)), "never written"
