import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from nucleoscope.data import Points, Region, Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.supervision import (
    half_maximum,
    median_radius,
    nearest_point,
    project,
    projected_labels,
    pseudo_labels,
    z_step_of,
)
from nucleoscope.supervision.plane import _by_point

_spec = importlib.util.spec_from_file_location("literal", Path(__file__).with_name("literal.py"))
literal = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(literal)


def volume_of(scene, spacing="own"):
    stack = np.stack([scene.marker, scene.nuclei])
    return Volume(stack, ("LT", "DAPI"), scene.spacing if spacing == "own" else spacing)


def points_of(clicks):
    clicks = np.asarray(clicks, dtype=float).reshape(-1, 3)
    return Points(clicks[:, 0], clicks[:, 1], clicks[:, 2])


def iou(found, truth, ids):
    return np.array(
        [((found == j) & (truth == j)).sum() / ((found == j) | (truth == j)).sum() for j in ids]
    )


def test_every_click_gets_its_nucleus_and_its_slices(scene):
    labels = pseudo_labels(volume_of(scene), points_of(scene.clicks))
    n = len(scene.clicks)
    assert iou(labels.instances, scene.truth, range(1, n + 1)).min() > 0.6
    for j in range(n):
        true = np.flatnonzero((scene.truth == j + 1).any(axis=(1, 2)))
        kept = np.flatnonzero(labels.z_ranges[j])
        assert abs(true[0] - kept[0]) <= 1
        assert abs(true[-1] - kept[-1]) <= 1
    assert labels.n_fallback == 0
    assert np.array_equal(labels.foreground == 1, labels.instances > 0)
    assert (scene.truth[labels.foreground == 0] > 0).mean() < 0.01
    assert (labels.foreground == 0).mean() > 0.5
    cells = nearest_point(scene.truth.shape[1:], scene.clicks)
    assert np.array_equal(labels.cells, cells)


def test_the_paper_setting_equals_the_literal_algorithm(scene):
    voxel = scene.clicks.astype(int)
    cells, _ = literal.nearest(scene.nuclei.shape[1:], voxel[:, 1:])
    distance = literal.padded_distance(scene.nuclei.shape, voxel)
    binary = literal.cluster(scene.nuclei, distance, voxel) != 0
    slow_image, slow_ranges = literal.emip(scene.marker, binary, cells)
    volume = volume_of(scene, spacing=None)  # eleven pixels per slice, as published
    labels = pseudo_labels(volume, points_of(scene.clicks), setting="paper")
    assert np.array_equal(labels.cells, cells)
    assert ((labels.foreground == 1) == binary).mean() > 0.9999
    assert np.array_equal(labels.z_ranges, slow_ranges)
    image = project(
        volume, method="emip", cells=labels.cells, z_ranges=labels.z_ranges, channels="marker"
    )
    assert np.array_equal(image.data[0], slow_image)
    assert np.array_equal(image.data[1], scene.nuclei.max(axis=0))


@pytest.mark.parametrize("setting", ["default", "paper"])
def test_the_order_of_points_only_renames(scene, setting):
    volume = volume_of(scene)
    order = np.array([3, 0, 5, 1, 4, 2])
    one = pseudo_labels(volume, points_of(scene.clicks), setting=setting)
    two = pseudo_labels(volume, points_of(scene.clicks[order]), setting=setting)
    assert np.array_equal(one.z_ranges[order], two.z_ranges)
    assert np.array_equal(one.foreground, two.foreground)
    renamed = np.concatenate([[0], order + 1])[two.instances]
    tied = renamed != one.instances
    assert tied.mean() < 0.002  # voxels as far from one click as from another


def test_foreign_marker_above_a_nucleus_is_in_the_mip_and_not_in_the_emip():
    shape = (12, 48, 48)
    z, y, x = np.indices(shape)
    column = (y - 24) ** 2 + (x - 24) ** 2 <= 64
    nuclei = np.where(column & (z >= 5) & (z <= 9), 180, 10).astype(np.uint8)
    marker = np.where(column & (z <= 2), 200, 0).astype(np.uint8)
    volume = Volume(np.stack([marker, nuclei]), ("LT", "DAPI"), (1.5, 0.5, 0.5))
    labels = pseudo_labels(volume, points_of([[7, 24, 24]]))
    kept = {"cells": labels.cells, "z_ranges": labels.z_ranges}
    assert project(volume, method="emip", channels="marker", **kept).data[0].max() == 0
    assert project(volume, method="mip").data[0].max() == 200


def test_stacked_nuclei_share_a_pixel_but_not_a_slice():
    shape = (14, 40, 40)
    z, y, x = np.indices(shape)
    flat = (y - 20) ** 2 + (x - 20) ** 2
    nuclei = np.full(shape, 10, np.uint8)
    for centre in (3, 10):
        nuclei[((z - centre) * 3) ** 2 + flat <= 49] = 200
    volume = Volume(nuclei[None], ("DAPI",), (1.5, 0.5, 0.5))
    labels = pseudo_labels(volume, points_of([[3, 20, 20], [10, 20, 21]]))
    assert not (labels.z_ranges[0] & labels.z_ranges[1]).any()
    assert labels.z_ranges[0, 3]
    assert labels.z_ranges[1, 10]


def test_points_outside_the_region_are_dropped_and_rows_keep_their_places(scene):
    region = Region(([[-1, -1], [-1, 200], [72, 200], [72, -1]],))
    order = [5, 0, 1, 2, 3, 4]
    labels = pseudo_labels(volume_of(scene), points_of(scene.clicks[order]), region=region)
    assert not labels.z_ranges[0].any()
    assert 1 not in labels.cells
    assert 1 not in labels.instances
    assert set(np.unique(labels.cells)) == {2, 3, 4, 5, 6}
    assert (labels.foreground[:, 73:] != 0).all()
    assert labels.z_ranges[1:].any(axis=1).all()
    paper = pseudo_labels(
        volume_of(scene), points_of(scene.clicks[order]), region=region, setting="paper"
    )
    assert set(np.unique(paper.cells)) == {2, 3, 4, 5, 6}
    assert not paper.z_ranges[0].any()


@pytest.mark.parametrize("setting", ["default", "paper"])
@pytest.mark.parametrize(
    "clicks",
    [
        [[1, 20, 20]],
        [[1, 20, 20], [1, 20, 20], [1, 20, 20]],
        [[0, 20, 20], [1, 20, 20], [2, 20, 20]],
        [[1, 10, k] for k in range(0, 30, 5)],
        [[0, 0, 0], [2, 39, 39]],
    ],
    ids=["one", "duplicates", "one pixel", "a row", "corners"],
)
def test_no_arrangement_of_clicks_breaks_it(setting, clicks):
    rng = np.random.default_rng(0)
    volume = Volume(rng.integers(0, 255, (1, 3, 40, 40), dtype=np.uint8), ("DAPI",))
    labels = pseudo_labels(volume, points_of(clicks), setting=setting)
    assert labels.z_ranges.shape == (len(clicks), 3)
    assert labels.cells.min() >= 1
    assert labels.cells.max() <= len(clicks)
    if setting == "default":
        assert labels.z_ranges.any(axis=1).all()


@pytest.mark.parametrize("setting", ["default", "paper"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_constant_image_falls_back_to_the_slices_around_the_click(setting, dtype):
    volume = Volume(np.full((1, 5, 30, 30), 9, dtype), ("DAPI",))
    labels = pseudo_labels(volume, points_of([[2, 10, 10], [4, 20, 20]]), setting=setting)
    if setting == "default":
        assert labels.n_fallback == 2
        assert np.flatnonzero(labels.z_ranges[0]).tolist() == [1, 2, 3]
        assert (labels.instances == 0).all()


def test_a_plane_is_a_stack_of_one_slice(scene):
    plane = Volume(scene.nuclei.max(axis=0)[None, None], ("DAPI",), is_2d=True)
    labels = pseudo_labels(plane, points_of(scene.clicks * (0, 1, 1)), nuclei=0)
    assert labels.instances.shape == (1, 96, 96)
    assert labels.z_ranges.all()


def test_nuclei_of_a_brightfield_image_are_what_is_dark_in_red(scene):
    dark = 255 - scene.nuclei.max(axis=0)
    pink = np.full(dark.shape, 200, np.uint8)
    image = Volume(
        np.stack([dark, pink, pink])[:, None], ("red", "green", "blue"), is_rgb=True, is_2d=True
    )
    plane = Volume(scene.nuclei.max(axis=0)[None, None], ("DAPI",), is_2d=True)
    clicks = points_of(scene.clicks * (0, 1, 1))
    one, two = pseudo_labels(image, clicks), pseudo_labels(plane, clicks)
    assert np.array_equal(one.instances, two.instances)


def test_an_unknown_scale_counts_a_slice_as_eleven_pixels(scene):
    assert z_step_of(volume_of(scene, spacing=None)) == 11.0
    assert z_step_of(volume_of(scene)) == pytest.approx(3.0)


def test_impossible_requests_are_refused_in_one_sentence(scene):
    volume = volume_of(scene)
    with pytest.raises(InputError, match="at least one click"):
        pseudo_labels(volume, points_of(np.empty((0, 3))))
    with pytest.raises(InputError, match="outside the image"):
        pseudo_labels(volume, points_of([[0, 500, 5]]))
    with pytest.raises(InputError, match="none of 1 points"):
        pseudo_labels(
            volume, points_of([[0, 50, 50]]), region=Region(([[0, 0], [0, 9], [9, 9], [9, 0]],))
        )
    with pytest.raises(CallError, match="no channel"):
        pseudo_labels(volume, points_of(scene.clicks), nuclei="Hoechst")
    with pytest.raises(CallError, match="no setting"):
        pseudo_labels(volume, points_of(scene.clicks), setting="x")


def test_the_radius_is_measured_not_set(scene):
    assert median_radius(scene.nuclei, scene.clicks, scene.z_step) == pytest.approx(8, abs=1.0)
    wide = np.kron(scene.nuclei[2], np.ones((2, 2), np.uint8))[None]
    clicks = scene.clicks[:2] * (0, 2, 2)
    assert median_radius(wide, clicks, 1.0) == pytest.approx(16, abs=2.0)


def test_brightness_and_contrast_do_not_change_a_half_maximum(scene):
    plain = half_maximum(scene.nuclei, scene.clicks, scene.z_step)
    scaled = half_maximum(scene.nuclei * np.float32(3.5) + 100, scene.clicks, scene.z_step)
    assert (plain.instances != scaled.instances).mean() < 1e-4
    assert plain.radius == pytest.approx(scaled.radius, abs=0.05)


def test_masks_of_a_projection_equal_the_literal_algorithm(scene):
    image = scene.nuclei.max(axis=0)
    voxel = scene.clicks.astype(int)[:, 1:]
    cells, _ = literal.nearest(image.shape, voxel)
    slow, slow_unlabelled = literal.plane_labels(image, voxel, cells)
    plane = projected_labels(image, points_of(scene.clicks), cells.astype(np.int32), "paper")
    assert np.array_equal(plane.instances > 0, slow)
    assert (plane.unlabelled == slow_unlabelled).mean() > 0.999


def test_masks_of_a_projection_belong_to_their_clicks(scene):
    image = scene.nuclei.max(axis=0).astype(np.uint16) * 11
    cells = nearest_point(image.shape, scene.clicks)
    plane = projected_labels(image, points_of(scene.clicks), cells)
    # The published erosion leaves the outline two pixels inside.
    assert iou(plane.instances, scene.truth.max(axis=0), range(1, 7)).min() > 0.5
    assert not (plane.unlabelled & (plane.instances > 0)).any()
    background = ~plane.unlabelled & (plane.instances == 0)
    assert background.mean() > 0.3
    assert (scene.truth.max(axis=0)[background] > 0).mean() < 0.01


def test_a_click_without_a_component_gets_a_disk_and_a_component_without_a_click_none(scene):
    image = scene.nuclei.max(axis=0).copy()
    image[82:94, 4:16] = 150  # bright and not clicked
    clicks = np.concatenate([scene.clicks, [[0, 8, 88]]])  # clicked and dark
    cells = nearest_point(image.shape, clicks)
    plane = projected_labels(image, points_of(clicks), cells)
    assert plane.instances[8, 88] == 7
    assert 4 < (plane.instances == 7).sum() < 60
    assert (plane.instances[82:94, 4:16] == 0).all()
    with pytest.raises(InputError, match="do not fit"):
        projected_labels(image, points_of(clicks), cells[:5])


def test_of_several_components_in_a_cell_only_the_clicked_one_is_the_nucleus():
    found = np.zeros((20, 60), dtype=bool)
    found[5:10, 5:30] = found[5:10, 40:50] = True
    cells = np.ones((20, 60), np.int32)
    cells[:, 20:] = 2
    instances = _by_point(found, np.array([[7, 8], [7, 45]]), cells, 1.0)
    assert np.array_equal(instances == 1, found & (cells == 1))
    assert np.flatnonzero((instances == 2).any(axis=0)).tolist() == list(range(40, 50))


def test_pseudo_labels_of_plaques_are_far_better_than_clusters(data):
    folder = data / "plaque"
    shares = {"default": [], "paper": []}
    stack = tifffile.imread(folder / "d1_test_01.ome.tif")
    truth = tifffile.imread(folder / "d1_test_01.labels.tif").astype(int)
    table = pd.read_csv(folder / "d1_test_01.points.csv")
    outline = json.loads((folder / "d1_test_01.roi.geojson").read_text())
    ring = np.array(outline["features"][0]["geometry"]["coordinates"][0])[:, ::-1]
    volume = Volume(stack.transpose(1, 0, 2, 3), ("LT", "DAPI"), (1.0461, 0.3138, 0.3138))
    points = Points(table.z, table.y, table.x, id=table.id)
    names = np.zeros(truth.max() + 1, int)
    names[table.id] = np.arange(1, len(table) + 1)
    for setting in shares:
        found = pseudo_labels(volume, points, region=Region((ring,)), setting=setting).instances
        both = np.bincount(found[found == names[truth]], minlength=len(table) + 1)
        any_ = np.bincount(found.ravel()) + np.bincount(names[truth].ravel()) - both
        shares[setting] = (both / any_)[1:]
    assert shares["default"].mean() > 0.65
    assert (shares["default"] < 0.3).mean() < 0.03
    assert shares["default"].mean() > shares["paper"].mean() + 0.1
