"""Points as other programs keep them: napari, ImageJ Cell Counter, QuPath, spots of trackers."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from nucleoscope.data.points import Points
from nucleoscope.errors import CallError
from nucleoscope.io import guard
from nucleoscope.io.tables import write_csv
from nucleoscope.units import Spacing


def write_napari_points(path: Path | str, points: Points, *, overwrite: bool = False) -> None:
    """Write ``index, axis-0, axis-1, axis-2, class`` in pixels, as napari saves a points layer.

    napari's file has no scale: give the layer the image's when it is opened.

    Raises
    ------
    CallError
        The file is there.
    """
    zyx = points.zyx()
    frame = pd.DataFrame({"index": np.arange(len(zyx), dtype=float)})
    frame[["axis-0", "axis-1", "axis-2"]] = zyx
    write_csv(frame.assign(**{"class": points.types.astype(object)}), path, overwrite=overwrite)


def write_cell_counter(
    path: Path | str, points: Points, *, image: str = "", overwrite: bool = False
) -> None:
    """Write an ImageJ Cell Counter XML: one counter per type, whole pixels, slices from 1.

    Parameters
    ----------
    image
        File name of the image, which Cell Counter compares when it loads the markers.

    Raises
    ------
    CallError
        A coordinate is negative, which Cell Counter cannot hold, or the file is there.
    """
    zyx = np.rint(points.zyx()).astype(int)
    if zyx.size and zyx.min() < 0:
        raise CallError("Cell Counter holds no point outside the image; found a negative one.")
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>', "<CellCounter_Marker_File>",
        f"<Image_Properties><Image_Filename>{escape(image)}</Image_Filename></Image_Properties>",
        "<Marker_Data><Current_Type>1</Current_Type>",
    ]  # fmt: skip
    for number, kind in enumerate(sorted(set(points.types.tolist())), start=1):
        lines.append(f"<Marker_Type><Type>{number}</Type><Name>{escape(kind)}</Name>")
        lines += [
            f"<Marker><MarkerX>{x}</MarkerX><MarkerY>{y}</MarkerY>"
            f"<MarkerZ>{z + 1}</MarkerZ></Marker>"
            for z, y, x in zyx[points.types == kind].tolist()
        ]
        lines.append("</Marker_Type>")
    lines += ["</Marker_Data>", "</CellCounter_Marker_File>"]
    guard.write_text(path, "\n".join(lines) + "\n", overwrite=overwrite)


def write_point_geojson(path: Path | str, points: Points, *, overwrite: bool = False) -> None:
    """Write QuPath annotations: one MultiPoint per type and slice, counted from the corner.

    Raises
    ------
    CallError
        The file is there.
    """
    zyx = points.zyx()
    slices = np.rint(zyx[:, 0]).astype(int)
    features = []
    for kind in sorted(set(points.types.tolist())):
        for z in np.unique(slices[points.types == kind]).tolist():
            xy = zyx[(points.types == kind) & (slices == z), :0:-1] + 0.5
            properties: dict[str, object] = {"objectType": "annotation"}
            if kind:
                properties["classification"] = {"name": kind}
            features.append(
                {
                    "type": "Feature", "properties": properties,
                    "geometry": {
                        "type": "MultiPoint", "coordinates": np.round(xy, 3).tolist(),
                        "plane": {"c": -1, "z": z, "t": 0},
                    },
                }
            )  # fmt: skip
    document = {"type": "FeatureCollection", "features": features}
    text = json.dumps(document, ensure_ascii=False)
    guard.write_text(path, text + "\n", overwrite=overwrite)


def write_spots(
    path: Path | str, points: Points, *, spacing: Spacing | None = None, overwrite: bool = False
) -> None:
    """Write a spots table as TrackMate exports it, in micrometres.

    Parameters
    ----------
    spacing
        ``(z, y, x)`` um per pixel.

    Raises
    ------
    CallError
        The spacing is unknown: spots are physical.
    """
    if spacing is None:
        raise CallError("spots are in micrometres; give the voxel size with --spacing Z,Y,X.")
    zyx = points.zyx() * np.asarray(spacing)
    n = len(zyx)
    frame = pd.DataFrame(
        {
            "LABEL": [f"ID{i}" for i in range(n)], "ID": np.arange(n),
            "POSITION_X": zyx[:, 2], "POSITION_Y": zyx[:, 1], "POSITION_Z": zyx[:, 0],
            "FRAME": np.zeros(n, int), "TYPE": points.types.astype(object),
        }
    )  # fmt: skip
    write_csv(frame, path, overwrite=overwrite)
