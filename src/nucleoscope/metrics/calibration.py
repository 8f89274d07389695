"""Does a probability of 0.8 come true eight times in ten."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics.detection import jsonable


class Reliability(NamedTuple):
    """The reliability curve: per bin its edges, the mean probability, the share that was right."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    n: NDArray[np.int64]

    def error(self) -> float:
        """Expected calibration error: ``sum_b n_b / n |accuracy_b - confidence_b|``."""
        total = int(self.n.sum())
        if total == 0:
            return float("nan")
        gap = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((self.n * gap).sum() / total)

    def to_dict(self) -> dict[str, Any]:
        """One list per column; NaN (an empty bin) becomes None."""
        columns = self._asdict().items()
        return {name: [jsonable(value) for value in column.tolist()] for name, column in columns}


def reliability(prob: ArrayLike, correct: ArrayLike, *, bins: int = 10) -> Reliability:
    """The reliability curve over equal-width bins of [0, 1].

    Parameters
    ----------
    prob
        ``(n,)`` probabilities given to the answer; NaN (no answer) is left out.
    correct
        ``(n,)`` bool: whether the answer was right.
    bins
        How many, at least 1. A bin holds its lower edge, the last also 1.

    Raises
    ------
    CallError
        Fewer than one bin.
    InputError
        Lengths differ, or a probability lies outside [0, 1].

    Examples
    --------
    >>> curve = reliability([0.8, 0.8, 0.8, 0.8, 0.8], [1, 1, 1, 1, 0], bins=2)
    >>> curve.n.tolist(), round(curve.error(), 6)
    ([0, 5], 0.0)
    """
    if bins < 1:
        raise CallError(f"a reliability curve needs at least one bin; found {bins}.")
    p = np.asarray(prob, dtype=np.float64).reshape(-1)
    right = np.asarray(correct, dtype=np.float64).reshape(-1)
    if p.shape != right.shape:
        raise InputError(f"{len(p)} probabilities were given for {len(right)} answers.")
    known = np.isfinite(p)
    p, right = p[known], right[known]
    if p.size and (p.min() < 0 or p.max() > 1):
        raise InputError(f"a probability is between 0 and 1; found {p.min():g} to {p.max():g}.")
    bin_of = np.minimum((p * bins).astype(np.int64), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    some = np.where(count > 0, count, np.nan)
    edges = np.linspace(0, 1, bins + 1)
    return Reliability(
        edges[:-1],
        edges[1:],
        np.bincount(bin_of, weights=p, minlength=bins) / some,
        np.bincount(bin_of, weights=right, minlength=bins) / some,
        count.astype(np.int64),
    )


def calibration_error(prob: ArrayLike, correct: ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017, eq. 3), in [0, 1].

    NaN when there is nothing to judge. Raises as `reliability`.

    >>> round(calibration_error([0.9, 0.9], [True, False]), 3)
    0.4
    """
    return reliability(prob, correct, bins=bins).error()
