"""The one numba decorator: compiled, cached on disk, no GIL, serial.

Kernels are serial on purpose: work is spread over tiles and images by threads, and nested pools
of numba, torch and BLAS slow each other down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` with numba in nopython mode; keeps its type for mypy."""
    compiled: Callable[P, R] = numba.njit(cache=True, nogil=True, fastmath=False)(function)
    return compiled
