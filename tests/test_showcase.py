"""The demo, cut down to seconds, and its refusal to touch what is not its own."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nucleoscope import showcase
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError
from nucleoscope.flow.lecl import train
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.simulator import simulate


def small(output: Path, **options: object) -> object:
    return simulate(output, **(options | {"size": 96, "n": 2, "n_slices": 3, "density": 0.15}))  # type: ignore[arg-type]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(showcase, "simulate", small)
    monkeypatch.setattr(showcase, "train", partial(train, recipe="classical"))


def test_the_whole_story_ends_with_a_report(quick: None, tmp_path: Path) -> None:
    page = showcase.demo(tmp_path / "demo", quiet=True)
    assert page == tmp_path / "demo" / "01" / "report.html"
    assert "nucleoscope demo" in page.read_text()
    scores = json.loads((page.parent / "scores.json").read_text())
    assert len(scores["images"]) == 2
    again = showcase.demo(tmp_path / "demo", quiet=True)
    assert again.parent.name == "02"
    assert page.is_file()


def test_a_folder_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CallError, match="something else"):
        showcase.demo(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_real_stack_is_used_only_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(showcase, "find_spec", lambda name: None)
    assert showcase.cells3d() is None
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(showcase, "find_spec", lambda name: spec)
    assert showcase.cells3d() is None
    data = np.arange(3 * 8 * 9, dtype=np.uint16).reshape(1, 3, 8, 9)
    write_ome_tiff(tmp_path / "nuclei.tif", Volume(data, ("a",)))
    found = showcase.cells3d()
    assert found is not None
    assert found.channels == ("nuclei",)
    assert found.spacing == showcase.CELLS3D_SPACING
    assert np.array_equal(found.data, data)
