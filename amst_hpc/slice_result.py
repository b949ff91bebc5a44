"""What registration found for one slice, and what became of it."""

from dataclasses import dataclass


class RegistrationError(Exception):
    """A step found no registration of a slice; the message is its reason."""


@dataclass(frozen=True)
class Estimate:
    """`shift` (x, y) in px of the images that were matched.

    `matches`: how many keypoints agreed on it (XCORR: 0).
    """

    shift: tuple[float, float]
    matches: int
