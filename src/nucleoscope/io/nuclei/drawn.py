"""Nuclei drawn by hand: Aperio ImageScope XML (MoNuSeg, MoNuSAC), RoiSets, NuCLS tables."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

import numpy as np

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.nuclei.build import Rows, Source, nuclei_of
from nucleoscope.io.roi import MAGIC, parse_roi, roi_files
from nucleoscope.io.tables import read_csv

_NOTHING = np.empty((0, 2))


# ImageScope -------------------------------------------------------------------------------------


def is_imagescope(path: Path, head: bytes) -> bool:
    """True for XML with ``Annotations`` and ``Regions``."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"<") and b"<Annotations" in head and b"<Region" in head


def read_imagescope(path: Path, head: bytes, source: Source) -> Nuclei:
    """Regions of ImageScope, counted from the corner of the first pixel.

    The type is the layer's attribute (MoNuSAC) or its name.
    """
    where = source.where
    data = guard.read_bytes(path, limits=source.limits, kind="xml_bytes")
    root = guard.parse_xml(data, where=where, limits=source.limits)
    rows = Rows()
    for layer in root.iter("Annotation"):
        names = [a.get("Name", "") for a in layer.iter("Attribute")]
        kind = next((n for n in names if n and n != "Description"), layer.get("Name") or "")
        for region in layer.iter("Region"):
            try:
                xy = [(float(v.get("X", "")), float(v.get("Y", ""))) for v in region.iter("Vertex")]
            except ValueError:
                raise InputError(
                    f"{where}: nucleus {len(rows.ids) + 1} has a vertex that is no number."
                ) from None
            if xy:
                rows.add(np.array(xy)[:, ::-1] - 0.5, kind=kind)
        source.limits.check("vertices", rows.n_vertices, where)
    return nuclei_of(rows, source)


# ImageJ -----------------------------------------------------------------------------------------


def is_rois(path: Path, head: bytes) -> bool:
    """True for an ImageJ ROI or a zip of them."""
    if head.startswith(MAGIC):
        return True
    if not head.startswith(guard.ZIP):
        return False
    return any(name.casefold().endswith((".roi", "roiset.zip")) for name in guard.zip_names(path))


def read_rois(path: Path, head: bytes, source: Source) -> Nuclei:
    """Outlines of a RoiSet; point ROIs are nuclei without outline.

    ROIs named ``type-id`` as we write them keep both; others are numbered.
    """
    data = guard.read_bytes(path, limits=source.limits)
    rows, named = Rows(), []
    for name, raw in roi_files(data, source.where, source.limits).items():
        roi = parse_roi(raw, f"{source.where}: {name}")
        stem = PurePath(name).name.removesuffix(".roi")
        found = re.fullmatch(r"(.*[^\d-].*)-(\d{1,18})", stem)
        kind, number = (found[1], int(found[2])) if found else ("", 0)
        if roi.rings:
            named.append(number)
            rows.add(max(roi.rings, key=len) - 0.5, kind="" if kind == "nucleus" else kind)
        for _, y, x in roi.points:
            named.append(number)
            rows.add(_NOTHING, (float(y), float(x)), kind="" if kind == "nucleus" else kind)
    if rows.ids and 0 not in named and len(set(named)) == len(named):
        rows.ids = named
    else:
        rows.types = [""] * len(rows.ids)
    if not rows.ids:
        raise InputError(f"{source.where}: it holds no ROI.")
    return nuclei_of(rows, source)


# NuCLS ------------------------------------------------------------------------------------------

_NUCLS = {"xmin", "ymin", "xmax", "ymax", "coords_x", "coords_y"}


def is_nucls(path: Path, head: bytes) -> bool:
    """True for a table of NuCLS."""
    first = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
    return set(first.strip().split(",")) >= _NUCLS


def read_nucls(path: Path, head: bytes, source: Source) -> Nuclei:
    """Polygons and boxes of NuCLS, counted from the corner of the first pixel.

    The type is ``main_classification``; nuclei that are boxes only have their box's centre and no
    outline (Amgad et al. 2022, GigaScience 11).
    """
    frame, where = read_csv(path, limits=source.limits), source.where
    rows = Rows()
    kinds = next((c for c in ("main_classification", "raw_classification", "group") if c in frame),
                 None)  # fmt: skip
    for n, row in enumerate(frame.to_dict("records")):
        try:
            x = [float(v) for v in str(row["coords_x"]).split(",") if v not in ("", "nan")]
            y = [float(v) for v in str(row["coords_y"]).split(",") if v not in ("", "nan")]
            box = [float(row[c]) for c in ("ymin", "ymax", "xmin", "xmax")]
        except ValueError:
            raise InputError(f"{where}: row {n + 1} has coordinates that are no numbers.") from None
        if len(x) != len(y):
            raise InputError(f"{where}: row {n + 1} has {len(x)} x and {len(y)} y coordinates.")
        kind = str(row[kinds] or "") if kinds else ""
        is_box = len(x) < 3 or str(row.get("type", "")) == "rectangle"
        centre = (sum(box[:2]) / 2 - 0.5, sum(box[2:]) / 2 - 0.5)
        ring = _NOTHING if is_box else np.array([y, x]).T - 0.5
        rows.add(ring, centre if is_box else None, kind=kind)
    return nuclei_of(rows, source)
