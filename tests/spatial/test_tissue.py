"""Tissue found in stained and fluorescence images, and everything where there is no edge."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial import tissue_of

RGB = ("red", "green", "blue")


def section(hole: bool = True) -> tuple[Volume, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:400, :400]
    truth = np.hypot(y - 200, x - 180) < 150
    if hole:
        truth &= np.hypot(y - 200, x - 180) > 40
    grey = np.where(truth, 150, 242) + rng.normal(0, 4, (3, 400, 400))
    grey -= np.where(truth, [[[10]], [[60]], [[5]]], 0)
    data = np.clip(grey, 0, 255).astype(np.uint8)[:, None]
    return Volume(data, RGB, (1.0, 1.0, 1.0), is_rgb=True, is_2d=True), truth


def agreement(window, truth) -> float:
    at = np.argwhere(np.ones(truth.shape, bool)).astype(float)
    return float((window.contains(at) == truth.ravel()).mean())


def test_a_stained_section_is_found_with_its_hole():
    image, truth = section()
    window = tissue_of(image)
    assert window.unit == "um"
    assert agreement(window, truth) > 0.97
    assert window.size == pytest.approx(truth.sum(), rel=0.05)


def test_an_image_full_of_stained_tissue_is_all_tissue():
    rng = np.random.default_rng(1)
    data = np.clip(rng.normal(150, 30, (3, 1, 200, 200)), 0, 255).astype(np.uint8)
    window = tissue_of(Volume(data, RGB, (1.0, 0.5, 0.5), is_rgb=True, is_2d=True))
    assert window.is_box


def test_glass_alone_is_refused():
    data = np.full((3, 1, 100, 100), 244, np.uint8)
    with pytest.raises(InputError, match="no tissue found"):
        tissue_of(Volume(data, RGB, (1.0, 1.0, 1.0), is_rgb=True, is_2d=True))


def test_fluorescent_tissue_is_found_between_its_nuclei_and_a_stack_is_a_slab():
    rng = np.random.default_rng(2)
    x = np.mgrid[:400, :400][1]
    truth = x < 220
    spots = (rng.random((400, 400)) < 0.01) & truth
    plane = gaussian_filter(spots.astype(float), 4) * 3e5 + 100
    data = rng.poisson(np.stack([plane, plane]))[None].astype(np.uint16)
    window = tissue_of(Volume(data, ("DAPI",), (2.0, 1.0, 1.0)))
    assert window.n_dims == 3
    assert window.extent[0] == 4.0
    flat = window.mask[0]
    assert flat[:, : 200 // 4].mean() > 0.95
    assert flat[:, 260 // 4 :].mean() < 0.05


def test_an_unknown_scale_is_asked_for():
    with pytest.raises(CallError, match="scale is unknown"):
        tissue_of(Volume(np.zeros((1, 1, 9, 9), np.uint8), ("a",)))


@pytest.mark.data
def test_a_real_tile_of_tissue_is_tissue_and_one_of_glass_is_refused(data):
    from skimage.io import imread

    def tile(name: str) -> Volume:
        rgb = np.moveaxis(imread(data / "crc_histophenotypes" / name)[..., :3], 2, 0)[:, None]
        return Volume(np.ascontiguousarray(rgb), RGB, (1, 0.55, 0.55), is_rgb=True, is_2d=True)

    assert tissue_of(tile("img57.png")).mask.mean() > 0.95
    with pytest.raises(InputError, match="no tissue found"):
        tissue_of(tile("img76.png"))
