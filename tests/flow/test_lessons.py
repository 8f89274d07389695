"""Annotated images to lessons, on the stack and on a projection of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nucleoscope.flow.inputs import Reading, open_example
from nucleoscope.flow.lecl import detect, train
from nucleoscope.flow.lessons import prepare
from nucleoscope.io.tables import read_table
from nucleoscope.learn.recipes import recipe
from nucleoscope.simulator import simulate


def examples(stacks: list[Path]) -> list:
    return [open_example(path, None, None, Reading()) for path in stacks[:2]]


def test_a_lesson_of_the_default_recipe_is_the_whole_stack(stacks: list[Path]) -> None:
    config, lessons = prepare(examples(stacks), recipe("lecl"))
    assert (config.decode, config.projection, config.typing) == ("peaks", None, "nucleus")
    assert config.channels == ("LT", "DAPI")
    for example, lesson in zip(examples(stacks), lessons, strict=True):
        assert lesson.volume.shape == example.volume.shape
        assert lesson.types.shape == (len(example.points), 1)


@pytest.mark.parametrize("name", ["mip", "emip", "lecl-paper"])
def test_a_lesson_of_a_projection_has_one_slice(stacks: list[Path], name: str) -> None:
    config, lessons = prepare(examples(stacks), recipe(name))
    assert (config.decode, config.typing) == ("linked", "any_slice")
    for example, lesson in zip(examples(stacks), lessons, strict=True):
        assert lesson.volume.shape == (1, *example.volume.shape[1:])
        assert (lesson.centres[:, 0] == 0).all()
        stain = example.volume.channel("DAPI").max(axis=0)
        assert (lesson.volume.data[-1, 0] == stain).all()


def test_the_marker_of_emip_never_exceeds_that_of_mip(stacks: list[Path]) -> None:
    flat = {n: prepare(examples(stacks), recipe(n))[1] for n in ("mip", "emip")}
    for mip, emip in zip(flat["mip"], flat["emip"], strict=True):
        assert (emip.volume.data[0] <= mip.volume.data[0]).all()


def test_nothing_outside_the_region_is_taught_as_background(tmp_path: Path) -> None:
    simulate(tmp_path, n=1, size=96, seed=3, n_slices=4, density=0.15)
    example = open_example(tmp_path / "plaque_01.ome.tif", None, None, Reading())
    assert example.region is not None
    outside = ~example.region.mask(example.volume.shape[1:])
    assert outside.any()
    for name in ("lecl", "emip"):
        lesson = prepare([example], recipe(name))[1][0]
        # A nucleus clicked inside may reach out; everything else there is left open.
        assert (lesson.foreground[:, outside] != 0).all(), name


@pytest.mark.parametrize("name", ["emip", "qu"])
def test_a_colour_image_is_one_plane_already(tmp_path: Path, name: str) -> None:
    simulate(tmp_path, kind="histology", n=1, size=96, seed=0)
    example = open_example(tmp_path / "histology_01.ome.tif", None, None, Reading())
    lesson = prepare([example], recipe(name))[1][0]
    assert lesson.volume.is_rgb
    assert np.array_equal(lesson.volume.data, example.volume.data)
    assert lesson.instances.max() > 0


@pytest.mark.parametrize("name", ["emip", "mip", "qu", "lecl-paper"])
def test_a_published_instance_has_the_number_and_type_of_its_click(
    stacks: list[Path], name: str
) -> None:
    example = open_example(stacks[0], None, None, Reading())
    lesson = prepare([example], recipe(name))[1][0]
    points = example.points
    under = lesson.instances[0][np.rint(points.y).astype(int), np.rint(points.x).astype(int)]
    positive = points.types == "positive"
    for number in np.unique(under[under > 0]):
        inside = under == number
        assert np.flatnonzero(inside)[0] == number - 1
        assert lesson.types[number - 1, 0] == positive[inside].any()
    # Nothing is taught as a nucleus that was not clicked.
    assert set(np.unique(lesson.instances)) == set(under) | {0}


def test_colour_images_are_learnt_by_the_classes_of_their_points(tmp_path: Path) -> None:
    simulate(tmp_path, kind="histology", n=1, size=96, seed=0)
    example = open_example(tmp_path / "histology_01.ome.tif", None, None, Reading())
    config, lessons = prepare([example], recipe("lecl"))
    assert config.is_rgb
    assert set(config.types) == set(example.points.types.tolist()) - {""}
    assert lessons[0].types.max() == len(config.types) - 1


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("mip", None),
        ("lecl-paper", None),
        ("qu", None),
        pytest.param("qu", "resunet", marks=pytest.mark.slow),
        pytest.param("emip", "hovernet", marks=pytest.mark.slow),
    ],
)
def test_the_papers_recipes_run_from_files_to_files(
    stacks: list[Path], tmp_path: Path, name: str, network: str | None
) -> None:
    steps = 1 if network else 3
    model = train(
        stacks[:1], tmp_path / "model", recipe=name, network=network, steps=steps,
        minutes=float("inf"), quiet=True,
    )  # fmt: skip
    assert model.config.network is not None
    assert model.config.network.name == (network or "light")
    detect(stacks[1], tmp_path / "model", tmp_path / "out", quiet=True)
    table = read_table(tmp_path / "out" / stacks[1].name.removesuffix(".ome.tif"))
    assert {"LT_prob", "LT_positive"} <= set(table.frame.columns)
    assert np.isfinite(table.frame["type_prob"]).all()
