"""Curves under random labelling in closed form: nothing is dealt out again.

Enrichment has the exact mean and variance of its counts; here the same algebra gives the exact
covariance of a curve's values at two distances, and the curve is then taken for a normal one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import ResourceError
from nucleoscope.seeds import generator
from nucleoscope.spatial.kernels import shell_strengths
from nucleoscope.spatial.pairs import Bins, PairList
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.ripley import n_pairs
from nucleoscope.spatial.window import SetCovariance

Array = NDArray[np.float64]

#: Distances up to which fewer pairs than this are expected are not judged: no normal there.
MIN_EXPECTED_PAIRS = 10.0
#: Draws of the normal curves; the smallest p is one over this plus one.
DRAWS = 1999
#: Pairs that are held in memory, at 16 bytes each.
MAX_PAIRS = 200_000_000


@dataclass(frozen=True, eq=False)
class PairMoments:
    """Sums over pairs of nuclei that the first two moments of all curves need.

    Parameters
    ----------
    number
        ``(m,)``: unordered pairs within each distance.
    total, squares
        ``(m,)``: their weights and squared weights, each pair in both directions.
    shared
        ``(m, m)``: ``sum_i s_i(r) s_i(r')`` with ``s_i(r)`` the weights of all pairs of nucleus i
        within r.
    """

    number: Array
    total: Array
    squares: Array
    shared: Array

    @classmethod
    def of(cls, pattern: Pattern, bins: Bins, covariance: SetCovariance | None) -> PairMoments:
        """Sums of a pattern's pairs, weighted by the translation correction when it is given.

        Raises
        ------
        ResourceError
            More pairs than fit in memory.
        """
        pairs = PairList.of(pattern, bins, MAX_PAIRS)
        if pairs is None:
            raise ResourceError(
                f"{pattern.image}: more than {MAX_PAIRS:,} pairs within {bins.reach:g} "
                f"{pattern.unit}; take a shorter reach or the null 'labelling'."
            )
        weights = np.ones(len(pairs.start)) if covariance is None else pairs.weights(covariance)
        shells = shell_strengths(pairs.start, pairs.end, weights, pairs.firsts, len(pattern))
        strengths = np.cumsum(shells, axis=0)[1:]
        last = pairs.firsts[2:]
        total, squares = (
            np.concatenate([[0.0], np.cumsum(values)])[last] for values in (weights, weights**2)
        )
        return cls(last.astype(float), 2 * total, 2 * squares, strengths @ strengths.T)

    @cached_property
    def overlaps(self) -> tuple[Array, Array, Array]:
        """``(m, m)`` each: products of weights of pairs that share two nuclei, one, or none."""
        index = np.arange(len(self.total))
        both = self.squares[np.minimum(index[:, None], index)]
        one = self.shared - both
        return both, one, np.outer(self.total, self.total) - 2 * both - 4 * one


def _falling(n: Array | float, k: int) -> Array:
    """``n (n - 1) ... (n - k + 1)``."""
    return np.asarray(reduce(lambda value, i: value * (n - i), range(1, k), n), np.float64)


def curve_moments(sums: PairMoments, a: int, b: int, n: int, *, same: bool) -> tuple[Array, Array]:
    """Mean ``(m,)`` and covariance ``(m, m)`` over distances of a curve's pair sums.

    ``T_ab(r) = sum_{i != j} w_ij [d_ij <= r] [type i = a] [type j = b]`` when ``n`` labels, ``a``
    and ``b`` of the two types, are dealt out at random. A pair within r and a pair within r' share
    two, one or no nuclei; how often is read off ``sums``, because pairs within the smaller distance
    are among those within the larger. Cross terms in which a nucleus needs two types vanish.
    """
    first, second = float(a), float(b)

    def chance(different: float, equal: Array | float, k: int) -> float:
        whole = float(_falling(float(n), k))
        return (float(equal) if same else different) / whole if whole > 0 else 0.0

    p2 = chance(first * second, _falling(first, 2), 2)
    p_out = chance(first * second * (second - 1), _falling(first, 3), 3)
    p_in = chance(first * (first - 1) * second, _falling(first, 3), 3)
    p_through = chance(0.0, _falling(first, 3), 3)
    p4 = chance(float(_falling(first, 2) * _falling(second, 2)), _falling(first, 4), 4)
    both, one, none = sums.overlaps
    moment = (1 + same) * p2 * both + (p_out + p_in + 2 * p_through) * one + p4 * none
    mean = p2 * sums.total
    return mean, moment - np.outer(mean, mean)


@dataclass(frozen=True, eq=False)
class LabellingTest:
    """Curves of pair sums against their closed-form null; all symmetric in the two types.

    Parameters
    ----------
    p
        ``(K, K)``: NaN where fewer than 10 pairs are expected at every distance.
    expected, low, high
        ``(K, K, m)``: exact mean, and the 95 % global envelope; NaN at distances not judged.
    """

    p: Array
    expected: Array
    low: Array
    high: Array

    @classmethod
    def of(
        cls,
        sums: PairMoments,
        counts: NDArray[np.int64],
        observed: Array,
        *,
        by_shell: bool = False,
        seed: int = 0,
    ) -> LabellingTest:
        """Test ``(K, K, m)`` pair sums, up to each distance or, ``by_shell``, between distances.

        A value's distance from its mean is put on the normal scale (``_score``). The largest of a
        curve over all distances is compared with that of draws from the normal distribution with
        the curve's exact correlations: the studentised maximum test of Myllymäki et al. 2017
        (JRSS B 79, section 3), so the curve leaves the envelope exactly when its p is below 0.05.
        """
        k, m = len(counts), observed.shape[-1]
        test = cls(np.full((k, k), np.nan), *(np.full((k, k, m), np.nan) for _ in range(3)))
        draws = generator(seed).standard_normal((m, DRAWS), dtype=np.float32)
        for a, b in zip(*np.nonzero(np.triu(n_pairs(counts))), strict=True):
            mean, covariance = curve_moments(
                sums, int(counts[a]), int(counts[b]), int(counts.sum()), same=a == b
            )
            number = sums.number
            if by_shell:
                number, mean = np.diff(number, prepend=0.0), np.diff(mean, prepend=0.0)
                covariance = np.diff(covariance, prepend=0.0, axis=0)
                covariance = np.diff(covariance, prepend=0.0, axis=1)
            share = counts[a] * (counts[b] - (a == b)) / (counts.sum() * (counts.sum() - 1.0))
            judged = number * share * (1 if a == b else 2) >= MIN_EXPECTED_PAIRS
            one = _judge(observed[a, b], mean, covariance, judged, draws)
            for i, j in ((a, b), (b, a)):
                test.p[i, j], test.low[i, j], test.high[i, j] = one
                test.expected[i, j] = mean
        return test


def _judge(
    observed: Array,
    mean: Array,
    covariance: Array,
    judged: NDArray[np.bool_],
    draws: NDArray[np.float32],
) -> tuple[float, Array, Array]:
    """Judge one curve: its p and envelope; p is 1 where labels cannot change it."""
    low, high = (np.where(judged, mean, np.nan) for _ in range(2))
    if not judged.any():
        return np.nan, low, high
    # Differences of numbers near mean^2: below their rounding error the sum cannot vary.
    varies = judged & (np.diag(covariance) > 1e-12 * mean**2)
    if not varies.any():
        return 1.0, low, high
    mean, sd = mean[varies], np.sqrt(np.diag(covariance)[varies])
    # Neighbouring distances may be all but equal; the ridge keeps their correlations definite.
    correlation = covariance[np.ix_(varies, varies)] / np.outer(sd, sd)
    root = np.linalg.cholesky(correlation + 1e-5 * np.eye(len(sd))).astype(np.float32)
    largest = np.abs(root @ draws[: len(sd)]).max(axis=0)
    score = np.abs(_score((observed[varies] - mean) / sd, sd / mean)).max()
    p = float((1 + (largest >= score).sum()) / (len(largest) + 1))
    rank = int(0.05 * (len(largest) + 1))
    limit = float(np.partition(largest, -rank)[-rank])
    low[varies] = mean + sd * _value(-limit, sd / mean)
    high[varies] = mean + sd * _value(limit, sd / mean)
    return p, low, high


def _score(z: Array, skew: Array) -> Array:
    """Standard deviations to normal scores, for a gamma variable of this skewness.

    Sums of pairs lean to the right. When they are few and independent, like Poisson counts, their
    skewness is their standard deviation over their mean; it vanishes as they grow. The cube root
    makes such a variable normal (Wilson and Hilferty 1931).
    """
    root = np.cbrt(1 + z * skew / 2)
    return np.asarray((root - 1 + skew**2 / 36) * 6 / skew)


def _value(score: float, skew: Array) -> Array:
    """Inverse of ``_score``."""
    root = score * skew / 6 + 1 - skew**2 / 36
    return np.asarray((root**3 - 1) * 2 / skew)
