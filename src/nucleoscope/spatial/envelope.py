"""Curves against simulations: one p per curve, and the envelope that shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import CallError, ResourceError
from nucleoscope.seeds import generator
from nucleoscope.spatial.enrichment import benjamini_hochberg
from nucleoscope.spatial.labelling import DRAWS, LabellingTest, PairMoments
from nucleoscope.spatial.nulls import Null, null_model
from nucleoscope.spatial.pairs import Bins, PairList, pair_sums, window_covariance
from nucleoscope.spatial.parallel import pieces, spread, stream_seeds
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.relabel import BATCH, Relabelling
from nucleoscope.spatial.ripley import (
    ball,
    k_from_sums,
    n_pairs,
    nearest_g,
    per_pair,
    shells,
)
from nucleoscope.spatial.window import SetCovariance, Window

Array = NDArray[np.float64]

#: Relabelling keeps its pairs in memory up to this many; beyond, it streams them again each time.
MAX_LISTED_PAIRS = 20_000_000
#: Fewer simulations than this cannot give a p of 0.05.
FEWEST = 19
#: Simulated curves may take this many bytes.
MAX_BYTES = 4_000_000_000


def global_envelope(
    observed: Array, simulated: Array, *, level: float = 0.95
) -> tuple[Array, Array, Array]:
    """Global envelope test by extreme rank length.

    At every distance each curve gets its rank from the nearer end; a curve's ranks, sorted, are
    compared with the others' like words in a dictionary (Myllymäki et al. 2017, JRSS B 79, section
    4; Mrkvička et al. 2020). ``p`` is the part of all curves that are at least as extreme as the
    observed one, itself included, ties counted against it. The envelope spans the curves that are
    not among the ``1 - level`` most extreme: the observed curve leaves it exactly when
    ``p <= 1 - level``.

    Parameters
    ----------
    observed
        ``(..., m)`` float64: the curves.
    simulated
        ``(s, ..., m)``: the same curves in each simulation.
    level
        Of the envelope.

    Returns
    -------
    p, low, high
        ``(...)``, ``(..., m)``, ``(..., m)``; NaN where a curve is not defined.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> simulated = rng.normal(size=(99, 1, 20))
    >>> p, low, high = global_envelope(np.full((1, 20), 5.0), simulated)
    >>> float(p[0])
    0.01
    """
    curves = np.concatenate([observed[None], simulated])
    total, lead, m = len(curves), observed.shape[:-1], observed.shape[-1]
    flat = curves.reshape(total, -1, m)
    p = np.full(flat.shape[1], np.nan)
    low, high = np.full(flat.shape[1:], np.nan), np.full(flat.shape[1:], np.nan)
    ends = _ranks_from_the_end(flat.reshape(total, -1)).reshape(flat.shape)
    for c in range(flat.shape[1]):
        defined = np.isfinite(flat[:, c]).all(axis=0)
        if not defined.any():
            continue
        one = flat[:, c][:, defined]
        place = _extremeness(ends[:, c][:, defined])
        p[c] = (place <= place[0]).sum() / total
        inside = one[_share(place) > 1 - level]
        inside = inside if len(inside) else one
        low[c, defined], high[c, defined] = inside.min(axis=0), inside.max(axis=0)
    return p.reshape(lead), low.reshape(*lead, m), high.reshape(*lead, m)


def _ranks_from_the_end(values: Array) -> Array:
    """``(s, m)``: rank of each value in its column from the nearer end; NaN stays NaN."""
    size = np.abs(values).max(axis=0)
    # Sums of the same pairs in another order differ in their last bits; those are ties.
    rank = _mean_ranks(np.round(values / np.where(size > 0, size, 1.0), 10))
    return np.where(np.isnan(size), np.nan, np.minimum(rank, len(values) + 1 - rank))


def _mean_ranks(values: Array) -> Array:
    """Rank of each value in its column, from 1; ties share the mean of theirs."""
    order = np.argsort(values, axis=0, kind="stable")
    ascending = np.take_along_axis(values, order, axis=0)
    place = np.arange(len(values))[:, None]
    fresh = np.diff(ascending, axis=0) != 0
    edge = np.ones((1, values.shape[1]), bool)
    first = np.maximum.accumulate(np.where(np.concatenate([edge, fresh]), place, 0), axis=0)
    ends = np.where(np.concatenate([fresh, edge]), place, len(values))
    last = np.minimum.accumulate(ends[::-1], axis=0)[::-1]
    rank = np.empty(values.shape)
    np.put_along_axis(rank, order, 1 + (first + last) / 2, axis=0)
    return rank


def _extremeness(ends: Array) -> NDArray[np.int64]:
    """Dense place of each curve, 0 = most extreme; curves with equal ranks share a place."""
    words = np.sort(ends, axis=1)
    order = np.lexsort(words.T[::-1])
    fresh = np.concatenate([[False], (np.diff(words[order], axis=0) != 0).any(axis=1)])
    place = np.empty(len(ends), np.int64)
    place[order] = np.cumsum(fresh)
    return place


def _share(place: NDArray[np.int64]) -> Array:
    """Part of the curves at least as extreme as each one: its own p."""
    return np.asarray(np.cumsum(np.bincount(place))[place] / len(place), np.float64)


@dataclass(frozen=True, eq=False)
class CurveTest:
    """Curves of every ordered pair of types with their global envelopes.

    Parameters
    ----------
    names, radii, unit
        The types; ``(m,)`` distances; their unit.
    statistic, null
        What was computed and against what.
    observed, expected, low, high
        ``(K, K, m)`` float64: the curve, the mean of the simulations, the 95 % global envelope.
    theory
        ``(K, K, m)``: the value under complete spatial randomness.
    p, q
        ``(K, K)``: one p per curve, and its Benjamini-Hochberg value.
    n_simulations
        How many; the smallest p is 1 / (n_simulations + 1). In closed form 1 / 2000.
    by_simulation
        ``(K, K)`` bool: the curve was simulated, not judged in closed form.
    """

    names: tuple[str, ...]
    radii: Array
    unit: str
    statistic: str
    null: str
    observed: Array
    expected: Array
    low: Array
    high: Array
    theory: Array
    p: Array
    q: Array
    n_simulations: int
    by_simulation: NDArray[np.bool_]

    def to_frame(self) -> pd.DataFrame:
        """One row per ordered pair and distance."""
        k, m = len(self.names), len(self.radii)
        names = np.array(self.names, object)
        return pd.DataFrame(
            {
                "statistic": self.statistic,
                "null": self.null,
                "type_a": np.repeat(names, k * m),
                "type_b": np.tile(np.repeat(names, m), k),
                "r": np.tile(self.radii, k * k),
                "observed": self.observed.ravel(),
                "expected": self.expected.ravel(),
                "low": self.low.ravel(),
                "high": self.high.ravel(),
                "theory": self.theory.ravel(),
                "p": np.repeat(self.p.ravel(), m),
                "q": np.repeat(self.q.ravel(), m),
                "method": np.repeat(
                    np.where(self.by_simulation, "simulation", "closed form").ravel(), m
                ).astype(object),
            }
        )


@dataclass(frozen=True, eq=False)
class _Setting:
    """What a curve needs besides the pattern."""

    bins: Bins
    window: Window
    covariance: SetCovariance | None


Curve = Callable[[Array, Pattern, _Setting], Array]


def _k_curve(sums: Array, pattern: Pattern, setting: _Setting) -> Array:
    return k_from_sums(sums, pattern.counts, setting.window.size)


def _pcf_curve(sums: Array, pattern: Pattern, setting: _Setting) -> Array:
    k = _k_curve(sums, pattern, setting)
    return np.diff(k, prepend=0.0, axis=-1) / shells(setting.bins.radii, pattern.n_dims)


def co_occurrence_ratio(sums: Array) -> Array:
    """``p(b within r of a) / p(b within r of any)`` from plain pair sums ``(..., K, K, m + 1)``.

    >>> co_occurrence_ratio(np.ones((2, 2, 2)))[0, 1].tolist()
    [1.0]
    """
    within = np.cumsum(sums, axis=-1)[..., 1:]
    around = within.sum(axis=-2, keepdims=True)
    overall = within.sum(axis=-3, keepdims=True)
    both = around * overall
    total = overall.sum(axis=-2, keepdims=True)
    empty = np.full_like(within, np.nan)
    return np.asarray(np.divide(within * total, both, out=empty, where=both > 0))


def _co_occurrence_curve(sums: Array, pattern: Pattern, setting: _Setting) -> Array:
    return co_occurrence_ratio(sums)


#: Curves made from pair sums: name -> function.
PAIR_CURVES: dict[str, Curve] = {
    "k": _k_curve,
    "pcf": _pcf_curve,
    "co_occurrence": _co_occurrence_curve,
}
CURVES = (*PAIR_CURVES, "g")


def curve_test(
    pattern: Pattern,
    bins: Bins,
    statistic: str = "k",
    *,
    null: str = "csr",
    n_simulations: int = 199,
    seed: int = 0,
    n_jobs: int = 1,
) -> CurveTest:
    """Test the curves of every pair of types against a null, one p per curve.

    Nulls are simulated, but for ``"labelling-exact"``: random labelling with the exact mean and
    covariance of k and pcf over distances, whose largest standardised deviation is compared with
    that of normal curves. It takes a curve where 10 pairs or more are expected; curves with fewer
    at every distance, and other statistics, are simulated. ``by_simulation`` tells.

    Parameters
    ----------
    pattern
        Nuclei; without a window they get the rectangle of ``Window.around``.
    bins
        Distances.
    statistic
        ``"k"`` (cross-K, translation correction; L is a monotone function of it and has the same
        p), ``"pcf"``, ``"g"`` (Kaplan-Meier) or ``"co_occurrence"`` (uncorrected, as in squidpy).
    null
        A name in ``NULLS``. ``"shift"`` says nothing about a type and itself: those are NaN. In a
        mask it is for k and pcf only and approximate: of 300 pairs of independent clustered types
        7.7 % had p <= 0.05 (6.0 % in a rectangle, where it is exact). Its p of g was found not to
        be uniform there and is refused.
    n_simulations
        The more, the smaller a p can be; 199 at least for a level of 5 %.
    seed, n_jobs
        Every simulation has a generator of its own; the number of jobs changes nothing.

    Returns
    -------
    CurveTest

    Raises
    ------
    CallError
        Unknown statistic or null, a null that does not fit the statistic in this window, or fewer
        than 19 simulations.
    ResourceError
        The simulated curves would not fit in memory.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> window = Window.box((0, 0), (100, 100))
    >>> a = window.sample(100, rng)
    >>> b = np.clip(a + rng.normal(0, 1, a.shape), 0, 100)
    >>> pattern = Pattern(np.concatenate([a, b]), np.repeat([0, 1], 100), ("a", "b"), window=window)
    >>> test = curve_test(pattern, Bins(10.0, 10), null="shift", n_simulations=99)
    >>> float(test.p[0, 1])
    0.01
    """
    if statistic not in CURVES:
        raise CallError(f"no curve {statistic!r}; there are {', '.join(CURVES)}.")
    if n_simulations < FEWEST:
        raise CallError(f"an envelope needs {FEWEST} simulations or more; found {n_simulations}.")
    model = null_model(null)
    k = pattern.n_types * (2 if model.is_paired else 1)
    if 8 * n_simulations * k * k * bins.n > MAX_BYTES:
        raise ResourceError(
            f"{n_simulations} simulations of {k * k} curves do not fit in memory; take fewer types."
        )
    pattern = pattern.with_window()
    assert pattern.window is not None  # noqa: S101  with_window made one
    if model.is_paired and statistic not in ("k", "pcf") and not pattern.window.is_box:
        raise CallError(
            f"the null {null!r} of {statistic!r} is for rectangles; in a mask take k or pcf."
        )
    corrected = statistic in ("k", "pcf")
    covariance = window_covariance(pattern.window, bins.reach) if corrected else None
    setting = _Setting(bins, pattern.window, covariance)
    looked_at = model.observe(pattern, generator(seed, n_simulations)) if model.observe else pattern
    observed = _drawn_curve(looked_at, pattern.n_types, statistic, setting)
    exact = None
    if null == "labelling-exact":
        pattern = replace(pattern, strata=None)
        exact = _closed_form(pattern, statistic, setting, observed, seed)
        if exact is not None and not exact.by_simulation.any():
            return exact
    simulated = _simulate(pattern, statistic, setting, null, n_simulations, seed, n_jobs)
    if model.is_paired:
        off = np.eye(pattern.n_types, dtype=bool)
        observed = np.where(off[..., None], np.nan, observed)
    found = _judge(pattern, setting, statistic, null, observed, simulated)
    return found if exact is None else _filled(exact, found)


def _closed_form(
    pattern: Pattern, statistic: str, setting: _Setting, observed: Array, seed: int
) -> CurveTest | None:
    """The test without simulations; None for statistics that have none.

    ``by_simulation`` marks the curves that are defined but have too few pairs for it.
    """
    if statistic not in ("k", "pcf") or len(pattern) < 2:
        return None
    counts = pattern.counts
    scale = per_pair(np.ones((*observed.shape[:-1], 1)), counts) * setting.window.size**2
    if statistic == "pcf":
        scale = scale / shells(setting.bins.radii, pattern.n_dims)
    sums = PairMoments.of(pattern, setting.bins, setting.covariance)
    test = LabellingTest.of(sums, counts, observed / scale, by_shell=statistic == "pcf", seed=seed)
    return CurveTest(
        pattern.names, setting.bins.radii, pattern.unit, statistic, "labelling-exact",
        observed, test.expected * scale, test.low * scale, test.high * scale,
        _theory(pattern, statistic, setting), test.p, _discoveries(test.p), DRAWS,
        np.isnan(test.p) & (n_pairs(counts) > 0),
    )  # fmt: skip


def _filled(exact: CurveTest, found: CurveTest) -> CurveTest:
    """Closed form where there is one, simulation for the rest."""
    some = exact.by_simulation
    p = np.where(some, found.p, exact.p)
    expected, low, high = (
        np.where(some[..., None], getattr(found, name), getattr(exact, name))
        for name in ("expected", "low", "high")
    )
    return replace(exact, expected=expected, low=low, high=high, p=p, q=_discoveries(p))


def _discoveries(p: Array) -> Array:
    return benjamini_hochberg(p.ravel()).reshape(p.shape)


def _simulate(
    pattern: Pattern,
    statistic: str,
    setting: _Setting,
    null: str,
    n: int,
    seed: int,
    n_jobs: int,
) -> Array:
    """``(n, K, K, m)``: simulated curves; relabellings look their pairs up once where they fit."""
    model = null_model(null)
    if null.startswith("labelling") and statistic in PAIR_CURVES and len(pattern) > 1:
        model.simulate(pattern, generator(seed))  # says so when strata are missing
        pattern = replace(pattern, strata=None) if null == "labelling" else pattern
        pairs = PairList.of(pattern, setting.bins, MAX_LISTED_PAIRS)
        if pairs is not None:
            return _relabelled_curves(pattern, statistic, setting, pairs, n, seed, n_jobs)
    return _simulated_curves(pattern, statistic, setting, model, n, seed, n_jobs)


def _curve(pattern: Pattern, statistic: str, setting: _Setting) -> Array:
    if statistic == "g":
        return nearest_g(pattern, setting.bins)
    sums = pair_sums(pattern, setting.bins, covariance=setting.covariance)
    return PAIR_CURVES[statistic](sums, pattern, setting)


def _simulated_curves(
    pattern: Pattern, statistic: str, setting: _Setting, model: Null, n: int, seed: int, n_jobs: int
) -> Array:
    """``(n, K, K, m)``: the curve of each simulated pattern."""

    def work(number: int) -> Array:
        drawn = model.simulate(pattern, generator(seed, number))
        return _drawn_curve(drawn, pattern.n_types, statistic, setting)

    return np.stack(spread(work, range(n), n_jobs))


def _drawn_curve(drawn: Pattern, n_types: int, statistic: str, setting: _Setting) -> Array:
    """The curve of a drawn pattern; placed against moved types where it holds them twice."""
    assert drawn.window is not None  # noqa: S101  simulated patterns have one
    if drawn.window is not setting.window:
        covariance = setting.covariance and window_covariance(drawn.window, setting.bins.reach)
        setting = _Setting(setting.bins, drawn.window, covariance)
    curve = _curve(drawn, statistic, setting)
    return curve[:n_types, n_types:] if drawn.n_types > n_types else curve


def _relabelled_curves(
    pattern: Pattern,
    statistic: str,
    setting: _Setting,
    pairs: PairList,
    n: int,
    seed: int,
    n_jobs: int,
) -> Array:
    """As ``_simulated_curves`` for relabellings: pairs and weights are found once."""
    weights = None if setting.covariance is None else pairs.weights(setting.covariance)
    placed = _sorted(pattern, pairs)
    dealt = Relabelling.of(placed, pairs.start, pairs.end, weights, pairs.firsts)
    seeds = stream_seeds(seed, n)

    def work(part: slice) -> Array:
        half = dealt.sums(seeds[part])
        return PAIR_CURVES[statistic](half + half.transpose(0, 2, 1, 3), pattern, setting)

    return np.concatenate(spread(work, pieces(n, BATCH), n_jobs))


def _sorted(pattern: Pattern, pairs: PairList) -> Pattern:
    """The pattern in the order of the pairs' grid: neighbours in space are neighbours in memory."""
    order = pairs.grid.order
    strata = None if pattern.strata is None else pattern.strata[order]
    return replace(pattern, at=pattern.at[order], codes=pattern.codes[order], strata=strata)


def _theory(pattern: Pattern, statistic: str, setting: _Setting) -> Array:
    k, m = pattern.n_types, setting.bins.n
    area = ball(setting.bins.radii, pattern.n_dims)
    if statistic == "k":
        return np.broadcast_to(area, (k, k, m))
    if statistic == "g":
        density = pattern.counts / setting.window.size
        return np.broadcast_to(1.0 - np.exp(-density[:, None] * area), (k, k, m))
    return np.ones((k, k, m))


def _judge(
    pattern: Pattern,
    setting: _Setting,
    statistic: str,
    null: str,
    observed: Array,
    simulated: Array,
) -> CurveTest:
    p, low, high = global_envelope(observed, simulated)
    expected = np.where(np.isfinite(observed), simulated.mean(axis=0), np.nan)
    theory = _theory(pattern, statistic, setting)
    return CurveTest(
        pattern.names, setting.bins.radii, pattern.unit, statistic, null,
        observed, expected, low, high, theory, p, _discoveries(p), len(simulated),
        np.ones(p.shape, bool),
    )  # fmt: skip
