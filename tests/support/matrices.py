"""What tests need of transforms and the program does not."""

import numpy as np


def invert(m: np.ndarray) -> np.ndarray:
    """The 2x3 transform that undoes `m`."""
    a = np.linalg.inv(m[:, :2])
    return np.hstack([a, -a @ m[:, 2:]])
