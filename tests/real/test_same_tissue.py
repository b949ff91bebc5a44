"""A PREALIGNED of real tissue: the right one passes, whatever was done to it; wrong ones do not.

Of each volume 40 slices, cut out with a jitter of 3 px (RAW) and 1 px (PREALIGNED).
"""

import numpy as np
import pytest
import tifffile
from sampled import noise_on, seen
from scipy import ndimage

pytestmark = pytest.mark.real

VOLUMES = {  # file, px of a slice, the first z of another part
    "fib25": ("fib25_medulla_250x250x250_isotropic.tif", 180, 190),
    "fib25_2": ("fib25_medulla_2_250x250x250_isotropic.tif", 180, 190),
    "lucchi": ("lucchi_hippocampus_96x768x768_5nm.tif", 360, 56),
}
DEPTH = 40


@pytest.fixture(scope="module", params=VOLUMES)
def cut(request, shared):
    """A function (z, y, x, jitter) -> slices of the volume, or of another sample."""
    mine, size, far = VOLUMES[request.param]
    others = {"fib25": "lucchi", "fib25_2": "lucchi", "lucchi": "fib25"}
    files = mine, VOLUMES[others[request.param]][0]
    volumes = [tifffile.imread(shared / "data" / name) for name in files]

    def make(z=5, y=20, x=20, jitter=1, other=False):
        rng = np.random.default_rng([z, y, jitter])
        volume = volumes[other][z : z + DEPTH]
        if volume.shape[1] < size + 60:  # the small sample, for slices of the large one
            volume = ndimage.zoom(volume, (1, 2, 2), order=1)
        shifts = np.clip(np.rint(rng.normal(0, jitter, (len(volume), 2))), -9, 9).astype(int)
        return np.stack([
            image[y + dy :, x + dx :][:size, :size]
            for image, (dy, dx) in zip(volume, shifts, strict=True)
        ])  # fmt: skip

    make.far, make.end = far, volumes[0].shape[1] - size - 10
    return make


def said(folder, raw, pre):
    for name, stack in (("raw", raw), ("pre", pre)):
        tifffile.imwrite(folder / f"{name}.tif", stack, photometric="minisblack")
    return seen(folder / "raw.tif", folder / "pre.tif")


def turned(stack, degrees=0.0, scale=1.0):
    """Linear interpolation, the border mirrored."""
    angle = np.deg2rad(degrees)
    a = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(stack.shape[1:]) - 1) / 2
    offset = centre - a @ centre
    return np.stack([
        ndimage.affine_transform(image, a, offset, order=1, mode="mirror") for image in stack
    ])  # fmt: skip


def missing(stack):
    left = stack.copy()
    left[:, int(0.7 * stack.shape[1]) :] = 0
    return left


RIGHT = {
    "as it is": lambda raw, pre: (raw, pre),
    "noise": lambda raw, pre: (noise_on(raw, 40, 1), noise_on(pre, 40, 2)),
    "gain": lambda raw, pre: (raw, (60 + 0.4 * pre).astype(np.uint8)),
    "low contrast, noise": lambda raw, pre: (noise_on(0.15 * raw + 90, 6, 1), pre),
    "30 % of RAW missing": lambda raw, pre: (missing(raw), pre),
    "30 % of PREALIGNED missing": lambda raw, pre: (raw, missing(pre)),
    "turned by 2 degrees": lambda raw, pre: (raw, turned(pre, degrees=2)),
    "scaled by 3 %": lambda raw, pre: (raw, turned(pre, scale=1.03)),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_the_right_one_passes(cut, tmp_path, kind):
    raw, pre = cut(jitter=3), cut(y=20)
    assert said(tmp_path, *RIGHT[kind](raw, pre)) == ("", "")


WRONG = {
    "other sample": lambda cut: cut(other=True),
    "other z": lambda cut: cut(z=cut.far),
    "noise": lambda cut: np.random.default_rng(1).integers(1, 255, cut().shape, np.uint8),
    "reversed": lambda cut: cut()[::-1],
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_one_is_refused(cut, tmp_path, kind):
    fault, _ = said(tmp_path, cut(jitter=3), WRONG[kind](cut))
    assert fault.startswith("PREALIGNED does not show the same tissue as RAW (slices 0,")


def test_another_area_is_refused(cut, tmp_path):
    raw, pre = cut(y=10, x=10, jitter=0), cut(y=cut.end, x=cut.end)
    apart = 110 if cut.end < 100 else 360  # px of a side that both do not share
    fault, _ = said(tmp_path, raw[:, :apart, :apart], pre[:, -apart:, -apart:])
    assert fault.startswith("PREALIGNED does not show the same tissue as RAW (slices 0, 1, ")


def test_inverted_contrast_and_a_shift_along_z_are_named(cut, tmp_path):
    fault, _ = said(tmp_path, cut(jitter=3), 255 - cut())
    assert fault.startswith("PREALIGNED shows RAW with inverted contrast (slices 0, 1, ")
    fault, note = said(tmp_path, cut(jitter=3), cut(z=10))
    assert not fault
    assert note.endswith("more like the PREALIGNED slices before theirs: is it shifted along z?")
