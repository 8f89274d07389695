"""A stack to one plane, each nucleus over its own slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.maps import Projection
from nucleoscope.data.points import Points
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError
from nucleoscope.flow.inputs import Image, Reading, nuclear_channel, open_image
from nucleoscope.io.points import read_points
from nucleoscope.io.tables import read_table
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.supervision import nearest_point, pseudo_labels
from nucleoscope.supervision import project as project_volume
from nucleoscope.units import Spacing


def project(
    stack: Image,
    output: str | Path | None = None,
    *,
    method: str = "emip",
    points: str | Path | Points | None = None,
    nuclei_table: str | Path | NucleusTable | None = None,
    nuclei: str | int | None = None,
    axes: str | None = None,
    spacing: Spacing | None = None,
    overwrite: bool = False,
) -> Projection:
    """Project a stack by maximum intensity, or by EMIP: each nucleus over its own slices only.

    Parameters
    ----------
    stack
        A file or a volume.
    output
        An OME-TIFF to write, or None.
    method
        ``mip`` or ``emip``. EMIP needs to know the nuclei: from ``points`` (annotations) or from
        ``nuclei_table`` (detections), never both.

    Returns
    -------
    Projection

    Raises
    ------
    CallError
        EMIP without nuclei, or with both kinds.
    """
    volume = open_image(stack, Reading(axes, spacing))
    cells: NDArray[np.int32] | None = None
    z_ranges: NDArray[np.bool_] | None = None
    if method == "emip":
        if (points is None) == (nuclei_table is None):
            raise CallError(
                "EMIP needs to know each nucleus's slices: give --points (annotated) or "
                "--nuclei-table (detected), one of them."
            )
        if points is not None:
            clicks = points if isinstance(points, Points) else read_points(points)
            pseudo = pseudo_labels(volume, clicks, nuclei=nuclear_channel(volume, nuclei))
            cells, z_ranges = pseudo.cells, pseudo.z_ranges
        elif nuclei_table is not None:
            table = (
                nuclei_table if isinstance(nuclei_table, NucleusTable) else read_table(nuclei_table)
            )
            cells, z_ranges = ranges_of(table, volume)
    flat = project_volume(volume, method=method, cells=cells, z_ranges=z_ranges)
    if output is not None:
        plane = Volume(
            flat.data[:, None], flat.channels, volume.spacing, f"{volume.name}_{method}", is_2d=True
        )
        write_ome_tiff(output, plane, overwrite=overwrite)
    return flat


def ranges_of(table: NucleusTable, volume: Volume) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Cells and slices of detected nuclei, from their centroids and z ranges."""
    frame = table.frame
    z = frame["z"].fillna(0.0).to_numpy()
    zyx = np.stack([z, frame["y"].to_numpy(), frame["x"].to_numpy()], axis=1)
    cells = nearest_point(volume.shape[1:], zyx[:, 1:], 1.0)
    slices = np.arange(volume.shape[0])
    low, high = frame["z_min"].to_numpy(), frame["z_max"].to_numpy()
    return cells, (slices >= low[:, None]) & (slices <= high[:, None])
