"""From a score to a probability that comes true as often as it says."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from nucleoscope.errors import CallError

#: Most rounds of expectation maximisation.
_ROUNDS = 300


def platt(logit: ArrayLike, correct: ArrayLike) -> tuple[float, float]:
    """Slope and offset that make ``sigmoid(slope * logit + offset)`` a calibrated probability.

    Platt (1999), by Newton's method, with a prior worth ten nuclei that keeps the slope near 1
    and the offset near 0, so that few held-out nuclei cannot bend it.

    Parameters
    ----------
    logit
        ``(n,)`` log odds of being right.
    correct
        ``(n,)`` whether it was.

    Examples
    --------
    >>> platt([], [])
    (1.0, 0.0)
    >>> platt([-4.0, 4.0], [False, True])[0] > 0
    True
    """
    logits = np.asarray(logit, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    prior = np.array([1.0, 0.0])
    strength = np.diag([10.0, 2.5])
    theta = prior.copy()
    for _ in range(50):
        p = expit(design @ theta)
        gradient = design.T @ (p - right) + strength @ (theta - prior)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + strength
        step = np.linalg.solve(curvature, gradient)
        theta -= np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-9:
            break
    return float(max(theta[0], 0.05)), float(theta[1])


class Groups(NamedTuple):
    """Two groups of scores: ``sigmoid(slope * score + offset)`` belongs to the higher one.

    ``separation`` is the distance of their means in standard deviations.
    """

    slope: float
    offset: float
    separation: float


def two_groups(score: ArrayLike, told: ArrayLike) -> Groups:
    """Part scores by where they lie, with the group of a few of them told.

    A mixture of two normals of one spread, by expectation maximisation from halfway between the
    means of the told ones, which stay in their groups (Nigam et al. 2000, section 5).

    Parameters
    ----------
    score
        ``(n,)``.
    told
        ``(n,)`` 1 for the higher group, 0 for the lower, -1 where it is not known; some of both.

    Raises
    ------
    CallError
        No score of one of the groups is told.

    Examples
    --------
    >>> found = two_groups([0.0, 0.1, 0.2, 5.0, 5.1, 5.3], [-1, -1, 0, -1, 1, -1])
    >>> found.separation > 3, -found.offset / found.slope
    (True, 2.6...)
    """
    x, known = np.asarray(score, dtype=np.float64), np.asarray(told)
    if not (known == 1).any() or not (known == 0).any():
        raise CallError("two groups want a score of each that is told.")
    halfway = (x[known == 1].mean() + x[known == 0].mean()) / 2
    share = np.where(known >= 0, known, x > halfway).astype(np.float64)
    groups = _parted(x, share)
    for _ in range(_ROUNDS):
        again = np.where(known >= 0, known, expit(groups.slope * x + groups.offset))
        change = float(np.abs(again - share).max())
        share, groups = again, _parted(x, again)
        if change < 1e-6:
            break
    return groups


def _parted(x: NDArray[np.float64], share: NDArray[np.float64]) -> Groups:
    """The groups that belong to shares of the higher one."""
    n, high = len(x), float(share.sum())
    mean_high = float(share @ x) / high
    mean_low = float((1 - share) @ x) / (n - high)
    variance = float(share @ (x - mean_high) ** 2 + (1 - share) @ (x - mean_low) ** 2) / n
    variance = max(variance, 1e-9)
    slope = (mean_high - mean_low) / variance
    offset = np.log(high / (n - high)) - (mean_high**2 - mean_low**2) / (2 * variance)
    return Groups(slope, float(offset), (mean_high - mean_low) / float(np.sqrt(variance)))
