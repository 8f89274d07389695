"""The report's pictures: slices and projections cut to what matters and kept small.

Each channel is stored once, grey, and tinted by the page, so that it can be switched off there;
the nuclei's outlines are a transparent picture of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.region import Region
from nucleoscope.data.volume import Volume
from nucleoscope.nuclei.measure import extents
from nucleoscope.supervision.project import project
from nucleoscope.supervision.voronoi import nearest_point
from nucleoscope.view.overlay import data_uri, encode_jpeg, encode_png, paint, rims, stretch

__all__ = ["Frame", "Pictures", "crop_box", "found_emip", "make_pictures"]

#: Longest side of a stored picture, in its pixels, before the budget has its say.
MAX_SIDE = 640
#: Outlines are drawn finer than the picture, so many times at most and up to this side: thin lines.
FINEST, FINE_SIDE = 3, 1400
#: At most so many slices of a stack are shown, evenly spaced.
MAX_SLICES = 40
#: Pixels around the region of interest that stay visible.
MARGIN = 12


@dataclass(frozen=True)
class Frame:
    """One picture: a ``data:`` address per channel and one for the outlines (or None)."""

    layers: tuple[str, ...]
    rims: str | None

    def n_bytes(self) -> int:
        """Characters it takes in the page."""
        return sum(map(len, self.layers)) + len(self.rims or "")


@dataclass(frozen=True)
class Pictures:
    """What is shown of one image.

    Parameters
    ----------
    box
        ``(y0, x0, y1, x1)``, half-open, in pixels of the image.
    slices
        The slice number of each frame.
    frames
        One per slice shown.
    projections
        ``mip`` and, where there are nuclei, ``emip``.
    factor
        Pixels of the image per stored pixel.
    """

    box: tuple[int, int, int, int]
    slices: tuple[int, ...]
    frames: tuple[Frame, ...]
    projections: Mapping[str, Frame]
    factor: int

    def n_bytes(self) -> int:
        """Characters all of it takes in the page."""
        return sum(f.n_bytes() for f in (*self.frames, *self.projections.values()))


def crop_box(shape: tuple[int, int, int], region: Region | None) -> tuple[int, int, int, int]:
    """The region's bounding box with a margin, inside the image; the whole image without one.

    >>> crop_box((1, 100, 100), Region(([[40, 40], [40, 60], [60, 60]],)))
    (28, 28, 73, 73)
    """
    _, height, width = shape
    if region is None:
        return (0, 0, height, width)
    corners = np.concatenate(region.rings)
    y0, x0 = np.floor(corners.min(axis=0)).astype(int) - MARGIN
    y1, x1 = np.ceil(corners.max(axis=0)).astype(int) + MARGIN + 1
    box = (max(0, int(y0)), max(0, int(x0)), min(height, int(y1)), min(width, int(x1)))
    return box if box[0] < box[2] and box[1] < box[3] else (0, 0, height, width)


def _shrink(planes: NDArray[np.generic], factor: int) -> NDArray[np.float32]:
    """Block means over the last two axes; a border that fills no block is dropped."""
    if factor == 1:
        return planes.astype(np.float32)
    height, width = (side // factor for side in planes.shape[-2:])
    cut = planes[..., : height * factor, : width * factor].astype(np.float32)
    blocks = cut.reshape(*planes.shape[:-2], height, factor, width, factor)
    means: NDArray[np.float32] = blocks.mean(axis=(-3, -1))
    return means


def _rims_uri(
    labels: NDArray[np.int32],
    types: Mapping[int, str],
    colours: Mapping[str, str],
    factor: int,
) -> str | None:
    """The outlines of a slice ``(Y, X)`` or a stack seen from above, as a transparent PNG."""
    if not labels.any():
        return None
    height, width = (side // factor * factor for side in labels.shape[-2:])
    small = labels[..., :height:factor, :width:factor]
    finer = min(FINEST, max(1, FINE_SIDE // max(small.shape[-2:])))
    small = small.repeat(finer, axis=-2).repeat(finer, axis=-1)
    return data_uri(encode_png(paint(rims(small), types, colours)))


def found_emip(volume: Volume, labels: Labels) -> NDArray[np.generic] | None:
    """Extended maximum intensity projection ``(C, Y, X)`` of the nuclei found; None without any.

    Cells and z ranges are those of the instance map: the cell of a pixel is the nucleus whose
    centroid is nearest in the plane, its range the slices from the nucleus's first to its last.
    """
    nuclei = extents(labels.data)
    if not nuclei.ids.size:
        return None
    at = np.arange(labels.shape[0])
    z_ranges = (at >= nuclei.low[:, :1]) & (at < nuclei.high[:, :1])
    centroids = np.stack([nuclei.z, nuclei.y, nuclei.x], axis=1)
    cells = nearest_point(labels.shape[1:], centroids)
    return project(volume, method="emip", cells=cells, z_ranges=z_ranges).data


def make_pictures(
    volume: Volume,
    labels: Labels,
    types: Mapping[int, str],
    colours: Mapping[str, str],
    region: Region | None = None,
    *,
    budget: int = 3_000_000,
) -> Pictures:
    """Slices and projections of one image, shrunk until they fit ``budget`` characters.

    Parameters
    ----------
    volume, labels
        The image and its nuclei, of the same ``(Z, Y, X)``.
    types
        Nucleus id to type.
    colours
        Type to ``#RRGGBB``.
    region
        Where nuclei were looked for; the pictures are cut to it.
    budget
        Upper bound of what the pictures take in the page; pictures are made coarser, four times
        at most, until they fit.
    """
    box = crop_box(volume.shape, region)
    side = max(box[2] - box[0], box[3] - box[1])
    factor = max(1, -(-side // MAX_SIDE))
    for _ in range(4):
        pictures = _render(volume, labels, types, colours, box, factor)
        if pictures.n_bytes() <= budget:
            break
        factor = max(factor + 1, int(factor * (pictures.n_bytes() / budget) ** 0.5))
    return pictures


def _render(
    volume: Volume,
    labels: Labels,
    types: Mapping[int, str],
    colours: Mapping[str, str],
    box: tuple[int, int, int, int],
    factor: int,
) -> Pictures:
    """All pictures at one size."""
    cut = (..., slice(box[0], box[2]), slice(box[1], box[3]))
    instances = labels.data[cut]
    depth = volume.shape[0]
    slices = np.unique(np.linspace(0, depth - 1, min(depth, MAX_SLICES)).round().astype(int))
    stack = _layers(volume.data[cut][:, slices], factor, is_rgb=volume.is_rgb)
    frames = tuple(
        Frame(layers, _rims_uri(instances[z], types, colours, factor))
        for layers, z in zip(stack, slices, strict=True)
    )
    seen = _rims_uri(instances, types, colours, factor)
    projections = {
        name: Frame(_layers(plane[cut][:, None], factor, is_rgb=volume.is_rgb)[0], seen)
        for name, plane in _projections(volume, labels).items()
    }
    return Pictures(box, tuple(int(z) for z in slices), frames, projections, factor)


def _projections(volume: Volume, labels: Labels) -> dict[str, NDArray[np.generic]]:
    """``mip`` and ``emip``; nothing for an image of one slice, which is its own projection."""
    if volume.shape[0] == 1:
        return {}
    both = {"mip": volume.data.max(axis=1), "emip": found_emip(volume, labels)}
    return {name: plane for name, plane in both.items() if plane is not None}


def _layers(data: NDArray[np.generic], factor: int, *, is_rgb: bool) -> list[tuple[str, ...]]:
    """For each slice of ``(C, Z, Y, X)`` its channels as addresses; one colour one for RGB."""
    small = _shrink(data, factor)
    if is_rgb:
        top = 255.0 if data.dtype == np.uint8 else max(float(small.max()), 1e-9)
        colour = np.rint(small * (255.0 / top)).clip(0, 255).astype(np.uint8)
        return [(data_uri(encode_jpeg(plane)),) for plane in np.moveaxis(colour, 0, -1)]
    grey = [stretch(channel) for channel in small]
    return [tuple(data_uri(encode_jpeg(c[z], 75)) for c in grey) for z in range(small.shape[1])]
