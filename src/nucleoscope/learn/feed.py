"""What the network is fed: lessons (one per image) and crops of them, drawn and varied by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from nucleoscope.data.maps import BACKGROUND, UNLABELLED
from nucleoscope.learn.lesson import Lesson, make_lesson
from nucleoscope.learn.nets.light import with_neighbours
from nucleoscope.learn.normalise import levels, normalise
from nucleoscope.learn.stain import spill, vary_stain
from nucleoscope.nuclei.hover import hover_targets
from nucleoscope.seeds import generator

__all__ = [
    "Batch", "Crop", "Feed", "FeedSettings", "Lesson", "bumps", "collate", "draw", "make_lesson",
    "offsets_to_centres",
]  # fmt: skip

Pixel = TypeVar("Pixel", bound=np.generic)

#: Spread of the bump that marks a centre: slices, then shares of the nucleus radius.
CENTRE_SLICES, CENTRE_RADII = 0.7, 0.45
#: In stained sections nuclei crowd, so their bumps are narrower.
COLOUR_RADII = 0.33
#: Crops of planes are shown up to this much larger or smaller (logarithm), and turned up to this
#: far; with the mirror images that is every angle.
SCALE, ANGLE = 0.2, np.pi / 4
#: Share of stained crops with ink or pigment on them.
SPILT = 0.15
#: Greatest optical density over the colours from which ink hides what is under it.
OPAQUE = 1.3
#: Share of crops shown without their markers.
MARKERLESS = 0.1
#: z offsets are taught in units of this many slices.
SLICES_PER_UNIT = 2.0


@dataclass(frozen=True, eq=False)
class Crop:
    """A varied piece of a lesson, at the network's output resolution except ``image``."""

    image: NDArray[np.float32]  # (C, Z, S, S)
    instances: NDArray[np.int32]  # (Z, s, s)
    foreground: NDArray[np.uint8]  # (Z, s, s)
    centre: NDArray[np.float32]  # (Z, s, s)
    offsets: NDArray[np.float32]  # (3, Z, s, s): x, y in radii, z in units
    types: NDArray[np.int64]  # (n, G)
    voronoi: NDArray[np.int32]  # (Z, s, s); all 0 where the lesson has none


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops as tensors; all slices of all crops lie along the first axis.

    ``instances`` are numbered through the batch and ``types`` holds their rows, row 0 for
    "no nucleus".
    """

    image: Tensor  # (N, C * (2 context + 1), S, S)
    instances: Tensor  # (N, s, s) int64
    foreground: Tensor  # (N, s, s) uint8
    centre: Tensor  # (N, s, s)
    offsets: Tensor  # (N, 3, s, s)
    types: Tensor  # (1 + n, G) int64
    slices: Tensor  # (N,) int64: the slice of its crop that each row is
    voronoi: Tensor  # (N, s, s) int64: rows of types on disks around clicks, -1 on cell edges, 0


@dataclass(frozen=True)
class FeedSettings:
    """Geometry of the crops: side, network stride and margin, context and nucleus radius (px).

    With ``hover`` the offsets are those of HoVer-Net, per slice and scaled per nucleus.
    """

    crop: int
    batch: int
    stride: int
    context: int
    radius: float
    margin: int = 0
    hover: bool = False


class Feed:
    """Draws batches; the batch of a step depends on the seed and the step only."""

    def __init__(self, lessons: Sequence[Lesson], settings: FeedSettings, seed: int) -> None:
        self.lessons = lessons
        self.settings = settings
        self.seed = seed
        self._levels = [levels(lesson.volume) for lesson in lessons]
        # An image is drawn as often as it has nuclei, but none more than four times another.
        sizes = np.array([max(1, len(lesson.centres)) for lesson in lessons], dtype=np.float64)
        sizes = np.minimum(sizes, 4 * sizes.min())
        self._odds = sizes / sizes.sum()

    def batch(self, step: int, size: int | None = None) -> Batch:
        """The batch of a step, of another size than the settings say where asked."""
        crops = []
        for item in range(size or self.settings.batch):
            rng = generator(self.seed, step, item)
            which = int(rng.choice(len(self.lessons), p=self._odds))
            crops.append(draw(self.lessons[which], self._levels[which], self.settings, rng))
        return collate(crops, self.settings.context)


def collate(crops: Sequence[Crop], context: int) -> Batch:
    """Crops to one batch."""
    shift, types = 0, [torch.full((1, crops[0].types.shape[1]), -1)]
    instances: list[Tensor] = []
    voronoi: list[Tensor] = []
    for crop in crops:
        for out, name in ((instances, "instances"), (voronoi, "voronoi")):
            ids = torch.from_numpy(getattr(crop, name)).long()
            out.append(torch.where(ids > 0, ids + shift, ids))
        types.append(torch.from_numpy(crop.types))
        shift += len(crop.types)

    def stack(name: str) -> Tensor:
        return torch.cat([torch.from_numpy(getattr(crop, name)) for crop in crops])

    return Batch(
        torch.cat([with_neighbours(torch.from_numpy(crop.image), context) for crop in crops]),
        torch.cat(instances),
        stack("foreground"),
        stack("centre"),
        torch.cat([torch.from_numpy(crop.offsets).transpose(0, 1) for crop in crops]),
        torch.cat(types),
        torch.cat([torch.arange(len(crop.centre)) for crop in crops]),
        torch.cat(voronoi),
    )


def draw(
    lesson: Lesson,
    level: NDArray[np.float64],
    settings: FeedSettings,
    rng: np.random.Generator,
) -> Crop:
    """Cut a crop, usually with a nucleus in it, and vary it."""
    side, stride = settings.crop, settings.stride
    window = _window(lesson, side, rng)
    if lesson.volume.is_rgb:
        lesson, window = turned(lesson, window, side, rng), (0, 0)
    image = normalise(_cut(lesson.volume.data, window, side), level)
    if lesson.volume.is_rgb and rng.random() < SPILT:
        image, lesson = spilt(image, lesson, rng)
    image = _vary(image, rng, is_rgb=lesson.volume.is_rgb)
    types = lesson.types
    if not lesson.volume.is_rgb and len(image) > 1 and rng.random() < MARKERLESS:
        # Nuclei must be found without the markers too; nothing is said of types then.
        image[:-1] = 0
        types = np.full_like(types, -1)
    # The half-resolution target is read at a random one of the stride's positions, so that on
    # average it is neither early nor late.
    phase = rng.integers(0, stride, size=2)
    inner = side - 2 * settings.margin
    corner = (window[0] + settings.margin, window[1] + settings.margin)
    instances = _cut(lesson.instances, corner, inner)[:, phase[0] :: stride, phase[1] :: stride]
    foreground = _cut(lesson.foreground, corner, inner, fill=UNLABELLED)
    foreground = foreground[:, phase[0] :: stride, phase[1] :: stride]
    voronoi = np.zeros_like(instances)
    if lesson.voronoi is not None:
        voronoi = _cut(lesson.voronoi, corner, inner)[:, phase[0] :: stride, phase[1] :: stride]
    centres = lesson.centres - [0, *corner]
    centres[:, 1:] = (centres[:, 1:] + 0.5) / stride - 0.5
    radius = settings.radius / stride
    share = COLOUR_RADII if lesson.volume.is_rgb else CENTRE_RADII
    centre = bumps(instances.shape, centres[lesson.is_taught], radius, share)
    if settings.hover:
        planes = hover_targets(instances).transpose(1, 0, 2, 3)
        offsets = np.concatenate([planes, np.zeros_like(planes[:1])])
    else:
        offsets = offsets_to_centres(instances, centres, radius)
    return _turn(Crop(image, instances, foreground, centre, offsets, types, voronoi), rng)


def turned(lesson: Lesson, window: tuple[int, int], side: int, rng: np.random.Generator) -> Lesson:
    """A square of a plane, turned by any angle and enlarged or reduced a little.

    Beyond the image its mirror image is shown, and nothing is taught there.
    """
    angle = rng.uniform(-ANGLE, ANGLE)
    scale = np.exp(rng.uniform(-1, 1) * SCALE)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    middle = np.array(window) + (side - 1) / 2
    start = middle - matrix @ np.full(2, (side - 1) / 2)

    def read(plane: NDArray[Any], order: int, **beyond: Any) -> NDArray[Any]:
        out: NDArray[Any] = ndimage.affine_transform(
            plane, matrix, start, (side, side), order=order, prefilter=False, **beyond
        )
        return out

    data = np.stack([read(c, 1, mode="mirror") for c in lesson.volume.data[:, 0]])[:, None]
    instances = read(lesson.instances[0], 0)[None]
    foreground = read(lesson.foreground[0], 0, cval=UNLABELLED)[None]
    voronoi = None if lesson.voronoi is None else read(lesson.voronoi[0], 0)[None]
    centres = lesson.centres.copy()
    centres[:, 1:] = (lesson.centres[:, 1:] - start) @ np.linalg.inv(matrix).T
    return replace(
        lesson, volume=replace(lesson.volume, data=data), instances=instances,
        foreground=foreground, centres=centres, voronoi=voronoi,
    )  # fmt: skip


def spilt(
    image: NDArray[np.float32], lesson: Lesson, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Lesson]:
    """The crop and its lesson with ink or pigment on it, under which nothing is to be found.

    Nothing is said of its edges, nor where so little of it lies that nuclei show through.
    """
    density, cover = spill((image.shape[-2], image.shape[-1]), rng)
    image = np.sqrt(image**2 * np.exp(-density)[:, None])
    hidden, clear = (cover > 0.7) & (density.max(axis=0) > OPAQUE), cover < 0.2
    instances = np.where(clear, lesson.instances, 0)
    foreground = np.where(clear, lesson.foreground, UNLABELLED).astype(np.uint8)
    foreground[:, hidden] = BACKGROUND
    voronoi = None if lesson.voronoi is None else np.where(clear, lesson.voronoi, 0)
    at = np.rint(lesson.centres[:, 1:]).astype(np.int64)
    inside = ((at >= 0) & (at < cover.shape)).all(axis=1)
    at = at.clip(0, np.array(cover.shape) - 1)
    seen = ~inside | clear[at[:, 0], at[:, 1]]
    return image, replace(
        lesson, instances=instances, foreground=foreground, voronoi=voronoi,
        is_taught=lesson.is_taught & seen,
    )  # fmt: skip


def _window(lesson: Lesson, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """First row and column of a crop; four in five are aimed at a nucleus."""
    size = np.array(lesson.volume.shape[1:])
    last = np.maximum(size - side, 0)
    if len(lesson.centres) and rng.random() < 0.8:
        aimed = lesson.centres[rng.integers(len(lesson.centres)), 1:]
        start = (aimed - rng.uniform(0.15, 0.85, size=2) * side).astype(np.int64)
    else:
        start = rng.integers(0, last + 1)
    y, x = np.clip(start, 0, last)
    return int(y), int(x)


def _cut(data: NDArray[Pixel], window: tuple[int, int], side: int, fill: int = 0) -> NDArray[Pixel]:
    """A square of the last two axes; beyond the image, ``fill``."""
    y, x = window
    piece = data[..., max(0, y) : y + side, max(0, x) : x + side]
    short = (side - piece.shape[-2], side - piece.shape[-1])
    if short == (0, 0):
        return piece
    pads = [(0, 0)] * (data.ndim - 2) + [(0, short[0]), (0, short[1])]
    padded: NDArray[Pixel] = np.pad(piece, pads, constant_values=fill)
    return padded


def bumps(
    shape: tuple[int, ...],
    centres: NDArray[np.float64],
    radius: float,
    share: float = CENTRE_RADII,
) -> NDArray[np.float32]:
    """Gaussian bumps of height 1 at the centres; where they overlap, the larger.

    Parameters
    ----------
    shape
        ``(Z, Y, X)`` of the map.
    centres
        ``(n, 3)``, in pixels of the map.
    radius
        Nucleus radius in pixels of the map.
    share
        Spread of a bump in radii.
    """
    out = np.zeros(shape, dtype=np.float32)
    sigma = np.array([CENTRE_SLICES, share * radius, share * radius])
    reach = np.ceil(3 * sigma).astype(int)
    for centre in centres:
        low = np.maximum(np.rint(centre).astype(int) - reach, 0)
        high = np.minimum(np.rint(centre).astype(int) + reach + 1, shape)
        if (low >= high).any():
            continue
        parts = [
            np.exp(-0.5 * ((np.arange(a, b) - c) / s) ** 2)
            for a, b, c, s in zip(low, high, centre, sigma, strict=True)
        ]
        bump = parts[0][:, None, None] * parts[1][None, :, None] * parts[2][None, None, :]
        view = out[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        np.maximum(view, bump, out=view, casting="same_kind")
    return out


def offsets_to_centres(
    instances: NDArray[np.int32], centres: NDArray[np.float64], radius: float
) -> NDArray[np.float32]:
    """``(3, Z, Y, X)``: from every nucleus voxel to its centre, x and y in radii, z in units."""
    table = np.concatenate([np.zeros((1, 3)), centres]).astype(np.float32)
    owner = table[instances]
    # Open float32 grids: whole numbers would make every offset float64.
    z, y, x = (g.astype(np.float32) for g in np.ogrid[tuple(slice(n) for n in instances.shape)])
    offsets = np.stack(
        [
            (owner[..., 2] - x) / radius,
            (owner[..., 1] - y) / radius,
            (owner[..., 0] - z) / SLICES_PER_UNIT,
        ]
    )
    offsets[:, instances == 0] = 0
    return np.clip(offsets, -4, 4)


def _vary(
    image: NDArray[np.float32], rng: np.random.Generator, *, is_rgb: bool
) -> NDArray[np.float32]:
    """Change what differs between stacks: gain, offset, noise, focus, loss of light with depth."""
    n_z = image.shape[1]
    out = image**2
    if is_rgb:
        return np.sqrt(vary_stain(out, rng))
    for channel in out:
        gain = np.exp(rng.normal(0, 0.3))
        np.multiply(channel, gain, out=channel)
        np.add(channel, rng.normal(0, 0.01), out=channel)
        if rng.random() < 0.5:
            width = rng.uniform(0, 0.08) * np.sqrt(np.clip(channel, 0.02, None))
            channel += (rng.standard_normal(channel.shape, dtype=np.float32) * width).astype(
                np.float32
            )
        if rng.random() < 0.3:
            sigma = rng.uniform(0.3, 1.0)
            ndimage.gaussian_filter(channel, (0, sigma, sigma), output=channel)
        if n_z > 1 and rng.random() < 0.3:
            channel *= np.linspace(1, rng.uniform(0.6, 1.4), n_z, dtype=np.float32)[:, None, None]
    varied: NDArray[np.float32] = np.sqrt(np.clip(out, 0, 4))
    return varied


def _turn(crop: Crop, rng: np.random.Generator) -> Crop:
    """Mirror along z, y, x and swap y and x, each with probability one half."""
    maps: list[NDArray[Any]] = [
        crop.image,
        crop.instances,
        crop.foreground,
        crop.centre,
        crop.offsets.copy(),
        crop.voronoi,
    ]
    for axis, row in ((-3, 2), (-2, 1), (-1, 0)):
        if rng.random() < 0.5:
            maps = [np.flip(m, axis) for m in maps]
            maps[4] = maps[4] * _sign(row)
    if rng.random() < 0.5:
        maps = [np.swapaxes(m, -1, -2) for m in maps]
        maps[4] = maps[4][[1, 0, 2]]
    image, instances, foreground, centre, offsets, voronoi = (np.array(m, order="C") for m in maps)
    return Crop(image, instances, foreground, centre, offsets, crop.types, voronoi)


def _sign(row: int) -> NDArray[np.float32]:
    sign = np.ones((3, 1, 1, 1), dtype=np.float32)
    sign[row] = -1
    return sign
