import numpy as np
import pandas as pd
import pytest

from nucleoscope.data import NucleusTable
from nucleoscope.errors import CallError
from nucleoscope.io.images import read_labels, read_volume
from nucleoscope.io.outlines import read_region
from nucleoscope.io.points import read_points
from nucleoscope.metrics import evaluate_tables
from nucleoscope.simulator import PlaqueSettings, simulate, simulate_plaque

SMALL = {"size": 96, "n_slices": 4}


def test_an_image_depends_on_seed_and_number_only():
    one, three = simulate(n=1, seed=7, **SMALL), simulate(n=3, seed=7, **SMALL)
    assert np.array_equal(one[0].volume.data, three[0].volume.data)
    assert not np.array_equal(three[0].volume.data, three[1].volume.data)
    other = simulate(n=1, seed=8, **SMALL)
    assert not np.array_equal(one[0].volume.data, other[0].volume.data)


def test_histology_needs_no_slices():
    scenes = simulate(kind="histology", n=1, size=96)
    assert scenes[0].volume.name == "histology_01"
    assert scenes[0].volume.is_rgb


@pytest.mark.parametrize(
    ("call", "named"),
    [({"kind": "retina"}, "retina"), ({"n": 0}, "n=0"), ({"snrr": 3}, "snrr"), ({"rho": 2}, "rho")],
)
def test_impossible_calls_are_named(call, named):
    with pytest.raises(CallError, match=named):
        simulate(**{"size": 64, **call})


def test_files_read_back_as_what_was_made(tmp_path):
    (scene,) = simulate(tmp_path, n=1, **SMALL)
    volume = read_volume(tmp_path / "plaque_01.ome.tif")
    assert np.array_equal(volume.data, scene.volume.data)
    assert (volume.channels, volume.spacing) == (scene.volume.channels, scene.volume.spacing)
    points = read_points(tmp_path / "plaque_01.points.csv")
    assert np.allclose(points.zyx(), scene.points.zyx())
    assert points.types.tolist() == scene.points.types.tolist()
    labels = read_labels(tmp_path / "plaque_01.labels.ome.zarr")
    assert np.array_equal(labels.data, scene.labels.data)
    truth = pd.read_csv(tmp_path / "plaque_01.truth.csv")
    assert truth["id"].tolist() == scene.truth["id"].tolist()
    assert {"max_slice_overlap", "foreign_cover", "in_region"} <= set(truth.columns)
    region = read_region(tmp_path / "plaque_01.roi.geojson")
    assert np.array_equal(region.mask((96, 96)), scene.region.mask((96, 96)))


def test_files_that_are_there_are_not_overwritten(tmp_path):
    (tmp_path / "plaque_01.ome.tif").write_text("somebody's data")
    with pytest.raises(CallError, match=r"plaque_01\.ome\.tif"):
        simulate(tmp_path, n=1, **SMALL)
    assert (tmp_path / "plaque_01.ome.tif").read_text() == "somebody's data"


def test_clicks_find_the_truth_they_were_made_from():
    scene = simulate_plaque(PlaqueSettings(size=224), seed=1)
    result = evaluate_tables(NucleusTable(scene.truth), scene.points, region=scene.region)
    assert result.rules["optimal"].detection.f1 > 0.97
    assert result.rules["optimal"].types["positive"].f1 > 0.97
