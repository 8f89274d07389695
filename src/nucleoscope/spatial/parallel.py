"""Work in a fixed number of pieces, so that the answer never depends on how many threads run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError

T = TypeVar("T")
R = TypeVar("R")


def spread(work: Callable[[T], R], items: Iterable[T], n_jobs: int = 1) -> list[R]:
    """``[work(item) for item in items]`` on ``n_jobs`` threads, in the order of the items.

    >>> spread(abs, [-1, 2], n_jobs=2)
    [1, 2]
    """
    if n_jobs < 1:
        raise CallError(f"n_jobs must be 1 or more; found {n_jobs}.")
    if n_jobs == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(n_jobs) as pool:
        return list(pool.map(work, items))


def pieces(n: int, size: int) -> list[slice]:
    """``range(n)`` in slices of ``size``; depends on nothing else.

    >>> pieces(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(low, min(low + size, n)) for low in range(0, n, size)]


def stream_seeds(seed: int, n: int) -> NDArray[np.uint64]:
    """``n`` 64-bit seeds for compiled streams, one per simulation; a prefix of any longer list."""
    return np.random.SeedSequence(seed).generate_state(n, np.uint64).astype(np.uint64)
