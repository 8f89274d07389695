"""Crops and batches: repeatable, true to the image after every turn, silent where unknown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucleoscope.data.maps import BACKGROUND, UNLABELLED, PseudoLabels
from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.learn import feed
from nucleoscope.learn.feed import (
    CENTRE_RADII,
    CENTRE_SLICES,
    OPAQUE,
    SCALE,
    SLICES_PER_UNIT,
    Crop,
    Feed,
    FeedSettings,
    Lesson,
    _turn,
    bumps,
    collate,
    draw,
    make_lesson,
    offsets_to_centres,
    spilt,
    turned,
)
from nucleoscope.learn.normalise import levels, normalise
from nucleoscope.learn.stain import spill
from nucleoscope.seeds import generator

RADIUS = 6.0
SETTINGS = FeedSettings(crop=48, batch=2, stride=2, context=1, radius=RADIUS)


def balls(
    shape: tuple[int, int, int] = (5, 60, 64), *, channels: int = 2, is_rgb: bool = False
) -> Lesson:
    """Four balls, each with its centre, bright in every channel."""
    centres = np.array([[1, 14, 14], [2, 15, 44], [3, 42, 15], [2, 44, 48]], np.float64)
    centres[:, 0] = np.minimum(centres[:, 0], shape[0] - 1)
    z, y, x = np.indices(shape)
    instances = np.zeros(shape, np.int32)
    for i, c in enumerate(centres):
        r2 = ((z - c[0]) * 3) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2
        instances[r2 < RADIUS**2] = i + 1
    data = np.repeat(np.where(instances > 0, 200, 10).astype(np.uint8)[None], channels, 0)
    names = ("red", "green", "blue") if is_rgb else ("LT", "DAPI")[-channels:]
    volume = Volume(data, names, None, "balls", is_rgb=is_rgb, is_2d=shape[0] == 1)
    foreground = (instances > 0).astype(np.uint8)
    types = np.array([[0], [1], [1], [-1]])
    return Lesson(volume, instances, foreground, centres, types, np.ones(4, bool))


def crops(lesson: Lesson, n: int, chosen: FeedSettings = SETTINGS) -> Iterator[Crop]:
    level = levels(lesson.volume)
    for seed in range(n):
        yield draw(lesson, level, chosen, generator(seed))


def tensors(batch: object) -> dict[str, torch.Tensor]:
    return dict(vars(batch))


# ---------------------------------------------------------------- repeatable


def test_a_batch_depends_on_the_seed_and_the_step_only(lessons: list[Lesson]) -> None:
    one, other = Feed(lessons, SETTINGS, seed=3), Feed(lessons, SETTINGS, seed=3)
    for step in (0, 1, 2):
        other.batch(step)
    first, again = tensors(one.batch(5)), tensors(other.batch(5))
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_another_seed_or_step_gives_another_batch(lessons: list[Lesson]) -> None:
    first = Feed(lessons, SETTINGS, seed=3).batch(5)
    assert not torch.equal(first.image, Feed(lessons, SETTINGS, seed=3).batch(6).image)
    assert not torch.equal(first.image, Feed(lessons, SETTINGS, seed=4).batch(5).image)


def test_drawing_leaves_the_lesson_as_it_was(lessons: list[Lesson]) -> None:
    lesson = lessons[0]
    before = [a.copy() for a in (lesson.volume.data, lesson.instances, lesson.foreground,
                                 lesson.centres, lesson.types)]  # fmt: skip
    for _ in crops(lesson, 4):
        pass
    after = [lesson.volume.data, lesson.instances, lesson.foreground, lesson.centres, lesson.types]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_image_is_drawn_and_none_much_more_than_another() -> None:
    many, few = balls(), balls()
    few = replace(few, centres=few.centres[:0], types=few.types[:0], is_taught=few.is_taught[:0],
                  instances=np.zeros_like(few.instances))  # fmt: skip
    odds = Feed([many, few], SETTINGS, seed=0)._odds
    assert odds.sum() == pytest.approx(1)
    assert odds[0] / odds[1] == pytest.approx(4)


# ---------------------------------------------------------------- true to the image


def test_every_crop_shows_its_nuclei_where_the_image_is_bright() -> None:
    for crop in crops(balls(), 12):
        bright = crop.image[-1][:, ::2, ::2] > 0.5 * crop.image[-1].max()
        agree = (bright == (crop.instances > 0)).mean()
        assert agree > 0.93


def points_at_the_bump(crop: Crop, radius: float) -> float:
    """How far, in map pixels, the voxels' votes lie from the top of their nucleus's bump."""
    worst = 0.0
    for i in np.unique(crop.instances[crop.instances > 0]):
        inside = np.argwhere(crop.instances == i)
        vectors = crop.offsets[:, *inside.T]  # x, y in radii, z in units
        step = np.stack([vectors[2] * SLICES_PER_UNIT, vectors[1] * radius, vectors[0] * radius], 1)
        votes = inside + step
        assert votes.std(axis=0).max() < 1e-3
        vote = votes.mean(axis=0)
        near = tuple(np.rint(vote).astype(int))
        if any(not 1 <= v < n - 1 for v, n in zip(near[1:], crop.centre.shape[1:], strict=True)):
            continue
        z, y, x = near
        window = crop.centre[z, y - 1 : y + 2, x - 1 : x + 2]
        top = np.array(np.unravel_index(window.argmax(), (3, 3))) - 1 + [y, x]
        worst = max(worst, float(np.abs(top - vote[1:]).max()))
        assert window.max() > 0.8
    return worst


def test_offsets_point_at_the_tops_of_the_bumps() -> None:
    for crop in crops(balls(), 24):
        assert points_at_the_bump(crop, RADIUS / 2) <= 0.51


class Coins:
    """A generator whose coins fall as told."""

    def __init__(self, falls: tuple[bool, ...]) -> None:
        self.falls = list(falls)

    def random(self) -> float:
        return 0.0 if self.falls.pop(0) else 1.0


def still() -> Crop:
    """A crop without any variation, with the channel of nuclei marking each by its number."""
    lesson = balls((5, 64, 64))
    radius = RADIUS
    image = lesson.instances[None].astype(np.float32)
    return Crop(
        image, lesson.instances, lesson.foreground,
        bumps(lesson.instances.shape, lesson.centres, radius),
        offsets_to_centres(lesson.instances, lesson.centres, radius), lesson.types,
        np.where(lesson.instances > 0, lesson.instances, -1),
    )  # fmt: skip


@pytest.mark.parametrize("turn", range(16))
def test_all_sixteen_turns_keep_image_and_targets_together(turn: int) -> None:
    falls = tuple(bool(turn >> bit & 1) for bit in range(4))
    crop = still()
    turned = _turn(crop, Coins(falls))  # type: ignore[arg-type]
    assert np.array_equal(turned.image[0], turned.instances)
    assert np.array_equal(turned.foreground, turned.instances > 0)
    assert np.array_equal(turned.voronoi > 0, turned.instances > 0)
    assert points_at_the_bump(turned, RADIUS) <= 0.51
    flips = tuple(axis for axis, fall in zip((0, 1, 2), falls, strict=False) if fall)
    expected = np.flip(crop.instances, flips)
    if falls[3]:
        expected = expected.swapaxes(1, 2)
    assert np.array_equal(turned.instances, expected)
    assert all(a.flags.c_contiguous for a in (turned.image, turned.centre, turned.offsets))


@pytest.mark.parametrize("turn", range(16))
def test_one_slice_turned_is_still_an_array_for_torch(turn: int) -> None:
    # A mirrored axis of length one counts as contiguous and yet runs backwards.
    lesson = balls((1, 64, 64))
    crop = Crop(
        lesson.volume.data.astype(np.float32), lesson.instances, lesson.foreground,
        bumps((1, 64, 64), lesson.centres, RADIUS),
        offsets_to_centres(lesson.instances, lesson.centres, RADIUS), lesson.types,
        lesson.instances,
    )  # fmt: skip
    falls = tuple(bool(turn >> bit & 1) for bit in range(4))
    turned = _turn(crop, Coins(falls))  # type: ignore[arg-type]
    assert collate([turned], 0).image.shape == (1, 2, 64, 64)


def test_voronoi_labels_are_numbered_through_the_batch_and_walls_stay() -> None:
    batch = collate([still(), still()], 0)
    assert (batch.voronoi[batch.instances > 0] == batch.instances[batch.instances > 0]).all()
    assert (batch.voronoi[batch.instances == 0] == -1).all()


def test_the_sixteen_turns_differ() -> None:
    rng = np.random.default_rng(0)
    crop = replace(still(), image=rng.random((1, 5, 64, 64), dtype=np.float32))
    seen = {
        _turn(crop, Coins(tuple(bool(t >> b & 1) for b in range(4)))).image.tobytes()  # type: ignore[arg-type]
        for t in range(16)
    }
    assert len(seen) == 16


def slow_bumps(
    shape: tuple[int, ...], centres: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    z, y, x = np.indices(shape)
    out = np.zeros(shape)
    s = CENTRE_RADII * radius
    for c in centres:
        r2 = ((z - c[0]) / CENTRE_SLICES) ** 2 + ((y - c[1]) / s) ** 2 + ((x - c[2]) / s) ** 2
        out = np.maximum(out, np.exp(-0.5 * r2))
    return out


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 5), radius=st.floats(1, 6))
def test_bumps_equal_a_slow_loop(seed: int, n: int, radius: float) -> None:
    shape = (4, 15, 17)
    centres = np.random.default_rng(seed).uniform([-3, -9, -9], [7, 24, 26], (n, 3))
    # Cut off at three widths, where a bump is exp(-4.5).
    found, expected = bumps(shape, centres, radius), slow_bumps(shape, centres, radius)
    assert np.abs(found - expected).max() < 0.02
    assert np.allclose(found[expected > 0.05], expected[expected > 0.05], atol=1e-5)


def test_offsets_equal_a_slow_loop_and_are_nought_outside() -> None:
    lesson = balls()
    found = offsets_to_centres(lesson.instances, lesson.centres, RADIUS)
    assert found.dtype == np.float32
    for z, y, x in np.argwhere(lesson.instances >= 0)[::37].tolist():
        i = lesson.instances[z, y, x]
        if i == 0:
            assert not found[:, z, y, x].any()
            continue
        c = lesson.centres[i - 1]
        expected = [(c[2] - x) / RADIUS, (c[1] - y) / RADIUS, (c[0] - z) / SLICES_PER_UNIT]
        assert found[:, z, y, x].tolist() == pytest.approx(expected, abs=1e-5)


def test_offsets_are_cut_off_where_a_nucleus_is_absurdly_long() -> None:
    instances = np.ones((1, 4, 200), np.int32)
    found = offsets_to_centres(instances, np.array([[0.0, 2.0, 0.0]]), 5.0)
    assert found.min() == -4


# ---------------------------------------------------------------- silent where unknown


def test_sometimes_markers_are_hidden_and_then_types_are_too() -> None:
    hidden = 0
    for crop in crops(balls(), 120):
        is_dark = not crop.image[0].any()
        assert crop.image[-1].any()
        assert (crop.types == -1).all() == is_dark
        hidden += is_dark
    assert 3 <= hidden <= 30


def test_a_lone_nuclear_channel_and_colours_are_never_hidden() -> None:
    for lesson in (balls(channels=1), balls((1, 60, 64), channels=3, is_rgb=True)):
        for crop in crops(lesson, 60):
            assert all(channel.any() for channel in crop.image)
            assert np.array_equal(crop.types, lesson.types)


def test_centres_outside_the_region_make_no_bump() -> None:
    lesson = balls()
    lesson = replace(lesson, is_taught=np.array([False] * 4))
    assert all(not crop.centre.any() for crop in crops(lesson, 4))


@pytest.mark.parametrize("shape", [(5, 20, 64), (5, 30, 30), (1, 7, 9), (2, 1, 1)])
def test_an_image_smaller_than_the_crop_is_padded_and_the_rest_not_taught(
    shape: tuple[int, int, int],
) -> None:
    lesson = balls(shape)
    for crop in crops(lesson, 4):
        assert crop.image.shape == (2, shape[0], 48, 48)
        assert crop.instances.shape == (shape[0], 24, 24)
        n_out = (crop.foreground == UNLABELLED).sum()
        seen = min(48, shape[1]) * min(48, shape[2]) / 4
        assert n_out >= shape[0] * (24 * 24 - seen - 48)


def test_a_two_dimensional_image_gives_one_slice() -> None:
    lesson = balls((1, 60, 64))
    flat = replace(SETTINGS, context=0)
    batch = Feed([lesson], flat, seed=0).batch(0)
    assert batch.image.shape == (2, 2, 48, 48)
    assert batch.slices.tolist() == [0, 0]
    assert not batch.offsets[:, 2].any()


def test_an_image_without_nuclei_gives_a_batch() -> None:
    lesson = balls()
    empty = Lesson(
        lesson.volume, np.zeros_like(lesson.instances), np.zeros_like(lesson.foreground),
        np.zeros((0, 3)), np.zeros((0, 1), np.int64), np.zeros(0, bool),
    )  # fmt: skip
    batch = Feed([empty], SETTINGS, seed=0).batch(0)
    assert batch.types.tolist() == [[-1]]
    assert not batch.instances.any()


def test_the_margin_of_a_valid_network_is_cut_from_the_targets() -> None:
    lesson = balls((1, 60, 64))
    chosen = replace(SETTINGS, stride=1, margin=8, context=0)
    for crop in crops(lesson, 8, chosen):
        assert crop.instances.shape == (1, 32, 32)
        bright = crop.image[-1][:, 8:-8, 8:-8] > 0.5 * crop.image[-1].max()
        assert (bright == (crop.instances > 0)).mean() > 0.93


@pytest.mark.parametrize("seed", range(6))
def test_varied_pixels_stay_finite_and_in_range(seed: int) -> None:
    lesson = balls()
    loud = replace(lesson.volume, data=(lesson.volume.data > 100).astype(np.uint8) * 255)
    crop = draw(replace(lesson, volume=loud), levels(loud), SETTINGS, generator(seed))
    assert crop.image.dtype == np.float32
    assert np.isfinite(crop.image).all()
    assert 0 <= crop.image.min() <= crop.image.max() <= 2


# ---------------------------------------------------------------- collate and lessons


def test_numbers_run_through_a_batch_and_point_at_their_own_types() -> None:
    made = list(crops(balls(), 3))
    batch = collate(made, 1)
    assert batch.types.shape == (1 + 3 * 4, 1)
    n_z = made[0].image.shape[1]
    for k, crop in enumerate(made):
        part = batch.instances[k * n_z : (k + 1) * n_z].numpy()
        assert np.array_equal(part > 0, crop.instances > 0)
        for i in np.unique(crop.instances[crop.instances > 0]):
            row = np.unique(part[crop.instances == i])
            assert row.tolist() == [4 * k + i]
            assert batch.types[int(row[0])].tolist() == crop.types[i - 1].tolist()
    assert batch.slices.tolist() == list(range(n_z)) * 3


def test_a_batch_shows_each_slice_with_its_neighbours() -> None:
    crop = next(crops(balls(), 1))
    batch = collate([crop], 1)
    n_c, n_z = crop.image.shape[:2]
    for z in range(n_z):
        rows = [crop.image[c, min(max(z + k, 0), n_z - 1)] for c in range(n_c) for k in (-1, 0, 1)]
        assert np.array_equal(batch.image[z].numpy(), np.stack(rows))
        assert np.array_equal(batch.offsets[z].numpy(), crop.offsets[:, z])


def test_a_lessons_centre_is_halfway_from_click_to_centroid() -> None:
    lesson = balls()
    clicks = Points(*np.add(lesson.centres, [0, 2.0, -2.0]).T)
    n = len(clicks)
    pseudo = PseudoLabels(
        np.ones(lesson.instances.shape[1:], np.int32), lesson.instances, lesson.foreground,
        np.ones((n, lesson.instances.shape[0]), bool),
    )  # fmt: skip
    made = make_lesson(lesson.volume, pseudo, clicks, lesson.types, lesson.is_taught)
    for i in range(n):
        centroid = np.argwhere(lesson.instances == i + 1).mean(axis=0)
        assert made.centres[i] == pytest.approx(0.5 * centroid + 0.5 * clicks.zyx()[i])


def test_a_nucleus_of_few_voxels_keeps_its_click() -> None:
    lesson = balls()
    tiny = np.where(lesson.instances == 1, 0, lesson.instances)
    tiny[0, 0, 0] = 1
    pseudo = PseudoLabels(
        np.ones(tiny.shape[1:], np.int32), tiny, lesson.foreground, np.ones((4, 5), bool)
    )
    clicks = Points(*lesson.centres.T)
    made = make_lesson(lesson.volume, pseudo, clicks, lesson.types, lesson.is_taught)
    assert made.centres[0].tolist() == lesson.centres[0].tolist()
    assert clicks.zyx().tolist() == lesson.centres.tolist()


def test_crops_are_normalised_as_whole_stacks_are() -> None:
    lesson = balls()
    lesson = replace(lesson, volume=replace(lesson.volume, data=lesson.volume.data.copy()))
    lesson.volume.data[:, :, :30] //= 3  # half the image is dim: a crop must not stretch it
    whole = normalise(lesson.volume.data, levels(lesson.volume))
    dim = [crop.image[-1].max() for crop in crops(lesson, 40)]
    assert min(dim) < 0.8 * max(dim)
    assert whole.max() == pytest.approx(1, abs=0.1)


# ---------------------------------------------------------------- planes are turned


def spots(size: int = 120, n: int = 12) -> Lesson:
    """A plane of small bright squares, whose centroids are their centres."""
    rng = np.random.default_rng(3)
    places = rng.permutation(
        [(y, x) for y in range(16, size - 8, 16) for x in range(16, size - 8, 16)]
    )
    data = np.zeros((3, 1, size, size), np.uint8)
    instances = np.zeros((1, size, size), np.int32)
    for i, (y, x) in enumerate(places[:n]):
        data[:, 0, y - 2 : y + 3, x - 2 : x + 3] = 200
        instances[0, y - 2 : y + 3, x - 2 : x + 3] = i + 1
    centres = np.column_stack([np.zeros(n), places[:n]]).astype(float)
    volume = Volume(data, ("red", "green", "blue"), is_rgb=True)
    foreground = (instances > 0).astype(np.uint8)
    ones = np.ones(n, dtype=bool)
    return Lesson(volume, instances, foreground, centres, np.zeros((n, 1), np.int64), ones)


@pytest.mark.parametrize("seed", range(6))
def test_image_labels_and_centres_of_a_turned_square_stay_together(seed: int) -> None:
    lesson = turned(spots(), (20, 30), 80, np.random.default_rng(seed))
    assert lesson.volume.shape == (1, 80, 80)
    whole = [i for i in range(12) if (lesson.instances == i + 1).sum() >= 12]
    inside = [
        i for i in whole if ((lesson.centres[i, 1:] > 6) & (lesson.centres[i, 1:] < 73)).all()
    ]
    assert len(inside) >= 3
    for i in inside:
        _, y, x = np.nonzero(lesson.instances == i + 1)
        assert np.allclose([y.mean(), x.mean()], lesson.centres[i, 1:], atol=0.5)
        assert lesson.volume.data[0, 0, round(y.mean()), round(x.mean())] > 150
        assert (lesson.foreground[0, y, x] == 1).all()


def test_a_square_is_enlarged_and_reduced_within_its_bounds() -> None:
    scales = []
    for seed in range(60):
        lesson = turned(spots(), (20, 20), 80, np.random.default_rng(seed))
        a, b = (
            lesson.centres[0, 1:] - lesson.centres[1, 1:],
            spots().centres[0] - spots().centres[1],
        )
        scales.append(np.linalg.norm(a) / np.linalg.norm(b))
    assert np.exp(-SCALE) - 1e-9 <= min(scales) < 0.9
    assert 1.1 < max(scales) <= np.exp(SCALE) + 1e-9


def test_beyond_a_turned_image_nothing_is_taught() -> None:
    whole = replace(spots(), foreground=np.zeros((1, 120, 120), np.uint8))
    lesson = turned(whole, (-30, -30), 120, np.random.default_rng(1))
    assert lesson.foreground[0, 0, 0] == UNLABELLED
    assert (lesson.foreground[0, 40:80, 40:80] == 0).all()


# ---------------------------------------------------------------- ink


@pytest.mark.parametrize("seed", range(5))
def test_under_ink_there_is_nothing_to_find_and_its_edge_is_left_open(seed: int) -> None:
    lesson = spots()
    image = np.full((3, 1, 120, 120), 0.9, np.float32)
    stained, under = spilt(image, lesson, np.random.default_rng(seed))
    density, cover = spill((120, 120), np.random.default_rng(seed))
    opaque = (cover > 0.7) & (density.max(axis=0) > OPAQUE)
    assert (stained <= image + 1e-6).all()
    assert (stained[:, 0][:, opaque].min(axis=0) ** 2 < 0.81 * np.exp(-OPAQUE) + 1e-3).all()
    assert (under.foreground[0][opaque] == BACKGROUND).all()
    rest = (cover >= 0.2) & ~opaque
    assert (under.foreground[0][rest] == UNLABELLED).all()
    assert not under.instances[0][cover >= 0.2].any()
    clear = cover < 0.2
    assert np.array_equal(under.instances[0][clear], lesson.instances[0][clear])
    y, x = lesson.centres[:, 1:].astype(int).T
    assert np.array_equal(under.is_taught, clear[y, x])
    # A nucleus that is covered keeps its row, so that numbers still fit.
    assert len(under.types) == len(lesson.types)


def test_stacks_are_never_inked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SPILT", 1.0)
    usual = [crop.image for crop in crops(balls(), 3)]
    monkeypatch.setattr(feed, "SPILT", 0.0)
    assert all(np.array_equal(a, c.image) for a, c in zip(usual, crops(balls(), 3), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_voronoi_labels_are_turned_with_the_nuclei_and_end_under_ink(seed: int) -> None:
    plain = spots()
    lesson = turned(
        replace(plain, voronoi=plain.instances), (20, 30), 80, np.random.default_rng(seed)
    )
    assert lesson.voronoi is not None
    assert lesson.voronoi.any()
    assert np.array_equal(lesson.voronoi, lesson.instances)
    whole = replace(plain, voronoi=plain.instances)
    _, under = spilt(np.full((3, 1, 120, 120), 0.9, np.float32), whole, np.random.default_rng(seed))
    assert under.voronoi is not None
    assert np.array_equal(under.voronoi, under.instances)
