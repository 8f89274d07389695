"""TissUUmaps projects and DICOM annotations; the library of DICOM opens them in tests/interop."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, MissingExtraError
from nucleoscope.io.export.dicom import write_dicom_ann
from nucleoscope.io.export.tissuumaps import write_tissuumaps


def nuclei(**columns: object) -> Nuclei:
    frame = pd.DataFrame({"id": [3, 8], "image": "a", "y": [1.0, 5.0], "x": [2.0, 7.25],
                          "type": ["epi", ""]})  # fmt: skip
    return Nuclei(NucleusTable(frame.assign(**columns)))


def test_a_tissuumaps_project_names_its_table_and_its_columns(tmp_path: Path) -> None:
    slide = tmp_path / "images" / "a.svs"
    write_tissuumaps(tmp_path / "a.tmap", nuclei(score=[0.5, 0.75]), slide=slide)
    project = json.loads((tmp_path / "a.tmap").read_text())
    (markers,) = project["markerFiles"]
    table = pd.read_csv(tmp_path / markers["path"])
    header = markers["expectedHeader"]
    assert table[header["X"]].tolist() == [2.5, 7.75]
    assert table[header["Y"]].tolist() == [1.5, 5.5]
    assert table[header["gb_col"]].tolist() == ["epi", "nucleus"]
    assert set(json.loads(header["cb_gr_dict"])) == {"epi", "nucleus"}
    assert project["layers"] == [{"name": "a", "tileSource": "images/a.svs.dzi"}]
    assert table["score"].tolist() == [0.5, 0.75]


def test_a_project_shows_one_image_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="one image; found 2"):
        write_tissuumaps(tmp_path / "a.tmap", nuclei(image=["a", "b"]))
    (tmp_path / "b.csv").write_text("mine")
    with pytest.raises(CallError, match="exists"):
        write_tissuumaps(tmp_path / "b.tmap", nuclei())
    assert (tmp_path / "b.csv").read_text() == "mine"
    assert not (tmp_path / "b.tmap").exists()


def test_without_highdicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingExtraError, match=r"nucleoscope\[dicom\]"):
        write_dicom_ann(tmp_path / "a.dcm", nuclei())
