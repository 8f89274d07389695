"""Nuclei from clicks alone, without a model: an outline around every point of an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.points import Points
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError
from nucleoscope.nuclei.outline import outlines_of
from nucleoscope.supervision import nuclei_channel, pseudo_labels


def outline_points(image: Volume, points: Points, *, nuclei: str = "DAPI") -> Nuclei:
    """Draw the outline of every clicked nucleus of a 2D image.

    Each nucleus is what is above half its own height over the background, within the cell of its
    point (the default pseudo labels); of an H&E image its hematoxylin is looked at.

    Parameters
    ----------
    image
        2D, colour or fluorescence.
    points
        One per nucleus; their ids and types are kept.
    nuclei
        The nuclear channel of a fluorescence image.

    Returns
    -------
    Nuclei
        One row per point, in their order, ``y, x`` the click. A point without stain under it has
        no outline.

    Raises
    ------
    CallError
        A stack: outlines of stacks come from ``detect``.

    Examples
    --------
    >>> rgb = np.full((3, 1, 40, 40), 235, np.uint8)
    >>> y, x = np.indices((40, 40))
    >>> rgb[:, 0][:, np.hypot(y - 20, x - 20) < 7] = 90
    >>> image = Volume(rgb, ("red", "green", "blue"), name="a", is_rgb=True)
    >>> found = outline_points(image, Points(z=[0], y=[20], x=[19], type=["a"]))
    >>> bool(abs(found.outlines.areas()[0] - 149) < 40)
    True
    """
    if image.shape[0] != 1:
        raise CallError(f"{image.name}: it is a stack; find its nuclei with detect.")
    stain = nuclei_channel(image, nuclei)
    view = replace(image, data=stain[None], channels=("nuclei",), is_rgb=False)
    instances = pseudo_labels(view, points, nuclei=0).instances[0]
    assert points.id is not None  # noqa: S101  set at birth
    ids = np.concatenate([[0], points.id])
    labels = Labels(ids[instances].astype(np.int32), image.spacing)
    outlines, _ = outlines_of(labels, points.id)
    table = NucleusTable(
        pd.DataFrame(
            {"id": points.id, "image": image.name, "y": points.y, "x": points.x,
             "type": points.types}
        )
    )  # fmt: skip
    return replace(Nuclei(table, outlines), labels=labels)
