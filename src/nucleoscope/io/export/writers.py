"""Every format that is written: its name, how its files end, what goes into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nucleoscope.errors import CallError
from nucleoscope.io.export.clicks import (
    write_cell_counter,
    write_napari_points,
    write_point_geojson,
    write_spots,
)
from nucleoscope.io.export.coco import write_coco
from nucleoscope.io.export.dicom import write_dicom_ann
from nucleoscope.io.export.frames import (
    write_cellprofiler,
    write_embedding_atlas,
    write_geoparquet,
)
from nucleoscope.io.export.geojson import write_geojson
from nucleoscope.io.export.hovernet import write_hovernet_json, write_hovernet_mat
from nucleoscope.io.export.rois import write_point_roi, write_rois
from nucleoscope.io.export.scverse import write_anndata, write_spatialdata
from nucleoscope.io.export.tissuumaps import write_tissuumaps
from nucleoscope.io.omezarr import write_labels, write_volume
from nucleoscope.io.points import write_points
from nucleoscope.io.tiff import write_ome_tiff

Content = Literal["image", "labels", "nuclei", "points", "atlas"]


@dataclass(frozen=True)
class Writer:
    """One row of ``WRITERS``.

    Parameters
    ----------
    name
        What the user calls it (``--to NAME``).
    takes
        What it writes: an image, an instance map, nuclei, points or an atlas.
    suffixes
        How its files end; the first row whose suffix fits is taken when no name is given.
    write
        ``write(path, content, *, overwrite, ...)``.
    opens_in
        Programs that open it.
    """

    name: str
    takes: Content
    suffixes: tuple[str, ...]
    write: Callable[..., Any]
    opens_in: str


#: A new format is one row here. Of rows with the same suffix the first is the default.
WRITERS = (
    Writer("ome-tiff", "image", (".ome.tif", ".ome.tiff", ".tif", ".tiff"), write_ome_tiff,
           "Fiji, QuPath, napari"),
    Writer("ome-zarr", "image", (".ome.zarr",), write_volume, "napari, Fiji (MoBIE), Vitessce"),
    Writer("labels-ome-tiff", "labels", (), write_ome_tiff, "Fiji, QuPath, napari, CellProfiler"),
    Writer("labels-ome-zarr", "labels", (), write_labels, "napari"),
    Writer("geojson", "nuclei", (".geojson", ".geojson.gz"), write_geojson, "QuPath"),
    Writer("hovernet", "nuclei", (".json",), write_hovernet_json, "HoVer-Net's tools"),
    Writer("hovernet-mat", "nuclei", (".mat",), write_hovernet_mat, "HoVer-Net's tools, MATLAB"),
    Writer("coco", "nuclei", (), write_coco, "pycocotools, FiftyOne, CVAT"),
    Writer("rois", "nuclei", (".zip",), write_rois, "Fiji's ROI Manager"),
    Writer("geoparquet", "nuclei", (".parquet",), write_geoparquet, "geopandas, DuckDB, QGIS"),
    Writer("anndata", "nuclei", (".h5ad",), write_anndata, "scanpy, squidpy"),
    Writer("spatialdata", "nuclei", (".zarr",), write_spatialdata, "spatialdata, napari"),
    Writer("tissuumaps", "nuclei", (".tmap",), write_tissuumaps, "TissUUmaps"),
    Writer("dicom-ann", "nuclei", (".dcm",), write_dicom_ann, "DICOM viewers (Slim), highdicom"),
    Writer("cellprofiler", "nuclei", (), write_cellprofiler, "CellProfiler Analyst"),
    Writer("points", "points", (".csv",), write_points, "nucleoscope, any spreadsheet"),
    Writer("napari-points", "points", (), write_napari_points, "napari"),
    Writer("cell-counter", "points", (".xml",), write_cell_counter, "Fiji's Cell Counter"),
    Writer("points-geojson", "points", (), write_point_geojson, "QuPath"),
    Writer("points-rois", "points", (), write_point_roi, "Fiji's ROI Manager"),
    Writer("spots", "points", (), write_spots, "TrackMate, Imaris (by CSV)"),
    Writer("embedding-atlas", "atlas", (), write_embedding_atlas, "embedding-atlas"),
)  # fmt: skip


def writer_for(path: Path | str, name: str | None = None) -> Writer:
    """The format of a name, or of how a path ends.

    Raises
    ------
    CallError
        No such format; lists those there are.

    Examples
    --------
    >>> writer_for("a.geojson.gz").name, writer_for("a.json", "coco").name
    ('geojson', 'coco')
    """
    if name is not None:
        for writer in WRITERS:
            if writer.name == name:
                return writer
        raise CallError(f"no format {name!r}; there are {', '.join(w.name for w in WRITERS)}.")
    text = str(path).lower()
    fits = [(len(s), -i) for i, w in enumerate(WRITERS) for s in w.suffixes if text.endswith(s)]
    if not fits:
        known = ", ".join(dict.fromkeys(s for w in WRITERS for s in w.suffixes))
        raise CallError(
            f"{path}: its ending says no format that is written ({known}); name one with --to."
        )
    return WRITERS[-max(fits)[1]]
