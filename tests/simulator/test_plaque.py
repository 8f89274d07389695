from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from nucleoscope.errors import CallError, InputError
from nucleoscope.simulator import PlaqueSettings, simulate_plaque
from nucleoscope.simulator.plaque import OVERSAMPLE, grow_tissue

SMALL = PlaqueSettings(size=176, n_slices=8)


@pytest.fixture(scope="module")
def scene():
    return simulate_plaque(SMALL, seed=3)


@pytest.fixture(scope="module")
def by_rho():
    return {rho: simulate_plaque(replace(SMALL, rho=rho), seed=3) for rho in (0.0, 0.5, 1.0)}


def negatives(scene):
    return scene.truth[scene.truth["type"] == "negative"]


def test_the_same_seed_gives_the_same_scene_and_another_seed_another(scene):
    again, other = simulate_plaque(SMALL, seed=3), simulate_plaque(SMALL, seed=4)
    assert np.array_equal(scene.volume.data, again.volume.data)
    assert np.array_equal(scene.points.zyx(), again.points.zyx())
    assert scene.truth.equals(again.truth)
    assert not np.array_equal(scene.volume.data, other.volume.data)


def test_the_volume_has_the_shape_names_and_scale_asked_for(scene):
    assert scene.volume.data.shape == (2, SMALL.n_slices, SMALL.size, SMALL.size)
    assert scene.volume.channels == ("LT", "DAPI")
    assert scene.volume.spacing == scene.labels.spacing == (2.0, 0.5, 0.5)
    assert scene.volume.data.dtype == np.uint8


def test_truth_describes_the_instance_map(scene):
    labels = scene.labels.data
    assert scene.truth["id"].tolist() == scene.labels.ids().tolist()
    for row in scene.truth.itertuples():
        z, y, x = np.nonzero(labels == row.id)
        assert np.allclose([row.z, row.y, row.x], [z.mean(), y.mean(), x.mean()])
        assert (row.z_min, row.z_max, row.n_voxels) == (z.min(), z.max(), len(z))
        assert row.n_slices == len(set(z))  # no slice is skipped


def test_nearly_every_centroid_lies_in_its_nucleus(scene):
    at = np.rint(scene.truth[["z", "y", "x"]].to_numpy()).astype(int)
    assert (scene.labels.data[tuple(at.T)] == scene.truth["id"]).mean() > 0.97


def test_every_click_is_on_its_nucleus_near_its_centre(scene):
    points = scene.points
    at = np.rint(points.zyx()).astype(int)
    assert (scene.labels.data[tuple(at.T)] == points.ids).all()
    truth = scene.truth.set_index("id").loc[points.ids]
    off = points.zyx() - truth[["z", "y", "x"]].to_numpy()
    assert np.hypot(off[:, 1], off[:, 2]).mean() < 4
    assert (np.abs(off[:, 0]) <= 1).mean() > 0.95
    assert points.types.tolist() == truth["type"].tolist()


def test_only_nuclei_of_the_plaque_are_annotated_and_others_exist(scene):
    truth = scene.truth
    inside = scene.region.contains(truth["y"].to_numpy(), truth["x"].to_numpy())
    assert (inside == truth["in_region"]).all()
    assert sorted(scene.points.ids) == truth.loc[inside, "id"].tolist()
    assert 0 < inside.sum() < len(truth)


def test_without_roi_every_nucleus_is_annotated():
    scene = simulate_plaque(replace(SMALL, size=96, roi=False), seed=0)
    assert len(scene.points) == len(scene.truth)


def test_positive_means_overlapped_by_its_own_marker_in_a_slice(scene):
    truth = scene.truth
    assert (truth.loc[truth["type"] == "positive", "max_slice_overlap"] > 0.15).all()
    assert (negatives(scene)["max_slice_overlap"] == 0).all()


def test_types_can_be_told_from_the_pixels_of_the_nucleus(scene):
    labels, marker = scene.labels.data, scene.volume.channel("LT")
    mean = ndimage.mean(marker, labels, scene.truth["id"])
    positive = (scene.truth["type"] == "positive").to_numpy()
    assert np.median(mean[positive]) > 1.5 * np.median(mean[~positive])


def test_nuclei_shine_in_their_channel_above_their_surroundings(scene):
    dna = scene.volume.channel("DAPI").astype(float)
    assert dna[scene.labels.data > 0].mean() > 3 * np.median(dna[scene.labels.data == 0])


def test_rho_is_the_share_of_negative_nuclei_crossed_by_marker(by_rho):
    crossed = {rho: (negatives(s)["foreign_cover"] > 0.3).mean() for rho, s in by_rho.items()}
    assert crossed[0.0] == 0
    assert negatives(by_rho[0.0])["foreign_cover"].max() == 0
    assert 0.35 < crossed[0.5] < 0.7
    assert crossed[1.0] > 0.85


def test_rho_raises_the_marker_of_a_projection_but_not_of_the_nucleus(by_rho):
    mip, own = [], []
    for scene in by_rho.values():
        marker, labels = scene.volume.channel("LT").astype(float), scene.labels.data
        rows = negatives(scene)
        at = np.rint(rows[["z", "y", "x"]].to_numpy()).astype(int)
        mip.append(marker.max(axis=0)[at[:, 1], at[:, 2]].mean())
        own.append(ndimage.mean(marker, labels, rows["id"]).mean())
    assert mip[0] < mip[1] < mip[2]
    assert mip[2] - mip[0] > 4 * (own[2] - own[0])


def test_marker_settings_do_not_move_nuclei(by_rho):
    assert np.array_equal(by_rho[0.0].labels.data, by_rho[1.0].labels.data)


def test_touching_puts_more_nuclei_into_contact():
    def contacts(touching):
        found = []
        for seed in range(2):
            labels = simulate_plaque(replace(SMALL, touching=touching), seed).labels.data
            grown = ndimage.grey_dilation(labels, footprint=np.ones((1, 5, 5)))
            meets = (labels > 0) & (grown != labels)
            found.append(len(np.unique(labels[meets])) / len(np.unique(labels)))
        return np.mean(found)

    assert contacts(0.8) > contacts(0.0) + 0.2


def test_density_fills_the_tissue():
    n = [len(simulate_plaque(replace(SMALL, density=d), 1).truth) for d in (0.03, 0.06, 0.12)]
    assert n[1] > 1.5 * n[0]
    assert n[2] > 1.5 * n[1]


def test_some_nuclei_are_cut_by_the_section_and_by_the_frame(scene):
    labels = scene.labels.data
    assert labels[0].any() and labels[-1].any()
    assert labels[:, 0].any() or labels[:, -1].any() or labels[:, :, 0].any()


def test_light_falls_with_depth():
    deep = simulate_plaque(replace(SMALL, attenuation_um=10.0), seed=3)
    flat = simulate_plaque(replace(SMALL, attenuation_um=np.inf), seed=3)
    for channel in ("LT", "DAPI"):
        ratio = [
            float(np.percentile(s.volume.channel(channel)[6], 99))
            / float(np.percentile(s.volume.channel(channel)[1], 99))
            for s in (deep, flat)
        ]
        assert ratio[0] < 0.65 * ratio[1]


def test_sixteen_bits_are_used():
    image = simulate_plaque(PlaqueSettings(size=64, n_slices=4, dtype="uint16"), 0).volume.data
    assert image.dtype == np.uint16
    assert image.max() > 10_000


def test_one_slice_is_enough():
    scene = simulate_plaque(PlaqueSettings(size=96, n_slices=1, rho=1.0), seed=0)
    assert scene.volume.shape == (1, 96, 96)
    assert negatives(scene)["foreign_cover"].max() == 0  # nowhere to cross


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_all_nuclei_may_be_of_one_type(fraction):
    scene = simulate_plaque(PlaqueSettings(size=96, n_slices=4, positive_fraction=fraction), 0)
    assert scene.truth["type"].nunique() == 1


def test_marker_and_nuclei_of_the_tissue_do_not_mix():
    tissue = grow_tissue(SMALL, 3)
    foreign = (tissue.ids > 0) & (tissue.owner != 0) & (tissue.owner != tissue.ids)
    assert not foreign.any()
    assert tissue.ids.shape[0] == SMALL.n_slices * OVERSAMPLE


@pytest.mark.parametrize(
    "bad",
    [
        {"rho": 1.5},
        {"size": 8},
        {"density": 0.9},
        {"snr": np.nan},
        {"dtype": "int8"},
        {"psf_um": (0, 1, 1)},
        {"spacing": (2.0, 0.5, 0.4)},
    ],
)
def test_impossible_settings_are_named(bad):
    with pytest.raises(CallError, match=next(iter(bad)) if "spacing" not in bad else "square"):
        PlaqueSettings(**bad)
    with pytest.raises(InputError):
        PlaqueSettings(spacing=(0.0, 0.5, 0.5))
