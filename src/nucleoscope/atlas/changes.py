"""Crops changed in one way at a time: what an embedding should not notice, or should.

Each change stands for something that happens between slides and has nothing to do with the
nucleus (how it lies, how strongly it was stained, the focus, what is beside it), or for one that
has (its size). ``nucleoscope.certify`` compares the embeddings before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.data.crops import CropStore
from nucleoscope.errors import CallError
from nucleoscope.seeds import spawn

UInt8s = NDArray[np.uint8]
Floats = NDArray[np.float32]
Generator = np.random.Generator

#: Optical densities of hematoxylin, eosin and residue (Ruifrok and Johnston 2001, table 1).
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
#: Factor and offset ranges of ``stain``, in optical density.
STAIN_GAIN, STAIN_OFFSET = 0.10, 0.03
#: Standard deviation of ``blur`` in pixels (0.25 um each).
BLUR_SIGMA = 0.8
#: Factor of ``size``.
SIZE = 1.25
#: Pixels by which a nucleus's outline is widened and softened when its background is exchanged.
WIDEN, FEATHER = 2, 3
#: Radius in pixels of the disc that stands for a nucleus of unknown outline.
UNKNOWN_RADIUS = 14


def change(crops: CropStore, kind: str, *, seed: int = 0) -> CropStore:
    """The same nuclei after one change; see ``CHANGES`` for the kinds.

    Parameters
    ----------
    crops
        N nuclei; all are held in memory, so give a sample of a large store.
    kind
        ``rotation`` (any angle, mirrored at the edge), ``stain`` (hematoxylin and eosin +-10 %
        and a shift), ``blur`` (0.2 um), ``background`` (the nucleus before another field of the
        same slide), ``size`` (25 % wider).
    seed
        Of angles, gains and backgrounds.

    Raises
    ------
    CallError
        An unknown kind.

    Examples
    --------
    >>> pictures = np.full((2, 64, 64, 3), 200, np.uint8)
    >>> store = CropStore(pictures, pictures, pictures[..., 0] * 0,
    ...                   [False] * 2, [0, 0], ("a",), [1, 2])
    >>> bool((change(store, "rotation").morphology == 200).all())
    True
    """
    if kind not in CHANGES:
        raise CallError(f"there is no change {kind!r} of crops; there are {', '.join(CHANGES)}.")
    (rng,) = spawn(seed, 1)
    whole = crops.take(np.arange(len(crops)))
    return CHANGES[kind](whole, rng)


def _warp(pictures: UInt8s, matrices: NDArray[np.float64], order: int) -> UInt8s:
    """Map each ``(N, S, S[, 3])`` picture about its centre by its 2x2 matrix."""
    out = np.empty_like(pictures)
    centre = (pictures.shape[1] - 1) / 2
    for i, matrix in enumerate(matrices):
        shift = centre - matrix @ np.array([centre, centre])
        planes = pictures[i][..., None] if pictures.ndim == 3 else pictures[i]
        for c in range(planes.shape[2]):
            plane = ndimage.affine_transform(
                planes[..., c], matrix, shift, order=order, mode="mirror"
            )
            if pictures.ndim == 3:
                out[i] = plane
            else:
                out[i, ..., c] = plane
    return out


def _rotation(crops: CropStore, rng: Generator) -> CropStore:
    angle = rng.uniform(0, 2 * np.pi, len(crops))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    return replace(
        crops,
        morphology=_warp(crops.morphology, turn, 1),
        context=_warp(crops.context, turn, 1),
        mask=_warp(crops.mask, turn, 0),
    )


def _size(crops: CropStore, rng: Generator) -> CropStore:
    shrink = np.repeat(np.eye(2)[None] / SIZE, len(crops), axis=0)
    return replace(
        crops,
        morphology=_warp(crops.morphology, shrink, 1),
        mask=_warp(crops.mask, shrink, 0),
    )


def _stained(pictures: UInt8s, gain: Floats, offset: Floats) -> UInt8s:
    """Pictures with the concentrations of their stains changed."""
    density = -np.log((pictures.astype(np.float32) + 1) / 256)
    amounts = density @ np.linalg.inv(STAINS).astype(np.float32)
    amounts = amounts * gain[:, None, None] + offset[:, None, None]
    back = 256 * np.exp(-(amounts @ STAINS.astype(np.float32))) - 1
    changed: UInt8s = np.clip(np.rint(back), 0, 255).astype(np.uint8)
    return changed


def _stain(crops: CropStore, rng: Generator) -> CropStore:
    # A slide is stained as a whole: its nuclei share the change.
    gains = rng.uniform(1 - STAIN_GAIN, 1 + STAIN_GAIN, (len(crops.slides), 3))
    offsets = rng.uniform(-STAIN_OFFSET, STAIN_OFFSET, (len(crops.slides), 3))
    gains[:, 2], offsets[:, 2] = 1.0, 0.0
    gain, offset = (a.astype(np.float32)[crops.slide] for a in (gains, offsets))
    return replace(
        crops,
        morphology=_stained(crops.morphology, gain, offset),
        context=_stained(crops.context, gain, offset),
    )


def _blur(crops: CropStore, rng: Generator) -> CropStore:
    soft = ndimage.gaussian_filter(
        crops.morphology.astype(np.float32), (0, BLUR_SIGMA, BLUR_SIGMA, 0), mode="mirror"
    )
    return replace(crops, morphology=np.rint(soft).astype(np.uint8))


def _weights(masks: UInt8s) -> Floats:
    """``(N, S, S)``: 1 on the widened nucleus, falling to 0 over the feather."""
    side = masks.shape[1]
    y, x = np.indices((side, side)) - (side - 1) / 2
    disc = np.hypot(y, x) <= UNKNOWN_RADIUS
    out = np.empty(masks.shape, np.float32)
    for i, mask in enumerate(masks):
        nucleus = mask > 0 if mask.any() else disc
        away = ndimage.distance_transform_edt(~nucleus)
        out[i] = np.clip(1 - (away - WIDEN) / FEATHER, 0, 1)
    return out


def _partners(slide: NDArray[np.int32], rng: Generator) -> NDArray[np.int64]:
    """For every nucleus another of its slide, where there is one."""
    partner = np.arange(len(slide))
    for s in np.unique(slide):
        circle = rng.permutation(np.flatnonzero(slide == s))
        partner[circle] = np.roll(circle, 1)
    return partner


def _background(crops: CropStore, rng: Generator) -> CropStore:
    weight = _weights(crops.mask)[..., None]
    other: Any = crops.morphology[_partners(crops.slide, rng)]
    # Rolled by half a field, the other nucleus's own surroundings lie around this nucleus.
    other = np.roll(other, (32, 32), axis=(1, 2)).astype(np.float32)
    mixed = weight * crops.morphology + (1 - weight) * other
    return replace(crops, morphology=np.rint(mixed).astype(np.uint8))


#: Every change by name. Of all but ``size`` an embedding of morphology should notice little.
CHANGES: dict[str, Callable[[CropStore, Generator], CropStore]] = {
    "rotation": _rotation,
    "stain": _stain,
    "blur": _blur,
    "background": _background,
    "size": _size,
}
