"""Alignment of FIB-SEM image stacks on HPC clusters (Alignment to Median Smoothed Template)."""

__version__ = "0.1.0"
