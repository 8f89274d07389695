"""How far a figure can be trusted that was measured on few images with few seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.seeds import generator

Floats = NDArray[np.float64]

#: What can be computed from counts of true positives, false positives and false negatives.
COUNTED = ("precision", "recall", "f1")


class Spread(NamedTuple):
    """A mean over seeds, its standard deviation over seeds, an interval, the number of seeds.

    ``sd`` is NaN for one seed; ``low`` and ``high`` are NaN where there is one image and one seed.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int


def spread_of_counts(
    counts: ArrayLike,
    figure: str = "f1",
    *,
    over: str = "pooled",
    level: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Spread:
    """Precision, recall or F1 over seeds and images, with an interval for both.

    The interval is the percentile interval of the mean over seeds when seeds and images are both
    drawn again with replacement, crossed: every seed judged the same images (Owen 2007, the
    pigeonhole bootstrap). With few images it is too narrow.

    Parameters
    ----------
    counts
        ``(seeds, images, 3)``: true positives, false positives, false negatives.
    figure
        ``precision``, ``recall`` or ``f1``.
    over
        ``pooled``: from the counts of all images of a seed. ``images``: mean over images, those
        with nothing to score left out.
    level
        Coverage, in (0, 1).

    Raises
    ------
    CallError
        Unknown figure or way to sum up.
    InputError
        Counts of another shape, or none.

    Examples
    --------
    >>> spread = spread_of_counts([[[8, 2, 0], [9, 1, 1]], [[9, 1, 0], [9, 1, 1]]], "precision")
    >>> round(spread.mean, 3), round(spread.sd, 3), spread.n
    (0.875, 0.035, 2)

    References
    ----------
    Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2).
    """
    if figure not in COUNTED or over not in ("pooled", "images"):
        raise CallError(f"no figure {figure!r} over {over!r}; there are {', '.join(COUNTED)}.")
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 3 or table.shape[2] != 3 or 0 in table.shape:
        raise InputError(f"counts are (seeds, images, 3); found shape {table.shape}.")
    if over == "pooled":
        return _spread(table, lambda drawn: _figure(drawn.sum(axis=-2), figure), level,
                       n_bootstrap, seed)  # fmt: skip
    return spread_of_values(_figure(table, figure), level=level, n_bootstrap=n_bootstrap, seed=seed)


def spread_of_values(
    values: ArrayLike, *, level: float = 0.95, n_bootstrap: int = 2000, seed: int = 0
) -> Spread:
    """A figure of each seed and image, ``(seeds, images)``, averaged; NaN is left out.

    Raises
    ------
    InputError
        Values of another shape, or none.

    Examples
    --------
    >>> spread_of_values([[0.5, 0.7]]).mean
    0.6
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise InputError(f"values are (seeds, images); found shape {table.shape}.")
    return _spread(table[..., None], lambda drawn: _mean(drawn[..., 0]), level, n_bootstrap, seed)


def _figure(counts: Floats, figure: str) -> Floats:
    """Precision, recall or F1 of ``(..., 3)`` counts; NaN where all are 0."""
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    below = {"precision": tp + fp, "recall": tp + fn, "f1": tp + (fp + fn) / 2}[figure]
    some = np.where(counts.sum(axis=-1) > 0, 1.0, np.nan)
    value: Floats = tp / np.where(below > 0, below, 1) * some
    return value


def _mean(values: Floats) -> Floats:
    """Mean over the last axis without NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    n = np.where(known.any(axis=-1), known.sum(axis=-1), np.nan)
    total: Floats = np.where(known, values, 0).sum(axis=-1) / n
    return total


def _spread(
    table: Floats, figure: Callable[[Floats], Floats], level: float, n_bootstrap: int, seed: int
) -> Spread:
    """Mean, sd and interval of ``figure``, which maps ``(..., images, k)`` to ``(...)``."""
    per_seed: Floats = figure(table)
    known = per_seed[np.isfinite(per_seed)]
    mean = float(known.mean()) if known.size else float("nan")
    sd = float(known.std(ddof=1)) if known.size > 1 else float("nan")
    low, high = float("nan"), float("nan")
    if table.shape[0] * table.shape[1] > 1:
        rng = generator(seed)
        seeds = rng.integers(table.shape[0], size=(n_bootstrap, table.shape[0], 1))
        images = rng.integers(table.shape[1], size=(n_bootstrap, 1, table.shape[1]))
        means = _mean(figure(table[seeds, images]))
        means = means[np.isfinite(means)]
        if means.size:
            tail = (1 - level) / 2
            low, high = (float(q) for q in np.quantile(means, [tail, 1 - tail]))
    return Spread(mean, sd, low, high, int(known.size))
