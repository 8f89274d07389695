"""Crops: order, position, scale, masks, borders."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucleoscope.atlas.crops import crop_blocks, hilbert
from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.region import Region
from nucleoscope.data.slide import Box, Slide
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def nuclei_at(yx: NDArray[np.float64], outlines: Outlines | None = None) -> Nuclei:
    yx = np.asarray(yx, dtype=np.float64).reshape(-1, 2)
    frame = pd.DataFrame({"id": np.arange(1, len(yx) + 1), "y": yx[:, 0], "x": yx[:, 1]})
    return Nuclei(NucleusTable(frame), outlines)


def cut(slide: Slide, nuclei: Nuclei) -> dict[str, NDArray[np.uint8]]:
    """All crops in the order of the nuclei."""
    blocks = list(crop_blocks(slide, nuclei))
    rows = np.concatenate([block.rows for block in blocks])
    assert sorted(rows.tolist()) == list(range(len(nuclei)))
    back = np.argsort(rows)
    names = ("morphology", "context", "mask", "border")
    return {name: np.concatenate([getattr(b, name) for b in blocks])[back] for name in names}


# Order ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_the_curve_visits_every_cell_once_and_steps_to_a_neighbour(side: int) -> None:
    y, x = (v.ravel() for v in np.mgrid[:side, :side])
    order = np.argsort(hilbert(y, x))
    assert sorted(hilbert(y, x).tolist()) == list(range(side * side))
    steps = np.abs(np.diff(y[order])) + np.abs(np.diff(x[order]))
    assert (steps == 1).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 2**20)), min_size=1, max_size=30))
def test_squares_of_sixteen_cells_are_visited_one_after_the_other(
    cells: list[tuple[int, int]],
) -> None:
    y, x = np.array(cells).T
    order = np.argsort(hilbert(y, x), kind="stable")
    squares = [tuple(v) for v in np.stack([y, x], axis=1)[order] // 16]
    changes = [a for i, a in enumerate(squares) if i == 0 or squares[i - 1] != a]
    assert len(changes) == len(set(changes))


# Pictures ---------------------------------------------------------------------------------------


def test_at_the_native_scale_a_crop_is_a_window_of_the_slide() -> None:
    image = picture(1300, 1200)
    rng = np.random.default_rng(3)
    yx = rng.uniform(-0.4, [1299.4, 1199.4], (60, 2))
    crops = cut(Slide.from_array(image, mpp=0.25), nuclei_at(yx))
    padded = np.pad(image, ((64, 64), (64, 64), (0, 0)), mode="symmetric")
    for i, (y, x) in enumerate(np.rint(yx + 0.5 - 32).astype(int) + 64):
        assert np.array_equal(crops["morphology"][i], padded[y : y + 64, x : x + 64]), i


def test_the_context_is_the_average_of_four_by_four_pixels() -> None:
    image = picture(512, 512)
    crops = cut(Slide.from_array(image, mpp=0.25), nuclei_at([[255.5, 255.5]]))
    window = image[128:384, 128:384].astype(float)
    average = window.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(crops["context"][0] - average).max() <= 0.51
    assert not crops["border"][0]


@pytest.mark.parametrize("mpp", [0.11, 0.25, 0.2527, 0.499, 1.0, 3.0])
def test_a_nucleus_lies_in_the_middle_and_keeps_its_size_at_every_scale(mpp: float) -> None:
    side = max(64, round(80 / mpp))
    y, x = np.mgrid[:side, :side]
    centre, radius = np.array([side * 0.4, side * 0.55]) + 0.013, 5.0 / mpp  # um: a disc of 10 um
    disc = np.hypot(y - centre[0], x - centre[1]) <= radius
    image = np.where(disc[..., None], np.uint8(40), np.uint8(220)).repeat(3, axis=2)
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    ring = centre + radius * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    nuclei = nuclei_at(centre, Outlines.from_rings([ring]))
    crops = cut(Slide.from_array(image, mpp=mpp), nuclei)
    coarse = max(1.0, mpp / 0.25)
    for name, um in (("morphology", 0.25), ("context", 1.0)):
        dark = (220.0 - crops[name][0, ..., 0]) / 180
        rows, columns = np.mgrid[:64, :64]
        middle = [(dark * v).sum() / dark.sum() for v in (rows, columns)]
        assert np.abs(np.array(middle) - 31.5).max() < 0.7 * max(1, mpp / um)
        assert dark.sum() * um**2 == pytest.approx(np.pi * 25, rel=0.03 * coarse)
    assert crops["mask"][0].sum() * 0.25**2 == pytest.approx(np.pi * 25, rel=0.02)
    if mpp <= 0.25:
        agree = (crops["morphology"][0, ..., 0] < 130) == (crops["mask"][0] == 1)
        assert agree.mean() > 0.98


def test_a_crop_depends_on_nothing_but_its_nucleus() -> None:
    slide = Slide.from_array(picture(700, 900), mpp=0.31)
    yx = np.random.default_rng(5).uniform(0, [699, 899], (40, 2))
    together = cut(slide, nuclei_at(yx))
    for i in (0, 7, 39):
        alone = cut(slide, nuclei_at(yx[i]))
        for name, all_of_them in together.items():
            assert np.array_equal(alone[name][0], all_of_them[i]), name


def test_each_square_is_read_once_for_each_field() -> None:
    image, reads = picture(2100, 2100), []
    inner = Slide.from_array(image, mpp=0.25)

    def reader(level: int, box: Box) -> NDArray[np.uint8]:
        reads.append(box)
        return inner.reader(level, box)

    slide = Slide("s", inner.level_shapes, 0.25, reader)
    yx = np.random.default_rng(0).uniform(0, 2047, (500, 2))
    cut(slide, nuclei_at(yx))
    assert len(reads) == 2 * 4


def test_the_border_is_flagged_where_the_context_reaches_beyond_the_slide() -> None:
    slide = Slide.from_array(picture(600, 600), mpp=0.25)
    yx = [[124.0, 300.0], [128.0, 300.0], [300.0, 471.0], [300.0, 475.0], [300.0, 300.0]]
    assert cut(slide, nuclei_at(np.array(yx)))["border"].tolist() == [
        True, False, False, True, False,
    ]  # fmt: skip


# Masks ------------------------------------------------------------------------------------------

#: A pixel's centre on an outline is neither inside nor outside, and rounding decides near one.
COORDINATE = st.floats(-20, 80).map(lambda value: round(value, 3) + 0.0001)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=9))
def test_masks_hold_the_pixels_whose_centre_is_inside(ring: list[tuple[float, float]]) -> None:
    slide = Slide.from_array(np.zeros((64, 64, 3), np.uint8), mpp=0.25)
    outlines = Outlines.from_rings([ring])
    mask = cut(slide, nuclei_at([[31.5, 31.5]], outlines))["mask"][0]
    region = Region((np.array(ring),))
    y, x = (v.ravel().astype(float) for v in np.mgrid[:64, :64])
    expected = region.contains(y, x).reshape(64, 64)
    # Pixels whose centre lies on an edge may fall on either side.
    near = np.zeros((64, 64), dtype=bool)
    for shift in (1e-6, -1e-6):
        for dy, dx in ((shift, 0.0), (0.0, shift)):
            near |= region.contains(y + dy, x + dx).reshape(64, 64) != expected
    assert ((mask == 1) == expected)[~near].all()


def test_instance_maps_give_the_mask_of_their_own_nucleus() -> None:
    labels = np.zeros((200, 200), dtype=np.int32)
    labels[90:110, 95:120], labels[90:110, 120:130] = 7, 8
    frame = pd.DataFrame({"id": [8, 7], "y": [99.5, 99.5], "x": [124.5, 107.0]})
    nuclei = Nuclei(NucleusTable(frame), None, Labels(labels))
    image = np.repeat((labels[..., None] * 20).astype(np.uint8), 3, axis=2)
    crops = cut(Slide.from_array(image, mpp=0.25), nuclei)
    for i, id_ in enumerate((8, 7)):
        assert np.array_equal(crops["mask"][i] == 1, crops["morphology"][i, ..., 0] == id_ * 20)
    coarse = cut(Slide.from_array(image, mpp=0.5), nuclei)
    assert coarse["mask"][1].sum() == 4 * (labels == 7).sum()


def test_without_an_outline_the_mask_is_empty() -> None:
    slide = Slide.from_array(picture(99, 99), mpp=0.25)
    assert not cut(slide, nuclei_at([[50, 50]]))["mask"].any()
    unknown = Outlines.from_rings([[], [(45, 45), (45, 55), (55, 55)]])
    mask = cut(slide, nuclei_at([[50, 50], [50, 51]], unknown))["mask"]
    assert mask.any(axis=(1, 2)).tolist() == [False, True]


# What is refused --------------------------------------------------------------------------------


def test_an_unknown_scale_and_foreign_nuclei_are_refused() -> None:
    image = picture(50, 90)
    with pytest.raises(InputError, match="--mpp"):
        next(crop_blocks(Slide.from_array(image), nuclei_at([[1, 1]])))
    slide = Slide.from_array(image, mpp=0.25)
    with pytest.raises(InputError, match=r"1 of 2 nuclei lie outside.*y and x swapped"):
        next(crop_blocks(slide, nuclei_at([[10, 10], [80, 20]])))
    with pytest.raises(InputError, match="belong to this slide"):
        next(crop_blocks(slide, nuclei_at([[10, 10], [800, 20]])))
    small = Nuclei(nuclei_at([[1, 1]]).table, None, Labels(np.ones((25, 45), np.int32)))
    with pytest.raises(InputError, match="instance map 1 x 25 x 45"):
        next(crop_blocks(slide, small))


def test_no_nucleus_gives_no_block_and_one_gives_one() -> None:
    slide = Slide.from_array(picture(1, 1), mpp=0.25)
    assert list(crop_blocks(slide, nuclei_at(np.empty((0, 2))))) == []
    crops = cut(slide, nuclei_at([[0, 0]]))
    assert (crops["morphology"][0] == slide.read((0, 0, 1, 1))[0, 0]).all()
    assert crops["border"][0]
