from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError
from nucleoscope.io.export.coco import run_lengths, write_coco


def nuclei() -> Nuclei:
    frame = pd.DataFrame(
        {"id": [3, 8], "image": ["a", "a"], "y": [1.5, 5.0], "x": [2.5, 6.0], "type": ["epi", ""]}
    )
    ring = [(0.5, 1.5), (0.5, 3.5), (2.5, 3.5), (2.5, 1.5)]
    plane = np.zeros((9, 7), np.int32)
    plane[1:3, 2:4] = 3
    plane[5, 6] = 8
    return Nuclei(NucleusTable(frame), Outlines.from_rings([ring, []]), Labels(plane))


def written(path: Path, **more: Any) -> dict[str, Any]:
    write_coco(path / "a.json", nuclei(), **more)
    document: dict[str, Any] = json.loads((path / "a.json").read_text())
    return document


def test_polygons_boxes_and_areas_count_from_the_corner(tmp_path: Path) -> None:
    document = written(tmp_path)
    one, two = document["annotations"]
    assert one["segmentation"] == [[2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]]
    assert one["bbox"] == [2.0, 1.0, 2.0, 2.0]
    assert one["area"] == 4.0
    assert two["segmentation"] == []
    assert document["images"] == [{"id": 1, "file_name": "a", "height": 9, "width": 7}]
    names = {c["id"]: c["name"] for c in document["categories"]}
    assert names[one["category_id"]] == "epi"
    assert names[two["category_id"]] == "nucleus"


def test_run_lengths_give_the_map_back(tmp_path: Path) -> None:
    document = written(tmp_path, outlines="rle")
    labels = nuclei().labels
    assert labels is not None
    for annotation in document["annotations"]:
        counts, (height, width) = annotation["segmentation"].values()
        flat = np.repeat(np.arange(len(counts)) % 2, counts)
        mask = flat.reshape((height, width), order="F").astype(bool)
        assert (mask == (labels.data[0] == annotation["nucleus_id"])).all()
        assert annotation["area"] == mask.sum()


@given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_run_lengths_decode_to_the_mask(mask: np.ndarray) -> None:
    counts = run_lengths(mask)
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    assert (flat.reshape(mask.shape, order="F") == mask).all()


def test_run_lengths_need_a_map(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="2D instance map"):
        write_coco(tmp_path / "a.json", Nuclei(nuclei().table), outlines="rle")
