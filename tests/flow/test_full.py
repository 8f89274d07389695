"""The upper bound: instance maps instead of clicks; and going on from a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nucleoscope.data.labels import Labels
from nucleoscope.data.points import Points
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.inputs import LABEL_SUFFIXES, Reading, open_labelled
from nucleoscope.flow.lecl import detect, train
from nucleoscope.flow.lessons import prepare
from nucleoscope.io.images import find_beside, read_labels, read_volume
from nucleoscope.io.points import read_points
from nucleoscope.learn.recipes import recipe
from nucleoscope.nuclei.hover import hover_targets

FOREVER = float("inf")


def beside(stack: Path, suffix: str) -> Path:
    return stack.with_name(stack.name.replace(".ome.tif", suffix))


@pytest.fixture
def labels(stacks: list[Path]) -> Labels:
    found = find_beside(stacks[0], LABEL_SUFFIXES)
    assert found is not None, "the simulator writes instance maps beside its images"
    return read_labels(found)


def test_every_target_is_that_of_the_instance_map(stacks: list[Path], labels: Labels) -> None:
    example = open_labelled(stacks[0], None, None, None, Reading())
    config, lessons = prepare([example], recipe("full"))
    lesson = lessons[0]
    assert np.array_equal(lesson.foreground, labels.data > 0)
    assert len(lesson.centres) == len(labels.ids())
    # The same nuclei under other numbers.
    pairs = {tuple(p) for p in np.stack([labels.data, lesson.instances], -1).reshape(-1, 2)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    offsets = hover_targets(lesson.instances)
    assert np.allclose(offsets, hover_targets(labels.data))
    assert config.decode == "linked"
    assert config.markers == ("LT",)


def test_a_nucleus_has_the_type_of_the_point_inside(stacks: list[Path], labels: Labels) -> None:
    points = read_points(beside(stacks[0], ".points.csv"))
    half = points.where(np.arange(len(points)) % 2 == 0)
    example = open_labelled(stacks[0], None, half, None, Reading())
    lesson = prepare([example], recipe("full"))[1][0]
    place = np.rint(half.zyx()).astype(int)
    number = lesson.instances[tuple(place.T)]
    inside = number > 0
    assert inside.mean() > 0.8
    for n, text in zip(number[inside], half.types[inside], strict=True):
        assert lesson.types[n - 1, 0] == (text == "positive")
    typed = np.unique(number[inside])
    others = np.setdiff1d(np.arange(1, len(lesson.types) + 1), typed)
    assert (lesson.types[others - 1] == -1).all()


def test_instance_maps_alone_teach_detection(tmp_path: Path, stacks: list[Path], labels) -> None:
    volume = read_volume(stacks[0])
    model = train([volume], tmp_path / "m", labels=[labels], recipe="full", steps=2,
                  minutes=FOREVER, nuclei="DAPI", quiet=True)  # fmt: skip
    assert model.config.types == ()
    assert model.config.training["points"] == len(labels.ids())
    assert len(detect([volume], model, quiet=True)[0].table.frame) >= 0


def test_from_files_to_files(tmp_path: Path, stacks: list[Path]) -> None:
    model = train(stacks[:1], tmp_path / "m", recipe="full", steps=2, minutes=FOREVER, quiet=True)
    assert model.config.types == ("negative", "positive")
    found = detect(stacks[1], tmp_path / "m", tmp_path / "out", quiet=True)
    assert found.failed == {}


def test_a_missing_or_foreign_instance_map_is_named(tmp_path: Path, stacks: list[Path]) -> None:
    lone = tmp_path / "lone.ome.tif"
    shutil.copy(stacks[0], lone)
    with pytest.raises(InputError, match=r"lone\.labels\.tif beside it"):
        train(lone, tmp_path / "m", recipe="full", quiet=True)
    with pytest.raises(InputError, match="different images"):
        train(lone, tmp_path / "m", labels=Labels(np.ones((2, 5, 5), int)), recipe="full",
              quiet=True)  # fmt: skip
    with pytest.raises(InputError, match="holds no nucleus"):
        empty = Labels(np.zeros(read_volume(lone).shape, int))
        train(lone, tmp_path / "m", labels=empty, recipe="full", quiet=True)


def test_instance_maps_are_for_the_full_recipe_only(tmp_path: Path, stacks: list[Path]) -> None:
    with pytest.raises(CallError, match="for recipe full"):
        train(stacks[:1], tmp_path / "m", labels=beside(stacks[0], ".labels.tif"), quiet=True)


# ---------------------------------------------------------------- going on


def test_a_model_can_be_gone_on_from(tmp_path: Path, stacks: list[Path], light: Path) -> None:
    on = train(stacks[:1], tmp_path / "on", start=light, steps=1, minutes=FOREVER, quiet=True)
    new = train(stacks[:1], tmp_path / "new", steps=1, minutes=FOREVER, quiet=True)
    again = train(stacks[:1], tmp_path / "again", start=on, steps=1, minutes=FOREVER, quiet=True)
    weights = [next(iter(m.network.state_dict().values())) for m in (on, new, again)]
    assert not weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_a_model_of_another_network_is_refused(
    tmp_path: Path, stacks: list[Path], light: Path
) -> None:
    with pytest.raises(CallError, match="model to start from"):
        train(stacks[:1], tmp_path / "m", recipe="emip", start=light, steps=1, quiet=True)


def test_points_are_not_needed_but_checked(stacks: list[Path]) -> None:
    far = Points(np.array([0.0]), np.array([500.0]), np.array([1.0]))
    with pytest.raises(InputError, match="outside the image"):
        open_labelled(stacks[0], None, far, None, Reading())
