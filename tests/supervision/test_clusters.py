import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import ball
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from nucleoscope.errors import CallError
from nucleoscope.supervision import cluster_foreground, distance_map, to_uint8, weighted_kmeans
from nucleoscope.supervision.clusters import dilated

_spec = importlib.util.spec_from_file_location("literal", Path(__file__).with_name("literal.py"))
literal = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(literal)


def test_clusters_equal_the_published_route_with_scikit_learn(scene):
    voxel = scene.clicks.astype(int)
    slow_distance = literal.padded_distance(scene.nuclei.shape, voxel)
    distance = distance_map(scene.nuclei.shape, scene.clicks, 11.0, limit=20.0)
    assert np.allclose(distance, slow_distance, rtol=1e-6)
    slow = literal.cluster(scene.nuclei, slow_distance, voxel)
    fast = cluster_foreground(scene.nuclei, distance, scene.clicks, setting="paper")
    assert (slow == fast).mean() > 0.9999
    assert set(np.unique(fast)) == {0, 1, 2}


def test_weighted_kmeans_is_no_worse_than_scikit_learns():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(c, 1.0, (200, 2)) for c in ((0, 0), (4, 1), (2, 6))])
    weight = rng.integers(1, 9, len(rows)).astype(float)
    ours = weighted_kmeans(rows, weight, 3)
    peer = KMeans(3, n_init=10, random_state=0, tol=0).fit(rows, sample_weight=weight)
    assert ours.inertia <= peer.inertia_ * (1 + 1e-9)
    assert adjusted_rand_score(ours.labels, peer.labels_) > 0.999


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_a_weight_is_the_same_as_repeating_a_row(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 20, (30, 2)).astype(float)
    weight = rng.integers(1, 5, 30)
    many = weighted_kmeans(np.repeat(rows, weight, axis=0), np.ones(weight.sum()), 3, n_init=40)
    few = weighted_kmeans(rows, weight.astype(float), 3, n_init=40)
    assert few.inertia == pytest.approx(many.inertia, rel=0.02)
    at = ((rows[:, None] - few.centres) ** 2).sum(-1)
    assert np.allclose(at.min(axis=1), at[np.arange(30), few.labels])


def test_the_same_seed_gives_the_same_clusters(scene):
    distance = distance_map(scene.nuclei.shape, scene.clicks, scene.z_step, limit=16.0)
    one, two = (
        cluster_foreground(scene.nuclei, distance, scene.clicks, radius=8.0, seed=5)
        for _ in range(2)
    )
    assert np.array_equal(one, two)


def test_the_default_finds_the_nuclei_and_ignores_what_lies_outside_the_region(scene):
    region = np.zeros(scene.nuclei.shape[1:], dtype=bool)
    region[:72] = True
    distance = distance_map(scene.nuclei.shape, scene.clicks[:5], scene.z_step, limit=16.0)
    roles = cluster_foreground(scene.nuclei, distance, scene.clicks[:5], region=region, radius=8.0)
    assert (roles[:, 72:] == 0).all()
    assert ((roles == 2) & (scene.truth > 0))[:, :72].sum() > 0.7 * (scene.truth[:, :72] > 0).sum()
    assert ((roles == 2) & (scene.truth == 0)).sum() < 0.1 * (roles == 2).sum()
    changed = scene.nuclei.copy()
    changed[:, 72:] = 255
    again = cluster_foreground(changed, distance, scene.clicks[:5], region=region, radius=8.0)
    assert np.array_equal(again, roles)


@pytest.mark.parametrize("setting", ["default", "paper"])
@pytest.mark.parametrize("value", [0, 255])
def test_a_constant_image_is_clustered_by_distance_alone(setting, value):
    shape, clicks = (2, 40, 40), np.array([[0, 20, 20]])
    distance = distance_map(shape, clicks, 3.0, limit=20.0)
    roles = cluster_foreground(np.full(shape, value, np.uint8), distance, clicks, setting=setting)
    assert roles[0, 20, 20] == 2
    assert roles[0, 0, 0] == 0


def test_one_pixel_is_enough():
    roles = cluster_foreground(
        np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1), np.float32), np.array([[0, 0, 0]])
    )
    assert roles.tolist() == [[[2]]]


def test_dilation_is_a_ball_in_voxels_or_a_disk_in_a_few_slices():
    shape, voxel = (9, 30, 30), np.array([[4, 15, 15], [0, 2, 29], [4, 16, 15]])
    clicks = np.zeros(shape, dtype=bool)
    clicks[tuple(voxel.T)] = True
    out = np.zeros(shape, dtype=bool)
    out[dilated(shape, voxel, (4, 4))] = True
    assert np.array_equal(out, ndimage.binary_dilation(clicks, ball(4).astype(bool)))
    flat = np.zeros(shape, dtype=bool)
    flat[dilated(shape, voxel, (1, 5))] = True
    assert flat[3:6, 15, 20].all()
    assert not flat[2, 15, 15]
    assert not flat[4, 15, 21]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_eight_bits_use_one_constant_for_the_whole_stack(dtype):
    rng = np.random.default_rng(0)
    channel = rng.integers(3, 250, (4, 40, 50)).astype(dtype)
    channel[1] //= 2
    region = np.zeros((40, 50), dtype=bool)
    region[5:, 5:] = True
    out = to_uint8(channel, region)
    low, high = np.quantile(channel[:, region].astype(float), (0.001, 0.999))
    exact = np.clip((channel.astype(float) - low) / (high - low) * 255, 0, 255)
    assert np.abs(out - exact).max() <= 2.5
    assert out.dtype == np.uint8


def test_published_scaling_is_minimum_to_maximum_after_the_outside_was_blackened():
    channel = np.array([[[100, 600, 4000]]], np.uint16)
    region = np.array([[True, True, False]])
    assert to_uint8(channel, region, "paper").tolist() == [[[43, 255, 0]]]
    assert to_uint8((channel // 20).astype(np.uint8), region, "paper").tolist() == [[[5, 30, 0]]]
    assert to_uint8(np.full((1, 2, 2), 7, np.uint16)).max() == 0
    with pytest.raises(CallError, match="no setting"):
        to_uint8(channel, region, "published")
