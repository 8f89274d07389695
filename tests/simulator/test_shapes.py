import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.simulator.shapes import Body, cut, orient, rasterise, smooth_noise, soft

angles = st.floats(-3.2, 3.2)


@given(angles, angles)
def test_principal_directions_are_orthonormal(angle, tilt):
    axes = orient(angle, tilt)
    assert np.allclose(axes @ axes.T, np.eye(3))


def test_an_undeformed_body_has_the_volume_of_its_ellipsoid():
    body = Body(np.full(3, 15.0), orient(0.4, 0.3), np.array([9.0, 6.0, 5.0]), np.zeros(4))
    _, radius = rasterise(body, np.full(3, 0.5), (60, 60, 60))
    volume = (radius < 1).sum() * 0.125
    assert abs(volume / (4 / 3 * np.pi * 270) - 1) < 0.02


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_a_body_never_touches_the_side_of_its_box(seed):
    rng = np.random.default_rng(seed)
    body = Body(
        np.full(3, 20.0),
        orient(*rng.uniform(0, 3, 2)),
        rng.uniform(1.5, 8, 3),
        rng.normal(0, 0.6, 4),
    )
    box, radius = rasterise(body, np.full(3, 0.5), (80, 80, 80))
    light = soft(radius, 0.35)
    for axis in range(3):
        assert np.take(light, [0, -1], axis=axis).max() == 0
    assert all(side.stop - side.start == n for side, n in zip(box, radius.shape, strict=True))


def test_a_body_outside_the_grid_is_nothing():
    body = Body(np.full(3, -40.0), np.eye(3), np.full(3, 5.0), np.zeros(4))
    assert rasterise(body, np.ones(3), (9, 9, 9)) is None


def test_a_body_at_the_edge_is_cut_to_the_grid():
    body = Body(np.zeros(3), np.eye(3), np.full(3, 5.0), np.zeros(4))
    box, radius = rasterise(body, np.ones(3), (9, 9, 9))
    assert box[0].start == 0
    assert radius[0, 0, 0] == 0


@pytest.mark.parametrize("shape", [(40, 50), (8, 20, 20)])
def test_noise_is_standard_and_smooth(shape):
    noise = smooth_noise(shape, 2.0, np.random.default_rng(0))
    assert abs(float(noise.mean())) < 1e-3
    assert abs(float(noise.std()) - 1) < 1e-3
    assert np.diff(noise, axis=-1).std() < 0.6


def test_a_cut_wraps_round_the_block():
    block = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    piece = cut(block, (slice(5, 9), slice(0, 7), slice(2, 11)), np.random.default_rng(0))
    assert piece.shape == (4, 7, 9)
    assert set(np.unique(piece)) == set(range(24))
