"""Nuclei and points as ImageJ ROIs: a zip that the ROI Manager opens.

The layout is that of ``nucleoscope.io.roi``. ImageJ counts outlines from the corner of the first
pixel, points by pixel (so the first pixel's centre is 0, as ours), and slices from 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.points import Points
from nucleoscope.errors import CallError
from nucleoscope.io import guard

_VERSION, _POLYGON, _POINTS, _SUB_PIXEL = 228, 0, 10, 128
#: Most vertices of a ROI whose count is stored in 16 bits.
MOST_VERTICES = 65_535


def write_rois(path: Path | str, nuclei: Nuclei, *, overwrite: bool = False) -> None:
    """Write outlines as a RoiSet zip; a nucleus without an outline becomes a point ROI.

    Parameters
    ----------
    path
        Ends in ``.zip``.
    nuclei
        Of one image; the name of a ROI is its type and id.
    overwrite
        Replace a file that is there.

    Raises
    ------
    CallError
        The nuclei are of several images, an outline has too many vertices, or the file is there.
    """
    images = set(nuclei.table.frame["image"])
    if len(images) > 1:
        raise CallError(f"a RoiSet belongs to one image; found {len(images)}.")
    guard.write_zip(path, _entries(nuclei), overwrite=overwrite)


def _entries(nuclei: Nuclei) -> Iterator[tuple[str, bytes]]:
    frame = nuclei.table.frame
    for i, (ident, kind, z, y, x) in enumerate(
        zip(frame["id"], frame["type"], frame["z"], frame["y"], frame["x"], strict=True)
    ):
        ring = np.empty((0, 2)) if nuclei.outlines is None else nuclei.outlines[i]
        name = f"{kind or 'nucleus'}-{ident}"
        # ImageJ takes a file name for the ROI's; a separator would make it a folder.
        safe = "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in name)
        place = 0 if np.isnan(z) else round(float(z)) + 1
        data = (
            encode_roi(ring + 0.5, slice_number=place)
            if len(ring)
            else encode_roi(np.array([[y, x]]), kind=_POINTS, slice_number=place)
        )
        yield f"{safe}.roi", data


def write_point_roi(path: Path | str, points: Points, *, overwrite: bool = False) -> None:
    """Write points as a zip of one multi-point ROI per type and slice.

    Raises
    ------
    CallError
        The file is there.
    """
    zyx = points.zyx()
    slices = np.rint(zyx[:, 0]).astype(int)

    def entries() -> Iterator[tuple[str, bytes]]:
        for kind in sorted(set(points.types.tolist())):
            for z in np.unique(slices[points.types == kind]):
                rows = (points.types == kind) & (slices == z)
                data = encode_roi(zyx[rows, 1:], kind=_POINTS, slice_number=int(z) + 1)
                yield f"{kind or 'points'}-{z + 1:04d}.roi", data

    guard.write_zip(path, entries(), overwrite=overwrite)


def encode_roi(yx: NDArray[np.float64], *, kind: int = _POLYGON, slice_number: int = 0) -> bytes:
    """One .roi file with sub-pixel coordinates.

    Parameters
    ----------
    yx
        ``(k, 2)`` as ImageJ counts.
    kind
        0 = polygon, 10 = points.
    slice_number
        From 1; 0 = on every slice.

    Raises
    ------
    CallError
        More than 65,535 vertices.
    """
    if len(yx) > MOST_VERTICES:
        raise CallError(f"an ImageJ ROI holds {MOST_VERTICES:,} points; found {len(yx):,}.")
    y, x = yx.T
    low, high = np.floor(yx.min(axis=0)), np.ceil(yx.max(axis=0))
    box = np.clip([low[0], low[1], high[0], high[1]], -32768, 32767).astype(int)
    n = len(yx)
    header2 = 64 + 4 * n + 8 * n
    head = struct.pack(">4shBx", b"Iout", _VERSION, kind)
    head += struct.pack(">4hH", *box.tolist(), n).ljust(42, b"\0")
    head += struct.pack(">hxxxxi", _SUB_PIXEL, slice_number) + struct.pack(">i", header2)
    whole = np.clip(np.stack([np.floor(x) - box[1], np.floor(y) - box[0]]), -32768, 32767)
    body = whole.astype(">i2").tobytes() + np.stack([x, y]).astype(">f4").tobytes()
    tail = struct.pack(">iiii", 0, 0, slice_number, 0).ljust(64, b"\0")
    data: bytes = head + body + tail
    return data
