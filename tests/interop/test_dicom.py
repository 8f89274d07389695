"""DICOM annotations opened by highdicom itself; skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.io.export.dicom import write_dicom_ann

pytestmark = pytest.mark.filterwarnings("default")

RING = [(0.5, 1.5), (0.5, 4.5), (4.25, 4.5), (4.5, 1.5)]


def nuclei() -> Nuclei:
    frame = pd.DataFrame({"id": [3, 8, 9], "image": "a", "y": [2.5, 7.0, 9.0],
                          "x": [3.0, 6.0, 1.0], "type": ["epi", "inf", "epi"]})  # fmt: skip
    return Nuclei(NucleusTable(frame), Outlines.from_rings([RING, [], RING]))


def test_highdicom_opens_our_annotations(tmp_path: Path, data: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    slide = data / "formats" / "boxes_0.dcm"
    write_dicom_ann(tmp_path / "a.dcm", nuclei(), slide=slide)
    found = highdicom.ann.annread(tmp_path / "a.dcm")
    groups = {(g.label, g.graphic_type.value): g for g in found.get_annotation_groups()}
    assert set(groups) == {("epi", "POLYGON"), ("inf", "POINT")}
    polygons = groups["epi", "POLYGON"].get_graphic_data(coordinate_type="2D")
    assert len(polygons) == 2
    assert np.allclose(np.asarray(polygons[0])[:, ::-1] - 0.5, RING, atol=1e-4)
    (point,) = groups["inf", "POINT"].get_graphic_data(coordinate_type="2D")
    assert np.allclose(point, [[6.5, 7.5]])
    write_dicom_ann(tmp_path / "b.dcm", nuclei(), slide=slide)
    again = highdicom.ann.annread(tmp_path / "b.dcm")
    assert again.SOPInstanceUID == found.SOPInstanceUID


def test_annotations_without_a_slide_or_of_another_file_are_refused(
    tmp_path: Path, data: Path
) -> None:
    pytest.importorskip("highdicom")
    with pytest.raises(CallError, match="--slide"):
        write_dicom_ann(tmp_path / "a.dcm", nuclei())
    with pytest.raises(InputError, match=r"cannot be decoded|no DICOM"):
        write_dicom_ann(tmp_path / "a.dcm", nuclei(), slide=data / "README.md")
    assert not list(tmp_path.iterdir())
