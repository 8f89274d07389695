from dataclasses import replace

import numpy as np
import pytest

from nucleoscope.errors import CallError
from nucleoscope.simulator import HistologySettings, simulate_histology

SMALL = HistologySettings(size=288)


@pytest.fixture(scope="module")
def scenes():
    return [simulate_histology(SMALL, seed) for seed in range(3)]


def test_the_same_seed_gives_the_same_scene(scenes):
    again = simulate_histology(SMALL, 0)
    assert np.array_equal(scenes[0].volume.data, again.volume.data)
    assert scenes[0].truth.equals(again.truth)
    assert not np.array_equal(scenes[0].volume.data, scenes[1].volume.data)


def test_the_tile_is_rgb_with_a_scale(scenes):
    volume = scenes[0].volume
    assert (volume.is_rgb, volume.is_2d, volume.data.dtype) == (True, True, np.uint8)
    assert volume.channels == ("red", "green", "blue")
    assert volume.spacing[1:] == (0.25, 0.25)


def test_there_are_four_types_of_different_size_and_stain(scenes):
    sizes, reds = {}, {}
    for scene in scenes:
        labels, red = scene.labels.data, scene.volume.channel("red")
        for kind, rows in scene.truth.groupby("type"):
            sizes.setdefault(kind, []).extend(rows["n_voxels"])
            reds.setdefault(kind, []).extend(red[np.isin(labels, rows["id"])])
    assert set(sizes) == {"epithelial", "fibroblast", "lymphocyte", "plasma"}
    assert np.median(sizes["epithelial"]) > 1.4 * np.median(sizes["lymphocyte"])
    assert np.mean(reds["epithelial"]) > np.mean(reds["lymphocyte"]) + 10


def test_fibroblasts_are_long_and_lymphocytes_round(scenes):
    ratios = {"fibroblast": [], "lymphocyte": []}
    for scene in scenes:
        inner = scene.truth[scene.truth["type"].isin(list(ratios))]
        for row in inner.itertuples():
            _, y, x = np.nonzero(scene.labels.data == row.id)
            small, large = np.linalg.eigvalsh(np.cov(np.stack([y, x])))
            ratios[row.type].append(np.sqrt(large / small))
    assert np.median(ratios["fibroblast"]) > 2.5 > 1.5 > np.median(ratios["lymphocyte"])


def test_nuclei_are_darker_in_red_than_their_surroundings(scenes):
    for scene in scenes:
        red, inside = scene.volume.channel("red").astype(float), scene.labels.data > 0
        assert red[inside].mean() < 0.75 * red[~inside].mean()


def test_every_click_is_on_its_nucleus(scenes):
    for scene in scenes:
        at = np.rint(scene.points.zyx()).astype(int)
        assert (scene.labels.data[tuple(at.T)] == scene.points.ids).all()
        assert scene.points.types.tolist() == scene.truth["type"].tolist()
        assert scene.labels.ids().tolist() == scene.truth["id"].tolist()


def test_without_glands_or_cells_the_tile_is_bare_stroma():
    bare = simulate_histology(replace(SMALL, size=64, glands=0.0, density=0.0), 0)
    assert len(bare.truth) == len(bare.points) == 0


def test_more_inflammation_brings_more_lymphocytes():
    n = [
        sum(
            (
                simulate_histology(replace(SMALL, inflammation=i), s).truth["type"] == "lymphocyte"
            ).sum()
            for s in range(2)
        )
        for i in (0.1, 0.9)
    ]
    assert n[1] > 2 * n[0]


def test_weak_stain_is_paler():
    pale, strong = (simulate_histology(replace(SMALL, stain=s), 1) for s in (0.5, 1.5))
    assert pale.volume.data.mean() > strong.volume.data.mean() + 30


def test_impossible_settings_are_named():
    with pytest.raises(CallError, match="glands"):
        HistologySettings(glands=2.0)


@pytest.mark.parametrize("mpp", [0.1, 2.0])
def test_coarse_and_fine_pixels_make_no_warning(mpp):
    scene = simulate_histology(replace(SMALL, size=256, mpp=mpp), 2)
    assert scene.volume.spacing[1] == mpp
    assert scene.volume.data.std() > 5
