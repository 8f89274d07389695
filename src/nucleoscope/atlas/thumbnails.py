"""The plainest embedding of a nucleus: its own pixels, made small. A baseline for every other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.crops import CropStore

#: Side of a thumbnail in pixels, over the central ``FIELD`` pixels of a crop.
SIDE, FIELD = 8, 48


def thumbnail_vectors(crops: CropStore, *, dimensions: int = 50) -> NDArray[np.float32]:
    """Colour thumbnails of 8x8 pixels, reduced to their principal components.

    Parameters
    ----------
    crops
        N nuclei; the central 12 um of the morphology field are used.
    dimensions
        Components kept; fewer where there are fewer nuclei.

    Returns
    -------
    ``(N, D)`` float32, columns by falling variance.

    Examples
    --------
    >>> pictures = np.zeros((3, 64, 64, 3), np.uint8)
    >>> pictures[1] = 255
    >>> store = CropStore(pictures, pictures, pictures[..., 0], [False] * 3, [0] * 3, ("a",),
    ...                   [1, 2, 3])
    >>> thumbnail_vectors(store, dimensions=1).round().ravel().tolist()
    [-5.0, 9.0, -5.0]
    """
    small = np.concatenate([_small(np.asarray(part.morphology)) for _, part in crops.blocks()] or
                           [np.empty((0, SIDE * SIDE * 3), np.float32)])  # fmt: skip
    if not len(small):
        return np.empty((0, dimensions), np.float32)
    centred = small - small.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    kept = vectors[:, ::-1][:, :dimensions]
    # An eigenvector's sign is arbitrary; its largest entry is made positive.
    largest = kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])]
    projected: NDArray[np.float32] = (centred @ (kept * np.sign(largest))).astype(np.float32)
    return projected


def _small(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``(N, 64, 64, 3)`` to ``(N, 192)`` in 0 to 1, by area."""
    n, side = len(pictures), pictures.shape[1]
    cut, step = (side - FIELD) // 2, FIELD // SIDE
    middle = pictures[:, cut : cut + FIELD, cut : cut + FIELD].astype(np.float32) / 255
    blocks = middle.reshape(n, SIDE, step, SIDE, step, 3).mean(axis=(2, 4))
    flat: NDArray[np.float32] = blocks.reshape(n, -1)
    return flat
