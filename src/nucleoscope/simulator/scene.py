"""An image together with everything that is true of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.data import Labels, Points, Region, Volume


@dataclass(frozen=True, eq=False)
class Scene:
    """A simulated image and its truth.

    Parameters
    ----------
    volume
        The image.
    points
        One click per annotated nucleus; ``id`` is the nucleus id of ``labels`` and ``truth``.
    labels
        The instance map; nuclei outside the region are in it too.
    truth
        One row per nucleus of ``labels``: id, centroid ``z, y, x`` (pixels), ``z_min, z_max,
        n_slices``, ``n_voxels``, ``type``, ``in_region`` (annotated), and what the kind of image
        adds.
    region
        Where nuclei were annotated, or None for everywhere.
    """

    volume: Volume
    points: Points
    labels: Labels
    truth: pd.DataFrame
    region: Region | None = None


def outline_truth(labels: NDArray[np.int32], types: dict[int, str]) -> pd.DataFrame:
    """Centroids, z ranges and sizes of an instance map ``(Z, Y, X)``, with the types given."""
    z, y, x = np.nonzero(labels)
    ids, which = np.unique(labels[z, y, x], return_inverse=True)
    n = np.bincount(which, minlength=len(ids))
    centre = [
        np.bincount(which, weights=a, minlength=len(ids)) / np.maximum(n, 1) for a in (z, y, x)
    ]
    z_min = np.full(len(ids), labels.shape[0])
    z_max = np.full(len(ids), -1)
    np.minimum.at(z_min, which, z)
    np.maximum.at(z_max, which, z)
    return pd.DataFrame(
        {
            "id": ids.astype(np.int64),
            "z": centre[0],
            "y": centre[1],
            "x": centre[2],
            "z_min": z_min,
            "z_max": z_max,
            "n_slices": z_max - z_min + 1,
            "n_voxels": n.astype(np.int64),
            "type": np.array([types[int(i)] for i in ids], dtype=object),
        }
    )


def click(
    labels: NDArray[np.int32], truth: pd.DataFrame, jitter_px: float, rng: np.random.Generator
) -> Points:
    """One click per row of ``truth``: in the slice nearest its centroid, a little off centre.

    The click is drawn around the centroid with a standard deviation of ``jitter_px`` and moved to
    the nearest pixel of the nucleus when it misses, as an annotator would see to.
    """
    boxes = ndimage.find_objects(labels)
    offsets = rng.normal(0, jitter_px, (len(truth), 2))
    rows = []
    for nucleus, z, y, x, offset in zip(
        truth["id"], truth["z"], truth["y"], truth["x"], offsets, strict=True
    ):
        box = boxes[nucleus - 1]
        inside = np.argwhere(labels[box] == nucleus) + [side.start for side in box]
        slices = np.unique(inside[:, 0])
        centre = slices[np.argmin(np.abs(slices - z))]
        here = inside[inside[:, 0] == centre]
        aim = np.array([y, x]) + offset
        away = np.abs(here[:, 1:] - aim).max(axis=1)
        at = aim if away.min() <= 0.5 else here[np.argmin(away), 1:]
        rows.append((float(centre), float(at[0]), float(at[1])))
    zyx = np.array(rows, dtype=np.float64).reshape(-1, 3)
    types = truth["type"].to_numpy().astype(np.str_)
    return Points(zyx[:, 0], zyx[:, 1], zyx[:, 2], types, truth["id"].to_numpy(), "clicks")
