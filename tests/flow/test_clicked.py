from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError
from nucleoscope.flow.clicked import outline_points
from nucleoscope.io.images import read_volume
from nucleoscope.io.points import read_points


def tile() -> tuple[Volume, Points]:
    """Four dark discs of known radius on pink."""
    rgb = np.full((3, 1, 80, 80), 225, np.uint8)
    y, x = np.indices((80, 80))
    centres = [(20, 20), (20, 55), (58, 22), (60, 60)]
    for i, (cy, cx) in enumerate(centres):
        rgb[:, 0][:, np.hypot(y - cy, x - cx) < 6 + i] = np.array([[90], [60], [130]])
    at = np.array(centres, float) + 1
    points = Points(
        z=np.zeros(4), y=at[:, 0], x=at[:, 1], type=["a", "b", "a", ""], id=[7, 3, 9, 4]
    )
    return Volume(rgb, ("red", "green", "blue"), (0.5, 0.5, 0.5), "t", is_rgb=True), points


def test_every_point_has_the_outline_of_its_nucleus() -> None:
    image, points = tile()
    found = outline_points(image, points)
    assert found.outlines is not None and found.labels is not None
    truth = np.pi * np.arange(6, 10) ** 2
    assert np.allclose(found.outlines.areas(), truth, rtol=0.35)
    assert found.table.frame["id"].tolist() == [7, 3, 9, 4]
    assert found.table.frame["type"].tolist() == ["a", "b", "a", ""]
    assert set(found.labels.ids().tolist()) == {3, 4, 7, 9}


def test_a_fluorescent_plane_is_read_by_channel_name() -> None:
    image, points = tile()
    grey = Volume(255 - image.data[:1], ("DAPI",), (0.5, 0.5, 0.5), "t")
    found = outline_points(grey, points)
    assert found.outlines is not None
    assert found.outlines.is_known().all()


def test_a_stack_is_refused() -> None:
    stack = Volume(np.zeros((1, 3, 20, 20), np.uint8), ("DAPI",), None, "s")
    with pytest.raises(CallError, match="it is a stack"):
        outline_points(stack, Points(z=[1], y=[9], x=[9]))


def test_nearly_all_nuclei_of_a_real_tile_have_one(data: Path) -> None:
    folder = data / "crc_histophenotypes"
    path = sorted(folder.glob("img*.png"))[0]
    points = read_points(path.with_name(f"{path.stem}.points.csv"))
    found = outline_points(read_volume(path), points)
    assert found.outlines is not None
    assert found.outlines.is_known().mean() > 0.95
    # At 0.55 um/px nuclei of this tissue have some 60 to 400 pixels.
    assert 50 < np.median(found.outlines.areas()[found.outlines.is_known()]) < 450
