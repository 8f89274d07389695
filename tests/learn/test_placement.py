"""Where a nucleus of a stained section is said to lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.data.labels import Labels
from nucleoscope.data.maps import StackMaps
from nucleoscope.data.volume import Volume
from nucleoscope.learn.fit import ENOUGH_PAIRS, Seen, fit_placement
from nucleoscope.learn.lesson import Lesson
from nucleoscope.learn.model import ModelConfig, PlacementSpec
from nucleoscope.learn.placement import least_away, placed
from nucleoscope.nuclei.measure import measure


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(-3, 3), st.floats(-3, 3))
def test_share_and_shift_come_back_whatever_a_few_wrong_pairs_say(seed, share, dy, dx):
    rng = np.random.default_rng(seed)
    way = rng.normal(0, 2, (300, 2))
    error = share * way + (dy, dx) + rng.normal(0, 0.2, (300, 2))
    error[:20] += rng.normal(0, 8, (20, 2))
    found = least_away(way, error)
    assert found.centroid_share == pytest.approx(share, abs=0.06)
    assert (found.dy, found.dx) == pytest.approx((dy, dx), abs=0.12)


def test_a_share_stays_between_peak_and_centroid():
    way = np.random.default_rng(0).normal(0, 2, (300, 2))
    assert least_away(way, -0.5 * way).centroid_share == 0
    assert least_away(way, 1.7 * way).centroid_share == 1


def seen_squares(n_side: int, off: tuple[float, float]) -> Seen:
    """Squares of 7 px whose peaks lie in their middle, all clicked ``off`` from there."""
    size = 20 * n_side + 10
    y, x = np.meshgrid(*[np.arange(n_side) * 20 + 14] * 2, indexing="ij")
    places = np.stack([0 * y.ravel(), y.ravel(), x.ravel()], axis=1).astype(float)
    centre = np.zeros((1, size, size), np.float32)
    inside = np.zeros((1, size, size), np.float32)
    for _, a, b in places.astype(int):
        grid = np.mgrid[-3:4, -3:4]
        bump = np.exp(-(grid**2).sum(axis=0) / 8)
        centre[0, a - 3 : a + 4, b - 3 : b + 4] = bump
        inside[0, a - 3 : a + 4, b - 3 : b + 4] = 1
    instances = np.zeros((1, size, size), np.int32)
    volume = Volume(np.zeros((3, 1, size, size), np.uint8), ("red", "green", "blue"), is_rgb=True)
    n = len(places)
    lesson = Lesson(
        volume, instances, inside.astype(np.uint8), places, np.zeros((n, 1), np.int64),
        np.ones(n, dtype=bool), clicks=places + np.array([0, *off]),
    )  # fmt: skip
    nothing = np.zeros((3, 1, size, size), np.float32)
    return Seen(lesson, StackMaps(inside, centre, nothing, nothing[:0], 1))


CONFIG = ModelConfig(
    recipe="lecl", is_rgb=True, radius_px=6.0, threshold=0.3, valley=0.9, slice_px=1.0
)


def test_what_was_taken_off_the_clicks_is_put_back():
    found = fit_placement([seen_squares(15, (1.0, 0.5))], CONFIG)
    assert found is not None
    assert (found.dy, found.dx) == pytest.approx((1.0, 0.5), abs=0.05)


def test_few_nuclei_place_nothing():
    assert ENOUGH_PAIRS > 9
    assert fit_placement([seen_squares(3, (1.0, 0.5))], CONFIG) is None
    assert fit_placement([], CONFIG) is None


def table_of_squares(spacing=None):
    data = np.zeros((1, 40, 40), np.int32)
    data[0, 10:15, 20:25] = 1
    data[0, 38:40, 0:2] = 2
    labels = Labels(data, spacing)
    return measure(labels), labels


def test_a_nucleus_lies_between_peak_and_centroid_at_the_images_own_scale():
    table, labels = table_of_squares((1.0, 0.5, 0.25))
    # The model sees the image twice as large: its pixel 2 i + 0.5 is the image's pixel i.
    peaks = np.array([[30.5, 40.5], [77.5, 1.5]])
    moved = placed(
        table, peaks, (2.0, 2.0), PlacementSpec(centroid_share=0.25, dy=2, dx=-2), labels
    )
    row = moved.frame.iloc[0]
    assert row["y"] == pytest.approx(0.25 * 12 + 0.75 * 15 + 1)
    assert row["x"] == pytest.approx(0.25 * 22 + 0.75 * 20 - 1)
    assert row["y_um"] == pytest.approx(0.5 * row["y"])
    assert row["x_um"] == pytest.approx(0.25 * row["x"])


def test_no_nucleus_is_put_outside_its_image():
    table, labels = table_of_squares()
    peaks = np.array([[12.0, 22.0], [39.0, 0.0]])
    moved = placed(table, peaks, (1.0, 1.0), PlacementSpec(centroid_share=0.5, dy=3, dx=-3), labels)
    assert moved.frame["y"].tolist() == [15.0, 39.0]
    assert moved.frame["x"].tolist() == [19.0, 0.0]
    assert "y_um" not in moved.frame
