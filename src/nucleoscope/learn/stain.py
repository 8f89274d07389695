"""How stained sections differ from one another: more or less of each dye, light and focus.

Light passes through stain by the law of Lambert and Beer, ``I = exp(-sum_s a_s c_s)``: dyes add up
in the optical density, so that is where they are varied. The hue is never turned: a nucleus that
is blue in one laboratory is not green in another, and its colour says what it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Optical density in red, green and blue of haematoxylin, eosin and what is at right angles to
#: both, each of length 1 (Ruifrok and Johnston 2001, table 1).
STAINS = np.array(
    [[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], dtype=np.float32
)
UNMIX = np.linalg.inv(STAINS).astype(np.float32)
#: Spread (of the logarithm) of the gain of each stain and of the light.
STAIN_GAIN, LIGHT_GAIN = 0.12, 0.06
#: Spread of the optical density added to each colour.
TINT = 0.02
#: Optical density in red, green and blue of what is spilt on slides, the largest 1: black, brown,
#: blue, cyan, green and red.
SPILLS = np.array(
    [[1.0, 1.0, 1.0], [0.75, 0.9, 1.0], [1.0, 0.6, 0.15], [1.0, 0.3, 0.12], [1.0, 0.35, 0.75],
     [0.1, 0.9, 1.0]], dtype=np.float32,
)  # fmt: skip
#: Pixels across of its blobs, of its ragged edge and of its grain; share of a crop that it takes;
#: its greatest density.
SPILL_SIZES = ((15.0, 80.0), (6.0, 16.0), (2.0, 4.0))
SPILL_SHARE, SPILL_DENSITY = (0.1, 0.7), (0.7, 3.0)
#: The darkest that is told apart.
DARKEST = 1.0 / 255


def vary_stain(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Change the stains, the light, the noise and the focus of ``(3, Z, Y, X)`` light in [0, 1].

    Examples
    --------
    >>> grey = np.full((3, 1, 4, 4), 0.5, np.float32)
    >>> vary_stain(grey, np.random.default_rng(0)).shape
    (3, 1, 4, 4)
    """
    density = -np.log(np.clip(image, DARKEST, 1.0)).reshape(3, -1)
    gains = np.exp(rng.normal(0, STAIN_GAIN, size=3)).astype(np.float32)
    # Unmix, scale every stain and mix again: one 3 x 3 matrix.
    density = (UNMIX @ np.diag(gains) @ STAINS).T @ density
    density += rng.normal(0, TINT, size=(3, 1)).astype(np.float32)
    light = np.exp(-density).reshape(image.shape) * np.float32(np.exp(rng.normal(0, LIGHT_GAIN)))
    if rng.random() < 0.5:
        light += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(
            rng.uniform(0, 0.04)
        )
    if rng.random() < 0.3:
        sigma = rng.uniform(0.3, 1.0)
        light = ndimage.gaussian_filter(light, (0, 0, sigma, sigma))
    varied: NDArray[np.float32] = np.clip(light, 0.0, 1.1).astype(np.float32, copy=False)
    return varied


def spill(
    shape: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Ink or pigment that lies on a section: what lets through no nucleus and is none.

    Marker pens are black, blue, green or red, pigment is black or brown. All have ragged edges,
    holes and grain.

    Returns
    -------
    density
        ``(3, Y, X)`` optical density that is added.
    cover
        ``(Y, X)`` in 0 to 1: how much of it lies where.

    Examples
    --------
    >>> density, cover = spill((64, 48), np.random.default_rng(0))
    >>> density.shape, cover.shape, bool(density.min() >= 0)
    ((3, 64, 48), (64, 48), True)
    """
    wide, fine, grain = (_field(shape, rng.uniform(*size), rng) for size in SPILL_SIZES)
    level = float(np.quantile(wide, 1 - rng.uniform(*SPILL_SHARE)))
    # An edge sharp or blurred, torn by the finer field.
    edge = (wide - level + rng.uniform(0.1, 0.6) * fine) / rng.uniform(0.03, 0.4)
    cover = np.clip(edge + 0.5, 0, 1).astype(np.float32)
    colour = SPILLS[rng.integers(len(SPILLS))] * np.exp(rng.normal(0, 0.15, 3)).astype(np.float32)
    strength = np.float32(rng.uniform(*SPILL_DENSITY))
    thick = cover * strength * np.exp(rng.uniform(0, 0.4) * (fine + grain)).astype(np.float32)
    return colour[:, None, None] * thick, cover


def _field(shape: tuple[int, int], size: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of mean 0 and spread 1 whose blobs are about ``size`` pixels across."""
    coarse = tuple(int(n / size) + 4 for n in shape)
    noise = rng.standard_normal(coarse).astype(np.float32)
    start = rng.uniform(1, 2, size=2)
    field: NDArray[np.float32] = ndimage.affine_transform(
        noise, np.full(2, 1 / size), start, shape, order=3, mode="mirror", output=np.float32
    )
    field -= field.mean()
    field /= max(float(field.std()), 1e-6)
    return field
