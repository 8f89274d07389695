"""Regions to look at next: the doubtful ones, apart from each other and unlike each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.errors import CallError, InputError
from nucleoscope.nuclei.suggest import Regions, choose_regions, doubt_of, windows


def regions(seed: int, n: int) -> Regions:
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 60, (n, 2))
    box = np.concatenate([corner, corner + rng.integers(4, 20, (n, 2))], axis=1)
    return Regions(rng.integers(0, 2, n), box, rng.random(n), rng.random((n, 3)))


def share_a_pixel(one: Regions, i: int, j: int) -> bool:
    masks = np.zeros((2, 2, 90, 90), bool)
    for k, row in enumerate((i, j)):
        y0, x0, y1, x1 = one.box[row]
        masks[k, one.image[row], y0:y1, x0:x1] = True
    return bool((masks[0] & masks[1]).any())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12))
def test_suggested_regions_are_distinct_and_never_overlap(seed: int, n: int) -> None:
    given_regions = regions(seed, 25)
    chosen = choose_regions(given_regions, n)
    assert len(chosen) <= n
    assert len(set(chosen.tolist())) == len(chosen)
    assert chosen[0] == given_regions.doubt.argmax()
    for a in range(len(chosen)):
        for b in range(a):
            assert not share_a_pixel(given_regions, int(chosen[a]), int(chosen[b]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_asking_for_more_only_adds(seed: int) -> None:
    candidates = regions(seed, 25)
    few, many = choose_regions(candidates, 3), choose_regions(candidates, 9)
    assert many[: len(few)].tolist() == few.tolist()


def test_a_region_like_one_taken_is_worth_less() -> None:
    box = np.array([[0, 20 * i, 4, 20 * i + 4] for i in range(4)])
    look = np.array([[0.0, 0], [0, 0.01], [5, 5], [0.01, 0]])
    doubt = np.array([3.0, 2.9, 2.0, 2.8])
    chosen = choose_regions(Regions(np.zeros(4, int), box, doubt, look), 2)
    assert chosen.tolist() == [0, 2]


def test_units_of_the_look_do_not_matter() -> None:
    one = regions(3, 25)
    other = Regions(one.image, one.box, one.doubt, one.look * [1000, 0.01, 5] + 7)
    assert choose_regions(one, 6).tolist() == choose_regions(other, 6).tolist()


def test_without_doubt_nothing_is_suggested() -> None:
    one = regions(0, 5)
    sure = Regions(one.image, one.box, np.zeros(5), one.look)
    assert len(choose_regions(sure, 3)) == 0
    none = Regions(np.zeros(0, int), np.zeros((0, 4), int), np.zeros(0), np.zeros((0, 3)))
    assert len(choose_regions(none, 3)) == 0


def test_regions_that_all_look_alike_still_come_by_doubt() -> None:
    box = np.array([[0, 20 * i, 4, 20 * i + 4] for i in range(3)])
    alike = Regions(np.zeros(3, int), box, np.array([1.0, 3.0, 2.0]), np.ones((3, 2)))
    assert choose_regions(alike, 3).tolist() == [1, 2, 0]


@settings(max_examples=40, deadline=None)
@given(p=st.floats(0, 1), t=st.floats(0.05, 0.95))
def test_doubt_is_largest_at_the_threshold(p: float, t: float) -> None:
    doubt = doubt_of(np.array([p]), t)[0]
    assert 0 <= doubt <= 1
    assert doubt_of(np.array([t]), t)[0] == pytest.approx(1.0)
    assert doubt <= doubt_of(np.array([(p + t) / 2]), t)[0] + 1e-9


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50), side=st.integers(1, 60))
def test_windows_cover_the_image_and_stay_inside(height: int, width: int, side: int) -> None:
    seen = np.zeros((height, width), bool)
    for y0, x0, y1, x1 in windows((height, width), side):
        assert 0 <= y0 < y1 <= height
        assert 0 <= x0 < x1 <= width
        assert (y1 - y0, x1 - x0) == (min(side, height), min(side, width))
        seen[y0:y1, x0:x1] = True
    assert seen.all()


def test_impossible_calls_are_named() -> None:
    with pytest.raises(CallError, match="at least one region"):
        choose_regions(regions(0, 4), 0)
    one = regions(0, 4)
    with pytest.raises(InputError, match="other numbers"):
        Regions(one.image, one.box[:3], one.doubt, one.look)
    with pytest.raises(InputError, match="not negative"):
        Regions(one.image, one.box, one.doubt - 2, one.look)
