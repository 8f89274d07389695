"""Make the pictures of the tutorial from what ``nucleoscope demo`` left behind.

    python docs/make_pictures.py demo/01

Every picture is made by the package's own functions from the demo's files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.volume import Volume
from nucleoscope.io.images import read_labels, read_volume
from nucleoscope.io.points import read_points
from nucleoscope.io.tables import read_table
from nucleoscope.supervision import project, pseudo_labels
from nucleoscope.view.overlay import encode_png, overlay

PICTURES = Path(__file__).resolve().parent / "pictures"


def save(name: str, picture: NDArray[np.uint8]) -> None:
    """Write one picture."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.png").write_bytes(encode_png(picture))


def side_by_side(*pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures of one height in a row, with a white line between."""
    line = np.full((pictures[0].shape[0], 6, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, line)][:-1]
    return np.concatenate(parts, axis=1)


def drawn(volume: Volume, z: int, **more: Any) -> NDArray[np.uint8]:
    """One slice with a scale bar."""
    mpp = None if volume.spacing is None else volume.spacing[2]
    return overlay(volume.data[:, z], bar_mpp=mpp, **more)


def main(demo: Path) -> None:
    """All pictures of the tutorial."""
    volume = read_volume(demo / "test" / "plaque_01.ome.tif")
    points = read_points(demo / "test" / "plaque_01.points.csv")
    middle = volume.shape[0] // 2
    save("stack", side_by_side(*(drawn(volume, z) for z in (1, middle, middle + 2))))
    pseudo = pseudo_labels(volume, points)
    here = points.where(abs(points.z - middle) < 0.75)
    taught = drawn(volume, middle, labels=pseudo.instances[middle])
    save("clicks", side_by_side(drawn(volume, middle, points=here), taught))
    flat = [
        project(volume, method=method, cells=pseudo.cells, z_ranges=pseudo.z_ranges).data
        for method in ("mip", "emip")
    ]
    save("projections", side_by_side(*(overlay(plane) for plane in flat)))
    found = demo / "simulated" / "plaque_01"
    labels, table = read_labels(found / "labels.ome.zarr"), read_table(found)
    types = dict(zip(table.frame["id"], table.frame["type"], strict=True))
    shown = [drawn(volume, z, labels=labels.data[z], types=types) for z in (middle, middle + 2)]
    save("detected", side_by_side(*shown))
    if (demo / "real" / "cells3d").is_dir():
        stack = read_volume(demo / "cells3d.ome.tif")
        cells = read_labels(demo / "real" / "cells3d" / "labels.ome.zarr").data
        z = stack.shape[0] // 2
        save("cells3d", side_by_side(drawn(stack, z), drawn(stack, z, labels=cells[z])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
