"""Nuclei as DICOM Microscopy Bulk Simple Annotations (ANN), through highdicom.

Coordinates are ``(x, y)`` of the total pixel matrix, counted from the corner of its first pixel
(DICOM PS3.3 C.37.1.1; Bridge et al. 2022, J. Digit. Imaging 35). highdicom is an extra.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.errors import CallError, InputError, MissingExtraError
from nucleoscope.io import guard


def write_dicom_ann(
    path: Path | str,
    nuclei: Nuclei,
    *,
    slide: Path | str | None = None,
    overwrite: bool = False,
) -> None:
    """Write one group of polygons, and one of points, for each type.

    Parameters
    ----------
    path
        Ends in ``.dcm``.
    nuclei
        Of one slide; those without an outline become points.
    slide
        A DICOM file of the slide's full resolution, whose patient, study and frame of reference
        the annotations take.
    overwrite
        Replace a file that is there.

    Raises
    ------
    MissingExtraError
        highdicom is not installed.
    CallError
        No slide is given, there are no nuclei, they are of several images, or the file is there.
    InputError
        The slide is not a DICOM whole-slide image.
    """
    try:
        import highdicom  # type: ignore[import-not-found, unused-ignore]
        import pydicom  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtraError("DICOM annotations", "dicom") from error
    if slide is None:
        raise CallError("DICOM annotations belong to a DICOM slide; give its file with --slide.")
    if not len(nuclei) or nuclei.table.frame["image"].nunique() > 1:
        raise CallError("DICOM annotations are of one slide with nuclei; give those of one image.")
    with guard.reading(slide):
        source = pydicom.dcmread(slide, stop_before_pixels=True)
        if "TotalPixelMatrixRows" not in source or "FrameOfReferenceUID" not in source:
            raise InputError(f"{slide}: it is no DICOM whole-slide image (no total pixel matrix).")
        document = _document(highdicom, source, _groups(highdicom, nuclei))
    with guard.atomic_write(path, overwrite=overwrite) as temp:
        document.save_as(temp)


def _uid(*parts: str) -> str:
    """A UID made from text, so that the same nuclei give the same."""
    number = int(hashlib.sha256("\0".join(parts).encode()).hexdigest()[:30], 16)
    return f"2.25.{number}"


def _document(highdicom: Any, source: Any, groups: list[Any]) -> Any:
    from nucleoscope import __version__

    series = _uid(str(source.SOPInstanceUID), "nuclei")
    labels = [str(group.AnnotationGroupUID) for group in groups]
    return highdicom.ann.MicroscopyBulkSimpleAnnotations(
        source_images=[source], annotation_coordinate_type="2D", annotation_groups=groups,
        series_instance_uid=series, series_number=1,
        sop_instance_uid=_uid(series, *labels), instance_number=1,
        manufacturer="nucleoscope", manufacturer_model_name="nucleoscope",
        software_versions=__version__, device_serial_number="0",
        content_description="Nuclei", content_label="NUCLEI",
    )  # fmt: skip


def _groups(highdicom: Any, nuclei: Nuclei) -> list[Any]:
    """Polygons and points by type, in order of name."""
    frame = nuclei.table.frame
    known = np.zeros(len(frame), dtype=bool)
    if nuclei.outlines is not None:
        known = nuclei.outlines.is_known()
    groups: list[Any] = []
    for kind in sorted(set(frame["type"])):
        of_kind = (frame["type"] == kind).to_numpy()
        for graphic, rows in (("POLYGON", of_kind & known), ("POINT", of_kind & ~known)):
            if rows.any():
                data = _graphics(nuclei, np.flatnonzero(rows), graphic)
                groups.append(_group(highdicom, len(groups) + 1, kind, graphic, data))
    return groups


def _graphics(nuclei: Nuclei, rows: NDArray[np.int64], graphic: str) -> list[NDArray[np.float64]]:
    """``(k, 2)`` arrays in ``(x, y)``."""
    if graphic == "POLYGON" and nuclei.outlines is not None:
        return [nuclei.outlines[int(i)][:, ::-1] + 0.5 for i in rows]
    xy = nuclei.table.frame[["x", "y"]].to_numpy(dtype=np.float64)[rows] + 0.5
    return [place[None] for place in xy]


def _group(
    highdicom: Any, number: int, kind: str, graphic: str, data: list[NDArray[np.float64]]
) -> Any:
    from pydicom.sr.coding import Code  # type: ignore[import-not-found, unused-ignore]

    from nucleoscope import __version__

    digest = hashlib.sha256(b"".join(part.tobytes() for part in data)).hexdigest()
    family = Code("123109", "DCM", "Artificial Intelligence")
    return highdicom.ann.AnnotationGroup(
        number=number, uid=_uid(kind, graphic, digest), label=(kind or "nucleus")[:64],
        annotated_property_category=Code("91723000", "SCT", "Anatomical structure"),
        annotated_property_type=Code("84640000", "SCT", "Nucleus"),
        graphic_type=graphic, graphic_data=data, algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="nucleoscope", version=__version__, family=family
        ),
    )  # fmt: skip
