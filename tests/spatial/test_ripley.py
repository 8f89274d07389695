"""K, L, g and G against slow double loops, and against what they must be for uniform nuclei."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nucleoscope.errors import CallError
from nucleoscope.spatial.pairs import Bins, Grid, pair_sums, window_covariance
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.ripley import cross_k, inside_fraction, nearest_distances, nearest_g
from nucleoscope.spatial.window import Window

NAMES = ("a", "b", "c")


def overlap(window: Window, lag) -> float:
    """``|W and (W + lag)|``, pixel row by pixel row, without a transform."""
    shift = np.asarray(lag) / window.scale
    low = np.floor(shift).astype(int)
    total = 0.0
    for corner in np.ndindex((2,) * len(shift)):
        by = low + corner
        weight = np.prod(1 - np.abs(shift - by))
        grown = np.zeros_like(window.mask)
        source = tuple(
            slice(max(-b, 0), n - max(b, 0)) for b, n in zip(by, grown.shape, strict=True)
        )
        target = tuple(
            slice(max(b, 0), n - max(-b, 0)) for b, n in zip(by, grown.shape, strict=True)
        )
        if weight > 0 and all(abs(b) < n for b, n in zip(by, grown.shape, strict=True)):
            grown[target] = window.mask[source]
            total += weight * (grown & window.mask).sum()
    return total * float(np.prod(window.scale))


def slow_k(pattern: Pattern, radii) -> np.ndarray:
    """The definition: a double sum."""
    window, size = pattern.window, pattern.window.size
    k = np.zeros((pattern.n_types, pattern.n_types, len(radii)))
    for i in range(len(pattern)):
        for j in range(len(pattern)):
            lag = pattern.at[j] - pattern.at[i]
            distance = math.sqrt((lag**2).sum())
            if i != j and distance <= radii[-1]:
                weight = min(1 / max(overlap(window, lag), 1e-300), 100 / size)
                k[pattern.codes[i], pattern.codes[j], distance <= radii] += weight
    n = pattern.counts.astype(float)
    pairs = np.outer(n, n) - np.diag(n)
    return k * size**2 / pairs[..., None]


def holed(seed: int, shape, scale) -> Window:
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, bool)
    for _ in range(3):
        corner = [int(rng.integers(0, n)) for n in shape]
        mask[tuple(slice(c, c + max(n // 4, 1)) for c, n in zip(corner, shape, strict=True))] = (
            False
        )
    return Window(mask, scale)


@pytest.mark.parametrize(
    "window",
    [
        Window.box((3.0, -2.0), (53.0, 38.0)),
        holed(0, (30, 40), (1.5, 1.0)),
        holed(1, (6, 20, 25), (4.0, 1.0, 1.2)),
        Window.box((0.0, 0.0, 0.0), (20.0, 30.0, 25.0)),
    ],
    ids=["box", "mask with holes", "stack with holes", "cuboid"],
)
def test_translation_k_equals_the_double_sum(window):
    rng = np.random.default_rng(2)
    at = window.sample(150, rng)
    at[7] = at[8]
    pattern = Pattern(at, rng.integers(0, 3, 150), NAMES, window=window)
    bins = Bins(9.0, 12)
    k = cross_k(pattern, bins).k
    assert np.allclose(k, slow_k(pattern, bins.radii), rtol=1e-9, atol=0)


@pytest.mark.data
def test_translation_k_equals_the_double_sum_on_real_coordinates(data):
    frame = pd.read_csv(data / "formats" / "openDVP_quant.csv")
    at = frame[["Y_centroid", "X_centroid"]].to_numpy()
    middle = np.median(at, axis=0)
    keep = (np.abs(at - middle) < 150).all(axis=1)
    at, codes = at[keep][:500], (frame["ECAD"].to_numpy()[keep][:500] > frame["ECAD"].median())
    window = Window.from_nuclei(at, 25.0, unit="px")
    pattern = Pattern(at, codes.astype(int), ("low", "high"), "px", window=window)
    bins = Bins(40.0, 20)
    assert np.allclose(cross_k(pattern, bins).k, slow_k(pattern, bins.radii), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("reach", [0.7, 5.0, 60.0])
def test_pairs_are_counted_like_a_double_loop(dims, reach):
    rng = np.random.default_rng(3)
    at = np.rint(rng.random((200, dims)) * [8, 40, 30][:dims])
    pattern = Pattern(at, rng.integers(0, 3, 200), NAMES)
    bins = Bins(reach, 7)
    distance = np.linalg.norm(at[:, None] - at[None], axis=2)
    sums = np.cumsum(pair_sums(pattern, bins), axis=-1)
    for a in range(3):
        for b in range(3):
            block = distance[np.ix_(pattern.codes == a, pattern.codes == b)]
            truth = [(block <= r).sum() - (a == b) * len(block) for r in (0.0, *bins.radii)]
            assert sums[a, b].tolist() == truth


def test_distances_on_the_edge_of_a_bin_belong_to_it():
    line = np.column_stack([np.zeros(60), np.arange(60.0) * 7])
    sums = pair_sums(Pattern(line, np.zeros(60), ("a",)), Bins(35.0, 5))
    assert sums[0, 0].tolist() == [0, 118, 116, 114, 112, 110]


def test_an_inner_distance_collects_closer_pairs_in_slot_nought():
    line = np.array([[0, 0], [0, 1.0], [0, 5.0]])
    sums = pair_sums(Pattern(line, np.zeros(3), ("a",)), Bins(6.0, 2, inner=2.0))
    assert sums[0, 0].tolist() == [2.0, 2.0, 2.0]


def test_the_number_of_jobs_changes_not_even_the_last_bit():
    window = holed(4, (200, 200), (1.0, 1.0))
    rng = np.random.default_rng(4)
    pattern = Pattern(window.sample(25_000, rng), rng.integers(0, 3, 25_000), NAMES, window=window)
    one = cross_k(pattern, Bins(3.0, 10)).k
    assert np.array_equal(one, cross_k(pattern, Bins(3.0, 10), n_jobs=3).k)


def test_far_outliers_do_not_blow_up_the_grid():
    at = np.concatenate([np.random.default_rng(0).random((100, 2)), [[1e7, 1e7]]])
    grid = Grid.of(at, 0.1)
    assert np.prod(grid.cells.shape) < 4 * 101 + 1100
    assert pair_sums(Pattern(at, np.zeros(101), ("a",)), Bins(0.1, 2)).sum() > 0


@given(
    st.integers(0, 10_000),
    st.sampled_from([(30, 40), (2000, 3), (3, 2000), (9, 20, 25), (1, 40, 40), (60, 5, 5)]),
    st.integers(2, 120),
    st.floats(0.05, 30.0),
)
@example(seed=1, extent=(30, 40), n=5, reach=17.0)  # a pair exactly at the reach
@settings(max_examples=60, deadline=None)
def test_every_pair_is_met_once_whatever_the_shape(seed, extent, n, reach):
    rng = np.random.default_rng(seed)
    # Whole coordinates put pairs exactly at the reach and at the edges of cells.
    at = rng.random((n, len(extent))) * extent
    at = np.floor(at) if seed % 2 else at
    reach = float(np.ceil(reach)) if seed % 2 else reach
    pattern = Pattern(at, np.zeros(n), ("a",))
    distance = np.sqrt(((at[:, None] - at) ** 2).sum(axis=2))
    expected = (distance <= reach).sum() - n
    assert pair_sums(pattern, Bins(reach, 7)).sum() == expected


@pytest.mark.parametrize("sides", [(30.0, 50.0), (8.0, 30.0, 50.0)])
def test_a_rectangle_by_formula_equals_its_table(sides):
    window = Window.box((0.0,) * len(sides), sides)
    rng = np.random.default_rng(3)
    pattern = Pattern(window.sample(200, rng), rng.integers(0, 3, 200), NAMES, window=window)
    covariance = window_covariance(window, 40.0)
    by_table = replace(covariance, box=None)
    bins = Bins(40.0, 9)  # longer than a side: overlaps reach 0, weights their ceiling
    one = pair_sums(pattern, bins, covariance=covariance)
    assert np.allclose(one, pair_sums(pattern, bins, covariance=by_table), rtol=1e-12, atol=0)


@pytest.mark.parametrize("correction", ["translation", "border", "isotropic"])
def test_corrected_k_of_uniform_nuclei_is_the_area_of_the_disc(correction):
    rng = np.random.default_rng(5)
    window = Window.box((0, 0), (100, 60))
    bins = Bins(15.0, 3)
    codes = np.arange(300) % 2
    patterns = [
        Pattern(window.sample(300, rng), codes, ("a", "b"), window=window) for _ in range(60)
    ]
    k = [cross_k(pattern, bins, correction=correction).k for pattern in patterns]
    mean, error = np.mean(k, axis=0), np.std(k, axis=0) / np.sqrt(60)
    assert (np.abs(mean - np.pi * bins.radii**2) < 4 * error).all()
    plain = cross_k(
        Pattern(window.sample(3000, rng), np.zeros(3000), ("a",), window=window),
        bins,
        correction="none",
    ).k
    assert plain[0, 0, -1] < 0.95 * np.pi * 15**2


def test_corrected_k_of_uniform_nuclei_in_a_stack_is_the_volume_of_the_ball():
    rng = np.random.default_rng(6)
    window = holed(6, (8, 40, 40), (2.0, 1.0, 1.0))
    bins = Bins(6.0, 3)
    k = [
        cross_k(Pattern(window.sample(400, rng), np.zeros(400), ("a",), window=window), bins).k[
            0, 0
        ]
        for _ in range(50)
    ]
    error = np.std(k, axis=0) / np.sqrt(50)
    assert (np.abs(np.mean(k, axis=0) - 4 / 3 * np.pi * bins.radii**3) < 4 * error).all()


def slow_border(pattern: Pattern, radii) -> np.ndarray:
    border, size = pattern.window.to_border(pattern.at), pattern.window.size
    k = np.full((2, 2, len(radii)), np.nan)
    for a in range(2):
        for b in range(2):
            others = (pattern.codes == b).sum() - (a == b)
            for m, r in enumerate(radii):
                own = [i for i in range(len(pattern)) if pattern.codes[i] == a and border[i] >= r]
                near = sum(
                    np.linalg.norm(pattern.at[i] - pattern.at[j]) <= r
                    for i in own
                    for j in range(len(pattern))
                    if j != i and pattern.codes[j] == b
                )
                if own:
                    k[a, b, m] = near / (len(own) * others / size)
    return k


def test_border_k_equals_its_definition():
    rng = np.random.default_rng(7)
    window = holed(7, (30, 30), (1.0, 1.0))
    pattern = Pattern(window.sample(80, rng), rng.integers(0, 2, 80), ("a", "b"), window=window)
    bins = Bins(8.0, 5)
    k = cross_k(pattern, bins, correction="border").k
    assert np.allclose(k, slow_border(pattern, bins.radii), equal_nan=True)


def test_the_part_of_a_circle_inside_a_rectangle_is_what_many_points_say():
    rng = np.random.default_rng(8)
    window = Window.box((0, 0), (4, 3))
    at, radius = window.sample(40, rng), rng.uniform(0.1, 3.0, 40)
    angle = (np.arange(20_000) + 0.5) / 20_000 * 2 * np.pi
    for place, r, part in zip(at, radius, inside_fraction(window, at, radius), strict=True):
        circle = place + r * np.column_stack([np.sin(angle), np.cos(angle)])
        assert part == pytest.approx(window.contains(circle).mean(), abs=5e-4)


def test_l_is_the_radius_and_pcf_is_one_for_uniform_nuclei_and_attraction_lifts_both():
    rng = np.random.default_rng(9)
    window = Window.box((0, 0), (200, 200))
    a = window.sample(1500, rng)
    b = np.clip(a[:700] + rng.normal(0, 1, (700, 2)), 0, 200)
    c = window.sample(1500, rng)
    pattern = Pattern(
        np.concatenate([a, b, c]), np.repeat([0, 1, 2], [1500, 700, 1500]), NAMES, window=window
    )
    curves = cross_k(pattern, Bins(10.0, 10))
    assert np.abs(curves.l[0, 2] - curves.radii).max() < 0.3
    assert np.abs(curves.pcf[0, 2] - 1)[2:].max() < 0.25
    assert curves.pcf[0, 1, 1] > 2
    assert curves.l[0, 1, 2] > curves.radii[2] + 1
    frame = curves.to_frame()
    row = frame[(frame.type_a == "a") & (frame.type_b == "b")].iloc[2]
    assert row["l_minus_r"] == pytest.approx(curves.l[0, 1, 2] - curves.radii[2])


def test_micrometres_scale_k_by_their_square():
    rng = np.random.default_rng(10)
    window = Window.box((0, 0), (50, 50))
    pattern = Pattern(window.sample(200, rng), np.arange(200) % 2, ("a", "b"), window=window)
    half = Pattern(
        pattern.at / 2, pattern.codes, pattern.names, window=Window.box((0, 0), (25, 25))
    )
    k, other = cross_k(pattern, Bins(8.0, 4)).k, cross_k(half, Bins(4.0, 4)).k
    assert np.allclose(k, 4 * other)


@pytest.mark.parametrize("correction", ["translation", "border", "isotropic", "none"])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_nuclei_give_nan_and_no_warning(n, correction):
    pattern = Pattern(np.arange(2 * n).reshape(n, 2) * 3.0, np.zeros(n), ("a", "b"))
    curves = cross_k(pattern, Bins(2.0, 3), correction=correction)
    assert np.isnan(curves.k[0, 1]).all()
    assert np.isnan(curves.k[0, 0]).all() == (n < 2)
    assert np.isnan(nearest_g(pattern, Bins(2.0, 3))[0, 1]).all()


def test_nuclei_on_a_line_have_curves():
    pattern = Pattern(np.column_stack([np.arange(20.0), np.full(20, 3.0)]), np.zeros(20), ("a",))
    assert np.isfinite(cross_k(pattern, Bins(4.0, 4)).k).all()


def test_impossible_corrections_are_refused():
    pattern = Pattern(np.ones((3, 2)), np.zeros(3), ("a",))
    with pytest.raises(CallError, match="correction is one of translation"):
        cross_k(pattern, Bins(1.0), correction="ripley")
    mask = Window(np.array([[1, 0], [1, 1]], bool), (5.0, 5.0))
    with pytest.raises(CallError, match="for rectangles"):
        cross_k(
            Pattern(np.ones((3, 2)), np.zeros(3), ("a",), window=mask),
            Bins(1.0),
            correction="isotropic",
        )
    with pytest.raises(CallError, match="km, border or none"):
        nearest_g(pattern, Bins(1.0), correction="hanisch")
    with pytest.raises(CallError, match="0 <= inner < reach"):
        Bins(0.0)


def test_nearest_distances_equal_a_full_matrix():
    rng = np.random.default_rng(11)
    pattern = Pattern(rng.random((60, 3)), rng.integers(0, 3, 60), NAMES)
    full = np.linalg.norm(pattern.at[:, None] - pattern.at[None], axis=2) + np.diag(
        np.full(60, np.inf)
    )
    truth = np.stack([full[:, pattern.codes == k].min(axis=1) for k in range(3)], axis=1)
    assert np.allclose(nearest_distances(pattern), truth)


def slow_km(distance, border, r) -> float:
    survival = 1.0
    for t in sorted({d for d, c in zip(distance, border, strict=True) if d <= c and d <= r}):
        died = sum(d == t and d <= c for d, c in zip(distance, border, strict=True))
        risk = sum(min(d, c) >= t for d, c in zip(distance, border, strict=True))
        survival *= 1 - died / risk
    return 1 - survival


def test_km_is_the_product_limit_and_border_the_reduced_sample():
    rng = np.random.default_rng(12)
    window = Window.box((0, 0), (12, 12))
    at = np.rint(window.sample(90, rng) * 2) / 2
    pattern = Pattern(at, rng.integers(0, 2, 90), ("a", "b"), window=window)
    bins = Bins(3.0, 6)
    distance, border = nearest_distances(pattern), window.to_border(at)
    km, reduced = nearest_g(pattern, bins), nearest_g(pattern, bins, correction="border")
    own = pattern.codes == 0
    for m, r in enumerate(bins.radii):
        assert km[0, 1, m] == pytest.approx(slow_km(distance[own, 1], border[own], r))
        seen = own & (border >= r)
        assert reduced[0, 1, m] == pytest.approx((distance[seen, 1] <= r).mean())


def test_g_of_uniform_nuclei_is_exponential_in_the_area():
    rng = np.random.default_rng(13)
    window = Window.box((0, 0), (100, 100))
    bins = Bins(10.0, 5)
    g = [
        nearest_g(
            Pattern(window.sample(200, rng), np.arange(200) % 2, ("a", "b"), window=window), bins
        )[0, 1]
        for _ in range(100)
    ]
    error = np.std(g, axis=0) / 10
    assert (
        np.abs(np.mean(g, axis=0) - 1 + np.exp(-0.01 * np.pi * bins.radii**2)) < 4 * error
    ).all()
