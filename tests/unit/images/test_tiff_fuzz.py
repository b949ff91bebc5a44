"""TIFF files of any layout, whole and damaged: the pixels of tifffile's own reader, or a refusal.

AMST_HPC_EXAMPLES asks for another number of files, by chance; without it they are always the same.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from series import one_page

from amst_hpc.config import InputError
from amst_hpc.images.opening import open_stack

EXAMPLES = os.environ.get("AMST_HPC_EXAMPLES", "")
FUZZ = settings(
    max_examples=int(EXAMPLES or 60),
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
GREY = ("minisblack", "miniswhite")
TAGS = (254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339)

sizes = st.tuples(st.integers(2, 40), st.integers(2, 40))
dtypes = st.sampled_from(["u1"] * 4 + ["u2"] * 4 + ["i2", "u4", "f4"])


@st.composite
def looks(draw):
    """How one page is stored: the options of `tifffile.imwrite`."""
    compression = draw(st.sampled_from([None, None, "zlib", "lzw", "zstd", "packbits"]))
    options = {"compression": compression}
    if compression in ("zlib", "lzw", "zstd"):
        options["predictor"] = draw(st.booleans())
    strips = draw(st.sampled_from(["one", "few", "tiles"]))
    options |= {"few": {"rowsperstrip": 7}, "tiles": {"tile": (16, 16)}}.get(strips, {})
    return options | {"photometric": draw(st.sampled_from([*GREY, "minisblack", "rgb", "palette"]))}


@st.composite
def pages(draw):
    """Arrays and options; mostly all of one kind, as the pages of a stack are."""
    count, mixed = draw(st.integers(1, 5)), draw(st.integers(0, 3)) == 0
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kinds = [draw(st.tuples(sizes, dtypes, looks())) for _ in range(count if mixed else 1)]
    made = []
    for z in range(count):
        shape, dtype, options = kinds[z % len(kinds)]
        if options["photometric"] == "rgb":
            shape = (*shape, 3)
        if options["photometric"] == "palette":
            dtype = "u1"
            options = options | {"colormap": np.zeros((3, 256), np.uint16)}
        if np.dtype(dtype).kind == "f":
            options = {k: v for k, v in options.items() if k != "predictor"}
        made.append((rng.integers(0, 200, shape).astype(dtype), options))
    return made


files = st.fixed_dictionaries(
    {"byteorder": st.sampled_from("<>"), "bigtiff": st.booleans(), "append": st.booleans()}
)
volumes = st.tuples(
    st.tuples(st.integers(1, 5), sizes, st.sampled_from(["u1", "u2"])),
    st.sampled_from(["plain", "imagej", "ome"]),
    st.sampled_from("<>"),
    st.booleans(),
)
damages = st.lists(
    st.tuples(
        st.sampled_from(["byte", "tag", "tag", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
        st.integers(0, 11),
    ),
    max_size=3,
)


def write_pages(path, made, byteorder, bigtiff, append):
    """One file, by one writer or by one for each page."""
    options = {"byteorder": byteorder, "bigtiff": bigtiff}
    for z, (image, own) in enumerate(made):
        later = {"append": True} if z and append else options
        if append:
            tifffile.imwrite(path, image, **own, **later)
    if not append:
        with tifffile.TiffWriter(path, **options) as writer:
            for image, own in made:
                writer.write(image, metadata=None, **own)


def spoil(path, damage):
    """Change a byte anywhere, a byte of a tag that the pixels hang on, or cut the end off."""
    data = bytearray(path.read_bytes())
    places = []
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            places += [tag.offset for tag in page.tags if tag.code in TAGS]
    for kind, where, value, step in damage:
        if kind == "cut":
            del data[int(where * len(data)) :]
        elif data:
            place = int(where * len(data))
            if kind == "tag" and places:
                place = min(places[int(where * len(places))] + step, len(data) - 1)
            data[place] = value
    path.write_bytes(data)


def ours(source):
    """The slices that the program would work with; None where it refuses the stack."""
    try:
        stack = open_stack(str(source), "RAW")
        headers = [stack.header(z) for z in range(len(stack.names))]
        if len(set(headers)) > 1:
            return None
        images = [stack.read(z) for z in range(len(stack.names))]
    except InputError:
        return None
    assert [(i.shape, i.dtype.name) for i in images] == [(h.shape, h.dtype) for h in headers]
    return images


def theirs(path, z, one=False):
    """tifffile's own pixels of page z, black as zero."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0 if one else z]
        white = 262 in page.tags and page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        most = (1 << page.bitspersample) - 1
    if one:
        read = tifffile.imread(path)  # of one page without a word of others: that page
        image = read if read.ndim == 2 else read[z]
    else:
        image = tifffile.imread(path, key=z)
    return most - image if white else image


def compare(images, wanted):
    for image, right in zip(images, wanted, strict=True):
        np.testing.assert_array_equal(image, right)


@FUZZ
@given(pages(), files, damages)
def test_pages_of_a_file(made, file, damage):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.tif"
        write_pages(path, made, **file)
        spoil(path, damage)
        found = ours(path)
        if found is None:
            kinds = {(image.shape, image.dtype) for image, _ in made}
            good = all(image.dtype in (np.uint8, np.uint16) for image, _ in made)
            good &= all(options["photometric"] in GREY for _, options in made)
            assert damage or not good or len(kinds) > 1, "a good file is refused"
            return
        with tifffile.TiffFile(path) as tiff:
            count = len(tiff.pages)
        compare(found, [theirs(path, z) for z in range(count)])


@FUZZ
@given(pages(), files, damages)
def test_a_folder_of_files(made, file, damage):
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"s_{z}.tif" for z in range(len(made))]
        for path, page in zip(paths, made, strict=True):
            write_pages(path, [page], **file)
        spoil(paths[0], damage)
        found = ours(folder)
        if found is not None:
            compare(found, [theirs(path, 0) for path in paths])


@FUZZ
@given(volumes, damages)
def test_volumes_of_imagej_and_ome(volume, damage):
    (depth, shape, dtype), kind, byteorder, one = volume
    array = np.random.default_rng(depth).integers(0, 200, (depth, *shape)).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.tif"
        options = {"imagej": {"imagej": True}, "ome": {"ome": True}}.get(kind, {})
        metadata = {"axes": "ZYX"}
        tifffile.imwrite(
            path, array, photometric="minisblack", byteorder=byteorder, metadata=metadata, **options
        )
        one = one and depth > 1 and kind != "ome"
        if one:
            one_page(path)
        spoil(path, damage)
        found = ours(path)
        assert damage or found is not None, "a good file is refused"
        if found is not None:
            if not damage:
                compare(found, array)
            compare(found, [theirs(path, z, one) for z in range(len(found))])
