"""Any file of nuclei to Nuclei: the format is found by its first bytes, never by its name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.errors import CallError, InputError
from nucleoscope.io import guard
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits
from nucleoscope.io.nuclei import coco, drawn, maps, outlined, stores, stream, tables
from nucleoscope.io.nuclei.build import Source


@dataclass(frozen=True)
class NucleiFormat:
    """One row of ``NUCLEI_READERS``.

    Parameters
    ----------
    name
        For messages.
    matches
        ``(path, first 64 kB) -> bool``; gzip is inflated, a folder has no bytes.
    read
        ``(path, first 64 kB, source) -> Nuclei``.
    """

    name: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Path, bytes, Source], Nuclei]


#: A new format is one row here; the first that matches is taken.
NUCLEI_READERS = [
    NucleiFormat("label image or OME-Zarr labels", maps.is_label_image, maps.read_label_image),
    NucleiFormat("GeoParquet", stores.is_geoparquet, stores.read_geoparquet),
    NucleiFormat("result of detect", tables.is_result, tables.read_result),
    NucleiFormat("HoVer-Net .mat", maps.is_mat, maps.read_mat),
    NucleiFormat("numpy instance map", maps.is_numpy, maps.read_numpy),
    NucleiFormat("HoVer-Net JSON", outlined.is_hovernet, outlined.read_hovernet),
    NucleiFormat("CellViT JSON", outlined.is_cellvit, outlined.read_cellvit),
    NucleiFormat("COCO JSON", coco.is_coco, coco.read_coco),
    NucleiFormat("QuPath GeoJSON", outlined.is_geojson, outlined.read_geojson),
    NucleiFormat("tiatoolbox AnnotationStore", stores.is_store, stores.read_store),
    NucleiFormat("ImageJ ROIs", drawn.is_rois, drawn.read_rois),
    NucleiFormat("ImageScope XML", drawn.is_imagescope, drawn.read_imagescope),
    NucleiFormat("NuCLS table", drawn.is_nucls, drawn.read_nucls),
    NucleiFormat("CSV of centres", tables.is_csv, tables.read_centres),
]


def read_nuclei(
    path: Path | str,
    *,
    image: str | None = None,
    scale: float = 1.0,
    limits: Limits = DEFAULT_LIMITS,
) -> Nuclei:
    """Read the nuclei of one slide or image.

    Parameters
    ----------
    path
        A label image (TIFF, PNG, OME-Zarr; StarDist and Cellpose masks), a folder or table that
        ``detect`` wrote, CSV of centres, QuPath GeoJSON (also gzip), HoVer-Net JSON or .mat,
        CellViT JSON, COCO JSON, tiatoolbox AnnotationStore, GeoParquet, ImageJ RoiSet, ImageScope
        XML (MoNuSeg), NuCLS CSV, or a plain .npy instance map.
    image
        Name of the image: value of the ``image`` column, and which rows of a file that holds
        several images.
    scale
        Pixels of the slide's full resolution in one pixel of the file, such as 2 for nuclei
        found at half resolution.
    limits
        What a file may ask for.

    Returns
    -------
    Nuclei
        In pixels of level 0, ``(y, x)``, the centre of the first pixel at 0. Outlines where the
        file has polygons, the instance map where it is one; ``notes`` tell what was left out. A
        file without a nucleus gives none.

    Raises
    ------
    InputError
        No known format, damaged, a coordinate that is no number, two segmentations in one file,
        a foreground map.
    UnsafeInputError
        A pickle, or above a limit.
    CallError
        ``scale`` not positive.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.json"
    >>> guard.write_json(path, {"mag": None, "nuc": {"7": {"centroid": [3, 2], "type": 1}}})
    >>> read_nuclei(path).table.frame[["id", "y", "x", "type"]].values.tolist()
    [[7, 2.0, 3.0, '1']]
    """
    path = Path(path)
    if not (math.isfinite(scale) and scale > 0):
        raise CallError(f"scale {scale:g}: it is how many level-0 pixels one of the file spans.")
    with guard.reading(path):
        head = b"" if path.is_dir() else stream.head(path)
        row = next((row for row in NUCLEI_READERS if row.matches(path, head)), None)
        if row is None:
            guard.refuse_java(head, str(path))
            names = ", ".join(row.name for row in NUCLEI_READERS)
            raise InputError(f"{path}: it holds no nuclei that are read ({names}).")
        return row.read(path, head, Source(str(path), image, scale, limits))
