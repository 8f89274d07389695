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
