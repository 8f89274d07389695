"""Lessons in, a finished model out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nucleoscope.data.points import Points
from nucleoscope.errors import InputError
from nucleoscope.learn.feed import Lesson
from nucleoscope.learn.lecl import MIN_IMAGES_TO_HOLD_OUT, split, train_model, type_table
from nucleoscope.learn.model import Model, ModelConfig
from nucleoscope.learn.recipes import Recipe, recipe
from nucleoscope.learn.train import TrainSettings


def clicks(*types: str) -> Points:
    n = len(types)
    return Points(np.zeros(n), np.arange(n), np.arange(n), np.array(types, str), name="p.csv")


@pytest.mark.parametrize(
    ("types", "markers", "expected"),
    [
        (("positive", "negative", ""), ["LT"], [[1], [0], [-1]]),
        (("LT", "lt", "negative"), ["LT"], [[1], [1], [0]]),
        (("A", "B+A", "negative", "", "a + b"), ["A", "B"],
         [[1, 0], [1, 1], [0, 0], [-1, -1], [1, 1]]),
        ((), ["LT"], []),
    ],
)  # fmt: skip
def test_types_of_markers_become_numbers(
    types: tuple[str, ...], markers: list[str], expected: list[list[int]]
) -> None:
    table = type_table(clicks(*types), markers, [])
    assert table.dtype == np.int64
    assert table.shape == (len(types), len(markers))
    assert table.tolist() == expected


def test_types_without_markers_are_the_classes() -> None:
    table = type_table(clicks("b", "", "a"), [], ["a", "b"])
    assert table.tolist() == [[1], [-1], [0]]
    assert type_table(clicks("b", "a"), [], []).tolist() == [[-1], [-1]]
    assert type_table(clicks(), [], ["a"]).shape == (0, 1)


@pytest.mark.parametrize(
    ("text", "markers"), [("pos", ["LT"]), ("positive", ["A", "B"]), ("A+C", ["A", "B"])]
)
def test_an_unknown_type_names_the_row_and_the_choices(text: str, markers: list[str]) -> None:
    with pytest.raises(InputError, match=r"p\.csv: row 2 has type .*expected") as caught:
        type_table(clicks("negative", text), markers, [])
    assert text in str(caught.value)
    assert all(m in str(caught.value) for m in markers)


def test_few_images_all_teach(lessons: list[Lesson]) -> None:
    for n in range(1, MIN_IMAGES_TO_HOLD_OUT):
        taught, held_out = split(lessons[:1] * n, 0)
        assert (len(taught), held_out) == (n, [])


@pytest.mark.parametrize("n", [4, 7, 20, 50])
def test_images_are_held_out_once_and_by_seed(lessons: list[Lesson], n: int) -> None:
    many = [replace(lessons[0]) for _ in range(n)]
    taught, held_out = split(many, 0)
    assert len(held_out) == max(1, round(0.15 * n))
    assert {id(x) for x in [*taught, *held_out]} == {id(x) for x in many}
    assert len(taught) + len(held_out) == n
    again = split(many, 0)[1]
    assert [id(x) for x in again] == [id(x) for x in held_out]
    others = {tuple(id(x) for x in split(many, seed)[1]) for seed in range(8)}
    assert len(others) > 1


def test_a_finished_model_says_how_it_was_made_and_judged(
    model: Model, lessons: list[Lesson]
) -> None:
    training = model.config.training
    assert training["images"] == 2
    assert training["images_held_out"] == 0
    assert training["detection_f1_held_out"] is None
    assert 0 <= training["detection_f1"] <= 1
    assert training["points"] == sum(int(x.is_taught.sum()) for x in lessons)
    assert training["steps"] == 24
    assert training["seed"] == 0
    assert len(model.config.marker_rules) == 1


def test_the_instant_model_finds_most_nuclei_of_its_images(instant: Model) -> None:
    assert instant.network is None
    assert instant.config.training["detection_f1"] > 0.7
    assert instant.config.training["steps"] == 0
    assert instant.config.training["history"] == []
    assert instant.config.marker_rules[0].network_share == 0.0


def test_held_out_images_are_reported_apart(lessons: list[Lesson], config: ModelConfig) -> None:
    plain = config.model_copy(update={"recipe": "classical"})
    model = train_model(lessons * 2, plain, recipe("classical"), TrainSettings())
    training = model.config.training
    assert (training["images"], training["images_held_out"]) == (3, 1)
    assert 0 <= training["detection_f1_held_out"] <= 1
    assert training["points"] == 2 * sum(int(x.is_taught.sum()) for x in lessons)


def test_nothing_to_learn_from_is_one_sentence(
    lessons: list[Lesson], config: ModelConfig, small: Recipe
) -> None:
    untaught = [replace(x, is_taught=np.zeros_like(x.is_taught)) for x in lessons]
    for given in ([], untaught):
        with pytest.raises(InputError, match="nothing to learn from"):
            train_model(given, config, small, TrainSettings())


def test_flat_images_are_seen_without_neighbours(
    lessons: list[Lesson], config: ModelConfig, small: Recipe
) -> None:
    flat = [
        replace(
            x, volume=replace(x.volume, data=x.volume.data[:, :1]), instances=x.instances[:1],
            foreground=x.foreground[:1], centres=x.centres * [0, 1, 1],
        )
        for x in lessons
    ]  # fmt: skip
    settings = TrainSettings(minutes=float("inf"))
    model = train_model(flat, config, replace(small, steps=1, context=2), settings)
    assert model.config.network is not None
    assert model.config.network.context == 0


def test_images_with_one_type_only_still_give_a_model(
    lessons: list[Lesson], config: ModelConfig
) -> None:
    plain = config.model_copy(update={"recipe": "classical"})
    for kind in (0, 1, -1):
        same = [replace(x, types=np.full_like(x.types, kind)) for x in lessons]
        model = train_model(same, plain, recipe("classical"), TrainSettings())
        assert model.config.marker_rules[0].bias == -2.4


# ---------------------------------------------------------------- several markers


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("1", [0, 0, 0]),
        ("12", [1, 0, 0]),
        ("13", [0, 1, 0]),
        ("124", [1, 0, 1]),
        ("1234", [1, 1, 1]),
        ("negative", [0, 0, 0]),
        ("C + a", [1, 0, 1]),
        ("", [-1, -1, -1]),
    ],
)
def test_digits_and_names_say_which_markers_a_nucleus_has(text: str, row: list[int]) -> None:
    points = Points(np.zeros(1), np.zeros(1), np.zeros(1), type=np.array([text]))
    assert type_table(points, ["A", "B", "C"], []).tolist() == [row]


@pytest.mark.parametrize("text", ["15", "2", "21", "0", "1x", "A+D", "positive", "1.0"])
def test_a_type_that_names_no_marker_is_refused(text: str) -> None:
    points = Points(np.zeros(1), np.zeros(1), np.zeros(1), type=np.array([text]))
    with pytest.raises(InputError, match=r"row 1 has type .* digits from 1 to 4"):
        type_table(points, ["A", "B", "C"], [])


def test_a_marker_called_by_digits_is_meant_by_its_name() -> None:
    points = Points(np.zeros(1), np.zeros(1), np.zeros(1), type=np.array(["12"]))
    assert type_table(points, ["12", "B"], []).tolist() == [[1, 0]]
