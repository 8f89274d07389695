"""Pictures of the report: cut to the region, within their budget, honest about slices."""

from __future__ import annotations

import base64
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from nucleoscope.data import Labels, Region, Volume
from nucleoscope.view import pictures
from nucleoscope.view.report import ReportImage

COLOURS = {"positive": "#E69F00", "negative": "#56B4E9"}


def decoded(uri: str) -> NDArray[np.uint8]:
    head, _, body = uri.partition(",")
    read = imagecodecs.png_decode if "png" in head else imagecodecs.jpeg_decode
    picture: NDArray[np.uint8] = read(base64.b64decode(body))
    return picture


def noisy(depth: int, size: int) -> tuple[Volume, Labels]:
    data = np.random.default_rng(1).integers(0, 256, (2, depth, size, size), dtype=np.uint8)
    return Volume(data, ("LT", "DAPI")), Labels(np.zeros((depth, size, size), np.int32))


def test_a_region_outside_the_image_shows_the_whole_image() -> None:
    far = Region(([[500, 500], [500, 600], [600, 600]],))
    assert pictures.crop_box((1, 50, 60), far) == (0, 0, 50, 60)


def test_pictures_are_cut_to_the_region() -> None:
    volume, labels = noisy(2, 200)
    region = Region(([[60, 80], [60, 120], [100, 120], [100, 80]],))
    made = pictures.make_pictures(volume, labels, {}, {}, region)
    y0, x0, y1, x1 = made.box
    assert (y0, x0) == (60 - pictures.MARGIN, 80 - pictures.MARGIN)
    assert decoded(made.frames[0].layers[0]).shape == (y1 - y0, x1 - x0)


@pytest.mark.parametrize("budget", [60_000, 400_000])
def test_the_budget_holds_for_an_image_of_pure_noise(budget: int) -> None:
    volume, labels = noisy(6, 256)
    assert pictures.make_pictures(volume, labels, {}, {}, budget=budget).n_bytes() <= budget


def test_a_large_image_is_shrunk_by_a_whole_factor() -> None:
    volume, labels = noisy(1, 1500)
    made = pictures.make_pictures(volume, labels, {}, {}, budget=10**8)
    assert made.factor == 3
    assert decoded(made.frames[0].layers[0]).shape == (500, 500)


def test_a_deep_stack_shows_evenly_spaced_slices_with_both_ends() -> None:
    volume, labels = noisy(95, 16)
    made = pictures.make_pictures(volume, labels, {}, {})
    assert len(made.slices) == pictures.MAX_SLICES == len(made.frames)
    assert (made.slices[0], made.slices[-1]) == (0, 94)


def test_slices_show_their_own_nuclei(scene: Callable[..., ReportImage]) -> None:
    image = scene()
    types = {1: "positive", 2: "negative"}
    made = pictures.make_pictures(image.volume, image.labels, types, COLOURS)
    assert made.frames[0].rims is not None
    empty = Labels(np.zeros(image.labels.shape, np.int32))
    bare = pictures.make_pictures(image.volume, empty, {}, COLOURS)
    assert all(frame.rims is None for frame in bare.frames)
    assert set(bare.projections) == {"mip"}
    painted = decoded(made.frames[2].rims or "")
    assert {(230, 159, 0, 255), (86, 180, 233, 255), (0, 0, 0, 0)} <= {
        tuple(c) for c in np.unique(painted.reshape(-1, 4), axis=0).tolist()
    }


def test_an_image_of_one_slice_has_no_projection() -> None:
    volume, labels = noisy(1, 30)
    assert pictures.make_pictures(volume, labels, {}, {}).projections == {}


def test_a_colour_image_is_one_layer() -> None:
    data = np.random.default_rng(2).integers(0, 256, (3, 1, 40, 50), dtype=np.uint8)
    volume = Volume(data, ("red", "green", "blue"), is_rgb=True, is_2d=True)
    made = pictures.make_pictures(volume, Labels(np.zeros((1, 40, 50), np.int32)), {}, {})
    assert len(made.frames[0].layers) == 1
    assert decoded(made.frames[0].layers[0]).shape == (40, 50, 3)


def test_emip_never_exceeds_mip(scene: Callable[..., ReportImage]) -> None:
    image = scene()
    plane = pictures.found_emip(image.volume, image.labels)
    assert plane is not None
    assert (plane <= image.volume.data.max(axis=1)).all()


def test_a_marker_at_other_slices_leaves_no_trace_on_emip(
    scene: Callable[..., ReportImage],
) -> None:
    image = scene(depth=9)
    data = image.volume.data.copy()
    data[0] = 0
    data[0, 0] = 250  # above every nucleus
    plane = pictures.found_emip(Volume(data, ("LT", "DAPI")), image.labels)
    assert plane is not None
    assert not plane[0].any()
