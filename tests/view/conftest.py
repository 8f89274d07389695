"""A toy scene: a few ellipsoids with a marker, and the page it makes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data import Labels, NucleusTable, Points, Region, Volume
from nucleoscope.view.report import ReportImage

Maker = Callable[..., ReportImage]


def make_scene(
    name: str = "toy", n: int = 6, *, size: int = 96, depth: int = 5, marker: str = "LT"
) -> ReportImage:
    """An image of ``n`` nuclei on a grid, every other one positive, clicked on exactly."""
    labels = np.zeros((depth, size, size), np.int32)
    z, y, x = np.indices(labels.shape)
    centres = [(depth // 2, 15 + 28 * (i // 3), 16 + 28 * (i % 3)) for i in range(n)]
    for number, (cz, cy, cx) in enumerate(centres, start=1):
        inside = ((z - cz) / 2.0) ** 2 + ((y - cy) / 8.0) ** 2 + ((x - cx) / 8.0) ** 2 <= 1
        labels[inside] = number
    positive = np.isin(labels, np.arange(1, n + 1, 2))
    noise = np.random.default_rng(0).integers(0, 30, (2, *labels.shape))
    data = (noise + 180 * np.stack([positive, labels > 0])).astype(np.uint8)
    kinds = ["positive" if i % 2 == 0 else "negative" for i in range(n)]
    at = np.array(centres, float).reshape(-1, 3)
    frame = pd.DataFrame(
        {
            "id": np.arange(1, n + 1), "image": name, "z": at[:, 0], "y": at[:, 1], "x": at[:, 2],
            "z_min": depth // 2 - 1, "z_max": depth // 2 + 1, "score": np.linspace(0.5, 1, n),
            "type": kinds, "type_prob": 0.9,
        }
    )  # fmt: skip
    return ReportImage(
        name,
        Volume(data, (marker, "DAPI"), (1.5, 0.5, 0.5), name),
        Labels(labels, (1.5, 0.5, 0.5)),
        NucleusTable(frame) if n else NucleusTable.empty(),
        Points(at[:, 0], at[:, 1], at[:, 2], kinds),
        Region((np.array([[2, 2], [2, size - 3], [size - 3, size - 3], [size - 3, 2]]),)),
    )


@pytest.fixture(scope="session")
def scene() -> Maker:
    return make_scene
