"""Which cells carry the marker, and where in the section their bodies run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.simulator.cells import Nucleus
from nucleoscope.simulator.shapes import Body, cut, orient, rasterise, smooth_noise, soft

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]
Light = NDArray[np.float32]

#: Owner of a body whose nucleus lies outside the section.
ELSEWHERE = -1
#: A positive nucleus hidden further than this behind nuclei to be kept clear turns negative.
MOST_HIDDEN = 0.6
#: Light below which a voxel is not counted as marker.
FAINTEST = 0.12


class Types(NamedTuple):
    """Per nucleus: whether its cell has the marker, and whether a foreign body crosses it.

    ``clear`` ``(Y, X)`` marks the outlines of negative nuclei that no marker may cross.
    """

    positive: NDArray[np.bool_]
    crossed: NDArray[np.bool_]
    clear: NDArray[np.bool_]


def draw_types(
    ids: Ids,
    n: int,
    *,
    positive_fraction: float,
    rho: float,
    oversample: int,
    rng: np.random.Generator,
) -> Types:
    """Draw which nuclei are positive and which negative ones are crossed, with chance ``rho``.

    A nucleus that fills the whole depth cannot be crossed. The draws for one nucleus use the same
    random number at every ``rho``, so the crossed ones at a low rate are among those at a higher.
    """
    outlines = _outlines(ids, n)
    positive = rng.random(n) < positive_fraction
    crossed = (rng.random(n) < rho) & ~positive & _has_room(ids, n, oversample)
    clear = np.zeros(ids.shape[1] * ids.shape[2], dtype=bool)
    for number in np.flatnonzero(~positive & ~crossed):
        clear[outlines[number]] = True
    for number in np.flatnonzero(positive):
        if clear[outlines[number]].mean() > MOST_HIDDEN:
            positive[number] = False
            clear[outlines[number]] = True
    return Types(positive, crossed, clear.reshape(ids.shape[1:]))


def _outlines(ids: Ids, n: int) -> list[NDArray[np.int64]]:
    """Per nucleus, the flat pixels of its xy outline."""
    pixels = ids.shape[1] * ids.shape[2]
    z, y, x = np.nonzero(ids)
    keys = np.unique((ids[z, y, x].astype(np.int64) - 1) * pixels + y * ids.shape[2] + x)
    owner, at = np.divmod(keys, pixels)
    return np.split(at, np.searchsorted(owner, np.arange(1, n)))


def _z_extent(ids: Ids, n: int, oversample: int) -> NDArray[np.int64]:
    """First and last slice ``(n, 2)`` that a nucleus reaches into."""
    extent = np.array([[ids.shape[0], -1]] * n).reshape(n, 2)
    for z, plane in enumerate(ids):
        here = np.unique(plane)
        here = here[here > 0] - 1
        extent[here, 0] = np.minimum(extent[here, 0], z)
        extent[here, 1] = z
    return extent // oversample


def _has_room(ids: Ids, n: int, oversample: int) -> NDArray[np.bool_]:
    """True where at least one slice above or below is free of the nucleus."""
    extent = _z_extent(ids, n, oversample)
    room: NDArray[np.bool_] = (extent[:, 0] > 0) | (extent[:, 1] < ids.shape[0] // oversample - 1)
    return room


class Paint:
    """The marker being painted: whose it is and how bright, voxel by voxel."""

    def __init__(self, ids: Ids, clear: NDArray[np.bool_], step: Floats, rng: np.random.Generator):
        self.ids, self.clear, self.step, self.rng = ids, clear, step, rng
        self.owner = np.zeros(ids.shape, dtype=np.int32)
        self.light = np.zeros(ids.shape, dtype=np.float32)
        self.grain = smooth_noise((24, 96, 96), tuple(0.7 / step), rng)

    def body(self, body: Body, owner: int, brightness: float, nuclear: float) -> None:
        """Add a body. It stays out of nuclei but its own, there dimmed to ``nuclear``."""
        found = rasterise(body, self.step, self.ids.shape)
        if found is None:
            return
        box, radius = found
        here = self.ids[box]
        light = soft(radius, 0.35) * np.clip(1 + 0.22 * cut(self.grain, box, self.rng), 0.3, 2)
        light *= brightness * np.where(here == owner, np.float32(nuclear), np.float32(1))
        light[((here != 0) & (here != owner)) | self.clear[box[1:]]] = 0
        brighter = light > self.light[box]
        self.light[box][brighter] = light[brighter]
        self.owner[box][brighter & (light > FAINTEST)] = owner


def paint_marker(
    nuclei: list[Nucleus],
    ids: Ids,
    types: Types,
    step: Floats,
    oversample: int,
    rng: np.random.Generator,
) -> tuple[Ids, Light]:
    """Owner and light of the marker, ``(Z * oversample, Y, X)``.

    First the bodies that cross negative nuclei, then the positive cells themselves.
    """
    paint = Paint(ids, types.clear, step, rng)
    extent = _z_extent(ids, len(nuclei), oversample)
    slices_um = step[0] * np.arange(oversample // 2, ids.shape[0], oversample)
    for number in np.flatnonzero(types.crossed):
        body = _crossing(nuclei[number], extent[number], slices_um, rng)
        paint.body(body, ELSEWHERE, _brightness(rng), 1.0)
    for number in np.flatnonzero(types.positive):
        _paint_cell(paint, nuclei[number], int(number) + 1, rng)
    return paint.owner, paint.light


def _brightness(rng: np.random.Generator) -> float:
    """Cells differ in how much marker they make."""
    return float(np.clip(rng.lognormal(0, 0.3), 0.5, 1.9))


def _paint_cell(paint: Paint, nucleus: Nucleus, number: int, rng: np.random.Generator) -> None:
    """A positive cell: a body around the nucleus and a few processes running from it."""
    brightness, nuclear = _brightness(rng), float(rng.uniform(0.35, 0.95))
    core = nucleus.body
    radii = core.radii * rng.uniform(1.15, 1.5, 3) + (1.6, 0.9, 0.7)
    wobble = core.wobble * 0.8 + rng.normal(0, 0.1, 4)
    shift = (core.axes.T @ (core.radii * rng.normal(0, 0.12, 3))).ravel()
    paint.body(Body(core.centre + shift, core.axes, radii, wobble), number, brightness, nuclear)
    for _ in range(rng.integers(0, 3)):
        process = _process(nucleus, radii, rng)
        paint.body(process, number, brightness * float(rng.uniform(0.6, 1.0)), nuclear)


def _process(nucleus: Nucleus, radii: Floats, rng: np.random.Generator) -> Body:
    """A thin bent process that leaves the body near one of its ends."""
    side = rng.choice([-1.0, 1.0])
    angle = nucleus.angle + rng.normal(0, 0.3)
    axes = orient(angle, rng.normal(0, 0.12))
    length = rng.uniform(5.0, 10.0)
    start = nucleus.body.centre + side * nucleus.body.axes[0] * radii[0] * 0.6
    width = rng.uniform(1.2, 2.2)
    wobble = np.array([rng.normal(0, 0.9), 0.0, 0.0, side * 0.4])
    return Body(
        start + side * axes[0] * length * 0.7, axes, np.array([length, width, width]), wobble
    )


def _crossing(
    nucleus: Nucleus,
    extent: NDArray[np.int64],
    slices_um: Floats,
    rng: np.random.Generator,
) -> Body:
    """A flat body over or under a nucleus, centred one to three slices from it."""
    above, below = int(extent[0]), len(slices_um) - 1 - int(extent[1])
    is_below = rng.random() * (above + below) < below
    away = min(below if is_below else above, int(rng.integers(1, 4)))
    plane = extent[1] + away if is_below else extent[0] - away
    core = nucleus.body
    reach = np.sqrt(((core.axes * core.radii[:, None]) ** 2).sum(axis=0))[1:]
    across = float(reach.min())
    angle = nucleus.angle + rng.normal(0, 0.5)
    radii = np.array(
        [core.radii[0] * 1.2 + rng.uniform(2, 7), across * 1.1 + rng.uniform(0, 2),
         (slices_um[1] - slices_um[0]) * rng.uniform(0.6, 1.0)]
    )  # fmt: skip
    centre = np.array([slices_um[plane], *core.centre[1:]])
    return Body(centre, orient(angle, rng.normal(0, 0.06)), radii, rng.normal(0, 0.15, 4))
