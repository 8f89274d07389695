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
def edge_counts(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], codes: NDArray[np.uint8], n_types: int
) -> NDArray[np.int64]:
    """``(n_types, n_types)``: edges from each type to each type."""
    counts = np.zeros((n_types, n_types), np.int64)
    for i in range(len(indptr) - 1):
        row = counts[codes[i]]
        for e in range(indptr[i], indptr[i + 1]):
            row[codes[indices[e]]] += 1
    return counts


@kernel
def permuted_pair_sums(
    start: NDArray[np.uint32],
    end: NDArray[np.uint32],
    weights: NDArray[np.float64],
    firsts: NDArray[np.int64],
    labels: NDArray[np.uint8],
    runs: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    n_types: int,
) -> NDArray[np.float64]:
    """Sums by slot and type pair for every seed's shuffle: ``(n_slots, n_types^2, seeds)``.

    The pairs of slot s are ``firsts[s]:firsts[s + 1]``. A nucleus's labels in all shuffles lie next
    to each other, so a pair is read once and its sums for all seeds fall on different places of a
    table that stays in cache.
    """
    n_seeds, n_pairs = len(seeds), n_types * n_types
    left = np.empty((len(labels), n_seeds), np.uint16)
    right = np.empty((len(labels), n_seeds), np.uint16)
    for p in range(n_seeds):
        one = labels.copy()
        shuffle(one, runs, seeds[p])
        for i in range(len(labels)):
            left[i, p] = one[i] * n_types
            right[i, p] = one[i]
    result = np.zeros((len(firsts) - 1, n_pairs * n_seeds))
    width = np.uint64(n_seeds)
    for s in range(len(firsts) - 1):
        sums = result[s]
        for e in range(firsts[s], firsts[s + 1]):
            i, j, weight = start[e], end[e], weights[e]
            for p in range(n_seeds):
                u = np.uint64(p)
                sums[np.uint64(left[i, u] + right[j, u]) * width + u] += weight
    return result.reshape(len(firsts) - 1, n_pairs, n_seeds)


@kernel
def mark_products(
    marks: NDArray[np.float32],
    start: NDArray[np.int32],
    end: NDArray[np.int32],
    slots: NDArray[np.int32],
    n_slots: int,
) -> NDArray[np.float64]:
    """Sum over pairs of ``marks[start] . marks[end]`` by slot; marks have a multiple of 8 parts."""
    result = np.zeros(n_slots)
    length = marks.shape[1]
    for e in range(len(start)):
        a, b = marks[start[e]], marks[end[e]]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
        for d in range(0, length, 8):
            s0 += a[d] * b[d]
            s1 += a[d + 1] * b[d + 1]
            s2 += a[d + 2] * b[d + 2]
            s3 += a[d + 3] * b[d + 3]
            s4 += a[d + 4] * b[d + 4]
            s5 += a[d + 5] * b[d + 5]
            s6 += a[d + 6] * b[d + 6]
            s7 += a[d + 7] * b[d + 7]
        result[slots[e]] += float((s0 + s4) + (s1 + s5)) + float((s2 + s6) + (s3 + s7))
    return result


@kernel
def shell_strengths(
    start: NDArray[np.uint32],
    end: NDArray[np.uint32],
    weights: NDArray[np.float64],
    firsts: NDArray[np.int64],
    n: int,
) -> NDArray[np.float64]:
    """``(n_slots, n)``: the weights of each nucleus's pairs, by slot of their distance."""
    result = np.zeros((len(firsts) - 1, n))
    for s in range(len(firsts) - 1):
        own = result[s]
        for e in range(firsts[s], firsts[s + 1]):
            own[start[e]] += weights[e]
            own[end[e]] += weights[e]
    return result
