"""How often p is small where nothing is there: the two nulls of curves that are approximate.

    python bench/bench_spatial_nulls.py [--n 300] [--only shift | labelling-exact]

Both are compared with what they should be: a share of 0.05 of p at most 0.05, and so on. ``shift``
is tested with two types that are clustered independently of each other, in a rectangle (exact) and
in an L-shaped mask (approximate); ``labelling-exact`` with random relabellings of fixed places.
One core, seeds fixed, nothing is written.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import kstest

from nucleoscope.spatial import Bins, Pattern, Window, curve_test
from nucleoscope.spatial.labelling import LabellingTest, PairMoments
from nucleoscope.spatial.pairs import PairList, window_covariance
from nucleoscope.spatial.parallel import stream_seeds
from nucleoscope.spatial.relabel import Relabelling

BOX = Window.box((0, 0), (100, 100))
L_SHAPE = Window(np.kron([[1, 0], [1, 1]], np.ones((20, 20))) > 0, (2.5, 2.5), (0.0, 0.0))
FIELD = Window.box((0, 0), (300, 300))


def clustered(window: Window, seed: int) -> Pattern:
    """Two independent types of about 200 nuclei, each in 18 clusters of its own."""
    rng = np.random.default_rng(seed)
    at, codes = [], []
    for code in range(2):
        # Parents also lie around the window, so that its edge is like its middle.
        parents = window.corner - 10 + rng.random((18, 2)) * (window.extent + 20)
        children = np.repeat(parents, 12, axis=0) + rng.normal(0, 3, (216, 2))
        children = children[window.contains(children)]
        at.append(children)
        codes.append(np.full(len(children), code))
    return Pattern(np.concatenate(at), np.concatenate(codes), ("a", "b"), window=window)


def shift_p(window: Window, n: int, n_simulations: int = 39) -> np.ndarray:
    """``(n,)``: p of K between two independent types, spread over its steps."""
    p = [
        curve_test(
            clustered(window, seed), Bins(10.0, 5), null="shift", n_simulations=n_simulations,
            seed=seed,
        ).p[0, 1]
        for seed in range(n)
    ]  # fmt: skip
    return np.array(p) - np.random.default_rng(0).random(n) / (n_simulations + 1)


def relabelled_p(counts: tuple[int, ...], is_clustered: bool, n: int) -> np.ndarray:
    """``(n, K, K)``: p of K in closed form for random relabellings of the same places."""
    rng, total = np.random.default_rng(0), sum(counts)
    at = FIELD.sample(total, rng)
    if is_clustered:
        centres = at[rng.integers(0, max(total // 40, 3), total)]
        at = np.clip(centres + rng.normal(0, 8, at.shape), 0, 300)
    codes = np.repeat(np.arange(len(counts)), counts)
    pattern = Pattern(at, codes, tuple(map(str, counts)), window=FIELD)
    bins = Bins(40.0, 40)
    covariance = window_covariance(FIELD, bins.reach)
    pairs = PairList.of(pattern, bins)
    assert pairs is not None
    dealt = Relabelling.of(pattern, pairs.i, pairs.j, pairs.weights(covariance), pairs.firsts)
    sums = PairMoments.of(pattern, bins, covariance)
    p = []
    for start in range(0, n, 50):
        half = dealt.sums(stream_seeds(start, 50))
        curves = np.cumsum(half + half.transpose(0, 2, 1, 3), axis=-1)[..., 1:]
        p += [LabellingTest.of(sums, pattern.counts, one).p for one in curves]
    return np.array(p)


def row(name: str, p: np.ndarray) -> str:
    """Shares of small p, and the Kolmogorov-Smirnov p of uniformity."""
    if np.isnan(p).any():
        return f"| {name} | {len(p)} | - | - | - | too few pairs |"
    shares = " | ".join(f"{(p <= level).mean():.3f}" for level in (0.01, 0.05, 0.2))
    return f"| {name} | {len(p)} | {shares} | {kstest(p, 'uniform').pvalue:.2g} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n", type=int, default=300, help="data sets per row")
    parser.add_argument("--only", choices=("shift", "labelling-exact"))
    args = parser.parse_args()
    print("| null | n | p <= 0.01 | p <= 0.05 | p <= 0.2 | KS p |\n|---|---|---|---|---|---|")
    if args.only != "labelling-exact":
        for name, window in (("rectangle", BOX), ("L-shaped mask", L_SHAPE)):
            print(row(f"shift, {name}, clustered", shift_p(window, args.n)), flush=True)
    if args.only == "shift":
        return
    for is_clustered in (False, True):
        for counts in ((20, 60, 120), (30, 270, 700), (100, 900, 2000)):
            p = relabelled_p(counts, is_clustered, args.n)
            kind = "clustered" if is_clustered else "uniform"
            for a, b in ((0, 0), (0, 1), (1, 2), (2, 2)):
                name = f"labelling-exact, {kind}, {counts[a]} to {counts[b]} of {sum(counts)}"
                print(row(name, p[:, a, b]), flush=True)


if __name__ == "__main__":
    main()
