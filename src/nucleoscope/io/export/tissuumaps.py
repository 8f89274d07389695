"""Nuclei as a TissUUmaps project: a ``.tmap`` and the table of points it shows.

TissUUmaps counts ``(x, y)`` from the corner of the first pixel (Pielawski et al. 2023, Heliyon 9;
its project schema). Points, not polygons, so that millions can be shown.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.errors import CallError
from nucleoscope.io import guard
from nucleoscope.io.export.geojson import COLOURS
from nucleoscope.io.tables import write_csv


def write_tissuumaps(
    path: Path | str,
    nuclei: Nuclei,
    *,
    slide: Path | str | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``NAME.tmap`` and beside it ``NAME.csv``, coloured by type.

    Parameters
    ----------
    path
        Ends in ``.tmap``.
    nuclei
        Of one image.
    slide
        The image to show behind them; named relative to the project where it lies below it.
    overwrite
        Replace files that are there.

    Raises
    ------
    CallError
        The nuclei are of several images, or a file is there.

    Examples
    --------
    >>> import tempfile
    >>> from nucleoscope.data.table import NucleusTable
    >>> table = NucleusTable(pd.DataFrame({"id": [7], "y": [1.0], "x": [2.0], "type": ["a"]}))
    >>> path = Path(tempfile.mkdtemp()) / "a.tmap"
    >>> write_tissuumaps(path, Nuclei(table))
    >>> path.with_suffix(".csv").read_text().splitlines()[1]
    '7,2.5,1.5,"a",1'
    """
    path = Path(path)
    frame = nuclei.table.frame
    if frame["image"].nunique() > 1:
        raise CallError(f"a TissUUmaps project shows one image; found {frame['image'].nunique()}.")
    table = pd.DataFrame({"id": frame["id"], "X": frame["x"] + 0.5, "Y": frame["y"] + 0.5})
    table["type"] = np.where(frame["type"] == "", "nucleus", frame["type"])
    for column in ("score", "type_prob", "subtype"):
        if column in frame and frame[column].notna().any():
            table[column] = frame[column].to_numpy()
    csv = path.with_suffix(".csv")
    write_csv(table, csv, overwrite=overwrite)
    guard.write_json(path, _project(path, csv, sorted(set(table["type"])), slide),
                     overwrite=overwrite)  # fmt: skip


def _project(path: Path, csv: Path, types: list[str], slide: Path | str | None) -> dict[str, Any]:
    """The document of a project."""
    colours = {
        kind: "#" + "".join(f"{v:02x}" for v in COLOURS[i % len(COLOURS)])
        for i, kind in enumerate(types)
    }
    layers = [] if slide is None else [_layer(Path(slide), path.parent)]
    header = {
        "X": "X", "Y": "Y", "gb_col": "type", "gb_name": "", "cb_cmap": "", "cb_col": "",
        "cb_gr_dict": json.dumps(colours, ensure_ascii=False), "scale_col": "",
        "scale_factor": "0.3", "coord_factor": "1", "pie_col": "", "pie_dict": "",
        "shape_col": "", "shape_fixed": "disc", "shape_gr_dict": "", "opacity": "1",
        "opacity_col": "", "edges_col": "", "collectionItem_col": "", "collectionItem_fixed": "0",
    }  # fmt: skip
    radios = {
        "cb_col": False, "cb_gr": True, "cb_gr_rand": False, "cb_gr_dict": True,
        "cb_gr_key": False, "pie_check": False, "scale_check": False, "shape_col": False,
        "shape_fixed": True, "shape_gr": False, "shape_gr_dict": False, "shape_gr_rand": False,
        "opacity_check": False, "edges_check": False, "collectionItem_col": False,
        "collectionItem_fixed": True, "no_outline": True,
    }  # fmt: skip
    markers = {
        "title": "Nuclei", "name": "Nuclei", "comment": "Found by nucleoscope", "autoLoad": True,
        "hideSettings": False, "path": csv.name, "expectedHeader": header,
        "expectedRadios": radios, "settings": [],
        "uid": "U" + hashlib.sha256(csv.name.encode()).hexdigest()[:8],
    }  # fmt: skip
    return {
        "filename": path.name, "layers": layers, "layerFilters": {}, "layerOpacities": {},
        "layerVisibilities": {}, "filters": ["Brightness", "Contrast"],
        "compositeMode": "source-over", "markerFiles": [markers], "regions": {}, "regionFiles": [],
        "plugins": [], "settings": [], "hideTabs": False,
    }  # fmt: skip


def _layer(slide: Path, folder: Path) -> dict[str, str]:
    """An image; TissUUmaps makes its tiles under the name with ``.dzi`` behind."""
    slide, folder = slide.absolute(), folder.absolute()
    place = slide.relative_to(folder) if slide.is_relative_to(folder) else slide
    return {"name": slide.stem, "tileSource": f"{place.as_posix()}.dzi"}
