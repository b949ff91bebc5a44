"""The affine registration of a raw slice to its template by elastix.

A backend is a callable `(template, raw, shift) -> transform`. The raw slice is not moved by the
coarse shift: its image gets the origin -shift instead, so elastix sees all of it and no border of
zeros enters the metric. What has no content (see `content`) is masked.

elastix: Klein et al., IEEE Trans Med Imaging 29, 196 (2010).
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst_hpc.config import InputError, Refine, as_list
from amst_hpc.content import Mask, content
from amst_hpc.elastix_defaults import ELASTIX, FAR
from amst_hpc.registration.gauss_newton import GaussNewton
from amst_hpc.registration.itk_elastix import load_elastix
from amst_hpc.slice_result import RegistrationError
from amst_hpc.software import library_version
from amst_hpc.transform import (
    FloatImage,
    Image,
    Matrix,
    about,
    compose,
    displacement,
    shift_whole,
    translation,
)

Backend = Callable[[Image, Image, tuple[int, int]], Matrix]
LITTLE = 0.5  # of a slice: where both share less, elastix is told where
FEWEST = 32 * 32  # px that template and raw slice must share
NEAR_PX = 2.5  # of a corner, along x or y, from where the coarse step has put it
PROGRAM_TRIES = 2  # the program has been seen to end with a fault on one slice of a hundred

FORCED = {
    "WriteResultImage": False,
    "AutomaticTransformInitialization": False,
    "WriteTransformParametersEachIteration": False,
}


def make_refine(config: Refine, device: str = "auto", local_rank: int = 0) -> Backend:
    """The backend named in `config`, built once per rank. Raises `InputError`.

    device : as `coarse.device`, for Gauss-Newton.
    """
    if config.backend == "none":
        return _no_refinement
    if config.backend == "gauss-newton":
        return GaussNewton(device, local_rank)
    elastix = _Itk if config.backend == "itk" else _Program
    if config.parameter_file or dict(config.elastix) != dict(ELASTIX):
        return elastix(config)
    far = dataclasses.replace(config, elastix={**ELASTIX, **FAR})
    return _again_if_far(elastix(config), elastix(far))


def _again_if_far(near: Backend, far: Backend) -> Backend:
    """`near`; `far` where that fails, or where a corner moves further than it is made for."""

    def refine(template: Image, raw: Image, shift: tuple[int, int]) -> Matrix:
        try:
            found = near(template, raw, shift)
        except RegistrationError:
            return far(template, raw, shift)
        moved = displacement(found, template.shape) - shift
        return found if np.abs(moved).max() <= NEAR_PX else far(template, raw, shift)

    return refine


def check_refine(config: Refine) -> None:
    """Raises `InputError` for a program or a parameter that cannot be; loads nothing."""
    if config.backend in ("itk", "pyelastix"):
        elastix_parameters(config)
    if config.backend == "pyelastix" and shutil.which("elastix") is None:
        raise InputError("refine.backend = 'pyelastix': the program elastix is not on PATH")


def _no_refinement(_template: Image, _raw: Image, shift: tuple[int, int]) -> Matrix:
    return translation(*shift)


@dataclasses.dataclass(frozen=True)
class Seen:
    """An image as elastix gets it: (y, x) float32, and where it has content; None: everywhere."""

    pixels: FloatImage
    mask: NDArray[np.uint8] | None


def see(template: Image, raw: Image, shift: tuple[int, int]) -> tuple[Seen, Seen]:
    """Template and raw slice, which lies at `shift`.

    Of little that both show, too many samples would fall beside: all are drawn from it then.
    Raises `RegistrationError` where they share nothing.
    """
    fixed, moving = content(template), content(raw)
    both = fixed
    overlap = np.prod([max(0, 1 - abs(s) / n) for s, n in zip(shift, raw.shape[::-1], strict=True)])
    if fixed is not None or moving is not None or overlap < LITTLE:
        there = np.ones(raw.shape, np.uint8) if moving is None else moving.astype(np.uint8)
        both = shift_whole(there, *shift, template.shape) > 0
        both = both if fixed is None else both & fixed
        count = np.count_nonzero(both)
        if count < FEWEST:
            raise RegistrationError(f"elastix: both share {count} px, fewer than {FEWEST}")
    return _see(template, fixed, both), _see(raw, moving, moving)


def _see(image: Image, seen: Mask | None, mask: Mask | None) -> Seen:
    """Beside the content stands its mean."""
    floats = image.astype(np.float32)
    floats = floats if seen is None else np.where(seen, floats, floats[seen].mean())
    return Seen(floats, None if mask is None else mask.astype(np.uint8))


def _texts(value: Any) -> list[str]:
    """A parameter's values as elastix reads them."""
    return [str(v).lower() if isinstance(v, bool) else str(v) for v in as_list(value)]


def read_parameter_file(path: Path) -> dict[str, list[str]]:
    """`(Name value ...)` lines of an elastix parameter file. Raises `InputError`."""
    parameters: dict[str, list[str]] = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"refine.parameter_file = {path}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        text = line.split("//")[0].strip()
        if not text:
            continue
        words = text[1:-1].split()
        if text[0] != "(" or text[-1] != ")" or len(words) < 2:
            raise InputError(
                f"refine.parameter_file = {path}: line {number} is not '(Name value ...)': "
                f"{line.strip()}"
            )
        parameters[words[0]] = [word.strip('"') for word in words[1:]]
    return parameters


def elastix_parameters(config: Refine) -> dict[str, list[str]]:
    """All parameters that elastix gets, by name. Raises `InputError`."""
    base = read_parameter_file(Path(config.parameter_file)) if config.parameter_file else {}
    named: Mapping[str, Any] = {**base, **config.elastix, **FORCED}
    parameters = {name: _texts(value) for name, value in named.items()}
    transform = parameters.get("Transform", ["AffineTransform"])[0]
    linear = ("AffineTransform", "EulerTransform", "SimilarityTransform", "TranslationTransform")
    if transform not in linear:
        raise InputError(
            f"refine.elastix.Transform = {transform!r}: expected one of {', '.join(linear)}"
        )
    parameters["Transform"] = [transform]
    parameters.setdefault("RandomSeed", ["1"])
    return parameters


class _Itk:
    """elastix inside this process (itk-elastix), one thread."""

    def __init__(self, config: Refine) -> None:
        try:
            with warnings.catch_warnings():  # a warning as error would crash its modules
                warnings.simplefilter("ignore")
                self.itk = load_elastix()
        except ImportError as error:
            raise InputError(
                f"refine.backend = 'itk': itk-elastix is not installed ({error})"
            ) from None
        self.parameters = self.itk.parameters.New()
        defaults = self.parameters.GetDefaultParameterMap("affine")
        for name in list(defaults):
            if name in ("NumberOfResolutions", "ResultImageFormat") or config.parameter_file:
                del defaults[name]
        for name, values in elastix_parameters(config).items():
            defaults[name] = values
        self.parameters.AddParameterMap(defaults)

    def __call__(self, template: Image, raw: Image, shift: tuple[int, int]) -> Matrix:
        with warnings.catch_warnings():  # as above
            warnings.simplefilter("ignore")
            return self._register(template, raw, shift)

    def _register(self, template: Image, raw: Image, shift: tuple[int, int]) -> Matrix:
        seen = see(template, raw, shift)
        fixed, moving = (self.itk.image(a.pixels) for a in seen)
        moving.SetOrigin([-float(v) for v in shift])
        elastix = self.itk.method.New()
        elastix.SetFixedImage(fixed)
        elastix.SetMovingImage(moving)
        elastix.SetParameterObject(self.parameters)
        elastix.SetNumberOfThreads(1)
        elastix.SetLogToConsole(False)
        masks = []  # they must outlive the registration
        for a, image, put in (
            (seen[0], fixed, elastix.SetFixedMask),
            (seen[1], moving, elastix.SetMovingMask),
        ):
            if a.mask is not None:
                masks.append(self.itk.image(a.mask))
                masks[-1].SetOrigin(image.GetOrigin())
                put(masks[-1])
        try:
            elastix.UpdateLargestPossibleRegion()
            found = elastix.GetTransformParameterObject().GetParameterMap(0)
        except RuntimeError as error:
            raise RegistrationError(_last_line(str(error))) from None
        return _from_transform_file({name: list(found[name]) for name in found}, shift)


class _Program:
    """The elastix program through pyelastix, in a node-local folder of this process alone.

    pyelastix clears folders of processes it does not know and reads the program's output with
    pauses; both functions are replaced here by ones without these faults. The latter is where masks
    go in, which it does not know. Values go in as text,
    because it writes 1 and 0 as booleans. What elastix found is read from its own file, and
    pyelastix ends there, before it has a field of displacements made.
    """

    def __init__(self, config: Refine) -> None:
        try:
            import pyelastix
        except ImportError as error:
            raise InputError(
                f"refine.backend = 'pyelastix': it is not installed ({error})"
            ) from None
        check_refine(config)
        self.pyelastix = pyelastix
        self.folder = tempfile.TemporaryDirectory(prefix="amst_hpc_elastix_")
        parameters = elastix_parameters(config) | {
            "FixedImageDimension": ["2"],
            "MovingImageDimension": ["2"],
        }
        self.parameters = {name: v if len(v) > 1 else v[0] for name, v in parameters.items()}
        self.masks: dict[str, Any] = {}

    def _run(self, command: list[str], _verbose: bool = False) -> None:
        for number, (option, mask) in enumerate(self.masks.items(), 3):  # 1 and 2 are the images
            command += [option, self.pyelastix._write_image_data(mask, number)]  # noqa: SLF001
        for _ in range(PROGRAM_TRIES):
            done = subprocess.run(
                [*command, "-threads", "1"],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode == 0:
                raise _Registered
        said = _last_line(done.stdout)
        raise RegistrationError(f"elastix ended with {done.returncode}: {said}")

    def __call__(self, template: Image, raw: Image, shift: tuple[int, int]) -> Matrix:
        self.pyelastix.get_tempdir = lambda: self.folder.name
        self.pyelastix._system3 = self._run  # noqa: SLF001 (see above)
        seen = see(template, raw, shift)
        origins = (0, 0), (-shift[1], -shift[0])
        fixed, moving = (_placed(a.pixels, o) for a, o in zip(seen, origins, strict=True))
        self.masks = {
            option: _placed(a.mask, origin)
            for option, a, origin in zip(("-fMask", "-mMask"), seen, origins, strict=True)
            if a.mask is not None
        }
        try:
            self.pyelastix.register(moving, fixed, self.parameters, exact_params=True, verbose=0)
        except _Registered:
            path = Path(self.folder.name) / "TransformParameters.0.txt"
        except (RuntimeError, OSError, ValueError) as error:
            raise RegistrationError(_last_line(str(error))) from None
        try:
            return _from_transform_file(read_parameter_file(path), shift)
        except InputError as error:
            raise RegistrationError(f"elastix: {error}") from None


class _Registered(BaseException):
    """The program has written what it found; a base exception, which pyelastix lets through."""


class _Placed(np.ndarray):
    """An array with the place of its first pixel, (y, x) px, as pyelastix takes it."""

    origin: tuple[int, int]


def _placed(array: NDArray[Any], origin: tuple[int, int]) -> _Placed:
    placed = np.ascontiguousarray(array).view(_Placed)
    placed.origin = origin
    return placed


def _from_transform_file(found: Mapping[str, list[str]], shift: tuple[int, int]) -> Matrix:
    """Pull-back matrix to raw pixels from elastix' transform parameters.

    The moving origin is at -shift.
    """
    values = np.array([float(v) for v in found["TransformParameters"]])
    kind = found["Transform"][0]
    if kind == "TranslationTransform":
        return compose(translation(*shift), translation(*values))
    centre = np.array([float(v) for v in found["CenterOfRotationPoint"]])
    if kind == "AffineTransform":
        a, t = values[:4].reshape(2, 2), values[4:]
    else:
        scale, angle = (values[0], values[1]) if kind == "SimilarityTransform" else (1.0, values[0])
        a = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        t = values[-2:]
    return compose(translation(*shift), about(a, t, centre))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    described = [line for line in lines if "Description" in line or "rror" in line]
    return (described or lines or [""])[-1][:200]


def program_version() -> str:
    """What the elastix program says of itself; empty where there is none."""
    program = shutil.which("elastix")
    if program is None:
        return ""
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False, env={**os.environ}
    )
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def elastix_version(config: Refine) -> str:
    """Of the elastix that `config.backend` runs; results depend on it."""
    if config.backend == "pyelastix":
        return program_version()
    return library_version("itk-elastix") if config.backend == "itk" else ""
