"""Nuclei slice by slice, then joined."""

from __future__ import annotations

import numpy as np
import pytest

from nucleoscope.data.maps import StackMaps
from nucleoscope.nuclei.hover import hover_targets
from nucleoscope.nuclei.slices import nuclei_by_slice


def maps_of(instances: np.ndarray, stride: int = 1) -> StackMaps:
    """What a perfect network would say of an instance map."""
    maps = StackMaps.blank(instances.shape, stride, n_types=0)
    maps.foreground[instances > 0] = 0.95
    for z, plane in enumerate(instances):
        horizontal, vertical = hover_targets(plane)
        maps.offsets[1, z], maps.offsets[2, z] = vertical, horizontal
    return maps


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: int) -> np.ndarray:
    z, y, x = np.indices(shape)
    flat = (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2
    return flat & (abs(z - centre[0]) <= 1)


def two_nuclei() -> np.ndarray:
    instances = np.zeros((5, 64, 64), np.int32)
    instances[ball(instances.shape, (1, 20, 20), 9)] = 1
    instances[ball(instances.shape, (3, 20, 37), 9)] = 2
    return instances


def test_perfect_maps_give_the_nuclei_back() -> None:
    truth = two_nuclei()
    labels, peaks = nuclei_by_slice(maps_of(truth), truth.shape)
    assert len(peaks) == 2
    for i in (1, 2):
        z, y, x = peaks.zyx[i - 1]
        which = truth[round(z), round(y), round(x)]
        overlap = ((labels == i) & (truth == which)).sum() / (
            (labels == i) | (truth == which)
        ).sum()
        assert overlap > 0.9


def test_row_i_of_the_peaks_is_nucleus_i_plus_one() -> None:
    truth = two_nuclei()
    labels, peaks = nuclei_by_slice(maps_of(truth), truth.shape)
    for i, centre in enumerate(peaks.zyx):
        where = np.argwhere(labels == i + 1).mean(axis=0)
        assert np.abs(where - centre).max() < 0.5
    assert (peaks.score > 0.9).all()


def test_maps_at_half_resolution_give_an_instance_map_of_the_image() -> None:
    truth = two_nuclei()
    labels, peaks = nuclei_by_slice(maps_of(truth, stride=2), (5, 127, 126))
    assert labels.shape == (5, 127, 126)
    assert len(np.unique(labels)) - 1 == len(peaks) == 2


@pytest.mark.parametrize("way", ["linked", "components"])
def test_the_published_union_fuses_neighbours_of_other_slices(way: str) -> None:
    instances = np.zeros((6, 48, 48), np.int32)
    instances[ball(instances.shape, (1, 24, 20), 6)] = 1
    instances[ball(instances.shape, (4, 24, 28), 6)] = 2
    published = {"linked": "united", "components": "components-united"}[way]
    maps = maps_of(instances)
    assert len(nuclei_by_slice(maps, instances.shape, decode=published)[1]) == 1
    assert len(nuclei_by_slice(maps, instances.shape, decode=way)[1]) == 2


def test_empty_maps_give_no_nuclei() -> None:
    labels, peaks = nuclei_by_slice(StackMaps.blank((3, 32, 32), 2, n_types=0), (3, 64, 64))
    assert labels.shape == (3, 64, 64)
    assert not labels.any()
    assert len(peaks) == 0


@pytest.mark.parametrize("decode", ["united", "linked"])
def test_half_resolution_fuses_no_neighbours(decode: str) -> None:
    # The published constants are in pixels of the image, 14 of which part these nuclei.
    truth = np.zeros((3, 64, 64), np.int32)
    y, x = np.indices(truth.shape[1:])
    for i, column in enumerate((20, 34)):
        truth[1, (y - 30) ** 2 + (x - column) ** 2 <= 36] = i + 1
    coarse = maps_of(truth[:, ::2, ::2], stride=2)
    labels, peaks = nuclei_by_slice(coarse, truth.shape, decode=decode)
    assert len(peaks) == 2
    found = np.sort(peaks.zyx[:, 2] * 2 + 0.5)
    assert np.abs(found - [20, 34]).max() < 1.5
    assert set(np.unique(labels[1, 30, [20, 34]])) == {1, 2}
