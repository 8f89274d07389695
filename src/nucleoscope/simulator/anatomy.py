"""A piece of artery wall: lumen, fibrous cap, plaque core, media with elastic laminae."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data import Region
from nucleoscope.simulator.shapes import smooth_noise

Floats = NDArray[np.float64]
Plane = NDArray[np.float32]

#: Layers, by depth below the lumen's surface as a share of the frame.
CAP, INTIMA, MEDIA = 0.13, 0.60, 0.80
#: Where the lumen ends, as a share of the frame from its centre.
SURFACE = -0.36
#: Distance between elastic laminae, their waviness and their thickness, um.
LAMINA_GAP_UM, LAMINA_WAVE_UM, LAMINA_LENGTH_UM, LAMINA_SIGMA_UM = 11.0, 1.3, 17.0, 0.6


class Anatomy(NamedTuple):
    """The wall in one frame of ``side_um``.

    ``turn`` is the angle of the wall in the frame; the lumen's surface is a sum of two sines with
    ``waves`` rows (amplitude um, length um, phase). ``cells`` ``(Y, X)`` in [0, 1] thins the
    nuclei out where the core is necrotic.
    """

    side_um: float
    step_um: float
    turn: float
    waves: Floats
    cells: Plane


def draw_anatomy(size: int, step_um: float, rng: np.random.Generator) -> Anatomy:
    """A random piece of wall on a frame of ``size`` pixels."""
    side = size * step_um
    waves = np.array(
        [
            [side * rng.uniform(0.03, 0.06), side * rng.uniform(0.8, 1.4), rng.uniform(0, 7)],
            [side * rng.uniform(0.005, 0.015), side * rng.uniform(0.25, 0.4), rng.uniform(0, 7)],
        ]
    )
    patchy = smooth_noise((size, size), size / 14, rng)
    cells = np.clip(0.75 + 0.5 * patchy, 0.08, 1.0)
    return Anatomy(side, step_um, rng.uniform(0, 2 * np.pi), waves, cells)


def along_across(anatomy: Anatomy, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Coordinates along and across the wall (um from the frame's centre) of y, x in um."""
    dy, dx = y - anatomy.side_um / 2, x - anatomy.side_um / 2
    c, s = np.cos(anatomy.turn), np.sin(anatomy.turn)
    return c * dx + s * dy, c * dy - s * dx


def surface(anatomy: Anatomy, along: Floats) -> tuple[Floats, Floats]:
    """Position across the wall of the lumen's surface, and its slope."""
    height = np.full_like(along, SURFACE * anatomy.side_um)
    slope = np.zeros_like(along)
    for amplitude, length, phase in anatomy.waves:
        k = 2 * np.pi / length
        height += amplitude * np.sin(k * along + phase)
        slope += amplitude * k * np.cos(k * along + phase)
    return height, slope


def depth_angle(anatomy: Anatomy, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Depth below the lumen's surface (um) and the angle along the wall, at y, x in um."""
    along, across = along_across(anatomy, y, x)
    height, slope = surface(anatomy, along)
    depth = (across - height) / np.sqrt(1 + slope**2)
    return depth, anatomy.turn + np.arctan(slope)


def cellularity(anatomy: Anatomy, y: Floats, x: Floats) -> Floats:
    """How likely a nucleus is at y, x (um), relative to the densest place."""
    share = depth_angle(anatomy, y, x)[0] / anatomy.side_um
    layer = np.select(
        [share < 0, share < CAP, share < INTIMA, share < MEDIA], [0.03, 1.0, 0.85, 0.75], 0.5
    )
    last = anatomy.cells.shape[0] - 1
    row, column = (np.clip(np.rint(a / anatomy.step_um), 0, last).astype(int) for a in (y, x))
    thinned: Floats = np.where((share > CAP) & (share < INTIMA), anatomy.cells[row, column], 1.0)
    return layer * thinned


def plaque_region(anatomy: Anatomy) -> Region:
    """The plaque, from the lumen's surface to the first lamina, cut to the frame; (y, x) pixels."""
    from shapely import Polygon, box

    along = np.linspace(-anatomy.side_um, anatomy.side_um, 241)
    top, slope = surface(anatomy, along)
    under = top + INTIMA * anatomy.side_um * np.sqrt(1 + slope**2)
    ring = np.concatenate([np.stack([along, top], 1), np.stack([along, under], 1)[::-1]])
    c, s = np.cos(anatomy.turn), np.sin(anatomy.turn)
    x = (ring[:, 0] * c - ring[:, 1] * s + anatomy.side_um / 2) / anatomy.step_um
    y = (ring[:, 0] * s + ring[:, 1] * c + anatomy.side_um / 2) / anatomy.step_um
    edge = anatomy.side_um / anatomy.step_um - 0.5
    inside = Polygon(np.stack([y, x], 1)).intersection(box(-0.5, -0.5, edge, edge))
    parts = [p for p in getattr(inside, "geoms", [inside]) if isinstance(p, Polygon)]
    return Region(tuple(np.asarray(part.exterior.coords) for part in parts), "plaque")


def laminae(anatomy: Anatomy, n_slices: int) -> Plane:
    """Autofluorescence of the elastic laminae ``(Z, Y, X)``, 1 on their middle."""
    at = np.arange(anatomy.cells.shape[0]) * anatomy.step_um
    y, x = np.meshgrid(at, at, indexing="ij")
    depth = depth_angle(anatomy, y, x)[0]
    along = along_across(anatomy, y, x)[0] * 2 * np.pi / LAMINA_LENGTH_UM
    start, stop = INTIMA * anatomy.side_um, MEDIA * anatomy.side_um
    light = np.zeros((n_slices, *depth.shape), dtype=np.float32)
    rows, columns = np.nonzero((depth > start - 5) & (depth < stop + 5))
    depth, along = depth[rows, columns], along[rows, columns]
    for number, offset in enumerate(np.arange(start, stop + 1, LAMINA_GAP_UM)):
        for z in range(n_slices):
            wave = LAMINA_WAVE_UM * np.sin(along + 1.7 * number + 0.12 * z)
            near = (depth - offset - wave) / LAMINA_SIGMA_UM
            light[z, rows, columns] += (0.75 + 0.25 * (number == 0)) * np.exp(-0.5 * near**2)
    return light
