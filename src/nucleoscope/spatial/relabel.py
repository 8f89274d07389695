"""Sums over fixed pairs of nuclei when their types are dealt out again at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.spatial.kernels import permuted_pair_sums
from nucleoscope.spatial.pattern import Pattern

#: Relabellings per piece of work.
BATCH = 32


@dataclass(frozen=True, eq=False)
class Relabelling:
    """Pairs and their weights, ready for any number of relabellings within strata.

    Parameters
    ----------
    start, end
        ``(m,)`` uint32: the two nuclei of each pair, in the order of their strata.
    weights
        ``(m,)`` float64.
    firsts
        ``(n_slots + 1,)`` int64: where the pairs of each slot start.
    labels
        ``(n,)`` uint8, in the order of the strata.
    starts
        ``(n_strata + 1,)`` int64.
    n_types
        K.
    """

    start: NDArray[np.uint32]
    end: NDArray[np.uint32]
    weights: NDArray[np.float64]
    firsts: NDArray[np.int64]
    labels: NDArray[np.uint8]
    starts: NDArray[np.int64]
    n_types: int

    @classmethod
    def of(
        cls,
        pattern: Pattern,
        rows: NDArray[np.integer[Any]],
        columns: NDArray[np.integer[Any]],
        weights: NDArray[np.float64] | None = None,
        firsts: NDArray[np.int64] | None = None,
    ) -> Relabelling:
        """Pairs ``rows[e], columns[e]`` of a pattern's nuclei, slot by slot (default: one slot)."""
        strata = np.zeros(len(pattern), np.int64) if pattern.strata is None else pattern.strata
        order = np.argsort(strata, kind="stable")
        sizes = np.unique(strata, return_counts=True)[1]
        place = np.empty(len(order), np.uint32)
        place[order] = np.arange(len(order), dtype=np.uint32)
        return cls(
            place[rows],
            place[columns],
            np.ones(len(rows)) if weights is None else np.ascontiguousarray(weights, np.float64),
            np.array([0, len(rows)], np.int64) if firsts is None else firsts,
            pattern.codes[order],
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            pattern.n_types,
        )

    def sums(self, seeds: NDArray[np.uint64]) -> NDArray[np.float64]:
        """``(len(seeds), K, K, n_slots)``: sums of every seed's relabelling, pairs as given."""
        k = self.n_types
        found = permuted_pair_sums(
            self.start, self.end, self.weights, self.firsts, self.labels, self.starts, seeds, k
        )
        return np.ascontiguousarray(found.transpose(2, 1, 0)).reshape(len(seeds), k, k, -1)
