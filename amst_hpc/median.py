"""The median along z of slices, exact and fast.

`np.median(window, 0).astype(dtype)` comes from a sorting network of `np.minimum` and `np.maximum`
over blocks that stay in the cache (Batcher, AFIPS 32, 307 (1968)). Neighbouring windows share most
of their slices: the shared slices are sorted once for a group of windows, and each median then
merges in its few own slices: the k-th smallest of two sorted runs c and e is
`min over j of max(c[k-j], e[j-1])`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, reduce

import numpy as np

from amst_hpc.transform import Image

BLOCK_BYTES = 1 << 16
Comparator = tuple[int, int, bool, bool]


def median_templates(windows: Sequence[Sequence[Image]]) -> list[Image]:
    """Median along z of several windows that share slices.

    Hennies et al., Sci Rep 10, 2004 (2020).

    windows : each a list of (y, x) arrays, uint8 or uint16, one shape; the same array object in
        several windows is sorted once. No window is empty.
    Returns one (y, x) array per window, same dtype, equal to
    `np.median(window, axis=0).astype(dtype)`.
    """
    slices = {id(a): a for w in windows for a in w}
    if not all(len(w) for w in windows):
        raise ValueError("a template needs at least one slice")
    common = set.intersection(*({id(a) for a in w} for w in windows))
    own = [[id(a) for a in w if id(a) not in common] for w in windows]
    first = next(iter(slices.values()))
    flat = {key: np.ascontiguousarray(a).reshape(-1) for key, a in slices.items()}
    out = [np.empty(first.shape, first.dtype) for _ in windows]
    step = max(1, BLOCK_BYTES // first.dtype.itemsize)
    for start in range(0, first.size, step):
        block = {key: a[start : start + step] for key, a in flat.items()}
        shared = [block[key] for key in common]
        extra = [[block[key] for key in keys] for keys in own]
        for target, values in zip(out, _medians(shared, extra), strict=True):
            target.reshape(-1)[start : start + step] = values
    return out


def _medians(shared: list[Image], own: list[list[Image]]) -> list[Image]:
    """One block: the median of `shared + extra` for each list `extra` of `own`."""
    need = {
        k - j
        for extra in own
        for k in _middle(len(shared) + len(extra))
        for j in range(len(extra) + 1)
        if 0 <= k - j < len(shared)
    }
    ordered = _sort(shared, frozenset(need))
    results = []
    for extra in own:
        total = len(shared) + len(extra)
        few = _sort(extra, frozenset(range(len(extra))))
        low, high = (_kth(ordered, few, k) for k in _middle(total))
        results.append(low if total % 2 else (low & high) + ((low ^ high) >> 1))
    return results


def _middle(total: int) -> tuple[int, int]:
    """Ranks of the two middle values (equal for an odd count)."""
    return (total - 1) // 2, total // 2


def _kth(c: list[Image], e: list[Image], k: int) -> Image:
    """The k-th smallest (from 0) of two sorted runs together."""
    candidates: Iterator[Image] = (
        e[j - 1] if k - j < 0 else c[k - j] if j == 0 else np.maximum(c[k - j], e[j - 1])
        for j in range(max(0, k + 1 - len(c)), min(len(e), k + 1) + 1)
    )
    return reduce(np.minimum, candidates)


def _sort(values: list[Image], need: frozenset[int]) -> list[Image]:
    """Sorted along the list; only the ranks in `need` are right."""
    values = list(values)
    for i, j, low, high in network(len(values), need):
        a, b = values[i], values[j]
        if low:
            values[i] = np.minimum(a, b)
        if high:
            values[j] = np.maximum(a, b)
    return values


@lru_cache
def network(n: int, need: frozenset[int]) -> tuple[Comparator, ...]:
    """Batcher's odd-even merge sort for n values.

    Without the outputs that no rank in `need` depends on.
    """
    pairs: list[tuple[int, int]] = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                pairs.extend(
                    (i + j, i + j + k)
                    for i in range(min(k, n - j - k))
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p)
                )
            k //= 2
        p *= 2
    wanted = set(need)
    kept: list[Comparator] = []
    for i, j in reversed(pairs):
        if i in wanted or j in wanted:
            kept.append((i, j, i in wanted, j in wanted))
            wanted |= {i, j}
    return tuple(reversed(kept))
