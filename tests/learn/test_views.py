"""Views: what they may change, what they must keep, and that nothing but the seed matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, map_coordinates

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn.view_kernels import AFFINE, BACK, BACK_AFFINE, COLOUR, GREY, OWN, SIGMA
from nucleoscope.learn.views import (
    N_PARAMETERS,
    OD_MEAN,
    OD_STD,
    Slides,
    ViewSettings,
    draw_views,
    plain_views,
    render_outlines,
    render_views,
    soft_edges,
    typical_radius,
)

STILL = ViewSettings(
    rotation=False, scale=0.0, shift=0.0, stain=0.0, stain_offset=0.0, tilt_deg=0.0,
    brightness=0.0, blur_share=0.0, swap=0.0, grey=0.0,
)  # fmt: skip


def crops(n: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    mask = np.zeros((n, 64, 64), np.uint8)
    mask[:, 22:40, 24:44] = 1
    return images, mask


def rendered(images, mask, rows, drawn, settings, *, radius):
    edges = soft_edges(mask, settings, radius=radius)
    return render_views(images, edges, rows, drawn, settings)


def density(intensity):
    return (-np.log((np.asarray(intensity, float) + 1) / 256) - OD_MEAN) / OD_STD


def two(rows, settings, slides, **where):
    images, mask = crops(len(slides.slide))
    drawn = draw_views(settings, rows, slides, **where)
    return rendered(images, mask, rows, drawn, settings, radius=14.0)


def test_a_plain_view_is_the_mean_of_two_by_two_pixels_as_density() -> None:
    images, mask = crops(2)
    views = rendered(images, mask, np.arange(2), plain_views(STILL, 2), STILL, radius=14.0)
    mean = images.reshape(2, 32, 2, 32, 2, 3).astype(float).mean((2, 4))
    assert np.abs(views - density(mean)).max() < 0.1  # a quarter grey level, darkest pixels
    assert np.abs(views - density(mean)).mean() < 0.01


def test_drawing_nothing_gives_the_plain_view() -> None:
    rows, slides = np.arange(6), Slides.of(np.zeros(6, int))
    images, mask = crops()
    plain = rendered(images, mask, rows, plain_views(STILL, 6), STILL, radius=14.0)
    for view in (0, 1):
        drawn = two(rows, STILL, slides, seed=3, step=1, view=view)
        assert np.allclose(drawn, plain, atol=1e-4)


@given(st.permutations(range(6)), st.integers(0, 1))
@settings(max_examples=15, deadline=None)
def test_order_and_company_change_no_view(order, view) -> None:
    slides = Slides.of(np.array([0, 0, 1, 1, 1, 0]))
    rows = np.array(order)
    where = {"seed": 5, "step": 2, "view": view}
    together = two(np.arange(6), ViewSettings(), slides, **where)
    assert np.array_equal(two(rows, ViewSettings(), slides, **where), together[rows])
    assert np.array_equal(two(rows[:1], ViewSettings(), slides, **where), together[rows[:1]])


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 9}, {"view": 1}])
def test_seed_step_and_view_each_change_what_is_drawn(other) -> None:
    slides, rows = Slides.of(np.zeros(4, int)), np.arange(4)
    where = {"seed": 0, "step": 0, "view": 0}
    one = draw_views(ViewSettings(), rows, slides, **where)
    two_ = draw_views(ViewSettings(), rows, slides, **(where | other))
    assert not np.isclose(one[:, 0], two_[:, 0]).any()


def test_the_draws_stay_inside_their_ranges_and_fill_them() -> None:
    settings_ = ViewSettings(scale=0.1, shift=1.5, blur=0.7, blur_share=0.3)
    slides, rows = Slides.of(np.zeros(4000, int)), np.arange(4000)
    drawn = draw_views(settings_, rows, slides, seed=0, step=0, view=1)
    zoom = np.sqrt(np.abs(drawn[:, 0] * drawn[:, 3] - drawn[:, 1] * drawn[:, 2])) / 2
    assert 0.9 <= zoom.min() < 0.91
    assert 1.09 < zoom.max() <= 1.1
    assert np.abs(drawn[:, 4:6]).max() <= 1.5
    assert 0.27 < (drawn[:, SIGMA] > 0).mean() < 0.33
    assert drawn[:, SIGMA].max() <= 0.7
    mirrored = drawn[:, 0] * drawn[:, 3] - drawn[:, 1] * drawn[:, 2] < 0
    assert 0.46 < mirrored.mean() < 0.54
    assert 0.67 < (drawn[:, BACK] >= 0).mean() < 0.73
    assert 0.12 < (drawn[:, BACK] == GREY).mean() < 0.18


def test_backgrounds_come_from_the_same_slide_and_only_for_the_key() -> None:
    slide = np.repeat([7, 3, 9], [5, 20, 1])
    slides, rows = Slides.of(slide), np.arange(26)
    for step in range(20):
        key = draw_views(ViewSettings(swap=1, grey=0), rows, slides, seed=0, step=step, view=1)
        assert (slide[key[:, BACK].astype(int)] == slide).all()
        query = draw_views(ViewSettings(), rows, slides, seed=0, step=step, view=0)
        assert (query[:, BACK] == OWN).all()


def test_a_swap_keeps_the_nucleus_and_changes_the_rest() -> None:
    settings_ = ViewSettings(**{**vars(STILL), "swap": 1.0, "size": 64})
    images, mask = crops(2)
    images[0], images[1] = 60, 200
    slides, rows = Slides.of(np.zeros(2, int)), np.array([0])
    drawn = draw_views(settings_, rows, slides, seed=0, step=0, view=1)
    drawn[:, BACK] = 1
    view = rendered(images, mask, rows, drawn, settings_, radius=14.0)[0]
    distance = distance_transform_edt(mask[0] == 0)
    assert np.allclose(view[distance <= 2], density([60] * 3), atol=0.02)
    assert np.allclose(view[distance > 5.2], density([200] * 3), atol=0.02)
    between = view[(distance > 2.5) & (distance < 4.5)]
    assert (between < density([60] * 3) - 0.02).all()
    assert (between > density([200] * 3) + 0.02).all()


def test_without_a_contour_a_disc_stands_for_the_nucleus() -> None:
    settings_ = ViewSettings(**{**vars(STILL), "swap": 1.0, "size": 64})
    images, mask = crops(2)
    images[0], images[1], mask[:] = 60, 200, 0
    drawn = plain_views(settings_, 1)
    drawn[:, BACK], drawn[:, 21], drawn[:, 24] = 1, 1, 1
    view = rendered(images, mask, np.array([0]), drawn, settings_, radius=10.0)[0, :, :, 0]
    y, x = np.indices((64, 64)) - 31.5
    r = np.hypot(y, x)
    assert np.allclose(view[r < 12], density([60] * 3)[0], atol=0.02)
    assert np.allclose(view[r > 15.5], density([200] * 3)[0], atol=0.02)


def test_grey_is_the_mean_of_the_crop() -> None:
    settings_ = ViewSettings(**{**vars(STILL), "size": 64})
    images, mask = crops(1)
    drawn = plain_views(settings_, 1)
    drawn[:, BACK] = GREY
    view = rendered(images, mask, np.array([0]), drawn, settings_, radius=10.0)[0]
    assert np.allclose(view[0, 0], density(images[0].mean((0, 1))), atol=0.01)


def test_the_hole_blanks_a_disc_and_nothing_else() -> None:
    settings_ = ViewSettings(size=64, hole=8.0)
    images = np.full((1, 64, 64, 3), 90, np.uint8)
    mask = np.zeros((1, 64, 64), np.uint8)
    plain = plain_views(settings_, 1)
    view = rendered(images, mask, np.array([0]), plain, settings_, radius=10.0)[0, :, :, 0]
    y, x = np.indices((64, 64)) - 31.5
    assert (view[np.hypot(y, x) < 7.9] == 0).all()
    assert (view[np.hypot(y, x) > 8.1] != 0).all()


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    images, mask = crops(1)
    plain = plain_views(STILL, 1)
    turned = plain.copy()
    turned[:, 0:4] = (0, -2, 2, 0)
    a, b = (
        rendered(images, mask, np.array([0]), p, STILL, radius=10.0)[0] for p in (plain, turned)
    )
    assert np.allclose(b, np.rot90(a, 1), atol=1e-3) or np.allclose(b, np.rot90(a, -1), atol=1e-3)


def test_stain_jitter_moves_density_along_the_stains_only() -> None:
    settings_ = ViewSettings(**{**vars(STILL), "stain": 0.1})
    images, mask = crops(1)
    slides = Slides.of(np.zeros(1, int))
    white = np.full_like(images, 255)
    drawn = draw_views(settings_, np.array([0]), slides, seed=0, step=0, view=0)
    view = rendered(white, mask, np.array([0]), drawn, settings_, radius=10.0)
    assert np.allclose(view, density([255] * 3), atol=1e-4)  # no stain, nothing to change
    view = rendered(images, mask, np.array([0]), drawn, settings_, radius=10.0)
    still = rendered(images, mask, np.array([0]), plain_views(STILL, 1), STILL, radius=10.0)
    change = np.abs((view - still) * OD_STD)
    assert 0 < change.mean() < 0.15


def test_beyond_the_crop_it_is_mirrored() -> None:
    images = np.zeros((1, 64, 64, 3), np.uint8)
    images[:, :, :4] = 250
    mask = np.zeros((1, 64, 64), np.uint8)
    shifted = plain_views(STILL, 1)
    shifted[:, 5] = -4  # eight columns' worth of mirrored light instead of four
    view = rendered(images, mask, np.array([0]), shifted, STILL, radius=10.0)[0, :, :, 0]
    assert (view[:, :4] < 0).all()
    assert (view[:, 4:] > 0).all()


def slow_view(images, edges, row, p, size):
    """One view without blur, in float64, sampled by scipy."""
    middle = (np.array(images.shape[1:3]) - 1) / 2
    grid = np.indices((size, size)).reshape(2, -1) - (size - 1) / 2
    at = p[AFFINE : AFFINE + 4].reshape(2, 2) @ grid + p[AFFINE + 4 : AFFINE + 6, None]

    def sampled(image, where):
        planes = [
            map_coordinates(image[..., c].astype(float), where, order=1, mode="reflect")
            for c in range(3)
        ]
        return np.stack(planes, axis=1)

    value = sampled(images[row], at + middle[:, None])
    if p[BACK] != OWN:
        y, x = np.floor(at + middle[:, None] + 0.5).astype(int)
        inside = (y >= 0) & (x >= 0) & (y < images.shape[1]) & (x < images.shape[2])
        keep = np.where(inside, edges[row][np.where(inside, y, 0), np.where(inside, x, 0)], 0) / 255
        turn, shift = p[BACK_AFFINE : BACK_AFFINE + 4].reshape(2, 2), p[BACK_AFFINE + 4 :, None]
        behind = np.tile(images[row].mean((0, 1)), (len(keep), 1))
        if p[BACK] != GREY:
            behind = sampled(images[int(p[BACK])], turn @ at + shift + middle[:, None])
        value = behind + keep[:, None] * (value - behind)
    colour = p[COLOUR : COLOUR + 12]
    od = -np.log((value + 1) / 256)
    return (od @ colour[:9].reshape(3, 3).T + colour[9:]).reshape(size, size, 3)


@pytest.mark.parametrize("shape", [(64, 64), (40, 64), (64, 31)])
@pytest.mark.parametrize("view", [0, 1])
def test_views_are_those_of_a_slow_float64_sampler(shape, view) -> None:
    rng = np.random.default_rng(1)
    # Nothing near black: optical density is steep there, where a table of quarters is coarse.
    images = rng.integers(40, 256, (6, *shape, 3), dtype=np.uint8)
    mask = np.zeros((6, *shape), np.uint8)
    mask[:, 14:27, 10:24] = 1
    settings_ = ViewSettings(blur_share=0.0, shift=30.0, swap=0.6, grey=0.3)
    edges = soft_edges(mask, settings_, radius=9.0)
    rows = np.arange(6)
    drawn = draw_views(settings_, rows, Slides.of(np.zeros(6, int)), seed=3, step=0, view=view)
    fast = render_views(images, edges, rows, drawn, settings_)
    slow = [slow_view(images, edges, r, drawn[r].astype(float), settings_.size) for r in rows]
    # A point halfway between two pixels may fall to either side in float32.
    assert np.mean(np.abs(fast - slow) > 0.02) < 0.002


def test_a_view_beside_a_grey_one_is_the_view_alone_to_the_bit() -> None:
    images, mask = crops(4)
    settings_ = ViewSettings()
    edges = soft_edges(mask, settings_, radius=10.0)
    slides, rows = Slides.of(np.zeros(4, int)), np.arange(4)
    drawn = draw_views(settings_, rows, slides, seed=0, step=0, view=1)
    drawn[:, BACK] = (GREY, 2, GREY, 1)
    together = render_views(images, edges, rows, drawn, settings_)
    for row in rows:
        alone = render_views(images, edges, rows[row : row + 1], drawn[row : row + 1], settings_)
        assert np.array_equal(alone[0], together[row])


@pytest.mark.parametrize("view", [0, 1])
def test_an_outline_moves_with_its_nucleus(view) -> None:
    y, x = np.indices((64, 64)) - 31.5
    mask = (np.hypot(y / 9, (x - 6) / 16) < 1).astype(np.uint8)[None]
    images = np.repeat(np.where(mask[..., None] == 1, 40, 230), 3, axis=3).astype(np.uint8)
    settings = ViewSettings(blur_share=0.0, swap=0.0, grey=0.0)
    rows, slides = np.zeros(5, dtype=np.int64), Slides.of(np.zeros(1, dtype=int))
    for step in range(5):
        drawn = draw_views(settings, rows[:1], slides, seed=1, step=step, view=view)
        dark = render_views(images, mask, rows[:1], drawn, settings)[0, ..., 1]
        shares = soft_edges(mask, ViewSettings(dilate=0.0, feather=1.0), radius=1.0)
        outline = render_outlines(shares, rows[:1], drawn, settings)[0]
        assert set(np.unique(outline)) == {0.0, 1.0}
        middle = (dark.max() + dark.min()) / 2
        assert ((dark > middle) == (outline > 0.5)).mean() > 0.95


def test_blur_keeps_the_mean_and_lowers_the_contrast() -> None:
    images, mask = crops(1)
    sharp = plain_views(STILL, 1)
    soft = sharp.copy()
    soft[:, SIGMA] = 0.8
    a, b = (rendered(images, mask, np.array([0]), p, STILL, radius=10.0)[0] for p in (sharp, soft))
    assert b.std() < 0.8 * a.std()
    assert abs(a.mean() - b.mean()) < 0.02


def test_the_typical_radius_is_that_of_the_median_outline() -> None:
    mask = np.zeros((3, 64, 64), np.uint8)
    y, x = np.indices((64, 64)) - 31.5
    mask[0] = np.hypot(y, x) < 9
    mask[1] = np.hypot(y, x) < 9
    assert typical_radius(mask, 0.25) == pytest.approx(9, abs=0.2)
    assert typical_radius(mask[2:], 0.5) == 7.0
    assert typical_radius(mask[:0], 0.25) == 14.0


def test_slides_with_gaps_in_their_numbers_are_grouped() -> None:
    slides = Slides.of(np.array([4, 9, 4, 4, 9]))
    assert len(slides) == 2
    assert slides.order[slides.start[0] : slides.start[1]].tolist() == [0, 2, 3]
    assert len(Slides.of(np.zeros(0, int))) == 0


def test_no_rows_give_no_views() -> None:
    images, mask = crops(2)
    none = np.zeros(0, np.int64)
    views = rendered(images, mask, none, plain_views(STILL, 0), STILL, radius=10.0)
    assert views.shape == (0, 32, 32, 3)


def test_impossible_calls_are_one_sentence() -> None:
    images, mask = crops(2)
    plain = plain_views(STILL, 1)
    with pytest.raises(InputError, match="row 5"):
        rendered(images, mask, np.array([5]), plain, STILL, radius=9.0)
    with pytest.raises(InputError, match="edges"):
        rendered(images, mask[:1], np.array([0]), plain, STILL, radius=9.0)
    with pytest.raises(InputError, match=str(N_PARAMETERS)):
        rendered(images, mask, np.array([0, 1]), plain, STILL, radius=9.0)
    plain[:, BACK] = 2
    with pytest.raises(InputError, match="row 2"):
        rendered(images, mask, np.array([0]), plain, STILL, radius=9.0)
    with pytest.raises(CallError, match="size"):
        ViewSettings(size=4)
    with pytest.raises(CallError, match="at most 1"):
        ViewSettings(swap=0.8, grey=0.3)
