"""Nuclei as COCO instances: boxes, areas and outlines as polygons or run lengths.

COCO counts from the corner of the first pixel in ``(x, y)``; boxes are ``[x, y, width, height]``,
run lengths go down the columns and begin with background (Lin et al. 2014, ECCV).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.errors import CallError
from nucleoscope.io import guard
from nucleoscope.io.export.hovernet import type_numbers


def write_coco(
    path: Path | str,
    nuclei: Nuclei,
    *,
    shape: tuple[int, int] | None = None,
    outlines: Literal["polygon", "rle"] = "polygon",
    overwrite: bool = False,
) -> None:
    """Write a COCO ``instances`` JSON of one or several images.

    Parameters
    ----------
    path
        File to write.
    nuclei
        Nuclei with outlines; those without have a box of no size and no segmentation.
    shape
        Rows and columns of the images; None takes those of the instance map, else null is written.
    outlines
        ``polygon``, or ``rle`` for run lengths (needs the 2D instance map of one image).
    overwrite
        Replace a file that is there.

    Raises
    ------
    CallError
        ``rle`` without a 2D instance map, or the file is there.
    """
    frame = nuclei.table.frame
    numbers, names = type_numbers(frame["type"])
    images = sorted(set(frame["image"]))
    if outlines == "rle" and (nuclei.labels is None or nuclei.labels.shape[0] != 1):
        raise CallError("run lengths are made from a 2D instance map, and there is none here.")
    if shape is None and nuclei.labels is not None:
        shape = nuclei.labels.shape[1:]
    height, width = shape or (None, None)
    document = {
        "images": [
            {"id": i + 1, "file_name": image, "height": height, "width": width}
            for i, image in enumerate(images)
        ],
        "categories": [
            {"id": i, "name": name or "nucleus", "supercategory": "nucleus"}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": i + 1, "image_id": images.index(image) + 1, "category_id": int(number),
                "nucleus_id": int(ident), "score": float(score), "iscrowd": 0,
                "centroid": [round(float(x) + 0.5, 3), round(float(y) + 0.5, 3)],
                **_shape(nuclei, i, int(ident), outlines),
            }
            for i, (image, number, ident, score, y, x) in enumerate(
                zip(frame["image"], numbers, frame["id"], frame["score"], frame["y"], frame["x"],
                    strict=True)
            )
        ],
    }  # fmt: skip
    guard.write_json(path, document, overwrite=overwrite)


def _shape(nuclei: Nuclei, row: int, ident: int, kind: str) -> dict[str, Any]:
    """Segmentation, box and area of one nucleus."""
    if kind == "rle" and nuclei.labels is not None:
        plane = nuclei.labels.data[0]
        counts = run_lengths(plane == ident)
        return {
            "segmentation": {"counts": counts, "size": list(plane.shape)},
            "bbox": _box_of(np.argwhere(plane == ident)),
            "area": float(sum(counts[1::2])),
        }
    ring = np.empty((0, 2)) if nuclei.outlines is None else nuclei.outlines[row]
    if not len(ring):
        return {"segmentation": [], "bbox": [0, 0, 0, 0], "area": 0.0}
    xy = np.round(ring[:, ::-1] + 0.5, 3)
    low, size = xy.min(axis=0), np.ptp(xy, axis=0)
    x, y = xy.T
    area = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
    return {
        "segmentation": [xy.ravel().tolist()],
        "bbox": [*low.tolist(), *np.round(size, 3).tolist()],
        "area": round(area, 3),
    }


def _box_of(pixels: NDArray[np.int64]) -> list[float]:
    if not len(pixels):
        return [0.0, 0.0, 0.0, 0.0]
    (y0, x0), (y1, x1) = pixels.min(axis=0), pixels.max(axis=0) + 1
    return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths of a ``(Y, X)`` mask down its columns, background first.

    >>> run_lengths(np.array([[False, True], [True, True]]))
    [1, 3]
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    edges = [0, *changes, flat.size]
    lengths = [b - a for a, b in pairwise(edges)]
    return lengths if flat.any() else [int(flat.size)]
