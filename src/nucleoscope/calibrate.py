"""From a score to a probability that comes true as often as it says."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit


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
