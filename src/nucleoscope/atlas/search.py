"""Which nuclei look most like this one: exact for small atlases, through an index for large ones.

Exact search multiplies blocks (BLAS) and keeps a running best ``k`` per query in a heap; a block of
scores is compared with the worst kept one in a loop that the compiler turns into vector
instructions. The index groups vectors by prototype (inverted file, Sivic & Zisserman 2003; Jegou et
al. 2011) and ranks every vector of the probed groups exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.atlas.prototypes import fit_prototypes, n_prototypes, nearest_prototype
from nucleoscope.errors import CallError, InputError
from nucleoscope.jit import kernel

Float32s = NDArray[np.float32]
Int64s = NDArray[np.int64]

#: From this many nuclei on an index is used.
EXACT_BELOW = 300_000
#: Pairs of vectors that are compared one by one; beyond, many queries go through an index too.
MOST_PAIRS = 5_000_000_000
#: Queries that go through an index at a time; more need memory and gain nothing.
_QUERIES = 100_000
#: Groups that a query looks into.
PROBES = 64
_ROWS = 512  # a block of scores stays in the cache
_COLUMNS = 1024
_CHUNK, _WIDE = 64, 128  # scores looked at together


class Neighbours(NamedTuple):
    """``(Q, k)`` rows of the reference and their cosines, best first; -1 and NaN where too few."""

    rows: Int64s
    similarity: Float32s


class Index(NamedTuple):
    """Vectors grouped by prototype.

    ``vectors[offsets[g] : offsets[g + 1]]`` are those of group ``g``, and ``order`` are their rows
    in the atlas. ``vectors`` may be memory-mapped.
    """

    centres: Float32s
    vectors: NDArray[np.float16]
    order: Int64s
    offsets: Int64s


def nearest(
    queries: NDArray[Any],
    reference: NDArray[Any],
    k: int,
    *,
    keep: NDArray[np.bool_] | None = None,
) -> Neighbours:
    """The ``k`` reference vectors of largest cosine, exactly.

    Parameters
    ----------
    queries, reference
        ``(Q, D)`` and ``(N, D)`` rows of length 1.
    k
        At least 1.
    keep
        ``(N,)``: only these rows are answers.

    Raises
    ------
    CallError
        ``k`` below 1.
    InputError
        Dimensions differ, or ``keep`` has another length.

    Notes
    -----
    Equal cosines are ordered by row. Memory: ``k`` numbers per query and one block.

    Examples
    --------
    >>> nearest(np.eye(2)[:1], np.array([[0.0, 1.0], [1.0, 0.0]]), 1).rows.tolist()
    [[1]]
    """
    _check(queries, reference.shape, k, keep)
    ids = np.arange(len(reference)) if keep is None else np.flatnonzero(keep)
    best = _Best(len(queries), k)
    turned = np.asarray(queries, dtype=np.float32)
    for low in range(0, len(ids), _COLUMNS):
        some = ids[low : low + _COLUMNS]
        block = np.asarray(reference[some], dtype=np.float32).T
        for start in range(0, len(turned), _ROWS):
            rows = np.arange(start, min(start + _ROWS, len(turned)))
            _merge_rows(turned[rows] @ block, rows, some, best.scores, best.rows)
    return best.sorted()


def neighbours_of_all(vectors: NDArray[Any], k: int) -> Neighbours:
    """The ``k`` nearest others of every vector, exactly; each pair is multiplied once.

    Raises
    ------
    CallError
        ``k`` below 1.

    Examples
    --------
    >>> neighbours_of_all(np.array([[1.0, 0], [0.8, 0.6], [0, 1.0]]), 1).rows.ravel().tolist()
    [1, 0, 1]
    """
    _check(vectors, vectors.shape, k, None)
    whole = np.asarray(vectors, dtype=np.float32)
    best = _Best(len(whole), k)
    for low in range(0, len(whole), _ROWS):
        high = min(low + _ROWS, len(whole))
        rows = np.arange(low, high)
        own = whole[low:high] @ whole[low:high].T
        np.fill_diagonal(own, -np.inf)
        _merge_rows(own, rows, rows, best.scores, best.rows)
        for start in range(high, len(whole), _COLUMNS):
            scores = whole[low:high] @ whole[start : start + _COLUMNS].T
            _merge_both(scores, low, start, best.scores, best.rows)
    return best.sorted()


def build_index(vectors: NDArray[Any], *, centres: Float32s | None = None, seed: int = 0) -> Index:
    """Group vectors by prototype.

    Parameters
    ----------
    vectors
        ``(N, D)`` rows of length 1.
    centres
        ``(P, D)`` prototypes; fitted (``4 sqrt(N)`` of them) when absent.

    Examples
    --------
    >>> index = build_index(np.eye(4, dtype=np.float16))
    >>> search_index(index, np.eye(4), 1).rows.ravel().tolist()
    [0, 1, 2, 3]
    """
    if centres is None:
        n = max(n_prototypes(len(vectors)), 1)
        centres = fit_prototypes(vectors, n, seed=seed, n_iterations=4)
    owner = nearest_prototype(vectors, centres).owner
    order = np.argsort(owner, kind="stable").astype(np.int64)
    counts = np.bincount(owner, minlength=len(centres))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Index(centres, np.asarray(vectors[order], dtype=np.float16), order, offsets)


def search_index(
    index: Index,
    queries: NDArray[Any],
    k: int,
    *,
    n_probes: int = PROBES,
    keep: NDArray[np.bool_] | None = None,
) -> Neighbours:
    """The ``k`` nearest of the vectors in the ``n_probes`` groups nearest to each query.

    Parameters
    ----------
    index
        From ``build_index``, or read from an ATLAS folder.
    queries
        ``(Q, D)`` rows of length 1.
    k
        At least 1.
    n_probes
        Groups looked into. All of them gives the exact answer.
    keep
        ``(N,)`` by row of the atlas: only these are answers. Where fewer than 300,000 are kept,
        all of them are compared, so that a rare kind is found wherever it lies.

    Raises
    ------
    CallError
        ``k`` or ``n_probes`` below 1.
    InputError
        Dimensions differ, or ``keep`` has another length.
    """
    _check(queries, index.vectors.shape, k, keep)
    if n_probes < 1:
        raise CallError(f"n_probes={n_probes}: expected at least 1.")
    if len(queries) > _QUERIES:
        parts = [
            search_index(index, queries[i : i + _QUERIES], k, n_probes=n_probes, keep=keep)
            for i in range(0, len(queries), _QUERIES)
        ]
        return Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    turned = np.asarray(queries, dtype=np.float32)
    if keep is not None and int(keep.sum()) < EXACT_BELOW:
        kept = keep[index.order]
        found = nearest(turned, index.vectors, k, keep=kept)
        rows = np.where(found.rows >= 0, index.order[found.rows], -1)
        return Neighbours(rows, found.similarity)
    best = _Best(len(turned), k)
    probed = _probes(index, turned, n_probes)
    asking = np.repeat(np.arange(len(turned)), probed.shape[1])
    order = np.argsort(probed.ravel(), kind="stable")
    groups, first = np.unique(probed.ravel()[order], return_index=True)
    for group, low, high in zip(groups, first, [*first[1:], len(order)], strict=True):
        here = slice(index.offsets[group], index.offsets[group + 1])
        ids = index.order[here]
        block = np.asarray(index.vectors[here], dtype=np.float32).T
        if keep is not None:
            block, ids = block[:, keep[ids]], ids[keep[ids]]
        rows = asking[order[low:high]]
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            _merge_rows(turned[some] @ block, some, ids, best.scores, best.rows)
    return best.sorted()


def nearest_many(
    queries: NDArray[Any], reference: NDArray[Any], k: int, *, seed: int = 0
) -> Neighbours:
    """Exact where that is quick, otherwise through an index made for the occasion.

    >>> nearest_many(np.eye(2)[:1], np.eye(2), 1).rows.tolist()
    [[0]]
    """
    if len(queries) * len(reference) <= MOST_PAIRS and len(reference) < EXACT_BELOW:
        return nearest(queries, reference, k)
    return search_index(build_index(reference, seed=seed), queries, k)


def _probes(index: Index, queries: Float32s, n_probes: int) -> NDArray[np.int32]:
    """``(Q, n)`` the groups each query looks into."""
    n = min(n_probes, len(index.centres))
    turned = np.ascontiguousarray(index.centres.T)
    probed = np.empty((len(queries), n), np.int32)
    for start in range(0, len(queries), _COLUMNS):
        scores = queries[start : start + _COLUMNS] @ turned
        probed[start : start + _COLUMNS] = np.argpartition(-scores, n - 1, axis=1)[:, :n]
    return probed


def _check(
    queries: NDArray[Any], shape: tuple[int, ...], k: int, keep: NDArray[np.bool_] | None
) -> None:
    """Refuse what cannot be compared."""
    if k < 1:
        raise CallError(f"k={k}: expected at least 1.")
    if queries.ndim != 2 or len(shape) != 2 or queries.shape[1] != shape[1]:
        raise InputError(
            f"queries of shape {queries.shape} against vectors of shape {shape}; "
            "both must come from one encoder."
        )
    if keep is not None and keep.shape != shape[:1]:
        raise InputError(f"keep: {keep.shape} for {shape[0]} nuclei.")


class _Best:
    """A heap of the best ``k`` per query, the worst of them at its root."""

    def __init__(self, n: int, k: int) -> None:
        self.scores = np.full((n, k), -np.inf, np.float32)
        self.rows = np.full((n, k), -1, np.int64)

    def sorted(self) -> Neighbours:
        """Best first, equal ones by row."""
        order = np.lexsort((self.rows, -self.scores), axis=1)
        scores = np.take_along_axis(self.scores, order, axis=1)
        rows = np.take_along_axis(self.rows, order, axis=1)
        scores[rows < 0] = np.nan
        return Neighbours(rows, scores)


@kernel
def _merge_rows(
    scores: Float32s, rows: Int64s, columns: Int64s, best: Float32s, kept: Int64s
) -> None:
    """Offer the scores of each row to the heap ``rows[i]``."""
    for i in range(scores.shape[0]):
        heap, ids, line = best[rows[i]], kept[rows[i]], scores[i]
        for start in range(0, len(line), _CHUNK):
            part = line[start : start + _CHUNK]
            worst, better = heap[0], np.int32(0)
            for j in range(len(part)):
                better += np.int32(part[j] >= worst)
            if better:
                for j in range(len(part)):
                    if part[j] >= worst:
                        _offer(heap, ids, part[j], columns[start + j])
                        worst = heap[0]


@kernel
def _merge_both(scores: Float32s, row: int, column: int, best: Float32s, kept: Int64s) -> None:
    """Offer each score to the heaps of its row and of its column, counted from these two on.

    Both limits are looked at in one pass, so that a score is read once.
    """
    n = scores.shape[1]
    limits = best[column : column + n, 0].copy()
    for i in range(scores.shape[0]):
        heap, ids, line = best[row + i], kept[row + i], scores[i]
        for start in range(0, n, _WIDE):
            part, limit = line[start : start + _WIDE], limits[start : start + _WIDE]
            worst, better = heap[0], np.int32(0)
            for j in range(len(part)):
                better += np.int32(part[j] >= worst) | np.int32(part[j] >= limit[j])
            if better:
                for j in range(len(part)):
                    at = column + start + j
                    if part[j] >= worst:
                        _offer(heap, ids, part[j], at)
                        worst = heap[0]
                    if part[j] >= limit[j]:
                        _offer(best[at], kept[at], part[j], row + i)
                        limit[j] = best[at, 0]


@kernel
def _offer(heap: Float32s, ids: Int64s, score: float, row: int) -> None:
    """Replace the root by a better entry and let it sink; equal scores keep the smaller row."""
    if not (score > heap[0] or (score == heap[0] and row < ids[0])):
        return
    k, at = len(heap), 0
    while True:
        child = 2 * at + 1
        if child >= k:
            break
        other = child + 1
        if other < k and (
            heap[other] < heap[child] or (heap[other] == heap[child] and ids[other] > ids[child])
        ):
            child = other
        if heap[child] > score or (heap[child] == score and ids[child] < row):
            break
        heap[at], ids[at] = heap[child], ids[child]
        at = child
    heap[at], ids[at] = score, row
