"""Haematoxylin and eosin tiles with typed nuclei and exact truth.

Glands of epithelium around pale lumina lie in fibrous stroma with fibroblasts, plasma cells and
clusters of lymphocytes. Stain amounts are mixed as optical densities with the vectors of Ruifrok &
Johnston 2001 (Anal Quant Cytol Histol 23:291), ``I = I0 exp(-(h H + e E))``, then blurred by the
objective and read by a camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from nucleoscope.data import Labels, Volume
from nucleoscope.errors import CallError
from nucleoscope.seeds import generator
from nucleoscope.simulator.scene import Scene, click, outline_truth
from nucleoscope.simulator.shapes import cut, smooth_noise
from nucleoscope.units import check_spacing

Plane = NDArray[np.float32]

#: Optical density of red, green, blue per unit of stain.
HAEMATOXYLIN = np.array([0.65, 0.704, 0.286])
EOSIN = np.array([0.072, 0.990, 0.105])
#: Grey value of clear glass.
GLASS = 243.0


class Kind(NamedTuple):
    """A type of nucleus: half axes (um), spread of size, stain, clumps, rim, uneven outline."""

    radii_um: tuple[float, float]
    spread: float
    stain: float
    clumps: float
    rim: float
    wobble: float


KINDS = {
    "epithelial": Kind((4.6, 3.5), 0.13, 0.75, 0.22, 0.22, 0.06),
    "fibroblast": Kind((6.4, 1.5), 0.18, 1.15, 0.12, 0.0, 0.09),
    "lymphocyte": Kind((2.8, 2.6), 0.08, 1.55, 0.25, 0.0, 0.04),
    "plasma": Kind((3.1, 2.8), 0.08, 1.35, 0.33, 0.12, 0.05),
}


@dataclass(frozen=True)
class HistologySettings:
    """What a simulated tile is like.

    Parameters
    ----------
    size
        Rows and columns, pixels.
    mpp
        Micrometres per pixel.
    glands
        Share of the tile that glands fill, about, in [0, 0.8].
    density
        Stroma nuclei per 1000 square um.
    inflammation
        Share of stroma nuclei that are lymphocytes or plasma cells, in [0, 1].
    stain
        Strength of both stains against a usual one.
    noise
        Standard deviation of the camera's noise, grey values.

    Raises
    ------
    CallError
        Names the value that is out of range.
    """

    size: int = 512
    mpp: float = 0.25
    glands: float = 0.35
    density: float = 7.0
    inflammation: float = 0.5
    stain: float = 1.0
    noise: float = 2.5

    def __post_init__(self) -> None:
        check_spacing((1.0, self.mpp, self.mpp))
        ranges: dict[str, tuple[float, float]] = {
            "size": (32, 1 << 15), "mpp": (0.05, 2), "glands": (0, 0.8), "density": (0, 30),
            "inflammation": (0, 1), "stain": (0.1, 3), "noise": (0, 60),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise CallError(f"{name} lies between {low:g} and {high:g}; found {value!r}.")


class Oval(NamedTuple):
    """A nucleus: centre (y, x) and half axes in pixels, angle, outline deformation, type."""

    centre: NDArray[np.float64]
    radii: NDArray[np.float64]
    angle: float
    wobble: NDArray[np.float64]
    kind: str


class Gland(NamedTuple):
    """A gland: centre and mean radius in pixels, and the harmonics of its outline (3, 2)."""

    centre: NDArray[np.float64]
    radius: float
    harmonics: NDArray[np.float64]

    def outline(self, angle: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance from the centre to the outline, pixels."""
        order = np.arange(2, 5)[:, None]
        waves = self.harmonics[:, :1] * np.cos(order * angle.ravel() + self.harmonics[:, 1:])
        distance: NDArray[np.float64] = self.radius * (1 + waves.sum(axis=0))
        return distance.reshape(angle.shape)


class Ground(NamedTuple):
    """The tile without nuclei: eosin, haematoxylin, and the direction of stroma fibres."""

    eosin: Plane
    haematoxylin: Plane
    is_stroma: NDArray[np.bool_]
    fibre_angle: Plane


def simulate_histology(settings: HistologySettings | None = None, seed: int = 0) -> Scene:
    """An H&E tile (RGB) with epithelial, fibroblast, lymphocyte and plasma-cell nuclei.

    Parameters
    ----------
    settings
        Default: `HistologySettings()`.
    seed
        Same settings and seed, same scene.

    Returns
    -------
    Scene
        ``region`` is None: everything is annotated.

    Examples
    --------
    >>> scene = simulate_histology(HistologySettings(size=96), seed=1)
    >>> scene.volume.is_rgb, scene.volume.shape, len(scene.points) == len(scene.truth)
    (True, (1, 96, 96), True)
    """
    settings = settings or HistologySettings()
    glands = _draw_glands(settings, generator(seed, 0))
    ground = _ground(glands, settings, generator(seed, 1))
    labels = np.zeros((settings.size, settings.size), dtype=np.int32)
    rng = generator(seed, 2)
    ovals = _place(_epithelium(glands, settings, rng), labels)
    ovals = _place(_stroma(ground, settings, rng), labels, ovals)
    image = _stain(ovals, labels, ground, settings, generator(seed, 3))
    truth = outline_truth(labels[None], {i: oval.kind for i, oval in enumerate(ovals, start=1)})
    truth["in_region"] = True
    spacing = (1.0, settings.mpp, settings.mpp)
    volume = Volume(
        image, ("red", "green", "blue"), spacing, f"histology_{seed}", is_rgb=True, is_2d=True
    )
    points = click(labels[None], truth, 0.4 / settings.mpp, generator(seed, 4))
    return Scene(volume, points, Labels(labels, spacing), truth)


def _draw_glands(settings: HistologySettings, rng: np.random.Generator) -> list[Gland]:
    """Glands that do not overlap, until they fill their share or no room is left."""
    glands: list[Gland] = []
    area, wanted = 0.0, settings.glands * settings.size**2
    for _ in range(200):
        if area >= wanted:
            break
        radius = rng.uniform(16, 30) / settings.mpp
        centre = rng.uniform(-0.1, 1.1, 2) * settings.size
        apart = [np.hypot(*(centre - g.centre)) - g.radius - radius for g in glands]
        if min(apart, default=np.inf) > 0.12 * radius:
            waves = np.stack([rng.normal(0, [0.08, 0.05, 0.03]), rng.uniform(0, 6.3, 3)], axis=1)
            glands.append(Gland(centre, radius, waves))
            area += np.pi * radius**2
    return glands


def _ground(glands: list[Gland], settings: HistologySettings, rng: np.random.Generator) -> Ground:
    """Stroma of wavy fibre bundles, cytoplasm of glands, pale lumina."""
    shape = (settings.size, settings.size)
    course = smooth_noise(shape, 26 / settings.mpp, rng) * 26 / settings.mpp
    course += 1.4 / settings.mpp * smooth_noise(shape, 3 / settings.mpp, rng)
    slope_y, slope_x = np.gradient(gaussian_filter(course, 3 / settings.mpp))
    uneven = smooth_noise(shape, 6 / settings.mpp, rng)
    fray = smooth_noise(shape, 1.2 / settings.mpp, rng)
    bundles = np.sin(course * settings.mpp * 1.3 + 0.9 * fray)
    bundles += 0.6 * np.sin(course * settings.mpp * 4.3 + 1.4 * fray) * np.clip(uneven, 0, 1)
    grain = smooth_noise(shape, 0.35 / settings.mpp, rng)
    eosin = 0.36 + 0.07 * bundles + 0.06 * uneven + 0.03 * fray + 0.03 * grain
    gaps = np.clip(0.9 * uneven + 0.8 * bundles - 1.25, 0, 1)
    eosin = np.clip(eosin * (1 - 0.85 * gaps), 0.02, None)
    haematoxylin = np.clip(0.05 + 0.02 * uneven, 0, None)
    is_stroma = np.ones(shape, dtype=bool)
    y, x = np.mgrid[: settings.size, : settings.size].astype(np.float64)
    for gland in glands:
        dy, dx = y - gland.centre[0], x - gland.centre[1]
        inward = (gland.outline(np.arctan2(dy, dx)) - np.hypot(dy, dx)) * settings.mpp
        _paint_gland(inward, eosin, haematoxylin, uneven, grain)
        is_stroma &= inward < -1.5
    angle = np.arctan2(slope_x, -slope_y).astype(np.float32)
    return Ground(eosin.astype(np.float32), haematoxylin.astype(np.float32), is_stroma, angle)


def _paint_gland(
    inward: NDArray[np.float64], eosin: Plane, haematoxylin: Plane, uneven: Plane, grain: Plane
) -> None:
    """Cytoplasm, paler towards the lumen, a basement membrane outside, mucus inside (um)."""
    cell = inward > 0
    lumen = expit((inward - 13.5 - 0.8 * uneven) / 0.5)
    cytoplasm = 0.38 + 0.05 * grain + 0.03 * uneven - 0.012 * inward
    eosin[cell] = (cytoplasm * (1 - lumen) + 0.03 * lumen)[cell]
    haematoxylin[cell] = ((0.20 + 0.03 * grain) * (1 - lumen) + 0.01 * lumen)[cell]
    membrane = np.exp(-0.5 * ((inward + 0.6) / 0.5) ** 2)
    eosin += (0.18 * membrane * ~cell).astype(eosin.dtype)


def _oval(
    kind: str, centre: NDArray[np.float64], angle: float, mpp: float, rng: np.random.Generator
) -> Oval:
    """A nucleus of a type, its size and outline drawn."""
    base = KINDS[kind]
    scale = np.exp(rng.normal(0, base.spread)) * np.exp(rng.normal(0, base.spread / 2, 2))
    wobble = np.stack([rng.normal(0, base.wobble, 3), rng.uniform(0, 6.3, 3)], axis=1)
    return Oval(centre, np.array(base.radii_um) / mpp * scale, angle, wobble, kind)


def _epithelium(
    glands: list[Gland], settings: HistologySettings, rng: np.random.Generator
) -> list[Oval]:
    """Nuclei side by side along each gland's outline, pointing at its lumen."""
    ovals = []
    for gland in glands:
        n = int(2 * np.pi * gland.radius * settings.mpp / 6.8)
        angles = 2 * np.pi * (np.arange(n) + rng.normal(0, 0.14, n)) / n
        depths = (5.2 + rng.normal(0, 0.9, n)) / settings.mpp
        radii = gland.outline(angles) - depths
        for angle, radius in zip(angles, radii, strict=True):
            centre = gland.centre + radius * np.array([np.sin(angle), np.cos(angle)])
            ovals.append(_oval("epithelial", centre, angle + rng.normal(0, 0.2), settings.mpp, rng))
    return ovals


def _stroma(ground: Ground, settings: HistologySettings, rng: np.random.Generator) -> list[Oval]:
    """Fibroblasts along the fibres; lymphocytes in clusters; plasma cells near them."""
    side_um = settings.size * settings.mpp
    n = rng.poisson(settings.density * side_um**2 / 1000)
    crowd = smooth_noise((settings.size, settings.size), 14 / settings.mpp, rng)
    ovals = []
    for centre in rng.uniform(0, settings.size - 1, (3 * n, 2)):
        at = tuple(np.rint(centre).astype(int))
        kind = _stroma_kind(float(crowd[at]), settings.inflammation, rng)
        if kind is None or not ground.is_stroma[at]:
            continue
        turn = rng.normal(0, 0.2) if kind == "fibroblast" else rng.uniform(0, np.pi)
        ovals.append(_oval(kind, centre, float(ground.fibre_angle[at]) + turn, settings.mpp, rng))
    return ovals


def _stroma_kind(crowd: float, inflammation: float, rng: np.random.Generator) -> str | None:
    """Which cell is at a place where inflammation is ``crowd`` (standard normal) strong."""
    inflamed = inflammation * expit(3.5 * (crowd - 0.6))
    if rng.random() < inflamed * 1.4:
        return "plasma" if rng.random() < 0.25 else "lymphocyte"
    return "fibroblast" if rng.random() < 0.33 * (1.6 - inflammation) else None


def _shape(oval: Oval, size: int) -> tuple[tuple[slice, slice], Plane] | None:
    """The box of a nucleus and the radius relative to its outline; None outside the tile."""
    reach = 1.35 * float(oval.radii.max())
    low = np.maximum(np.ceil(oval.centre - reach), 0).astype(int)
    high = np.minimum(np.floor(oval.centre + reach) + 1, size).astype(int)
    if (low >= high).any():
        return None
    y = np.arange(low[0], high[0])[:, None] - oval.centre[0]
    x = np.arange(low[1], high[1]) - oval.centre[1]
    c, s = np.cos(oval.angle), np.sin(oval.angle)
    along, across = (c * x + s * y) / oval.radii[0], (c * y - s * x) / oval.radii[1]
    angle = np.arctan2(across, along)
    order = np.arange(2, 5)[:, None, None]
    waves = oval.wobble[:, :1, None] * np.cos(order * angle + oval.wobble[:, 1:, None])
    outline = np.clip(1 + waves.sum(axis=0), 0.7, 1.3)
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    return box, (np.hypot(along, across) / outline).astype(np.float32)


def _place(
    wishes: list[Oval], labels: NDArray[np.int32], placed: list[Oval] | None = None
) -> list[Oval]:
    """Put nuclei where there is room, in order; write their ids into ``labels``."""
    ovals = list(placed or [])
    for oval in wishes:
        found = _shape(oval, labels.shape[0])
        if found is None:
            continue
        box, radius = found
        inside = radius < 1
        free = inside & (labels[box] == 0)
        if free.sum() >= max(12, 0.93 * inside.sum()):
            ovals.append(oval)
            labels[box][free] = len(ovals)
    return ovals


def _stain(
    ovals: list[Oval],
    labels: NDArray[np.int32],
    ground: Ground,
    settings: HistologySettings,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Add nuclei to the ground and photograph it: ``(3, 1, Y, X)``."""
    eosin, haematoxylin = ground.eosin.copy(), ground.haematoxylin.copy()
    clumps = smooth_noise((1, 192, 192), (0, 0.42 / settings.mpp, 0.42 / settings.mpp), rng)
    for number, oval in enumerate(ovals, start=1):
        found = _shape(oval, settings.size)
        if found is None:
            continue
        box, radius = found
        others = (labels[box] != number) & (labels[box] != 0)
        if oval.kind == "plasma":
            _stain_cytoplasm(oval, labels, eosin, haematoxylin)
        kind = KINDS[oval.kind]
        piece = cut(clumps, (slice(0, 1), *box), rng)[0]
        chromatin = 1 + kind.clumps * piece + kind.rim * np.clip(radius - 0.6, 0, 1) * 2.5
        chromatin *= kind.stain * float(np.exp(rng.normal(0, 0.12)))
        edge = np.clip((1 - radius) * float(oval.radii.min()) / 1.2 + 0.5, 0, 1) * ~others
        haematoxylin[box] += edge * (
            np.clip(chromatin, 0.45 * kind.stain, None) - haematoxylin[box]
        )
        eosin[box] += edge * (0.28 - eosin[box])
    return _photograph(eosin, haematoxylin, settings, rng)


def _stain_cytoplasm(
    oval: Oval, labels: NDArray[np.int32], eosin: Plane, haematoxylin: Plane
) -> None:
    """The violet body of a plasma cell, its nucleus off centre."""
    way = np.array([np.sin(oval.angle), np.cos(oval.angle)])
    body = oval._replace(centre=oval.centre + way * oval.radii[0] * 0.7, radii=oval.radii * 1.75)
    found = _shape(body, labels.shape[0])
    if found is not None:
        box, radius = found
        edge = np.clip((1 - radius) * 4 + 0.5, 0, 1) * (labels[box] == 0)
        haematoxylin[box] += edge * (0.38 - haematoxylin[box])
        eosin[box] += edge * (0.42 - eosin[box])


def _photograph(
    eosin: Plane, haematoxylin: Plane, settings: HistologySettings, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Beer-Lambert, the objective's blur, the camera's noise."""
    stains = settings.stain * np.clip(np.stack([haematoxylin, eosin]), 0, None)
    density = np.tensordot(np.stack([HAEMATOXYLIN, EOSIN], axis=1), stains, axes=1)
    image = GLASS * np.exp(-density)
    sigma = 0.22 / settings.mpp
    image = gaussian_filter(image, (0, sigma, sigma)) + rng.normal(0, settings.noise, image.shape)
    grey: NDArray[np.uint8] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return grey[:, None]
