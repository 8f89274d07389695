"""Prototypes: k-means on the unit sphere, the coarse picture that subtypes and index start from."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.seeds import generator

Float32s = NDArray[np.float32]
Int32s = NDArray[np.int32]

#: Vectors per prototype that the fit looks at; more change little (Johnson et al. 2021 use 256).
SAMPLE_PER_PROTOTYPE = 64
_BLOCK = 4096


class Nearest(NamedTuple):
    """For each vector the prototype of largest cosine, and that cosine."""

    owner: Int32s
    similarity: Float32s


def n_prototypes(n: int) -> int:
    """How many prototypes ``n`` nuclei get: ``4 sqrt(n)``, at most one each.

    >>> n_prototypes(1_000_000), n_prototypes(9)
    (4000, 9)
    """
    return min(n, round(4 * math.sqrt(n)))


def fit_prototypes(
    vectors: NDArray[Any], n: int, *, seed: int = 0, n_iterations: int = 12
) -> Float32s:
    """Directions that stand for many vectors: k-means on the sphere (Dhillon & Modha 2001).

    Parameters
    ----------
    vectors
        ``(N, D)`` rows of length 1, any float type.
    n
        Number of prototypes, at most ``N``.
    seed
        Chooses the sample that is fitted, and where it starts.
    n_iterations
        Rounds of assignment and mean.

    Returns
    -------
    ``(n, D)`` float32, rows of length 1. A prototype that no vector chose moves to the vector
    that is worst represented; at the end idle ones are dropped, so there may be fewer.

    Raises
    ------
    CallError
        More prototypes than vectors, or none.

    Notes
    -----
    Costs ``2 n D`` operations per sampled vector and round; at most 64 vectors per prototype are
    sampled.

    Examples
    --------
    >>> corners = np.repeat(np.eye(3), 5, axis=0)
    >>> np.unique(fit_prototypes(corners, 3), axis=0).tolist()
    [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    total = len(vectors)
    if not 1 <= n <= total:
        raise CallError(f"{n} prototypes for {total} nuclei: expected 1 to {total}.")
    rng = generator(seed, 1)
    size = min(total, max(SAMPLE_PER_PROTOTYPE * n, n))
    rows = np.sort(rng.permutation(total)[:size])
    sample = np.asarray(vectors[rows], dtype=np.float32)
    centres = sample[np.sort(rng.permutation(size)[:n])]
    for _ in range(n_iterations):
        found = nearest_prototype(sample, centres)
        moved = _means(sample, found, centres)
        if np.allclose(moved, centres, atol=1e-5):
            break
        centres = moved
    return centres[np.bincount(nearest_prototype(sample, centres).owner, minlength=n) > 0]


def nearest_prototype(vectors: NDArray[Any], centres: Float32s) -> Nearest:
    """The prototype of largest cosine for each vector; of equal ones the first.

    This is how new nuclei get the subtypes of a reference: it depends on the stored prototypes
    alone.

    >>> nearest_prototype(np.array([[0.0, 1.0]]), np.eye(2, dtype=np.float32)).owner.tolist()
    [1]
    """
    if vectors.shape[1] != centres.shape[1]:
        raise InputError(
            f"vectors of {vectors.shape[1]} dimensions against prototypes of {centres.shape[1]}; "
            "both must come from one encoder."
        )
    owner = np.empty(len(vectors), np.int32)
    similarity = np.empty(len(vectors), np.float32)
    turned = np.ascontiguousarray(centres.T)
    for start in range(0, len(vectors), _BLOCK):
        here = slice(start, start + _BLOCK)
        scores = np.asarray(vectors[here], dtype=np.float32) @ turned
        owner[here] = scores.argmax(axis=1)
        similarity[here] = scores[np.arange(len(scores)), owner[here]]
    return Nearest(owner, similarity)


def _means(sample: Float32s, found: Nearest, centres: Float32s) -> Float32s:
    """Mean direction of each prototype's vectors; idle ones go to the worst represented."""
    from scipy.sparse import csr_matrix

    n = len(centres)
    ones = np.ones(len(sample), np.float32)
    members = csr_matrix((ones, (found.owner, np.arange(len(sample)))), shape=(n, len(sample)))
    sums: Float32s = members @ sample
    length = np.linalg.norm(sums, axis=1)
    idle = np.flatnonzero(length < 1e-6)
    if idle.size:
        worst = np.argsort(found.similarity, kind="stable")[: idle.size]
        worst = worst[found.similarity[worst] < 1 - 1e-4]
        sums[idle] = centres[idle]
        sums[idle[: worst.size]] = sample[worst]
        length = np.linalg.norm(sums, axis=1)
    means: Float32s = sums / length[:, None]
    return means
