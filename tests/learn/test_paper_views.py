"""The published views: every constant, and each operation against a plain counterpart."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from nucleoscope.learn.paper_views import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PaperViews,
    _bounds,
    _hue,
    paper_views,
)
from nucleoscope.learn.views import Slides

STILL = PaperViews(area=1.0, jitter_share=0, blur_share=0, turn_share=0, mirror_share=0)


def crops(n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    mask = np.zeros((n, 64, 64), np.uint8)
    mask[:, 20:30, 25:45] = 1
    return images, mask


def rendered(images, mask, settings, *, view=0, step=0, slides="one", rows=None):
    rows = np.arange(len(images)) if rows is None else rows
    where = Slides.of(np.zeros(len(images), int)) if slides == "one" else slides
    made = paper_views(images, mask, rows, settings, where, radius=14.0, draw=(0, step, view))
    return (made * IMAGENET_STD + IMAGENET_MEAN) * 255


def test_the_published_constants() -> None:
    views = PaperViews()
    assert views.size == 128
    assert views.area == 0.5
    assert (views.jitter_share, views.blur_share, views.turn_share) == (0.8, 0.5, 0.5)
    assert (views.brightness, views.contrast, views.saturation, views.hue) == (0.4, 0.5, 0.4, 0.5)
    assert views.blur == (0.1, 1.0)
    assert views.mirror_share == 0.5
    assert IMAGENET_MEAN == (0.485, 0.456, 0.406)
    assert IMAGENET_STD == (0.229, 0.224, 0.225)


def test_embedding_shows_the_crop_with_every_pixel_doubled() -> None:
    images, mask = crops(2)
    doubled = images.repeat(2, axis=1).repeat(2, axis=2)
    assert np.allclose(rendered(images, mask, PaperViews(), slides=None), doubled, atol=0.01)


def test_the_query_keeps_its_background_and_the_key_keeps_its_box() -> None:
    images, mask = crops()
    doubled = images.repeat(2, axis=1).repeat(2, axis=2)
    assert np.allclose(rendered(images, mask, STILL), doubled, atol=0.01)
    key = rendered(images, mask, STILL, view=1)
    assert np.allclose(key[:, 40:60, 50:90], doubled[:, 40:60, 50:90], atol=0.01)
    outside = np.abs(key - doubled).mean((1, 2, 3))
    assert (outside > 10).all()


def test_half_the_area_is_the_middle_seven_tenths() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None, None] * 4, (40, 64, 64, 3))
    images, mask = np.ascontiguousarray(ramp), np.zeros((40, 64, 64), np.uint8)
    settings = PaperViews(jitter_share=0, blur_share=0, turn_share=0, mirror_share=0)
    views = rendered(images, mask, settings)
    span = (views[:, -1, 0, 0] - views[:, 0, 0, 0]) / 252
    assert 0.70 < span.min() < 0.74
    assert span.max() > 0.95


def test_turns_and_mirrors_give_all_eight_positions() -> None:
    images, mask = crops(1)
    settings = PaperViews(area=1.0, jitter_share=0, blur_share=0)
    seen = {
        rendered(images, mask, settings, step=step).round().astype(np.uint8).tobytes()
        for step in range(60)
    }
    assert len(seen) == 8


def test_hue_turns_as_colorsys_does() -> None:
    view = np.random.default_rng(1).random((4, 4, 3)).astype(np.float32)
    turned = view.copy()
    _hue(turned, 0.3)
    for before, after in zip(view.reshape(-1, 3), turned.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before.tolist())
        assert np.allclose(colorsys.hsv_to_rgb((h + 0.3) % 1, s, v), after, atol=1e-5)


def test_colours_and_blur_stay_within_range_and_change_something() -> None:
    images, mask = crops()
    for settings in (
        PaperViews(area=1.0, blur_share=0, turn_share=0, mirror_share=0, jitter_share=1),
        PaperViews(area=1.0, blur_share=1, turn_share=0, mirror_share=0, jitter_share=0),
    ):
        views = rendered(images, mask, settings)
        assert views.min() > -0.1
        assert views.max() < 255.1
        assert np.abs(views - images.repeat(2, axis=1).repeat(2, axis=2)).mean() > 1


def test_order_and_company_change_no_view() -> None:
    images, mask = crops()
    together = rendered(images, mask, PaperViews(), view=1, step=7)
    alone = rendered(images, mask, PaperViews(), view=1, step=7, rows=np.array([2]))
    assert np.array_equal(together[2], alone[0])


def test_backgrounds_come_from_the_same_slide() -> None:
    images, mask = crops()
    images[:2], images[2:] = 10, 240
    slides = Slides.of(np.array([0, 0, 1, 1]))
    key = rendered(images, mask, STILL, view=1, slides=slides)
    assert np.allclose(key[:2], 10, atol=0.01)
    assert np.allclose(key[2:], 240, atol=0.01)


@pytest.mark.parametrize("radius", [5.0, 14.0, 100.0])
def test_without_a_contour_the_box_is_that_of_a_disc(radius) -> None:
    y0, y1, x0, x1 = _bounds(np.zeros((64, 64), np.uint8), radius)
    assert (y0, y1) == (x0, x1) == (max(0, int(32 - radius)), min(64, int(33 + radius)))
