"""One seed in, independent generators out; nothing here or elsewhere touches a global generator."""

from __future__ import annotations

import numpy as np


def generator(seed: int, *path: int) -> np.random.Generator:
    """A generator for ``seed`` and a position such as ``(epoch, sample)``; same path, same draws.

    >>> bool(generator(3, 1).random() == generator(3, 1).random())
    True
    >>> bool(generator(3, 1).random() == generator(3, 2).random())
    False
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=path))


def spawn(seed: int, n: int) -> list[np.random.Generator]:
    """``n`` independent generators; the answer never depends on how many workers use them.

    >>> [g.integers(10) for g in spawn(0, 2)] == [g.integers(10) for g in spawn(0, 2)]
    True
    """
    return [generator(seed, index) for index in range(n)]
