"""Extents, table and outlines against loops over nuclei."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from shapely import Polygon

from nucleoscope.data.labels import Labels
from nucleoscope.data.table import REQUIRED
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.nuclei.measure import contours, extents, measure

MAPS_2D = hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 10), st.integers(1, 10)),
    elements=st.sampled_from([0, 0, 1, 2, 70_000, 2**31 - 1]),
)
MAPS_3D = hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    elements=st.sampled_from([0, 0, 3, 5, 8]),
)


def check_extents(image, found):
    volume = image if image.ndim == 3 else image[None]
    assert found.ids.tolist() == [i for i in np.unique(volume).tolist() if i > 0]
    for n, number in enumerate(found.ids):
        place = np.argwhere(volume == number)
        assert found.size[n] == len(place)
        np.testing.assert_allclose(
            [found.z[n], found.y[n], found.x[n]], place.mean(axis=0), atol=1e-9
        )
        np.testing.assert_array_equal(found.low[n], place.min(axis=0))
        np.testing.assert_array_equal(found.high[n], place.max(axis=0) + 1)
        assert found.n_slices[n] == np.unique(place[:, 0]).size


@settings(max_examples=80, deadline=None)
@given(st.one_of(MAPS_2D, MAPS_3D))
def test_extents_equal_a_loop_over_nuclei(image):
    check_extents(image, extents(image))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint32])
def test_extents_read_any_integers(dtype):
    image = np.array([[0, 1, 1], [9, 9, 1]], dtype=dtype)
    check_extents(image, extents(image))


@pytest.mark.parametrize("number", [-1, 2**31])
def test_ids_outside_int32_are_refused(number):
    with pytest.raises(InputError, match="id"):
        extents(np.array([[number]], dtype=np.int64))


@given(MAPS_2D, st.integers(0, 50_000), st.integers(0, 50_000))
def test_a_tile_s_origin_shifts_centroids_exactly(image, y0, x0):
    moved = np.zeros((image.shape[0] + 3, image.shape[1] + 2), dtype=np.int32)
    moved[3:, 2:] = image
    near, far = extents(image, origin=(y0 + 3, x0 + 2)), extents(moved, origin=(y0, x0))
    for one, other in zip(near, far, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=40, deadline=None)
@given(MAPS_3D, st.randoms(use_true_random=False))
def test_relabelling_changes_nothing_but_the_id(image, random):
    new = [0, *random.sample(range(1, 1000), 8)]
    table = measure(Labels(image)).frame
    other = measure(Labels(np.array(new, dtype=np.int32)[image])).frame
    columns = ["z", "y", "x", "z_min", "z_max", "n_slices"]
    matched = other.set_index("id").loc[[new[i] for i in table["id"]], columns]
    np.testing.assert_array_equal(table[columns].to_numpy(), matched.to_numpy())


def test_a_volume_gets_every_column_of_the_contract_in_um():
    data = np.zeros((4, 6, 8), dtype=np.int32)
    data[1:3, 2:4, 4:8] = 12
    volume = Volume(np.zeros((1, 4, 6, 8), np.uint8), ("dapi",), (2.0, 0.5, 0.25), name="plaque")
    frame = measure(Labels(data), volume=volume, scores=[0.75]).frame
    assert frame.columns.tolist() == [*REQUIRED, "z_um", "y_um", "x_um", "volume_um3"]
    row = frame.iloc[0].to_dict()
    assert (row["id"], row["image"], row["score"]) == (12, "plaque", 0.75)
    assert (row["z"], row["y"], row["x"]) == (1.5, 2.5, 5.5)
    assert (row["z_min"], row["z_max"], row["n_slices"]) == (1, 2, 2)
    assert (row["z_um"], row["y_um"], row["x_um"]) == (3.0, 1.25, 1.375)
    assert row["volume_um3"] == 16 * 2.0 * 0.5 * 0.25


def test_a_plane_has_an_area_and_no_z():
    data = np.zeros((1, 6, 8), dtype=np.int32)
    data[0, 2:4, 4:8] = 3
    frame = measure(Labels(data, (1.0, 0.5, 0.5)), image="core").frame
    assert frame["z"].isna().all()
    assert "z_um" not in frame
    assert frame["area_um2"].tolist() == [2.0]
    assert frame["image"].tolist() == ["core"]


def test_an_unknown_scale_gives_pixels_and_no_um():
    data = np.ones((2, 3, 3), dtype=np.int32)
    assert measure(Labels(data)).frame["volume_px"].tolist() == [18.0]
    flat = measure(Labels(data[:1])).frame
    assert flat["area_px"].tolist() == [9.0]
    assert not [column for column in flat if "um" in column]


def test_a_stack_of_one_slice_is_3d_when_its_volume_says_so():
    volume = Volume(np.zeros((1, 1, 3, 3), np.uint8), ("dapi",), is_2d=False)
    frame = measure(Labels(np.ones((3, 3), np.int32)), volume=volume).frame
    assert frame["z"].tolist() == [0.0]
    assert frame["volume_px"].tolist() == [9.0]


def test_slices_are_counted_not_spanned():
    data = np.zeros((5, 2, 2), dtype=np.int32)
    data[[0, 4]] = 1
    row = measure(Labels(data)).frame.iloc[0]
    assert (row["z_min"], row["z_max"], row["n_slices"]) == (0, 4, 2)


@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 5, 5), (1, 0, 4), (0, 3, 3)])
@pytest.mark.parametrize("spacing", [None, (1.0, 0.5, 0.5)])
def test_no_nuclei_give_an_empty_table_with_its_types(shape, spacing):
    frame = measure(Labels(np.zeros(shape, np.int32), spacing)).frame
    full = measure(Labels(np.ones((max(shape[0], 1), 2, 2), np.int32), spacing)).frame
    assert len(frame) == 0
    if shape[0]:
        assert frame.dtypes.to_dict() == full.dtypes.to_dict()


def test_a_volume_of_another_shape_is_refused():
    volume = Volume(np.zeros((1, 2, 3, 3), np.uint8), ("dapi",), name="a")
    with pytest.raises(InputError, match="a: the image is"):
        measure(Labels(np.zeros((1, 3, 3), np.int32)), volume=volume)


def test_each_nucleus_needs_a_score():
    with pytest.raises(CallError, match="2 given for 1"):
        measure(Labels(np.ones((1, 3, 3), np.int32)), scores=[1.0, 0.5])


def test_centroids_of_discs_are_accurate_and_unbiased():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:400, :400]
    truth = [(40 * i + rng.uniform(15, 25), 40 * j + rng.uniform(15, 25))
             for i in range(10) for j in range(10)]  # fmt: skip
    labels = np.zeros((400, 400), dtype=np.int32)
    for number, (cy, cx) in enumerate(truth, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 81] = number
    frame = measure(Labels(labels)).frame
    error = frame[["y", "x"]].to_numpy() - np.array(truth)
    assert np.hypot(*error.T).max() < 0.3  # what drawing a disc of radius 9 in pixels costs
    assert np.abs(error.mean(axis=0)).max() < 0.03


def rings(found):
    for n, number in enumerate(found.ids):
        here = slice(found.offsets[n], found.offsets[n + 1])
        yield int(number), found.x[here], found.y[here]


@settings(max_examples=150, deadline=None)
@given(MAPS_2D)
def test_an_outline_is_a_simple_polygon_around_the_largest_piece(labels):
    found = contours(labels)
    assert found.ids.tolist() == extents(labels).ids.tolist()
    for number, x, y in rings(found):
        pieces, _ = ndimage.label(labels == number)
        filled = [ndimage.binary_fill_holes(pieces == i)
                  for i in range(1, pieces.max() + 1)]  # fmt: skip
        largest = max((pieces == i).sum() for i in range(1, pieces.max() + 1))
        polygon = Polygon(np.stack([x, y], axis=1))
        assert polygon.is_valid
        assert polygon.exterior.is_ccw  # y points down, so this is clockwise on screen
        candidates = [f for i, f in enumerate(filled, 1) if (pieces == i).sum() == largest]
        assert any(f.sum() == polygon.area for f in candidates)
        edges = np.abs(np.diff(np.stack([x, y]), axis=1, append=[[x[0]], [y[0]]]))
        assert ((edges > 0).sum(axis=0) == 1).all()  # horizontal or vertical, never empty


def test_an_outline_goes_around_the_pixels_it_holds():
    y, x = np.mgrid[:30, :30]
    labels = (((y - 14) ** 2 + (x - 16) ** 2 < 90) * 5).astype(np.int32)
    ((_, ring_x, ring_y),) = rings(contours(labels))
    polygon = Polygon(np.stack([ring_x, ring_y], axis=1))
    assert polygon.area == (labels > 0).sum()
    centroid = extents(labels)
    assert polygon.centroid.x == pytest.approx(centroid.x[0])
    assert polygon.centroid.y == pytest.approx(centroid.y[0])


def test_a_piece_that_bites_its_own_tail_stays_a_simple_polygon():
    tail = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=np.int32)
    ((_, x, y),) = rings(contours(tail))
    assert Polygon(np.stack([x, y], axis=1)).is_valid
    assert Polygon(np.stack([x, y], axis=1)).area == 8  # with the pixel it encloses


def test_no_nuclei_have_no_outlines():
    found = contours(np.zeros((4, 4), np.int32))
    assert found.offsets.tolist() == [0]
    assert found.x.size == found.ids.size == 0
