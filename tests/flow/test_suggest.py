"""Where to click next, from files and a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nucleoscope.data.points import Points
from nucleoscope.errors import CallError
from nucleoscope.flow.suggest import COLUMNS, suggest
from nucleoscope.io.images import read_volume
from nucleoscope.io.points import read_points
from nucleoscope.learn.model import load_model

NONE = Points(np.zeros(0), np.zeros(0), np.zeros(0))


@pytest.fixture(scope="module")
def everywhere(stacks: list[Path], instant: Path):
    return suggest(stacks[:2], instant, n=4, side=40, points=[NONE, NONE], quiet=True)


def test_regions_lie_in_their_images_and_the_best_comes_first(everywhere, stacks) -> None:
    assert tuple(everywhere.columns) == COLUMNS
    assert 1 <= len(everywhere) <= 4
    assert set(everywhere["image"]) <= {"plaque_01", "plaque_02"}
    assert everywhere["doubt"].iloc[0] == everywhere["doubt"].max() > 0
    shape = read_volume(stacks[0]).shape
    for row in everywhere.itertuples():
        assert 0 <= row.y0 < row.y1 <= shape[1]
        assert 0 <= row.x0 < row.x1 <= shape[2]
        assert 0 <= row.z < shape[0]
        assert row.n_nuclei >= row.n_doubtful


def test_what_was_clicked_is_not_suggested_again(everywhere, stacks, instant) -> None:
    clicked = [read_points(p.with_name(p.name.replace(".ome.tif", ".points.csv")))
               for p in stacks[:2]]  # fmt: skip
    again = suggest(stacks[:2], instant, n=4, side=40, points=clicked, quiet=True)
    assert again["n_nuclei"].sum() < everywhere["n_nuclei"].sum()
    assert again["doubt"].sum() < everywhere["doubt"].sum()
    # The files lie beside the images and are found by name.
    found = suggest(stacks[:2], instant, n=4, side=40, quiet=True)
    assert found.equals(again)


def test_a_volume_and_a_model_do_as_well_as_files(everywhere, stacks, instant) -> None:
    volumes = [read_volume(p) for p in stacks[:2]]
    same = suggest(volumes, load_model(instant), n=4, side=40, quiet=True)
    assert same.equals(everywhere)


def test_the_usual_side_follows_the_nucleus(stacks, instant) -> None:
    model = load_model(instant)
    table = suggest(stacks[0], model, n=1, points=NONE, quiet=True)
    size = min(96, max(16, round(12 * model.config.radius_px)))
    assert (table["y1"] - table["y0"]).tolist() == [size]


def test_an_impossible_number_is_refused(stacks, instant) -> None:
    with pytest.raises(CallError, match="at least one region"):
        suggest(stacks[0], instant, n=0, quiet=True)
