"""What is said of two stacks before a job."""

import numpy as np

from amst_hpc.images.opening import open_stack
from amst_hpc.preflight.same_tissue import compare, order_note, sample, tissue_fault


def seen(raw, pre):
    """The fault and the note of two stacks (paths)."""
    opened = open_stack(str(raw), "RAW"), open_stack(str(pre), "PREALIGNED")
    found = compare(*opened, sample(range(len(opened[0].names))))
    return tissue_fault(found), order_note(found)


def noise_on(stack, sd, seed=1):
    noise = np.random.default_rng(seed).normal(0, sd, stack.shape)
    return np.clip(np.rint(stack + noise), 1, 255).astype(np.uint8)
