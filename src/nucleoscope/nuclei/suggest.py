"""Where to click next: the regions whose nuclei a model doubts most, and that differ.

A single doubtful pixel is no task for a person; a small region is: one look answers everything in
it. Regions are taken one after the other, each worth its doubts times how little it resembles
those already taken, so that ten copies of one difficulty do not fill the list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Regions:
    """Candidate regions of one or more images.

    Parameters
    ----------
    image
        ``(r,)`` number of the image of each.
    box
        ``(r, 4)`` half-open ``y0 x0 y1 x1`` in pixels.
    doubt
        ``(r,)``, not negative: what is to be learnt there.
    look
        ``(r, d)`` what distinguishes the region, in any units.
    """

    image: NDArray[np.int64]
    box: NDArray[np.int64]
    doubt: Float
    look: Float

    def __post_init__(self) -> None:
        n = len(self.image)
        if self.box.shape != (n, 4) or self.doubt.shape != (n,) or len(self.look) != n:
            raise InputError(f"regions: {n} images, but boxes, doubts or looks of other numbers.")
        if n and not (np.isfinite(self.look).all() and (self.doubt >= 0).all()):
            raise InputError("regions: looks must be finite and doubts not negative.")


def doubt_of(probability: Float, threshold: float | Float = 0.5) -> Float:
    """How undecided a probability is: its entropy in bits, 1 at the threshold, 0 at 0 and 1.

    The log odds are shifted so that the threshold falls on one half.

    >>> doubt_of(np.array([0.0, 0.2, 1.0]), 0.2).round(6).tolist()
    [0.0, 1.0, 0.0]
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-9, 1 - 1e-9)
    t = np.clip(np.asarray(threshold, dtype=np.float64), 1e-9, 1 - 1e-9)
    odds = p / (1 - p) * (1 - t) / t
    q = np.clip(odds / (1 + odds), 1e-12, 1 - 1e-12)
    bits: Float = -(q * np.log2(q) + (1 - q) * np.log2(1 - q))
    return np.where(bits < 1e-6, 0.0, bits)


def windows(shape: tuple[int, int], side: int) -> NDArray[np.int64]:
    """Half-open boxes ``y0 x0 y1 x1`` of a side, every half side, the last ones at the border.

    >>> windows((4, 10), 4).tolist()
    [[0, 0, 4, 4], [0, 2, 4, 6], [0, 4, 4, 8], [0, 6, 4, 10]]
    """
    starts = []
    for n in shape:
        size = min(side, n)
        row = np.arange(0, max(1, n - size + 1), max(1, side // 2))
        starts.append(np.unique(np.append(row, n - size)))
    y, x = (grid.ravel() for grid in np.meshgrid(*starts, indexing="ij"))
    return np.stack([y, x, y + min(side, shape[0]), x + min(side, shape[1])], axis=1)


def choose_regions(regions: Regions, n: int) -> NDArray[np.int64]:
    """Rows of up to n regions, the most informative first; none overlap, none without doubt.

    Greedy: the next is the one with the largest ``doubt * min(1, d / m)``, where d is the distance
    to the nearest one taken, in standardised looks, and m the median distance of any two.

    Parameters
    ----------
    regions
        Candidates.
    n
        How many, at least 1.

    Returns
    -------
    ndarray
        ``(<= n,)`` int64, without repeats.

    Raises
    ------
    CallError
        ``n`` is less than 1.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 4, 4], [0, 2, 4, 6], [0, 9, 4, 13], [0, 20, 4, 24]])
    >>> doubt, look = np.array([3.0, 2.9, 2.8, 1.0]), np.array([[0.0], [0.0], [0.0], [9.0]])
    >>> choose_regions(Regions(np.zeros(4, int), boxes, doubt, look), 2).tolist()
    [0, 3]
    """
    if n < 1:
        raise CallError(f"at least one region is suggested; found n={n}.")
    if not len(regions.doubt):
        return np.zeros(0, dtype=np.int64)
    scale = regions.look.std(axis=0)
    look = regions.look / np.where(scale > 0, scale, 1.0)
    usual = _usual_distance(look)
    worth = regions.doubt.astype(np.float64)
    fresh = np.ones(len(worth))
    taken: list[int] = []
    for _ in range(n):
        gain = worth * fresh
        if gain.max() <= 0:
            break
        best = int(gain.argmax())
        taken.append(best)
        distance = np.linalg.norm(look - look[best], axis=1)
        fresh = np.minimum(fresh, np.clip(distance / usual, 0.05, 1.0))
        worth = np.where(_overlaps(regions, best), 0.0, worth)
    return np.array(taken, dtype=np.int64)


def _usual_distance(look: Float) -> float:
    """Median distance of pairs, of at most 256 evenly chosen rows."""
    rows = look[np.unique(np.linspace(0, max(0, len(look) - 1), 256).astype(np.int64))]
    if len(rows) < 2:
        return 1.0
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)[np.triu_indices(len(rows), 1)]
    middle = float(np.median(apart))
    return middle if middle > 0 else 1.0


def _overlaps(regions: Regions, row: int) -> NDArray[np.bool_]:
    """Which regions share a pixel with one, itself among them."""
    y0, x0, y1, x1 = regions.box.T
    a, b, c, d = regions.box[row]
    found: NDArray[np.bool_] = (
        (regions.image == regions.image[row]) & (y0 < c) & (a < y1) & (x0 < d) & (b < x1)
    )
    return found
