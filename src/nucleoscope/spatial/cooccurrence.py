"""Co-occurrence of types within growing distances, from close neighbours to the whole slide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import CallError
from nucleoscope.spatial.envelope import co_occurrence_ratio
from nucleoscope.spatial.pairs import Bins, pair_sums
from nucleoscope.spatial.pattern import Pattern

#: More pairs than this are not visited one by one when the method is chosen by itself.
MAX_EXACT_PAIRS = 3_000_000_000
#: Pairs that the raster method still visits one by one, at short distances.
NEAR_PAIRS = 40_000_000
#: Cells along the longer side of the raster.
RASTER_SIDE = 1024
#: Beyond this many raster cells the raster is as good as the pairs.
FAR_CELLS = 16


@dataclass(frozen=True, eq=False)
class CoOccurrence:
    """``ratio[a, b, k] = p(b within radii[k] of a) / p(b within radii[k] of any nucleus)``.

    Parameters
    ----------
    names
        The types.
    radii
        ``(m,)`` float64, in ``unit``.
    ratio
        ``(K, K, m)`` float64, symmetric; NaN where a type has no nucleus within that distance.
    unit
        ``"um"`` or ``"px"``.
    is_exact
        False when far pairs were counted on a raster.
    """

    names: tuple[str, ...]
    radii: NDArray[np.float64]
    ratio: NDArray[np.float64]
    unit: str
    is_exact: bool

    def to_frame(self) -> pd.DataFrame:
        """One row per ordered pair and radius."""
        k, m = len(self.names), len(self.radii)
        names = np.array(self.names, object)
        return pd.DataFrame(
            {
                "type_a": np.repeat(names, k * m),
                "type_b": np.tile(np.repeat(names, m), k),
                "r": np.tile(self.radii, k * k),
                "ratio": self.ratio.ravel(),
            }
        )


def co_occurrence(
    pattern: Pattern, bins: Bins, *, method: str = "auto", n_jobs: int = 1
) -> CoOccurrence:
    """Co-occurrence ratio of every pair of types within growing distances.

    As in squidpy (Palla et al. 2022): all pairs at most ``r`` apart count, from distance 0 on.

    Parameters
    ----------
    pattern
        Nuclei; a window plays no part.
    bins
        Distances.
    method
        ``"exact"`` visits every pair within reach. ``"raster"`` (in a plane) counts nuclei per type
        on a grid of 1024 cells and gets all far pairs by FFT correlation in O(K^2 M log M) whatever
        the number of nuclei; the close ones are still visited. ``"auto"`` takes the raster beyond
        three billion pairs.
    n_jobs
        Threads; never changes the result.

    Returns
    -------
    CoOccurrence

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> pattern = Pattern(rng.random((500, 2)), np.arange(500) % 2, ("a", "b"))
    >>> ratio = co_occurrence(pattern, Bins(0.5, 5)).ratio
    >>> bool(np.abs(ratio - 1).max() < 0.1)
    True
    """
    if method not in ("auto", "exact", "raster"):
        raise CallError(f"method is auto, exact or raster; found {method!r}.")
    if method == "raster" and pattern.n_dims != 2:
        raise CallError("the raster method is for planes; take method='exact' in a stack.")
    if method == "auto":
        is_large = _expected_pairs(pattern, bins.reach) > MAX_EXACT_PAIRS
        method = "raster" if is_large and pattern.n_dims == 2 else "exact"
    if method == "exact":
        sums = pair_sums(pattern, bins, n_jobs=n_jobs)
    else:
        sums = _raster_sums(pattern, bins, n_jobs)
    ratio = co_occurrence_ratio(sums)
    return CoOccurrence(pattern.names, bins.radii, ratio, pattern.unit, method == "exact")


def _expected_pairs(pattern: Pattern, reach: float) -> float:
    """Pairs within reach if the nuclei were uniform in their bounding box."""
    n = len(pattern)
    if n < 2:
        return 0.0
    extent = np.maximum(np.ptp(pattern.at, axis=0), 1e-300)
    share = np.minimum(2 * reach / extent, 1.0).prod() * math.pi / 4
    return n * (n - 1) / 2 * float(share)


def _near_reach(pattern: Pattern, bins: Bins, cell: float) -> float:
    """Distance up to which pairs are visited: whole bins, or part of the first."""
    area = float(np.prod(np.maximum(np.ptp(pattern.at, axis=0), cell)))
    affordable = math.sqrt(2 * NEAR_PAIRS * area / math.pi) / len(pattern)
    near = min(affordable, FAR_CELLS * cell, bins.reach)
    n_whole = math.floor((near - bins.inner) / bins.step)
    return bins.inner + n_whole * bins.step if n_whole >= 1 else near


def _near_sums(pattern: Pattern, bins: Bins, near: float, n_jobs: int) -> NDArray[np.float64]:
    """Sums of the pairs at most ``near`` apart, in the slots of ``bins``."""
    k = pattern.n_types
    sums = np.zeros((k, k, bins.n + 1))
    n_whole = round((near - bins.inner) / bins.step)
    if n_whole >= 1:
        part = Bins(near, n_whole, bins.inner)
        sums[..., : n_whole + 1] = pair_sums(pattern, part, n_jobs=n_jobs)
    elif near > 0:
        found = pair_sums(pattern, Bins(near, 1), n_jobs=n_jobs).sum(axis=-1)
        sums[..., 0 if near <= bins.inner else 1] = found
    return sums


def _raster_sums(pattern: Pattern, bins: Bins, n_jobs: int) -> NDArray[np.float64]:
    """Pair sums in the slots of ``bins``: near pairs visited, far ones by correlation."""
    from scipy.fft import irfft2, next_fast_len, rfft2

    low = pattern.at.min(axis=0)
    extent = np.maximum(np.ptp(pattern.at, axis=0), 1e-300)
    cell = float(extent.max()) / RASTER_SIDE
    near = _near_reach(pattern, bins, cell)
    sums = _near_sums(pattern, bins, near, n_jobs)
    shape = np.floor(extent / cell).astype(int) + 1
    lags = np.minimum(math.ceil(bins.reach / cell), shape - 1)
    padded = tuple(next_fast_len(int(n), real=True) for n in shape + lags)
    index = np.minimum(((pattern.at - low) / cell).astype(np.int64), shape - 1)
    flat = index[:, 0] * padded[1] + index[:, 1]
    spectra = [
        rfft2(
            np.bincount(flat[pattern.codes == code], minlength=padded[0] * padded[1])
            .reshape(padded)
            .astype(np.float32)
        )
        for code in range(pattern.n_types)
    ]
    chosen, slots = _lag_slots(lags, padded, cell, bins, near)
    for a in range(pattern.n_types):
        for b in range(a, pattern.n_types):
            pairs = irfft2(spectra[a] * np.conj(spectra[b]), padded).ravel()[chosen]
            far = np.bincount(slots, pairs, bins.n + 1)
            sums[a, b] += far
            if a != b:
                sums[b, a] += far
    return sums


def _lag_slots(
    lags: NDArray[np.int64], padded: tuple[int, ...], cell: float, bins: Bins, near: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat places of the far lags in a circular correlation, and the slot of each."""
    dy, dx = (np.arange(-n, n + 1) for n in lags)
    distance = cell * np.sqrt(dy[:, None] ** 2.0 + dx[None, :] ** 2.0)
    slot = np.maximum(np.ceil((distance - bins.inner) / bins.step), 0).astype(np.int64)
    far = (distance > near) & (slot <= bins.n)
    place = (dy % padded[0])[:, None] * padded[1] + (dx % padded[1])[None, :]
    return place[far], slot[far]
