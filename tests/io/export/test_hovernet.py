from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError
from nucleoscope.io.export.hovernet import write_hovernet_json, write_hovernet_mat


def nuclei(images: tuple[str, str] = ("a", "a")) -> Nuclei:
    frame = pd.DataFrame(
        {"id": [3, 8], "image": images, "y": [1.0, 5.0], "x": [2.0, 6.0], "type": ["epi", ""],
         "type_prob": [0.75, np.nan]}
    )  # fmt: skip
    ring = [(0.5, 1.5), (0.5, 3.5), (2.5, 3.5), (2.5, 1.5)]
    plane = np.zeros((9, 9), np.int32)
    plane[1:3, 2:4] = 3
    plane[5, 6] = 8
    return Nuclei(NucleusTable(frame), Outlines.from_rings([ring, []]), Labels(plane))


def test_json_has_columns_first_in_contours_and_rows_first_in_boxes(tmp_path: Path) -> None:
    write_hovernet_json(tmp_path / "a.json", nuclei(), mpp=0.25)
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["mag"] == 40
    one, two = document["nuc"]["3"], document["nuc"]["8"]
    assert one["centroid"] == [2.0, 1.0]
    assert one["contour"] == [[1.5, 0.5], [3.5, 0.5], [3.5, 2.5], [1.5, 2.5]]
    assert one["bbox"] == [[1, 2], [3, 4]]
    assert (one["type"], one["type_prob"]) == (1, 0.75)
    assert document["type_names"] == {"0": "", "1": "epi"}
    assert (two["type"], two["type_prob"], two["contour"], two["bbox"]) == (0, None, [], None)


def test_mat_has_the_published_fields(tmp_path: Path) -> None:
    write_hovernet_mat(tmp_path / "a.mat", nuclei())
    found = loadmat(tmp_path / "a.mat")
    labels = nuclei().labels
    assert labels is not None
    assert (found["inst_map"] == labels.data[0]).all()
    assert found["type_map"][1, 2] == 1
    assert found["type_map"][5, 6] == 0
    assert found["inst_type"].tolist() == [[1], [0]]
    assert found["inst_centroid"].tolist() == [[2.0, 1.0], [6.0, 5.0]]


def test_no_nuclei_are_an_empty_document(tmp_path: Path) -> None:
    write_hovernet_json(tmp_path / "a.json", nuclei().take([]))
    assert json.loads((tmp_path / "a.json").read_text())["nuc"] == {}
    write_hovernet_mat(tmp_path / "a.mat", nuclei().take([]))
    assert loadmat(tmp_path / "a.mat")["inst_type"].size == 0


def test_what_the_formats_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="holds one image; found 2"):
        write_hovernet_json(tmp_path / "a.json", nuclei(("a", "b")))
    with pytest.raises(CallError, match="2D instance map"):
        write_hovernet_mat(tmp_path / "a.mat", Nuclei(nuclei().table))
    assert not list(tmp_path.iterdir())
