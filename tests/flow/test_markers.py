"""Two markers in one pass, and the rule that decides them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError
from nucleoscope.flow.lecl import detect, train
from nucleoscope.learn.model import Model
from nucleoscope.metrics.detection import match_points
from nucleoscope.nuclei.markers import RULES, AnySlice
from nucleoscope.simulator import PlaqueSettings, simulate_plaque

SCENE = PlaqueSettings(size=128, n_slices=4, roi=False, density=0.15, rho=0.2)


def two_markers(seed: int) -> tuple[Volume, Points]:
    """A stack with its own marker, and a second one drawn in every other nucleus."""
    scene = simulate_plaque(SCENE, seed)
    has_other = scene.points.id % 2 == 0
    inside = np.isin(scene.labels.data, scene.points.id[has_other])
    rng = np.random.default_rng(seed)
    other = rng.poisson(np.where(inside, 120, 12)).clip(0, 255).astype(np.uint8)
    data = np.stack([scene.volume.data[0], other, scene.volume.data[1]])
    volume = replace(scene.volume, data=data, channels=("LT", "GFP", "DAPI"), name=f"two_{seed}")
    names = []
    for first, second in zip(scene.points.types == "positive", has_other, strict=True):
        carried = [n for n, on in (("LT", first), ("GFP", second)) if on]
        names.append("+".join(carried) or "negative")
    return volume, replace(scene.points, type=np.array(names))


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Volume, Points]]:
    return [two_markers(seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def model(scenes, tmp_path_factory) -> Model:
    volume, points = scenes[0]
    folder = tmp_path_factory.mktemp("models") / "two"
    return train([volume], folder, points=[points], recipe="classical", marker=["LT", "GFP"],
                 quiet=True)  # fmt: skip


def truth_of(table, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table that belong to a click, and the rows of those clicks."""
    matching = match_points(table[["y", "x"]].to_numpy(float), points.zyx()[:, 1:], radius=12.0)
    return matching.predicted_index, matching.truth_index


def test_every_nucleus_has_a_probability_per_marker(scenes, model) -> None:
    volume, points = scenes[1]
    table = detect([volume], model, quiet=True)[0].table.frame
    assert {"LT_prob", "GFP_prob", "LT_positive", "GFP_positive"} <= set(table.columns)
    rows, clicks = truth_of(table, points)
    for marker in ("LT", "GFP"):
        assert table[f"{marker}_prob"].between(0, 1).all()
        truth = np.array([marker in text for text in points.types[clicks]])
        found = table[f"{marker}_positive"].to_numpy()[rows]
        assert (truth == found).mean() > 0.85, marker
    joined = np.where(table["LT_positive"], "LT", "").astype(object)
    both = table["LT_positive"] & table["GFP_positive"]
    joined = joined + np.where(both, "+", "") + np.where(table["GFP_positive"], "GFP", "")
    assert table["type"].tolist() == [text or "negative" for text in joined]


def test_digits_teach_the_same_as_names(scenes, model, tmp_path) -> None:
    volume, points = scenes[0]
    digits = {"negative": "1", "LT": "12", "GFP": "13", "LT+GFP": "123"}
    coded = replace(points, type=np.array([digits[t] for t in points.types]))
    same = train([volume], tmp_path / "m", points=[coded], recipe="classical",
                 marker=["LT", "GFP"], quiet=True)  # fmt: skip
    assert same.config.marker_rules == model.config.marker_rules


def test_markers_that_the_types_name_are_taken(scenes, model, tmp_path) -> None:
    volume, points = scenes[0]
    same = train([volume], tmp_path / "m", points=[points], recipe="classical", quiet=True)
    assert same.config.markers == ("LT", "GFP")
    assert same.config.marker_rules == model.config.marker_rules


def test_a_network_learns_both_at_once(scenes, tmp_path) -> None:
    volume, points = scenes[0]
    model = train([volume], tmp_path / "m", points=[points], marker=["LT", "GFP"], steps=2,
                  minutes=float("inf"), quiet=True)  # fmt: skip
    assert model.config.network is not None
    assert model.config.network.n_groups == 2
    table = detect([volume], model, quiet=True)[0].table.frame
    assert {"LT_prob", "GFP_prob"} <= set(table.columns)


# ---------------------------------------------------------------- rules


def test_another_rule_changes_types_and_nothing_else(scenes, model) -> None:
    volume, _ = scenes[1]
    own = detect([volume], model, quiet=True)[0].table.frame
    types = {}
    for rule in (*RULES, "learned", "ring:0.9", AnySlice(0.95)):
        other = detect([volume], model, rule=rule, quiet=True)[0].table.frame
        assert other[["id", "y", "x", "score"]].equals(own[["id", "y", "x", "score"]])
        types[str(rule)] = tuple(other["GFP_positive"])
    assert len(set(types.values())) > 1
    assert sum(types["ring:0.9"]) < sum(types["ring"])


def test_a_rule_of_ones_own_is_any_call(scenes, model) -> None:
    volume, _ = scenes[1]
    table = detect([volume], model, rule=lambda e: np.full(len(e.ids), 0.75), quiet=True)[0].table
    assert (table.frame["type"] == "LT+GFP").all()
    assert (table.frame["LT_prob"] == 0.75).all()


def test_an_unknown_rule_is_refused_before_anything_is_read(model, tmp_path) -> None:
    with pytest.raises(CallError, match="no marker rule 'halo'"):
        detect(["nowhere.tif"], model, tmp_path / "out", rule="halo", quiet=True)
    assert not (tmp_path / "out").exists()
