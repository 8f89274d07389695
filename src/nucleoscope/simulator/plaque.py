"""Immunofluorescence stacks of an atherosclerotic plaque, with exact truth.

Nuclei are deformed ellipsoids with chromatin texture, elongated along the wall in cap and media
and rounder in the core; some touch, some are cut by the section's surfaces and by the frame. The
marker fills whole cells: a positive nucleus lies inside its cell's body, and bodies of other
cells run over and under negative nuclei as often as ``rho`` says. The light then passes an
anisotropic Gaussian point spread function, loses strength with depth, and is counted by a camera.

Sizes come from histology and optics, not from any data set: do not tune them to images a method
is tested on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from nucleoscope.data import Labels, Region, Volume
from nucleoscope.errors import CallError
from nucleoscope.seeds import generator
from nucleoscope.simulator import optics
from nucleoscope.simulator.anatomy import (
    Anatomy,
    depth_angle,
    draw_anatomy,
    laminae,
    plaque_region,
)
from nucleoscope.simulator.cells import Nucleus, place_nuclei
from nucleoscope.simulator.markers import draw_types, paint_marker
from nucleoscope.simulator.scene import Scene, click, outline_truth
from nucleoscope.simulator.shapes import cut, rasterise, smooth_noise, soft
from nucleoscope.units import Spacing, check_spacing

Light = NDArray[np.float32]

CHANNELS = ("LT", "DAPI")
#: Light that is everywhere, as a share of a typical nucleus or cell.
BACKGROUND = 0.04


@dataclass(frozen=True)
class PlaqueSettings:
    """What a simulated stack is like.

    Parameters
    ----------
    size
        Rows and columns, pixels.
    n_slices
        Slices; the section is ``n_slices * spacing[0]`` thick.
    spacing
        (z, y, x) um per voxel; y and x alike.
    density
        Share of cellular tissue's volume that nuclei fill, in (0, 0.25].
    touching
        Share of nuclei put right beside another one, in [0, 1].
    positive_fraction
        Share of nuclei whose cell carries the marker, in [0, 1].
    rho
        Share of negative nuclei that another cell's marker crosses in other slices, in [0, 1]:
        what a maximum projection takes for positive. At 0 no negative nucleus has marker above
        or below it.
    snr
        Signal over noise of a typical nucleus, and of a typical cell in the marker channel.
    autofluorescence
        Brightness of elastic laminae against a typical cell; granules and haze go along.
    attenuation_um
        Depth over which light falls to 1/e; ``inf`` for none.
    psf_um
        Standard deviations (z, y, x) of the point spread function.
    haze
        Share of light spread widely, out of focus.
    dtype
        ``"uint8"`` or ``"uint16"``.
    roi
        True: only nuclei of the plaque (cap and core) are annotated. False: all.
    jitter_um
        Standard deviation of clicks around centroids.

    Raises
    ------
    CallError
        Names the value that is out of range.
    """

    size: int = 512
    n_slices: int = 10
    spacing: Spacing = (2.0, 0.5, 0.5)
    density: float = 0.08
    touching: float = 0.25
    positive_fraction: float = 0.4
    rho: float = 0.3
    snr: float = 8.0
    autofluorescence: float = 0.5
    attenuation_um: float = 60.0
    psf_um: Spacing = (1.1, 0.3, 0.3)
    haze: float = 0.08
    dtype: str = "uint8"
    roi: bool = True
    jitter_um: float = 0.6

    def __post_init__(self) -> None:
        check_spacing(self.spacing)
        ranges: dict[str, tuple[float, float]] = {
            "size": (32, 1 << 15), "n_slices": (1, 1000), "density": (1e-4, 0.25),
            "touching": (0, 1), "positive_fraction": (0, 1), "rho": (0, 1),
            "snr": (0.5, 1000), "autofluorescence": (0, 10), "attenuation_um": (1, np.inf),
            "haze": (0, 1), "jitter_um": (0, 10),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise CallError(f"{name} lies between {low:g} and {high:g}; found {value!r}.")
        if self.spacing[1] != self.spacing[2]:
            raise CallError(f"a simulated pixel is square; found y, x {self.spacing[1:]} um.")
        if not all(0 < sigma <= 10 for sigma in self.psf_um):
            raise CallError(f"psf_um lies between 0 and 10 um; found {self.psf_um}.")
        if self.dtype not in ("uint8", "uint16"):
            raise CallError(f"dtype is uint8 or uint16; found {self.dtype!r}.")


class Tissue(NamedTuple):
    """The section before the microscope.

    ``ids``, ``owner`` and the two lights are ``(Z * oversample, Y, X)``: the nucleus at each voxel
    (its index + 1), whose marker is there (index + 1, -1 for a cell whose nucleus is elsewhere),
    and how brightly nuclei and marker shine.
    """

    anatomy: Anatomy
    nuclei: list[Nucleus]
    positive: NDArray[np.bool_]
    ids: NDArray[np.int32]
    owner: NDArray[np.int32]
    dna: Light
    marker: Light


#: Planes of light per slice: odd, so that each slice's centre is one of them.
OVERSAMPLE = 3


def simulate_plaque(settings: PlaqueSettings | None = None, seed: int = 0) -> Scene:
    """A stack of a plaque with two channels (``LT`` lineage marker, ``DAPI``) and its truth.

    A nucleus is ``positive`` when its own cell carries the marker, which then overlaps it in at
    least one slice; marker never overlaps a ``negative`` nucleus in any slice.

    Parameters
    ----------
    settings
        Default: `PlaqueSettings()`.
    seed
        Same settings and seed, same scene. Nuclei stay where they are when only marker or optics
        settings change.

    Returns
    -------
    Scene
        ``truth`` also has ``max_slice_overlap`` (largest share of the nucleus covered by marker
        in one slice) and ``foreign_cover`` (share of its xy outline with another cell's marker
        above or below it).

    Notes
    -----
    Memory is about ``100 * n_slices * size**2`` bytes; a 512 x 512 x 10 stack takes a few seconds.

    Examples
    --------
    >>> scene = simulate_plaque(PlaqueSettings(size=96, n_slices=5), seed=1)
    >>> scene.volume.channels, scene.volume.shape
    (('LT', 'DAPI'), (5, 96, 96))
    >>> bool(scene.truth.loc[scene.truth.type == "negative", "max_slice_overlap"].max() == 0)
    True
    """
    settings = settings or PlaqueSettings()
    tissue = grow_tissue(settings, seed)
    labels = tissue.ids[OVERSAMPLE // 2 :: OVERSAMPLE].copy()
    region = plaque_region(tissue.anatomy) if settings.roi else _whole_frame(settings.size)
    truth = _truth(tissue, labels, region)
    annotated = truth[truth["in_region"]]
    jitter = settings.jitter_um / settings.spacing[1]
    volume = Volume(
        photograph(tissue, settings, seed), CHANNELS, settings.spacing, name=f"plaque_{seed}"
    )
    return Scene(
        volume,
        click(labels, annotated, jitter, generator(seed, 6)),
        Labels(labels, settings.spacing),
        truth,
        region,
    )


def _whole_frame(size: int) -> Region:
    """A square around all pixels."""
    low, high = -0.5, size - 0.5
    return Region((np.array([[low, low], [low, high], [high, high], [high, low]]),), "frame")


def grow_tissue(settings: PlaqueSettings, seed: int) -> Tissue:
    """Everything of the section that does not depend on the microscope."""
    step = np.array(settings.spacing) / (OVERSAMPLE, 1, 1)
    shape = (settings.n_slices * OVERSAMPLE, settings.size, settings.size)
    anatomy = draw_anatomy(settings.size, float(step[1]), generator(seed, 0))
    nuclei, ids = place_nuclei(
        anatomy,
        shape,
        step,
        oversample=OVERSAMPLE,
        density=settings.density,
        touching=settings.touching,
        rng=generator(seed, 1),
    )
    dna = _stain_nuclei(nuclei, ids, step, generator(seed, 2))
    types = draw_types(
        ids,
        len(nuclei),
        positive_fraction=settings.positive_fraction,
        rho=settings.rho,
        oversample=OVERSAMPLE,
        rng=generator(seed, 3),
    )
    owner, marker = paint_marker(nuclei, ids, types, step, OVERSAMPLE, generator(seed, 4))
    return Tissue(anatomy, nuclei, types.positive, ids, owner, dna, marker)


def _stain_nuclei(
    nuclei: list[Nucleus],
    ids: NDArray[np.int32],
    step: NDArray[np.float64],
    rng: np.random.Generator,
) -> Light:
    """DNA stain: each nucleus its own brightness, mottled, with a few dense chromocentres."""
    light = np.zeros(ids.shape, dtype=np.float32)
    block = (24, 96, 96)
    mottle = smooth_noise(block, tuple(0.5 / step), rng)
    clumps = np.clip(smooth_noise(block, tuple(0.6 / step), rng) - 1.3, 0, 1.5)
    for number, nucleus in enumerate(nuclei, start=1):
        brightness = float(np.clip(rng.lognormal(0, 0.28), 0.45, 1.8))
        found = rasterise(nucleus.body, step, ids.shape)
        if found is None:
            continue
        box, radius = found
        texture = 1 + 0.16 * cut(mottle, box, rng) + 0.75 * cut(clumps, box, rng)
        inside = soft(radius, 0.25) * np.clip(texture, 0.35, 2.2) * brightness
        inside[(ids[box] != number) & (ids[box] != 0)] = 0
        np.maximum(light[box], inside, out=light[box])
    return light


def _truth(tissue: Tissue, labels: NDArray[np.int32], region: Region) -> pd.DataFrame:
    """One row per nucleus of the instance map."""
    kinds = {i: "positive" if p else "negative" for i, p in enumerate(tissue.positive, start=1)}
    truth = outline_truth(labels, kinds)
    truth["in_region"] = region.contains(truth["y"].to_numpy(), truth["x"].to_numpy())
    owner = tissue.owner[OVERSAMPLE // 2 :: OVERSAMPLE]
    truth["max_slice_overlap"] = _slice_overlap(labels, owner)[truth["id"]]
    truth["foreign_cover"] = _foreign_cover(labels, owner)[truth["id"]]
    return truth


def _slice_overlap(labels: NDArray[np.int32], owner: NDArray[np.int32]) -> NDArray[np.float64]:
    """Per id, the largest share of the nucleus covered by marker in one slice."""
    n = int(labels.max(initial=0)) + 1
    best = np.zeros(n)
    for plane, marked in zip(labels, owner, strict=True):
        area = np.bincount(plane.ravel(), minlength=n)
        covered = np.bincount(plane[marked != 0].ravel(), minlength=n)
        best = np.maximum(best, covered / np.maximum(area, 1))
    return best


def _foreign_cover(labels: NDArray[np.int32], owner: NDArray[np.int32]) -> NDArray[np.float64]:
    """Per id, the share of its xy outline with another cell's marker in any slice."""
    n = int(labels.max(initial=0)) + 1
    pixels = int(np.prod(labels.shape[1:]))
    z, y, x = np.nonzero(labels)
    column = np.unique(labels[z, y, x].astype(np.int64) * pixels + y * labels.shape[2] + x)
    ids, at = np.divmod(column, pixels)
    marked = owner.reshape(len(owner), -1)[:, at]
    foreign = ((marked != 0) & (marked != ids)).any(axis=0)
    covered = np.bincount(ids[foreign], minlength=n)
    return covered / np.maximum(np.bincount(ids, minlength=n), 1)


def photograph(tissue: Tissue, settings: PlaqueSettings, seed: int) -> NDArray[np.generic]:
    """The two channels ``(2, Z, Y, X)`` as the camera counts them."""
    rng = generator(seed, 5)
    glow = _autofluorescence(tissue.anatomy, settings, rng)
    return np.stack(
        [
            _photograph_channel(tissue.marker, glow, settings, rng),
            _photograph_channel(tissue.dna, 0.4 * glow, settings, rng),
        ]
    )


def _photograph_channel(
    light: Light, glow: Light, settings: PlaqueSettings, rng: np.random.Generator
) -> NDArray[np.generic]:
    """One channel: focus, out-of-focus haze, blur, depth, camera."""
    dz, dy, dx = settings.spacing
    sharp = (
        optics.focus(light, sigma_um=settings.psf_um[0], step_um=dz, oversample=OVERSAMPLE) + glow
    )
    wide = optics.blur(sharp.mean(axis=0), sigma_px=(5 / dy, 5 / dx))
    image = optics.blur(sharp, sigma_px=(settings.psf_um[1] / dy, settings.psf_um[2] / dx))
    image = (1 - settings.haze) * image + 2 * settings.haze * wide
    image = optics.attenuate(image, length_um=settings.attenuation_um, step_um=dz)
    return optics.expose(
        image, snr=settings.snr, background=BACKGROUND, dtype=settings.dtype, rng=rng
    )


def _autofluorescence(
    anatomy: Anatomy, settings: PlaqueSettings, rng: np.random.Generator
) -> Light:
    """Elastic laminae, uneven matrix and small bright granules, ``(Z, Y, X)``."""
    shape = (settings.n_slices, settings.size, settings.size)
    matrix = np.clip(0.5 + 0.35 * smooth_noise(shape[1:], 12, rng), 0, 1.5)
    matrix += 0.12 * smooth_noise(shape[1:], 2, rng)
    glow = laminae(anatomy, settings.n_slices)
    glow += 0.14 * matrix * _tissue_mask(anatomy)
    n = rng.poisson(1.2e-5 * np.prod(shape))
    z, y, x = (rng.integers(0, side, n) for side in shape)
    glow[z, y, x] += rng.uniform(2, 9, n).astype(np.float32)
    return settings.autofluorescence * glow


def _tissue_mask(anatomy: Anatomy) -> Light:
    """1 in tissue, 0.25 in the lumen, a soft edge between."""
    at = np.arange(anatomy.cells.shape[0]) * anatomy.step_um
    depth = depth_angle(anatomy, *np.meshgrid(at, at, indexing="ij"))[0]
    mask: Light = (0.25 + 0.75 * expit(depth)).astype(np.float32)
    return mask
