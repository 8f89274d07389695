"""The few loops that are compiled; all serial, all deterministic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel


@kernel
def shuffle(labels: NDArray[np.uint8], starts: NDArray[np.int64], seed: np.uint64) -> None:
    """Shuffle ``labels`` in place within each run ``starts[s]:starts[s + 1]`` (Fisher-Yates).

    Random numbers are SplitMix64's (Steele, Lea and Flood 2014), one stream per seed; an index
    below ``m`` is the high half of a 32-bit product (Lemire 2019), biased by less than m / 2^32.
    """
    state = np.uint64(seed)
    for run in range(len(starts) - 1):
        low = starts[run]
        for i in range(starts[run + 1] - low - 1, 0, -1):
            state += np.uint64(0x9E3779B97F4A7C15)
            bits = state
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            high = (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
            j = np.int64((high * np.uint64(i + 1)) >> np.uint64(32))
            kept = labels[low + i]
            labels[low + i] = labels[low + j]
            labels[low + j] = kept


@kernel
def permuted_edge_sums(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    weights: NDArray[np.float64],
    labels: NDArray[np.uint8],
    starts: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    n_types: int,
) -> NDArray[np.float64]:
    """Edge sums by type pair for every seed's shuffle: ``(len(seeds), n_types, n_types)``.

    ``weights`` may be empty, for ones.
    """
    result = np.zeros((len(seeds), n_types, n_types))
    counts = np.zeros((n_types, n_types), np.int64)
    for p in range(len(seeds)):
        shuffled = labels.copy()
        shuffle(shuffled, starts, seeds[p])
        if len(weights) == 0:
            counts[:] = 0
            for e in range(len(rows)):
                counts[shuffled[rows[e]], shuffled[columns[e]]] += 1
            result[p] = counts
        else:
            for e in range(len(rows)):
                result[p, shuffled[rows[e]], shuffled[columns[e]]] += weights[e]
    return result
