"""Nuclei drawn on their image: contrast, tints, outlines by type, clicks, a scale bar.

Colours are those of Okabe and Ito (2008), which stay apart for every common colour blindness.
Nothing here needs a plotting library; pictures are encoded by imagecodecs.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.points import Points
from nucleoscope.errors import CallError
from nucleoscope.flow.inputs import NUCLEAR_STAINS
from nucleoscope.jit import kernel

__all__ = [
    "TINTS",
    "channel_tints",
    "data_uri",
    "encode_jpeg",
    "encode_png",
    "nice_length",
    "overlay",
    "rims",
    "stretch",
    "type_colours",
]

#: Okabe and Ito's colours in the order types take them; black is left out, the images are dark.
OKABE_ITO = ("#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2", "#E69F00", "#56B4E9")
#: Types that always have the same colour; ``""`` is a nucleus without a type.
FIXED = {"positive": "#E69F00", "negative": "#56B4E9", "": "#DDDDDD"}
#: Tints of channels: the nuclear stain first, then the markers in order.
TINTS = ("#AEBBD6", "#FF3FD0", "#2FE6A0", "#FFD23F", "#FF7A45")
Rgb = tuple[int, int, int]


def rgb(colour: str) -> Rgb:
    """``"#RRGGBB"`` as three numbers.

    >>> rgb("#E69F00")
    (230, 159, 0)
    """
    if len(colour) != 7 or colour[0] != "#":
        raise CallError(f"a colour is written #RRGGBB; found {colour!r}.")
    try:
        return (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))
    except ValueError:
        raise CallError(f"a colour is written #RRGGBB; found {colour!r}.") from None


def type_colours(types: Iterable[str]) -> dict[str, str]:
    """One colour per type, the same whatever the order of ``types``.

    ``positive`` and ``negative`` keep theirs in every picture; other types share the rest of the
    palette in alphabetical order, starting again after the seventh.

    >>> type_colours(["negative", "positive", "negative"])
    {'negative': '#56B4E9', 'positive': '#E69F00'}
    """
    names = sorted(set(types))
    others = [name for name in names if name not in FIXED]
    free = {name: OKABE_ITO[i % len(OKABE_ITO)] for i, name in enumerate(others)}
    return {name: FIXED.get(name) or free[name] for name in names}


def channel_tints(channels: Sequence[str], nuclei: str | None = None) -> tuple[str, ...]:
    """A tint per channel: pale blue-grey for the nuclear stain, bright ones for the markers.

    Parameters
    ----------
    channels
        Channel names.
    nuclei
        The nuclear stain's name; None looks for a usual one (DAPI, Hoechst, ...).

    Examples
    --------
    >>> channel_tints(["LT", "DAPI"])
    ('#FF3FD0', '#AEBBD6')
    """
    wanted = NUCLEAR_STAINS if nuclei is None else (nuclei.casefold(),)
    is_stain = [any(word in name.casefold() for word in wanted) for name in channels]
    markers = iter(range(len(channels)))
    bright = len(TINTS) - 1
    return tuple(TINTS[0] if stain else TINTS[1 + next(markers) % bright] for stain in is_stain)


def stretch(
    channel: NDArray[np.generic], low: float = 1.0, high: float = 99.8
) -> NDArray[np.uint8]:
    """Contrast of one channel spread over 0 to 255 between two of its percentiles.

    The limits are those of the whole array, so the slices of a stack stay comparable. A constant
    channel becomes black.

    Parameters
    ----------
    channel
        Any shape; any integer or float dtype, finite.
    low, high
        Percentiles, 0 to 100; the values there become 0 and 255.

    Raises
    ------
    CallError
        ``low`` is not below ``high``.

    Examples
    --------
    >>> stretch(np.array([10.0, 20.0, 30.0]), low=0, high=100).tolist()
    [0, 128, 255]
    """
    if not 0 <= low < high <= 100:
        raise CallError(f"percentiles go 0 <= low < high <= 100; found {low:g} and {high:g}.")
    values = np.asarray(channel)
    # Every 7th pixel gives the percentiles to well under one grey level and in a tenth of the time.
    flat = values.reshape(-1)
    sample = flat[:: 7 if flat.size > 100_000 else 1]
    floor, ceiling = (float(v) for v in np.percentile(sample, [low, high]))
    if ceiling <= floor:
        floor, ceiling = float(values.min()), float(values.max())
    if ceiling <= floor:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled = (values.astype(np.float32) - floor) * np.float32(255.0 / (ceiling - floor))
    grey: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return grey


@kernel
def _holds(column: NDArray[np.int32], nucleus: int) -> bool:
    """True when the nucleus is somewhere in this column of voxels."""
    for value in column:  # noqa: SIM110  compiled
        if value == nucleus:
            return True
    return False


@kernel
def _rims(labels: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """Write the id whose footprint ends at each pixel; the uppermost slice wins."""
    depth, height, width = labels.shape
    for y in range(height):
        for x in range(width):
            for z in range(depth):
                nucleus = labels[z, y, x]
                if nucleus == 0:
                    continue
                if (
                    (y > 0 and not _holds(labels[:, y - 1, x], nucleus))
                    or (y + 1 < height and not _holds(labels[:, y + 1, x], nucleus))
                    or (x > 0 and not _holds(labels[:, y, x - 1], nucleus))
                    or (x + 1 < width and not _holds(labels[:, y, x + 1], nucleus))
                ):
                    out[y, x] = nucleus
                    break


def rims(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """The outline of every nucleus seen from above, overlapping ones included.

    A pixel belongs to the rim of nucleus ``i`` when ``i`` is in its column of voxels and missing
    from the column of a direct neighbour. Where rims cross, the upper slice's nucleus wins.

    Parameters
    ----------
    labels
        ``(Z, Y, X)`` or ``(Y, X)`` instance map, 0 = no nucleus.

    Returns
    -------
    NDArray
        ``(Y, X)`` int32: the nucleus's id on its rim, 0 elsewhere.

    Examples
    --------
    >>> square = np.zeros((5, 5), np.int32)
    >>> square[1:4, 1:4] = 7
    >>> rims(square)[2].tolist()
    [0, 7, 0, 7, 0]
    """
    stack = np.asarray(labels)
    if stack.ndim == 2:
        stack = stack[None]
    out = np.zeros(stack.shape[1:], dtype=np.int32)
    _rims(np.ascontiguousarray(stack, dtype=np.int32), out)
    return out


def paint(
    rim: NDArray[np.int32], types: Mapping[int, str], colours: Mapping[str, str]
) -> NDArray[np.uint8]:
    """Rims as ``(Y, X, 4)`` RGBA in the colours of their nuclei's types; transparent elsewhere."""
    lut = np.zeros((int(rim.max(initial=0)) + 1, 4), dtype=np.uint8)
    untyped = rgb(FIXED[""])
    for nucleus in np.unique(rim[rim > 0]):
        colour = colours.get(types.get(int(nucleus), ""))
        lut[nucleus] = (*(untyped if colour is None else rgb(colour)), 255)
    return lut[rim]


def _composite(image: NDArray[np.generic], tints: Sequence[str]) -> NDArray[np.uint8]:
    """Channels ``(C, ..., Y, X)`` stretched, tinted and screened over each other, ``(..., 3)``."""
    dark = np.ones((*image.shape[1:], 3), dtype=np.float32)
    for channel, tint in zip(image, tints, strict=True):
        light = stretch(channel).astype(np.float32)[..., None] / 255.0
        dark *= 1.0 - light * (np.asarray(rgb(tint), dtype=np.float32) / 255.0)
    return np.rint((1.0 - dark) * 255.0).astype(np.uint8)


def _draw_points(plane: NDArray[np.uint8], points: Points, colours: Mapping[str, str]) -> None:
    """Small crosses, in place, clipped at the border."""
    height, width = plane.shape[:2]
    arms = np.array([(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (0, 2), (0, -2), (2, 0), (-2, 0)])
    for y, x, name in zip(points.y, points.x, points.types, strict=True):
        at = np.rint([y, x]).astype(np.int64) + arms
        at = at[(at >= 0).all(axis=1) & (at[:, 0] < height) & (at[:, 1] < width)]
        plane[at[:, 0], at[:, 1]] = rgb(colours.get(str(name), FIXED[""]))


def nice_length(width_um: float) -> float:
    """The round length (1, 2 or 5 times a power of ten) nearest below a fifth of ``width_um``.

    >>> nice_length(230.0)
    20.0
    """
    target = width_um / 5.0
    power = 10.0 ** math.floor(math.log10(target))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= target * (1 + 1e-9))


def _draw_bar(planes: NDArray[np.uint8], mpp: float) -> None:
    """A white bar of a round length at the lower right, in place, on every plane."""
    height, width = planes.shape[-3:-1]
    length = round(nice_length(width * mpp) / mpp)
    thick, margin = max(2, height // 150), max(3, height // 40)
    rows = slice(max(0, height - margin - thick), max(0, height - margin))
    planes[..., rows, max(0, width - margin - length) : width - margin, :] = 255


def overlay(
    image: NDArray[np.generic],
    labels: NDArray[np.integer] | None = None,
    types: Mapping[int, str] | None = None,
    *,
    tints: Sequence[str] | None = None,
    colours: Mapping[str, str] | None = None,
    points: Points | None = None,
    bar_mpp: float | None = None,
) -> NDArray[np.uint8]:
    """Nuclei outlined on their image, in the colour of their type.

    Parameters
    ----------
    image
        ``(C, Y, X)``, a slice or a projection, or ``(C, Z, Y, X)``, a stack.
    labels
        Instance map ``(Y, X)`` or ``(Z, Y, X)``. A stack of labels on one plane shows every
        nucleus's footprint, as on a projection.
    types
        Nucleus id to type; nuclei that are not in it are drawn as untyped.
    tints
        ``#RRGGBB`` per channel (see ``channel_tints``); by default the last is the nuclear stain.
    colours
        Type to ``#RRGGBB``; default ``type_colours`` of the types given.
    points
        Clicks in pixels of this image, drawn as crosses; on a stack each in its own slice.
    bar_mpp
        Micrometres per pixel; draws a bar of ``nice_length`` of the image's width.

    Returns
    -------
    NDArray
        uint8 ``(Y, X, 3)``, or ``(Z, Y, X, 3)`` for a stack.

    Raises
    ------
    CallError
        The shapes do not belong together.

    Examples
    --------
    >>> image = np.zeros((1, 5, 5), np.uint8)
    >>> labels = np.zeros((5, 5), np.int32)
    >>> labels[1:4, 1:4] = 7
    >>> overlay(image, labels, {7: "positive"})[1, 1].tolist()
    [230, 159, 0]
    """
    _check_shapes(image, labels)
    known = dict(types or {})
    palette = dict(
        colours
        or type_colours([*known.values(), *(() if points is None else points.types.tolist())])
    )
    out = _composite(image, tints or default_tints(image.shape[0]))
    is_stack = image.ndim == 4
    planes = out if is_stack else out[None]
    for z, plane in enumerate(planes):
        if labels is not None:
            painted = paint(rims(labels[z] if is_stack else labels), known, palette)
            seen = painted[..., 3] > 0
            plane[seen] = painted[seen, :3]
        if points is not None:
            here = points.where(np.rint(points.z) == z) if is_stack else points
            _draw_points(plane, here, palette)
    if bar_mpp is not None:
        _draw_bar(planes, bar_mpp)
    return out


def default_tints(n_channels: int) -> tuple[str, ...]:
    """Tints for channels without names: markers first, the nuclear stain last."""
    bright = TINTS[1:]
    return (*(bright[i % len(bright)] for i in range(n_channels - 1)), TINTS[0])


def _check_shapes(image: NDArray[np.generic], labels: NDArray[np.integer] | None) -> None:
    """Raise CallError unless image and labels can be drawn together."""
    if image.ndim not in (3, 4) or 0 in image.shape:
        raise CallError(f"an image to draw is (C, Y, X) or (C, Z, Y, X); found {image.shape}.")
    if labels is None:
        return
    same_plane = labels.shape[-2:] == image.shape[-2:]
    fits = labels.shape == image.shape[1:] if image.ndim == 4 else labels.ndim in (2, 3)
    if not (same_plane and fits):
        raise CallError(f"labels of shape {labels.shape} do not fit an image of {image.shape}.")


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture ``(Y, X)``, ``(Y, X, 3)`` or ``(Y, X, 4)`` as a PNG file's bytes."""
    # 8 is "no filter": faster and smaller than choosing one per row where pictures are lines.
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(picture), level=6, filter=8))


def encode_jpeg(picture: NDArray[np.uint8], quality: int = 82) -> bytes:
    """A picture ``(Y, X)`` or ``(Y, X, 3)`` as a JPEG file's bytes."""
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(picture), level=quality))


def data_uri(encoded: bytes) -> str:
    """The bytes of a PNG or JPEG as a ``data:`` address for a page without network.

    >>> data_uri(encode_png(np.zeros((1, 1), np.uint8)))[:22]
    'data:image/png;base64,'
    """
    kind = "png" if encoded.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
