"""Where nuclei are and what they look like: packing without overlap, touching, cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.simulator.anatomy import CAP, INTIMA, MEDIA, Anatomy, cellularity, depth_angle
from nucleoscope.simulator.shapes import Body, Box, orient, rasterise

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]

#: Half axes of a spindle nucleus (cap, media) and of a rounder one (core), um.
SPINDLE_UM, ROUND_UM = (6.6, 2.7, 2.4), (4.3, 3.6, 3.0)
#: A nucleus with fewer pixels than this in every slice is not in the section.
FEWEST_PIXELS = 20
#: Share of a nucleus that may be lost to its neighbour where they press on each other.
PRESSED = 0.04


class Nucleus(NamedTuple):
    """One nucleus: its shape and the angle its cell lies at."""

    body: Body
    angle: float


def place_nuclei(
    anatomy: Anatomy,
    shape: tuple[int, int, int],
    step: Floats,
    *,
    oversample: int,
    density: float,
    touching: float,
    rng: np.random.Generator,
) -> tuple[list[Nucleus], Ids]:
    """Nuclei and the voxels they fill (index + 1), until they fill ``density`` of the tissue.

    ``density`` is the share of volume where tissue is densest; sparser layers have fewer.
    """
    ids = np.zeros(shape, dtype=np.int32)
    extent = np.array(shape) * step
    wanted = density * float(np.prod(extent)) * _mean_cellularity(anatomy)
    nuclei: list[Nucleus] = []
    filled = 0.0
    typical = 4 / 3 * np.pi * float(np.prod(ROUND_UM))
    for _ in range(60 + int(40 * wanted / typical)):
        if filled >= wanted:
            break
        beside = nuclei[rng.integers(len(nuclei))] if nuclei and rng.random() < touching else None
        nucleus = _draw(anatomy, extent, beside, rng)
        if nucleus is None:
            continue
        place = _fit(nucleus, ids, step, oversample, touches=beside is not None)
        if place is not None:
            box, inside = place
            nuclei.append(nucleus)
            ids[box][inside] = len(nuclei)
            filled += float(inside.sum() * np.prod(step))
    return nuclei, ids


def _mean_cellularity(anatomy: Anatomy) -> float:
    """Mean over the frame of the chance to find a nucleus."""
    at = np.linspace(0, anatomy.side_um, 64)
    y, x = np.meshgrid(at, at, indexing="ij")
    return float(cellularity(anatomy, y, x).mean())


def _draw(
    anatomy: Anatomy, extent: Floats, beside: Nucleus | None, rng: np.random.Generator
) -> Nucleus | None:
    """A nucleus somewhere, also half outside section and frame, or beside another one."""
    margin = np.array([2.0, 3.0, 3.0])
    centre = rng.uniform(-margin, extent + margin) if beside is None else beside.body.centre.copy()
    here = np.array([centre[1]]), np.array([centre[2]])
    if beside is None and rng.random() > cellularity(anatomy, *here)[0]:
        return None
    depth, along = (float(value[0]) for value in depth_angle(anatomy, *here))
    nucleus = _shape(centre, depth / anatomy.side_um, along, rng)
    return nucleus if beside is None else _push_beside(nucleus, beside, rng)


def _shape(centre: Floats, layer: float, along: float, rng: np.random.Generator) -> Nucleus:
    """Size, direction and deformation by layer."""
    spindle = (0 < layer < CAP and rng.random() < 0.85) or (
        INTIMA < layer < MEDIA and rng.random() < 0.8
    )
    base = np.array(SPINDLE_UM if spindle or rng.random() < 0.15 else ROUND_UM)
    radii = base * np.exp(rng.normal(0, 0.11, 3)) * np.exp(rng.normal(0, 0.08))
    angle = along + rng.normal(0, 0.22) if spindle else rng.uniform(0, np.pi)
    wobble = np.array([rng.normal(0, 0.12), *rng.normal(0, 0.16, 3)])
    return Nucleus(Body(centre, orient(angle, rng.normal(0, 0.2)), radii, wobble), angle)


def _push_beside(nucleus: Nucleus, other: Nucleus, rng: np.random.Generator) -> Nucleus:
    """Move a nucleus out from another's centre, in a random direction, until they meet."""
    way = rng.normal(0, 1, 3) * (0.6, 1.0, 1.0)
    way /= np.linalg.norm(way)
    gap = _reach(nucleus.body, way) + _reach(other.body, way)
    centre = other.body.centre + way * gap * rng.uniform(0.9, 1.0)
    return nucleus._replace(body=nucleus.body._replace(centre=centre))


def _reach(body: Body, way: Floats) -> float:
    """From the centre to the surface of the plain ellipsoid along a direction."""
    return float(1 / np.sqrt((((body.axes @ way) / body.radii) ** 2).sum()))


def _fit(
    nucleus: Nucleus, ids: Ids, step: Floats, oversample: int, *, touches: bool
) -> tuple[Box, NDArray[np.bool_]] | None:
    """The voxels a nucleus can have, or None when there is no room for it."""
    found = rasterise(nucleus.body, step, ids.shape)
    if found is None:
        return None
    box, radius = found
    taken = ids[box] > 0
    inside = radius < 1
    n = int(inside.sum())
    if n == 0 or (inside & taken).sum() > PRESSED * n:
        return None
    if not touches and (taken & (radius < 1.3)).any():
        return None
    inside &= ~taken
    planes = np.arange(box[0].start, box[0].stop) % oversample == oversample // 2
    seen = inside[planes].sum(axis=(1, 2))
    return (box, inside) if seen.size and seen.max() >= FEWEST_PIXELS else None
