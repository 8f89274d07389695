"""Features against scikit-image and slow loops; turning, mirroring, ids and tiny nuclei."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.draw import ellipse
from skimage.feature import graycomatrix
from skimage.measure import regionprops_table

from nucleoscope.atlas.features import (
    RIM_UM,
    crop_features,
    feature_names,
    neighbour_features,
    nucleus_features,
    robust_scores,
)
from nucleoscope.atlas.features_frame import EOSIN, HEMATOXYLIN, dense, depth_of
from nucleoscope.errors import CallError, InputError

MPP = 0.25


def scene(seed: int = 0, side: int = 150, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Ellipses with clumpy stain, some touching, some cut by the border."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), int)
    image = rng.integers(170, 250, (side, side, 3)).astype(np.uint8)
    for i in range(n):
        shape = ellipse(
            *rng.uniform(0, side, 2), *rng.uniform(3, 14, 2), shape=labels.shape,
            rotation=rng.uniform(0, 3),
        )  # fmt: skip
        labels[shape] = 3 * i + 2
        smooth = ndimage.gaussian_filter(rng.normal(size=(side, side, 3)), (1.5, 1.5, 0))
        image[shape] = np.clip(110 + 160 * smooth, 20, 240)[shape]
    return image, labels


@pytest.fixture(scope="module")
def example() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    image, labels = scene()
    return image, labels, nucleus_features(image, labels, mpp=MPP)


def hematoxylin(image: np.ndarray) -> np.ndarray:
    od = np.log10(255 / np.maximum(image.astype(float), 1))
    h, e = np.array(HEMATOXYLIN), np.array(EOSIN)
    h, e = h / np.linalg.norm(h), e / np.linalg.norm(e)
    rest = np.cross(h, e)
    amounts = od @ np.linalg.inv(np.stack([h, e, rest / np.linalg.norm(rest)]))
    return np.maximum(amounts[..., :2], 0)


def test_there_are_about_eighty_features_and_each_says_what_it_is(
    example: tuple[np.ndarray, np.ndarray, pd.DataFrame],
) -> None:
    names = feature_names()
    assert 75 <= len(names) <= 90
    assert list(example[2].columns) == list(names)
    for name, feature in names.items():
        assert name.startswith("f_") and feature.text and feature.more and feature.less
        for ending, unit in (("_um2", "um2"), ("_um", "um"), ("_od", "OD"), ("_bit", "bit")):
            if name.endswith(ending) and "per_um" not in name and "od_um2" not in name:
                assert feature.unit == unit, name


def test_shapes_are_those_of_scikit_image(
    example: tuple[np.ndarray, np.ndarray, pd.DataFrame],
) -> None:
    _, labels, found = example
    names = (
        "label", "area", "perimeter", "axis_major_length", "axis_minor_length", "eccentricity",
        "equivalent_diameter_area",
    )  # fmt: skip
    table = regionprops_table(labels, properties=names)
    assert np.array_equal(found.index, table["label"])
    for ours, theirs, scale in (
        ("area_um2", "area", MPP**2),
        ("perimeter_um", "perimeter", MPP),
        ("axis_major_um", "axis_major_length", MPP),
        ("axis_minor_um", "axis_minor_length", MPP),
        ("eccentricity", "eccentricity", 1),
        ("equivalent_diameter_um", "equivalent_diameter_area", MPP),
    ):
        assert np.allclose(found[f"f_{ours}"], table[theirs] * scale, atol=1e-6), ours


def test_hull_and_widths_are_those_of_the_pixel_corners(
    example: tuple[np.ndarray, np.ndarray, pd.DataFrame],
) -> None:
    _, labels, found = example
    for label, row in found.iterrows():
        at = np.argwhere(labels == label).astype(float)
        corners = np.concatenate(
            [at + np.array([dy, dx]) for dy in (-0.5, 0.5) for dx in (-0.5, 0.5)]
        )
        hull = ConvexHull(corners)
        points = corners[hull.vertices]
        assert row["f_solidity"] == pytest.approx(len(at) / hull.volume)
        assert row["f_feret_max_um"] == pytest.approx(pdist(points).max() * MPP)
        normals = hull.equations[:, :2]
        widths = np.ptp(points @ normals.T, axis=0)
        assert row["f_feret_min_um"] == pytest.approx(widths.min() * MPP)
        expected = min(hull.area / (row["f_perimeter_um"] / MPP), 1)
        assert row["f_convexity"] == pytest.approx(expected)


def test_stain_is_that_of_a_slow_unmixing(
    example: tuple[np.ndarray, np.ndarray, pd.DataFrame],
) -> None:
    image, labels, found = example
    stain = hematoxylin(image)
    for label, row in found.iterrows():
        for channel, name in ((0, "hematoxylin"), (1, "eosin")):
            values = stain[labels == label, channel]
            assert row[f"f_{name}_mean_od"] == pytest.approx(values.mean(), abs=1e-5)
            assert row[f"f_{name}_sd_od"] == pytest.approx(values.std(), abs=1e-5)
            for share in (10, 50, 90):
                exact = np.percentile(values, share, method="inverted_cdf")
                assert row[f"f_{name}_p{share}_od"] == pytest.approx(exact, abs=0.0101)
        values = stain[labels == label, 0]
        z = (values - values.mean()) / values.std()
        assert row["f_hematoxylin_skewness"] == pytest.approx((z**3).mean(), abs=1e-4)
        assert row["f_hematoxylin_kurtosis"] == pytest.approx((z**4).mean() - 3, abs=1e-4)
        shares = np.bincount(np.minimum(values / 0.05, 31).astype(int)) / len(values)
        entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
        assert row["f_hematoxylin_entropy_bit"] == pytest.approx(entropy, abs=0.02)
        total = values.sum() * MPP**2
        assert row["f_hematoxylin_total_od_um2"] == pytest.approx(total, rel=1e-4)
        exact = np.median(np.abs(values - np.median(values)))
        assert row["f_hematoxylin_mad_od"] == pytest.approx(exact, abs=0.025)


def test_the_ring_is_background_near_its_nucleus(
    example: tuple[np.ndarray, np.ndarray, pd.DataFrame],
) -> None:
    """A slow Euclidean ring differs only in pixels where chamfer and Euclid disagree."""
    image, labels, found = example
    distance, (iy, ix) = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    owner = np.where((labels == 0) & (distance <= 2 / MPP), labels[iy, ix], 0)
    stain = hematoxylin(image)[..., 0]
    for label, row in found.iterrows():
        mean = stain[owner == label].mean()
        assert row["f_ring_hematoxylin_mean_od"] == pytest.approx(mean, abs=0.02)


def test_cooccurrence_is_that_of_scikit_image(
    example: tuple[np.ndarray, np.ndarray, pd.DataFrame],
) -> None:
    image, labels, found = example
    levels = np.minimum(hematoxylin(image)[..., 0].astype(np.float32) / 0.05, 31).astype(int)
    for label, row in found.iloc[:5].iterrows():
        y, x = np.nonzero(labels == label)
        box = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
        patch = np.where(labels[box] == label, levels[box] + 1, 0).astype(np.uint8)
        angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
        counts = graycomatrix(patch, [1], angles, levels=33, symmetric=True)[1:, 1:, 0].sum(-1)
        p = counts / counts.sum()
        a, b = np.indices(p.shape)
        mean = (p * a).sum()
        correlation = (p * (a - mean) * (b - mean)).sum() / (p * (a - mean) ** 2).sum()
        entropy = -(p[p > 0] * np.log2(p[p > 0])).sum()
        expected = {
            "asm": (p**2).sum(), "contrast": (p * (a - b) ** 2).sum(),
            "homogeneity": (p / (1 + (a - b) ** 2)).sum(), "correlation": correlation,
            "entropy_bit": entropy,
        }  # fmt: skip
        sums = np.bincount((a + b).ravel(), p.ravel())
        expected["sum_entropy_bit"] = -(sums[sums > 0] * np.log2(sums[sums > 0])).sum()
        for name, value in expected.items():
            assert row[f"f_glcm_{name}"] == pytest.approx(value, rel=0.02, abs=0.005), name


def test_gradient_edge_and_clumps_are_those_of_slow_loops(
    example: tuple[np.ndarray, np.ndarray, pd.DataFrame],
) -> None:
    image, labels, found = example
    stain = hematoxylin(image)[..., 0]
    size = np.hypot(*np.gradient(stain))
    for label, row in found.iterrows():
        inside = labels == label
        assert row["f_gradient_mean_od_per_um"] == pytest.approx(size[inside].mean() / MPP, 1e-4)
        rim = inside & ~ndimage.binary_erosion(inside)
        assert row["f_edge_mean_od_per_um"] == pytest.approx(size[rim].mean() / MPP, 1e-4)
        dark = inside & (stain > stain[inside].mean() + stain[inside].std())
        parts, n = ndimage.label(dark, np.ones((3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
        assert row["f_chromatin_clumps"] == pytest.approx((sizes >= 4).sum(), abs=1)
        assert row["f_chromatin_clump_share"] == pytest.approx(dark.sum() / inside.sum(), abs=0.02)


def test_depth_is_near_the_euclidean_distance() -> None:
    _, labels = scene(3)
    counted, ids = dense(labels)
    depth = depth_of(counted, len(labels)) / 3
    for i in range(1, len(ids) + 1):
        inside = np.pad(counted == i, 1)
        exact = ndimage.distance_transform_edt(inside)[1:-1, 1:-1][counted == i]
        assert np.all(np.abs(depth[counted == i] - exact) <= 0.081 * exact + 1e-9)


def test_the_rim_is_darker_where_stain_lies_at_the_edge() -> None:
    labels = np.zeros((60, 60), int)
    labels[ellipse(30, 30, 15, 15)] = 1
    image = np.full((60, 60, 3), 150, np.uint8)
    image[(labels == 1) & (depth_of(dense(labels)[0], 60) <= 3 * RIM_UM / MPP)] = 60
    row = nucleus_features(image, labels, mpp=MPP).iloc[0]
    assert row["f_chromatin_rim_od"] > 0.3


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.booleans())
def test_turning_and_mirroring_change_nothing(seed: int, turns: int, mirror: bool) -> None:
    image, labels = scene(seed, 90, 9)
    before = nucleus_features(image, labels, mpp=MPP)
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if mirror:
        image, labels = image[:, ::-1], labels[:, ::-1]
    after = nucleus_features(np.ascontiguousarray(image), labels, mpp=MPP)
    pd.testing.assert_frame_equal(before, after, atol=1e-6, rtol=1e-6)


def test_turning_by_any_angle_hardly_changes_the_shape() -> None:
    rows = []
    for angle in np.linspace(0, np.pi, 7):
        labels = np.zeros((120, 120), int)
        labels[ellipse(60, 60, 30, 18, rotation=angle)] = 1
        image = np.full((120, 120, 3), 100, np.uint8)
        rows.append(nucleus_features(image, labels, mpp=MPP).iloc[0])
    table = pd.DataFrame(rows)
    for name in ("area_um2", "axis_major_um", "eccentricity", "solidity", "feret_max_um",
                 "inscribed_radius_um", "lobes_2"):  # fmt: skip
        values = table[f"f_{name}"]
        assert np.ptp(values) < 0.06 * values.mean(), name


def test_lobes_count_the_bulges() -> None:
    angle = np.linspace(0, 2 * np.pi, 721)
    y, x = np.indices((161, 161)) - 80
    for k in (2, 3, 5):
        radius = 50 * (1 + 0.15 * np.cos(k * angle))
        inside = np.hypot(y, x) <= np.interp(np.mod(np.arctan2(y, x), 2 * np.pi), angle, radius)
        image = np.full((161, 161, 3), 100, np.uint8)
        row = nucleus_features(image, inside.astype(int), mpp=MPP).iloc[0]
        lobes = {j: row[f"f_lobes_{j}"] for j in range(2, 8)}
        assert max(lobes, key=lobes.get) == k


def test_values_do_not_depend_on_ids(
    example: tuple[np.ndarray, np.ndarray, pd.DataFrame],
) -> None:
    image, labels, found = example
    other = np.where(labels > 0, labels + 1_000_000_007, 0)
    again = nucleus_features(image, other, mpp=MPP)
    assert np.array_equal(again.index, found.index + 1_000_000_007)
    assert np.allclose(again, found, equal_nan=True)


def test_micrometres_scale_with_the_pixel_size(
    example: tuple[np.ndarray, np.ndarray, pd.DataFrame],
) -> None:
    image, labels, found = example
    double = nucleus_features(image, labels, mpp=2 * MPP)
    assert np.allclose(double["f_area_um2"], 4 * found["f_area_um2"])
    assert np.allclose(double["f_nearest_um"], 2 * found["f_nearest_um"])
    assert np.allclose(double["f_eccentricity"], found["f_eccentricity"])


def test_tiny_nuclei_have_finite_features_but_for_what_cannot_be() -> None:
    labels = np.zeros((30, 30), int)
    labels[5, 5] = 1
    labels[15, 15:17] = 2
    labels[25, 29] = 3
    image = np.random.default_rng(0).integers(0, 255, (30, 30, 3)).astype(np.uint8)
    found = nucleus_features(image, labels, mpp=MPP)
    one = found.loc[1]
    assert set(one[one.isna()].index) == {n for n in found.columns if n.startswith("f_glcm")}
    assert found.loc[2].notna().all()
    assert not np.isinf(found.to_numpy()).any()


def test_a_nucleus_without_background_has_no_ring() -> None:
    image = np.full((12, 12, 3), 90, np.uint8)
    row = nucleus_features(image, np.ones((12, 12), int), mpp=MPP).iloc[0]
    assert np.isnan(row["f_ring_eosin_mean_od"]) and np.isnan(row["f_nearest_um"])
    assert row["f_area_um2"] == 9 and row["f_density_per_mm2"] == 0


def test_an_image_without_nuclei_gives_an_empty_table() -> None:
    found = nucleus_features(np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5), int), mpp=MPP)
    assert found.shape == (0, len(feature_names()))
    assert crop_features(np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 8, 8))).shape[0] == 0


def test_crops_have_the_features_of_the_image() -> None:
    image, labels = scene(5, 300, 9)
    found = nucleus_features(image, labels, mpp=MPP)
    half = 32
    kept, crops, masks = [], [], []
    for label in found.index:
        y, x = np.round(np.argwhere(labels == label).mean(0)).astype(int)
        box = np.s_[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
        others = ndimage.binary_dilation(labels[box] == label, iterations=20)
        if labels[box].shape == (64, 64) and set(np.unique(labels[box][others])) <= {0, label}:
            kept.append(label)
            crops.append(image[box])
            masks.append(labels[box] == label)
    assert len(kept) >= 3
    again = crop_features(np.stack(crops), np.stack(masks), mpp=MPP)
    names = [n for n, f in feature_names().items() if f.family != "neighbours"]
    assert np.allclose(again[names], found.loc[kept, names], atol=1e-6)
    assert again.drop(columns=names).isna().all(axis=None)


def test_crops_do_not_see_each_other() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (5, 20, 20, 3)).astype(np.uint8)
    masks = np.zeros((5, 20, 20), bool)
    masks[:, :, 4:15] = True
    masks[2] = False
    together = crop_features(crops, masks)
    alone = pd.concat([crop_features(crops[[i]], masks[[i]]) for i in range(5)])
    assert np.allclose(together, alone, equal_nan=True)
    assert together.iloc[2].isna().all()


def test_neighbours_are_those_of_a_slow_loop() -> None:
    places = np.random.default_rng(0).uniform(0, 80, (40, 2))
    apart = np.sort(np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)), axis=1)[:, 1:]
    found = neighbour_features(places)
    assert np.allclose(found["f_nearest_um"], apart[:, 0])
    assert np.allclose(found["f_nearest5_um"], apart[:, :5].mean(1))
    expected = (apart <= 25).sum(1) / (np.pi * 625) * 1e6
    assert np.allclose(found["f_density_per_mm2"], expected)


def test_robust_scores_ignore_scale_and_offset_of_a_slide() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 3))
    frame = pd.DataFrame(np.vstack([values, values * 7 + 3]), columns=["f_a", "f_b", "f_c"])
    frame.iloc[3, 0] = np.nan
    frame.iloc[53, 0] = np.nan
    scores = robust_scores(frame, ["one"] * 50 + ["two"] * 50)
    assert np.allclose(scores[:50], scores[50:], equal_nan=True)
    assert scores.isna().sum().sum() == 2


@pytest.mark.parametrize(
    ("image", "labels", "mpp", "error"),
    [
        (np.zeros((5, 5), np.uint8), np.zeros((5, 5), int), 0.25, InputError),
        (np.zeros((5, 5, 3), float), np.zeros((5, 5), int), 0.25, InputError),
        (np.zeros((5, 5, 3), np.uint8), np.zeros((5, 6), int), 0.25, InputError),
        (np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5)), 0.25, InputError),
        (np.zeros((5, 5, 3), np.uint8), np.full((5, 5), -1), 0.25, InputError),
        (np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5), int), 0, CallError),
        (np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5), int), float("nan"), CallError),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    image: np.ndarray, labels: np.ndarray, mpp: float, error: type[Exception]
) -> None:
    with pytest.raises(error, match="expected"):
        nucleus_features(image, labels, mpp=mpp)
