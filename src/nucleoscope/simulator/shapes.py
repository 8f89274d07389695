"""Shapes and textures: deformed ellipsoids on a voxel grid, and smooth noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]
Box = tuple[slice, slice, slice]


class Body(NamedTuple):
    """A deformed ellipsoid in um.

    ``axes`` holds the three principal directions (z, y, x) as rows, ``radii`` their half lengths,
    ``wobble`` (4,) the bend and the three second-order deformations, about 0.1 each.
    """

    centre: Floats
    axes: Floats
    radii: Floats
    wobble: Floats


def orient(angle: float, tilt: float) -> Floats:
    """Principal directions of a body lying at ``angle`` (from +x towards +y) and tilted out."""
    c, s, ct, st = np.cos(angle), np.sin(angle), np.cos(tilt), np.sin(tilt)
    along = np.array([st, s * ct, c * ct])
    across = np.array([0.0, c, -s])
    return np.stack([along, across, np.cross(along, across)])


def rasterise(
    body: Body, step_um: Floats, shape: tuple[int, int, int], *, grow: float = 1.0
) -> tuple[Box, NDArray[np.float32]] | None:
    """The box a body fills and, per voxel in it, the radius relative to its surface (< 1 inside).

    Parameters
    ----------
    step_um
        ``(3,)`` voxel size; voxel (0, 0, 0) has its centre at 0.
    shape
        Of the grid; the box is cut to it.
    grow
        Scales the body.

    Returns
    -------
    tuple or None
        None when nothing of the box lies in the grid.
    """
    # No deformation reaches beyond sqrt(1.5) of the plain ellipsoid, nor a soft edge beyond 1.45.
    reach = 1.45 * grow * np.sqrt(((body.axes * body.radii[:, None]) ** 2).sum(axis=0)) + step_um
    low = np.maximum(np.ceil((body.centre - reach) / step_um), 0).astype(int)
    high = np.minimum(np.floor((body.centre + reach) / step_um) + 1, shape).astype(int)
    if (low >= high).any():
        return None
    grids = [
        (np.arange(a, b) * s - c).astype(np.float32)
        for a, b, s, c in zip(low, high, step_um, body.centre, strict=True)
    ]
    frame = (body.axes / (body.radii[:, None] * grow)).astype(np.float32)
    z, y, x = grids[0][:, None, None], grids[1][:, None], grids[2]
    a, b, c = (f[0] * z + f[1] * y + f[2] * x for f in frame)
    plain = (a * a + b * b + c * c) / np.float32(1.5)
    bend, skew, twist, taper = body.wobble.astype(np.float32)
    b = b - bend * (a * a - np.float32(0.3))
    squared = a * a + b * b + c * c
    squared *= np.clip(1 + skew * a * b + twist * b * c + taper * a, 0.5, 2)
    radius = np.sqrt(np.maximum(squared, plain, out=squared), out=squared)
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    return box, radius


def soft(radius: NDArray[np.float32], edge: float) -> NDArray[np.float32]:
    """1 inside, 0 outside, a ramp of width ``edge`` (of the radius) across the surface."""
    ramp: NDArray[np.float32] = np.clip((1 - radius) / np.float32(edge) + np.float32(0.5), 0, 1)
    return ramp


def smooth_noise(
    shape: tuple[int, ...], sigma: float | tuple[float, ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise of mean 0 and standard deviation 1, smoothed, periodic."""
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth = gaussian_filter(white, sigma, mode="wrap")
    smooth -= smooth.mean()
    scaled: NDArray[np.float32] = smooth / max(float(smooth.std()), 1e-12)
    return scaled


def cut(block: NDArray[np.float32], box: Box, rng: np.random.Generator) -> NDArray[np.float32]:
    """A piece of a periodic block, as large as ``box``, from a random place."""
    index = [
        (rng.integers(n) + np.arange(side.stop - side.start)) % n
        for n, side in zip(block.shape, box, strict=True)
    ]
    piece: NDArray[np.float32] = block[np.ix_(*index)]
    return piece
