"""Cross-K, L, pair correlation and nearest-neighbour G in a window of any shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import CallError
from nucleoscope.spatial.pairs import (
    MAX_EDGE_WEIGHT,
    Bins,
    PairList,
    pair_sums,
    window_covariance,
)
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.window import SetCovariance, Window

Array = NDArray[np.float64]

CORRECTIONS = ("translation", "border", "isotropic", "none")


def ball(radii: Array, n_dims: int) -> Array:
    """Area of a disc, or volume of a ball, of each radius.

    >>> ball(np.array([1.0]), 2).round(4).tolist()
    [3.1416]
    """
    return np.asarray(math.pi * radii**2 if n_dims == 2 else 4 / 3 * math.pi * radii**3)


@dataclass(frozen=True, eq=False)
class Curves:
    """Cross-K of every ordered pair of types, and what follows from it.

    Parameters
    ----------
    names
        The types.
    radii
        ``(m,)`` float64: the distances, in ``unit``.
    k
        ``(K, K, m)`` float64, in unit squared (cubed in a stack); NaN where a type has too few
        nuclei (none; or one, for the pair with itself).
    n_dims, unit, correction
        Dimensions, unit of length, and edge correction.
    """

    names: tuple[str, ...]
    radii: Array
    k: Array
    n_dims: int
    unit: str
    correction: str

    @property
    def l(self) -> Array:  # noqa: E743  Besag's name for it
        """Besag's L: the radius at which uniform nuclei would have as many neighbours."""
        if self.n_dims == 2:
            return np.asarray(np.sqrt(self.k / math.pi))
        return np.asarray(np.cbrt(3 * self.k / (4 * math.pi)))

    @property
    def pcf(self) -> Array:
        """Pair correlation g, averaged over each bin: 1 for independent types; not for border."""
        return np.diff(self.k, prepend=0.0, axis=-1) / shells(self.radii, self.n_dims)

    def to_frame(self) -> pd.DataFrame:
        """One row per ordered pair and radius: type_a, type_b, r, k, l, l_minus_r, pcf."""
        k, m = len(self.names), len(self.radii)
        return pd.DataFrame(
            {
                "type_a": np.repeat(np.array(self.names, object), k * m),
                "type_b": np.tile(np.repeat(np.array(self.names, object), m), k),
                "r": np.tile(self.radii, k * k),
                "k": self.k.ravel(),
                "l": self.l.ravel(),
                "l_minus_r": (self.l - self.radii).ravel(),
                "pcf": self.pcf.ravel(),
            }
        )


def shells(radii: Array, n_dims: int) -> Array:
    """Area or volume between each radius and the one before (the first starts at 0)."""
    return np.diff(ball(radii, n_dims), prepend=0.0)


def n_pairs(counts: NDArray[np.int64]) -> Array:
    """``(K, K)``: ordered pairs of different nuclei by type, ``n_a n_b`` or ``n_a (n_a - 1)``."""
    a = counts.astype(np.float64)
    return np.outer(a, a) - np.diag(a)


def per_pair(sums: Array, counts: NDArray[np.int64]) -> Array:
    """``sums`` of shape ``(..., K, K, m)`` over the number of pairs; NaN where there is none."""
    pairs = n_pairs(counts)[..., None]
    return np.divide(sums, pairs, out=np.full_like(sums, np.nan), where=pairs > 0)


def k_from_sums(sums: Array, counts: NDArray[np.int64], size: float) -> Array:
    """Cross-K from translation-weighted pair sums with slots ``0..m``.

    ``K_ab(r) = |W|^2 / (n_a n_b) sum_{i in a, j in b, i != j} [d_ij <= r] / gamma_W(x_j - x_i)``.
    """
    return per_pair(np.cumsum(sums, axis=-1)[..., 1:], counts) * size**2


def cross_k(
    pattern: Pattern,
    bins: Bins,
    *,
    correction: str = "translation",
    covariance: SetCovariance | None = None,
    n_jobs: int = 1,
) -> Curves:
    """Ripley's K between every pair of types, corrected for the edge of the tissue.

    ``K_ab(r)`` is the expected number of b nuclei within ``r`` of an a nucleus, per density of b;
    ``pi r^2`` (``4/3 pi r^3`` in a stack) when they are independent and uniform. Estimators as in
    Baddeley, Rubak and Turner 2015, section 7.4, and spatstat's ``Kcross``:

    - ``translation``: pairs weighted by ``|W| / |W and (W + x_j - x_i)|`` (Ohser 1983), at most
      100; for any mask with holes, in two and three dimensions. The overlap is exact for a union
      of pixels.
    - ``border``: only a nuclei further than r from the border. For checking.
    - ``isotropic``: pairs weighted by the part of the circle inside (Ripley 1977). Rectangles only;
      for checking.
    - ``none``: biased low.

    Parameters
    ----------
    pattern
        Nuclei; without a window they get the rectangle of ``Window.around``.
    bins
        The distances. K is biased where ``reach`` is more than about a quarter of the window.
    correction
        One of the above.
    covariance
        ``window_covariance(window, reach)`` when it is at hand.
    n_jobs
        Threads; never changes the result.

    Returns
    -------
    Curves

    Raises
    ------
    CallError
        Unknown correction, or isotropic in a window that is not a rectangle.

    Notes
    -----
    Translation and none stream the pairs: memory does not grow with their number. The other two
    hold a list of pairs.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> window = Window.box((0, 0), (100, 100))
    >>> pattern = Pattern(window.sample(2000, rng), np.zeros(2000), ("any",), window=window)
    >>> curves = cross_k(pattern, Bins(10.0, 5))
    >>> bool(abs(curves.l[0, 0, -1] - 10) < 0.2)
    True
    """
    if correction not in CORRECTIONS:
        raise CallError(f"correction is one of {', '.join(CORRECTIONS)}; found {correction!r}.")
    pattern = pattern.with_window()
    window = pattern.window
    assert window is not None  # noqa: S101  with_window made one
    if correction in ("translation", "none"):
        if correction == "translation" and covariance is None:
            covariance = window_covariance(window, bins.reach)
        sums = pair_sums(pattern, bins, covariance=covariance, n_jobs=n_jobs)
        k = k_from_sums(sums, pattern.counts, window.size)
        k = k / window.size if correction == "none" else k
    elif correction == "border":
        k = _border_k(pattern, window, bins)
    else:
        k = _isotropic_k(pattern, window, bins)
    return Curves(pattern.names, bins.radii, k, pattern.n_dims, pattern.unit, correction)


@dataclass(frozen=True, eq=False)
class _Ends:
    """Every ordered pair, for corrections that look at its first nucleus."""

    i: NDArray[np.int64]
    distance: Array
    slots: NDArray[np.int32]
    types: NDArray[np.int64]

    @classmethod
    def of(cls, pattern: Pattern, bins: Bins) -> _Ends:
        once = PairList.of(pattern, bins)
        assert once is not None  # noqa: S101  no limit was set
        i, j = np.concatenate([once.i, once.j]), np.concatenate([once.j, once.i])
        codes = pattern.codes.astype(np.int64)
        distance = np.sqrt(((pattern.at[i] - pattern.at[j]) ** 2).sum(axis=1))
        types = codes[i] * pattern.n_types + codes[j]
        return cls(i, distance, np.tile(once.slots, 2), types)


def _binned(
    types: NDArray[np.int64], slots: NDArray[np.int32], weights: Array, k: int, n: int
) -> Array:
    flat = np.bincount(types * (n + 1) + slots, weights, k * k * (n + 1))
    return np.asarray(flat.reshape(k, k, n + 1), np.float64)


def _border_k(pattern: Pattern, window: Window, bins: Bins) -> Array:
    """Reduced sample: ``sum_i [b_i >= r] n_b(i, r) / (lambda_b #{i in a: b_i >= r})``."""
    pairs = _Ends.of(pattern, bins)
    types = pairs.types
    border = window.to_border(pattern.at)
    k, n = pattern.n_types, bins.n
    # A pair counts at radii from its distance up to the border distance of its first nucleus.
    last = np.floor((border[pairs.i] - bins.inner) / bins.step).astype(np.int64)
    alive = last >= np.maximum(pairs.slots, 1)
    ones = np.ones(int(alive.sum()))
    enter = _binned(types[alive], pairs.slots[alive], ones, k, n + 1)
    leave_at = np.minimum(last[alive] + 1, n + 1).astype(np.int32)
    leave = _binned(types[alive], leave_at, ones, k, n + 1)
    inside = np.cumsum(enter - leave, axis=-1)[..., 1 : n + 1]
    kept = np.stack(
        [(border[pattern.codes == a][:, None] >= bins.radii).sum(axis=0) for a in range(k)]
    )
    others = n_pairs(pattern.counts) / np.maximum(pattern.counts, 1)[:, None]
    base = kept[:, None, :] * others[:, :, None] / window.size
    return np.asarray(np.divide(inside, base, out=np.full(inside.shape, np.nan), where=base > 0))


def inside_fraction(window: Window, at: Array, radius: Array) -> Array:
    """Part of the circle of ``radius`` around each place that lies in a rectangle (Ripley 1977).

    Each side cuts off an arc of ``2 acos(gap / r)``; two arcs overlap where a corner is inside.
    """
    low, high = at - window.corner, window.corner + window.extent - at
    gaps = np.stack([low[:, 0], low[:, 1], high[:, 0], high[:, 1]])  # neighbours are adjacent sides
    safe = np.maximum(radius, 1e-300)
    arcs = np.arccos(np.clip(gaps / safe, 0.0, 1.0))
    corners = np.maximum(arcs + np.roll(arcs, -1, axis=0) - math.pi / 2, 0.0)
    return np.asarray(1.0 - (2 * arcs - corners).sum(axis=0) / (2 * math.pi))


def _isotropic_k(pattern: Pattern, window: Window, bins: Bins) -> Array:
    if not window.is_box or window.n_dims != 2:
        raise CallError(
            "the isotropic correction is for rectangles in a plane; take correction='translation'."
        )
    pairs = _Ends.of(pattern, bins)
    types = pairs.types
    part = inside_fraction(window, pattern.at[pairs.i], pairs.distance)
    weights = 1.0 / np.maximum(part, 1.0 / MAX_EDGE_WEIGHT)
    sums = _binned(types, pairs.slots, weights, pattern.n_types, bins.n)
    return k_from_sums(sums, pattern.counts, window.size) / window.size


def nearest_distances(pattern: Pattern) -> Array:
    """``(n, K)``: distance from every nucleus to the nearest other nucleus of each type, or inf.

    >>> line = Pattern([[0, 0], [0, 1], [0, 3]], [0, 0, 1], ("a", "b"))
    >>> nearest_distances(line).tolist()
    [[1.0, 3.0], [1.0, 2.0], [2.0, inf]]
    """
    from scipy.spatial import cKDTree

    result = np.full((len(pattern), pattern.n_types), np.inf)
    for code in range(pattern.n_types):
        own = pattern.codes == code
        if not own.any():
            continue
        tree = cKDTree(pattern.at[own])
        result[~own, code] = tree.query(pattern.at[~own])[0]
        if own.sum() > 1:
            result[own, code] = tree.query(pattern.at[own], 2)[0][:, 1]
    return result


def _kaplan_meier(distance: Array, border: Array, radii: Array) -> Array:
    """1 - survival, when a nucleus is lost from view at its distance to the border."""
    time = np.minimum(distance, border)
    event = distance <= border
    order = np.lexsort((~event, time))
    at_risk = np.arange(len(time), 0, -1)
    survival = np.cumprod(1.0 - event[order] / at_risk)
    index = np.searchsorted(time[order], radii, side="right")
    return np.asarray(1.0 - np.concatenate([[1.0], survival])[index])


def nearest_g(pattern: Pattern, bins: Bins, *, correction: str = "km") -> Array:
    """Distribution of the distance from each a nucleus to the nearest b nucleus.

    Parameters
    ----------
    pattern
        Nuclei; without a window they get the rectangle of ``Window.around``.
    bins
        The distances.
    correction
        ``"km"``: Kaplan-Meier, a nucleus whose nearest may lie beyond the border counts as censored
        there (Baddeley and Gill 1997); ``"border"``: reduced sample; ``"none"``.

    Returns
    -------
    (K, K, m) float64
        In [0, 1]; NaN where a type has too few nuclei.

    Examples
    --------
    >>> line = Pattern([[0, 0], [0, 1], [0, 3]], [0, 0, 1], ("a", "b"))
    >>> nearest_g(line, Bins(3.0, 3), correction="none")[0, 1].tolist()
    [0.0, 0.5, 1.0]
    """
    if correction not in ("km", "border", "none"):
        raise CallError(f"correction is km, border or none; found {correction!r}.")
    pattern = pattern.with_window()
    assert pattern.window is not None  # noqa: S101  with_window made one
    distance = nearest_distances(pattern)
    border = np.full(len(pattern), np.inf)
    if correction != "none":
        border = pattern.window.to_border(pattern.at)
    k, radii = pattern.n_types, bins.radii
    result = np.full((k, k, bins.n), np.nan)
    pairs = n_pairs(pattern.counts)
    for a, b in zip(*np.nonzero(pairs > 0), strict=True):
        own = pattern.codes == a
        if correction == "border":
            seen = border[own][:, None] >= radii
            hit = (seen & (distance[own, b][:, None] <= radii)).sum(axis=0)
            kept = seen.sum(axis=0)
            result[a, b] = np.divide(hit, kept, out=np.full(bins.n, np.nan), where=kept > 0)
        else:
            result[a, b] = _kaplan_meier(distance[own, b], border[own], radii)
    return result
