"""What differs for stained sections: lessons, working point, recipe, and the way from files."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.maps import BACKGROUND, NUCLEUS, UNLABELLED, PseudoLabels
from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError
from nucleoscope.flow.inputs import drawn_in
from nucleoscope.flow.lecl import detect, train
from nucleoscope.learn.infer import types_at
from nucleoscope.learn.lesson import ENOUGH, MOST_OFF, as_complete, make_lesson, straightened
from nucleoscope.learn.model import load_model
from nucleoscope.learn.recipes import RECIPES, in_colour, recipe
from nucleoscope.simulator.histology import HistologySettings, simulate_histology


def squares(n=40, side=6, gap=14):
    """An instance map of squares in a row, and their centroids."""
    instances = np.zeros((1, 20, gap * n), np.int32)
    centres = np.zeros((n, 3))
    for i in range(n):
        x = gap * i + 3
        instances[0, 7 : 7 + side, x : x + side] = i + 1
        centres[i] = 0, 7 + (side - 1) / 2, x + (side - 1) / 2
    return instances, centres


def test_what_all_clicks_are_off_by_is_taken_away_and_their_scatter_kept():
    instances, centres = squares()
    scatter = np.random.default_rng(0).normal(0, 0.5, size=centres.shape) * (0, 1, 1)
    scatter -= np.median(scatter, axis=0)
    moved = straightened(centres + scatter + (0, 1.0, 1.0), instances)
    assert np.allclose(moved, centres + scatter, atol=1e-6)


def test_clicks_are_never_moved_far_nor_out_of_the_image():
    instances, centres = squares()
    moved = straightened(centres + np.array([0, 5.0, 0]), instances)
    assert np.allclose(moved[:, 1], centres[:, 1] + 5.0 - MOST_OFF)
    edge = np.zeros_like(centres)
    assert straightened(edge - (0, 0, 0.4), instances).min() >= 0


def test_a_few_clicks_do_not_tell_what_all_are_off_by():
    instances, centres = squares(ENOUGH - 1)
    assert np.array_equal(straightened(centres + 1.0, instances), centres + 1.0)


def lesson_with_dark_corner():
    instances = np.zeros((1, 40, 40), np.int32)
    instances[0, 10:20, 10:20] = 1
    foreground = np.where(instances > 0, NUCLEUS, BACKGROUND).astype(np.uint8)
    foreground[0, 8:10, 10:20] = UNLABELLED  # the rim
    foreground[0, 28:, 28:] = UNLABELLED  # something dark
    pseudo = PseudoLabels(
        np.ones((40, 40), np.int32), instances, foreground, np.ones((1, 1), dtype=bool)
    )
    volume = Volume(np.zeros((3, 1, 40, 40), np.uint8), ("red", "green", "blue"), is_rgb=True)
    points = Points([0], [14.0], [14.0])
    taught = np.ones(1, dtype=bool)
    return make_lesson(volume, pseudo, points, np.zeros((1, 1), np.int64), taught)


def test_dark_background_is_taught_where_every_nucleus_was_clicked_but_rims_are_not():
    lesson = lesson_with_dark_corner()
    complete = as_complete(lesson, np.ones((40, 40), dtype=bool), 6.0)
    assert complete.foreground[0, 35, 35] == BACKGROUND
    assert (complete.foreground[0, 8:10, 10:20] == UNLABELLED).all()
    assert np.array_equal(complete.foreground == NUCLEUS, lesson.foreground == NUCLEUS)


def test_outside_the_region_nothing_becomes_background():
    lesson = lesson_with_dark_corner()
    area = np.ones((40, 40), dtype=bool)
    area[:, 30:] = False
    complete = as_complete(lesson, area, 6.0)
    assert (complete.foreground[0, 28:, 30:] == UNLABELLED).all()
    assert complete.foreground[0, 35, 28] == BACKGROUND


def test_points_on_the_far_edge_are_drawn_in_and_others_left():
    points = Points([0, 0, 0], [40.0, 39.7, 12.3], [5.0, 40.0, 40.5])
    drawn = drawn_in(points, (1, 40, 40))
    assert drawn.y.tolist() == [39.0, 39.0, 12.3]
    assert drawn.x.tolist() == [5.0, 39.0, 40.5]


@pytest.mark.parametrize("name", [n for n in RECIPES if n not in ("lecl", "lecl-contrast")])
def test_published_recipes_are_the_same_in_colour(name):
    assert in_colour(recipe(name)) == recipe(name)


def test_steps_that_were_asked_for_are_kept():
    assert in_colour(recipe("lecl"), steps=7).steps == 7


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    """Three small sections with points on nuclei of every type."""
    folder = tmp_path_factory.mktemp("sections")
    volumes, points = [], []
    for seed in range(3):
        scene = simulate_histology(HistologySettings(size=192), seed)
        volumes.append(scene.volume)
        points.append(scene.points)
    return folder, volumes, points


def test_a_model_of_stained_sections_types_with_calibrated_probabilities(sections):
    folder, volumes, points = sections
    named = [replace(v, name=f"tile{i}") for i, v in enumerate(volumes)]
    model = train(named, folder / "model", points=points, recipe="classical", quiet=True)
    assert model.typer is not None
    found = detect(named[:1], folder / "model", folder / "out", quiet=True)
    assert not found.failed
    table = pd.read_parquet(folder / "out" / "tile0" / "nuclei.parquet")
    assert set(table["type"]) <= set(model.config.types)
    assert table["type_prob"].between(1 / len(model.config.types) - 1e-6, 1).all()
    yx = points[0].zyx()[:, 1:]
    chance = types_at(load_model(folder / "model"), named[0], yx)
    assert np.allclose(chance.sum(axis=1), 1)
    said = np.array(model.config.types)[chance.argmax(axis=1)]
    assert (said == points[0].types).mean() > 0.6


def test_types_at_needs_a_typer(sections):
    _, volumes, points = sections
    one = Points(points[0].z, points[0].y, points[0].x, ["a"] * len(points[0]))
    model = train(volumes[:1], sections[0] / "untyped", points=one, recipe="classical", quiet=True)
    assert model.typer is None
    with pytest.raises(CallError, match="does not type"):
        types_at(model, volumes[0], np.zeros((1, 2)))


def test_a_trained_network_has_a_sieve_and_finds_through_it(tmp_path):
    volumes, points = [], []
    for seed in range(4):
        scene = simulate_histology(HistologySettings(size=128), seed)
        volumes.append(replace(scene.volume, name=f"tile{seed}"))
        points.append(scene.points)
    model = train(
        volumes, tmp_path / "model", points=points, steps=12, minutes=float("inf"), quiet=True
    )
    assert model.config.views == 4
    back = load_model(tmp_path / "model")
    if model.sieve is None:  # a network taught for a moment may propose nothing
        assert model.config.sieve_threshold is None
    else:
        assert back.sieve is not None
        threshold = model.config.sieve_threshold or 0.5
        (found,) = detect(volumes[:1], back, quiet=True)
        assert (found.table.frame["score"] >= threshold).all()
