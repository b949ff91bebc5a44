"""The name under which scripts import the original's interface; see `amst_main`."""

from amst_hpc.amst_main import (
    amst_align,
    default_amst_params,
    default_elastix_params,
    optimized_elastix_params,
)

__all__ = [
    "amst_align",
    "default_amst_params",
    "default_elastix_params",
    "optimized_elastix_params",
]
