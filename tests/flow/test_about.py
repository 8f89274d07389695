"""What a file is, and what this machine can do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nucleoscope.errors import InputError
from nucleoscope.flow.about import doctor, info
from nucleoscope.io.guard import DEFAULT_LIMITS
from nucleoscope.testing import refusal

Own = Callable[..., Path]


def test_an_image_is_described_from_its_header(stacks: list[Path]) -> None:
    facts = info(stacks[0])
    assert facts["kind"] == "image"
    text = json.dumps(facts, default=str)
    for piece in ("LT", "DAPI", "96", "uint8"):
        assert piece in text


@pytest.mark.parametrize("name", ["instant", "light"])
def test_a_model_is_described(request: pytest.FixtureRequest, name: str) -> None:
    facts = info(request.getfixturevalue(name))
    assert facts["kind"] == "model"
    assert facts["recipe"] == {"instant": "classical", "light": "lecl"}[name]
    assert facts["channels"] == "LT, DAPI"
    assert "history" not in facts
    assert facts["nucleus radius px"] > 1
    json.dumps(facts, allow_nan=False)


def test_what_is_no_image_is_one_sentence(tmp_path: Path, own: Own) -> None:
    (tmp_path / "note.txt").write_text("hello")
    half = own()
    half.write_bytes(half.read_bytes()[:700])
    for path in (tmp_path / "absent.tif", tmp_path / "note.txt", half, tmp_path):
        with pytest.raises(InputError, match=path.name) as caught:
            info(path)
        assert "\n" not in str(caught.value)


def test_the_doctor_tells_versions_resources_and_limits() -> None:
    facts = doctor()
    assert facts["cores"] >= 1
    assert facts["disk free here"].endswith("GiB")
    assert isinstance(facts["cuda"], bool)
    assert {"nucleoscope", "torch", "extra cluster"} <= set(facts)
    assert all(f"limit {k}" in facts for k in vars(DEFAULT_LIMITS))
    json.dumps(facts, default=str, allow_nan=False)


def test_every_kind_of_file_is_told_in_a_few_lines(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("y,x,type\n1,2,a\n3,4,a\n5,6,\n")
    (tmp_path / "nuclei.csv").write_text("id,image,y,x,type,score\n1,s,1,2,a,0.5\n")
    (tmp_path / "cells.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {"type": '
        '"Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 0]]]}, "properties": {}}]}'
    )
    (tmp_path / "project.qpproj").write_text('{"images": []}')
    expected = {
        "points.csv": ("points", {"points": 3, "types": "a 2, no type 1", "y from to": [1, 5]}),
        "nuclei.csv": ("nuclei", {"nuclei": 1, "images": "s", "types": "a 1"}),
        "cells.geojson": ("nuclei", {"nuclei": 1, "with an outline": 1}),
        "project.qpproj": ("QuPath project", {"images": 0}),
    }
    for name, (kind, pieces) in expected.items():
        facts = info(tmp_path / name)
        assert facts["kind"] == kind, name
        assert pieces.items() <= facts.items(), (name, facts)
    assert info(tmp_path)["kind"] == "QuPath project"


def test_damage_of_a_known_format_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": [')
    (tmp_path / "b.csv").write_text("y,x\n1,two\n")
    for name, said in {"a.geojson": "not valid JSON", "b.csv": "column 'x' is 'two'"}.items():
        with pytest.raises(InputError, match=said):
            info(tmp_path / name)


def test_every_real_file_is_told_or_refused_in_one_sentence(data: Path) -> None:
    kinds = {
        "slides/cmu-1-small-region.svs": "image", "formats/multifile.companion.ome": "image",
        "lightsheet_brain/cell_counter.xml": "points", "cells3d/napari_points.csv": "points",
        "formats/openDVP_quant.csv": "nuclei", "formats/imagej_rois/TCGA-DE-A4MA.zip": "nuclei",
        "formats/qupath_project": "QuPath project", "plaque/d1_train_01.points.csv": "points",
    }  # fmt: skip
    for name, kind in kinds.items():
        assert info(data / name)["kind"] == kind, name
    for path in sorted((data / "formats").rglob("*")):
        if path.is_file():
            error = refusal(lambda path=path: info(path))
            assert error is None or str(path) in str(error)
