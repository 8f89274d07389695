"""Two looks at one nucleus: the views that the encoder of ``nuc2vec`` learns to hold together.

One pass over the pixels of a view does everything: rotation, mirror, mild scale and shift, another
background behind the nucleus, stain in optical density, normalisation; uint8 crops in, float32
out, nothing of full size between. What is drawn depends only on the seed, the step, the nucleus
and which of its views it is, so neither the order nor the size of batches changes a view.

Feng, Vanderbilt, Fuchs, "Nuc2Vec: Learning Representations of Nuclei in Histopathology Images with
Contrastive Loss", MIDL 2021. Where we differ: the background is swapped behind the contour with a
soft edge (theirs: the bounding box), stain changes a little along haematoxylin and eosin (theirs:
a full circle of hues), and scale by at most a tenth (theirs: up to 1.41), so that a nucleus's size
and tint stay in its embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.jit import kernel

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

#: Optical density of haematoxylin, eosin and what is left, per unit of each, rows RGB
#: (Ruifrok and Johnston 2001, table 1, unit vectors; the third is their cross product).
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [-0.3286, -0.0769, 0.9413]])
#: Mean and spread of the optical density of H&E, by which a view is normalised; fixed, so that
#: an embedding never depends on which other nuclei are embedded with it.
OD_MEAN = (0.38, 0.62, 0.36)
OD_STD = (0.22, 0.28, 0.20)
#: Radius in um of the soft disc that stands for the contour where none of the store's is known.
UNKNOWN_RADIUS_UM = 3.5
#: Intensities are looked up in quarters of a grey level.
_FINE = 4

# Columns of a row of parameters.
_AFFINE, _COLOUR, _OFFSET, _SIGMA, _HOLE, _BACK, _BACK_AFFINE = 0, 6, 15, 18, 19, 20, 21
N_PARAMETERS = 27
#: In the column of the background: its own, or plain grey; else the row of another nucleus.
OWN, GREY = -1, -2


@dataclass(frozen=True)
class ViewSettings:
    """What may differ between two views of a nucleus.

    Parameters
    ----------
    size
        Side of a view in pixels.
    field
        Side of what it shows, in pixels of the crop (64 = all of it).
    rotation
        Turned by any angle and mirrored; False for neither.
    scale
        Largest relative change of size.
    shift
        Largest shift along y and x, in pixels of the crop.
    stain
        Largest relative change of each stain's amount.
    stain_offset
        Largest optical density added to each stain.
    tilt_deg
        Largest turn of the pair of stains in colour space, in degrees.
    brightness
        Largest change of the light, as optical density on all channels.
    blur, blur_share
        Largest Gaussian sigma in pixels of the view, and how often.
    swap, grey
        How often the key view shows the nucleus on another background, and on plain grey.
    dilate, feather
        Pixels by which the contour is grown, and over which it fades.
    hole
        Radius in crop pixels of a disc that is blanked out (context views); 0 for none.
    """

    size: int = 32
    field: float = 64.0
    rotation: bool = True
    scale: float = 0.1
    shift: float = 1.5
    stain: float = 0.1
    stain_offset: float = 0.03
    tilt_deg: float = 3.0
    brightness: float = 0.05
    blur: float = 0.7
    blur_share: float = 0.3
    swap: float = 0.7
    grey: float = 0.15
    dilate: float = 2.0
    feather: float = 3.0
    hole: float = 0.0

    def __post_init__(self) -> None:
        if not (self.size >= 8 and self.field > 0 and 0 <= self.scale < 1):
            raise CallError("a view takes size >= 8, field > 0 and 0 <= scale < 1.")
        if not (self.swap >= 0 and self.grey >= 0 and self.swap + self.grey <= 1):
            raise CallError("swap and grey are shares of the key views; their sum is at most 1.")

    def numbers(self) -> NDArray[np.float64]:
        """The settings as the kernel takes them."""
        return np.array([
            self.size, self.field, float(self.rotation), self.scale, self.shift, self.stain,
            self.stain_offset, math.radians(self.tilt_deg), self.brightness, self.blur,
            self.blur_share, self.swap, self.grey, self.hole,
        ])  # fmt: skip


@dataclass(frozen=True, eq=False)
class Slides:
    """Rows of a store by slide: those of slide ``s`` are ``order[start[s]:start[s + 1]]``."""

    slide: I64
    order: I64
    start: I64

    @classmethod
    def of(cls, slide: NDArray[np.integer]) -> Slides:
        """Group rows by slide; numbers may have gaps.

        >>> Slides.of(np.array([5, 2, 5])).start.tolist()
        [0, 1, 3]
        """
        names, codes = np.unique(slide, return_inverse=True)
        codes = codes.reshape(-1).astype(np.int64)
        counts = np.bincount(codes, minlength=len(names))
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(codes, np.argsort(codes, kind="stable").astype(np.int64), start)

    def __len__(self) -> int:
        return len(self.start) - 1


def draw_views(
    settings: ViewSettings, rows: I64, slides: Slides, *, seed: int, step: int, view: int
) -> F32:
    """Draw what happens to view ``view`` of the nuclei ``rows``.

    Parameters
    ----------
    rows
        ``(B,)`` rows of the store.
    slides
        Where other backgrounds are taken from: other nuclei of the same slide.
    view
        0 is the query, on its own background; 1 the key, on another; 2 and up keep their own.

    Returns
    -------
    ``(B, N_PARAMETERS)`` float32, what ``render_views`` takes.

    Examples
    --------
    >>> slides = Slides.of(np.zeros(9, dtype=int))
    >>> both = draw_views(ViewSettings(), np.arange(9), slides, seed=0, step=4, view=1)
    >>> one = draw_views(ViewSettings(), np.array([7]), slides, seed=0, step=4, view=1)
    >>> bool((both[7] == one[0]).all())
    True
    """
    start = np.array([seed, step, view], dtype=np.uint64)
    out = np.zeros((len(rows), N_PARAMETERS), dtype=np.float32)
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    _draw(
        settings.numbers(), rows, slides.slide, slides.order, slides.start, start,
        np.linalg.inv(STAINS), STAINS, np.array(OD_MEAN), np.array(OD_STD), out,
    )  # fmt: skip
    return out


def plain_views(settings: ViewSettings, n: int) -> F32:
    """Parameters of ``n`` views as they are embedded: nothing drawn, only field and colour.

    >>> plain_views(ViewSettings(), 2).shape
    (2, 27)
    """
    zoom = settings.field / settings.size
    out = np.zeros((n, N_PARAMETERS), dtype=np.float32)
    out[:, _AFFINE : _AFFINE + 4] = (zoom, 0, 0, zoom)
    out[:, _COLOUR : _COLOUR + 9] = np.diag(1 / np.array(OD_STD)).ravel()
    out[:, _OFFSET : _OFFSET + 3] = -np.array(OD_MEAN) / np.array(OD_STD)
    out[:, _HOLE] = settings.hole
    out[:, _BACK] = OWN
    return out


def soft_edges(mask: U8, settings: ViewSettings, *, radius: float) -> U8:
    """How much of each pixel is the nucleus when it is set on another background.

    Parameters
    ----------
    mask
        ``(N, Y, X)`` uint8, 1 = this nucleus; all zero where its contour is not known.
    settings
        ``dilate`` and ``feather``.
    radius
        Of the disc in the middle, in crop pixels, that stands for an unknown contour.

    Returns
    -------
    ``(N, Y, X)`` uint8: 255 inside and up to ``dilate`` pixels beyond, 0 from ``feather`` pixels
    further on (distances of a two-pass chamfer).

    Examples
    --------
    >>> mask = np.zeros((1, 9, 9), dtype=np.uint8)
    >>> mask[0, 4, 0] = 1
    >>> soft_edges(mask, ViewSettings(), radius=3.0)[0, 4].tolist()
    [255, 255, 255, 170, 85, 0, 0, 0, 0]
    """
    out = np.empty(mask.shape, dtype=np.uint8)
    edge = np.array([settings.dilate, settings.feather, radius], dtype=np.float32)
    _edges_of(np.ascontiguousarray(mask), edge, out)
    return out


def render_views(images: U8, edges: U8, rows: I64, parameters: F32, settings: ViewSettings) -> F32:
    """Render views of crops.

    Parameters
    ----------
    images
        ``(N, Y, X, 3)`` uint8 crops.
    edges
        ``(N, Y, X)`` uint8 of ``soft_edges``; looked at only where the background is another one.
    rows
        ``(B,)`` rows to render.
    parameters
        ``(B, N_PARAMETERS)`` from ``draw_views`` or ``plain_views``.

    Returns
    -------
    ``(B, size, size, 3)`` float32, normalised optical density; beyond the crop it is mirrored.

    Raises
    ------
    InputError
        A row is not in the store, or shapes do not fit.

    Notes
    -----
    One core renders ten thousands of views per second; ``bench/bench_views.py`` measures it.

    Examples
    --------
    >>> images = np.full((1, 64, 64, 3), 255, dtype=np.uint8)
    >>> settings, edges = ViewSettings(), np.zeros((1, 64, 64), dtype=np.uint8)
    >>> render_views(images, edges, np.array([0]), plain_views(settings, 1), settings).shape
    (1, 32, 32, 3)
    """
    if images.ndim != 4 or images.shape[3] != 3 or edges.shape != images.shape[:3]:
        raise InputError(
            f"crops are (N, Y, X, 3) with edges (N, Y, X); found {images.shape} and {edges.shape}."
        )
    if parameters.shape != (len(rows), N_PARAMETERS):
        raise InputError(f"{len(rows)} views take as many rows of {N_PARAMETERS} parameters.")
    back = parameters[:, _BACK]
    highest = max(int(np.max(rows, initial=-1)), int(np.max(back, initial=-1)))
    if highest >= len(images) or (len(rows) and int(np.min(rows)) < 0):
        raise InputError(f"row {highest} is not among the {len(images)} crops.")
    out = np.empty((len(rows), settings.size, settings.size, 3), dtype=np.float32)
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    _render(images, edges, rows, parameters, _DENSITY, out)
    return out


def render_outlines(
    shares: U8, rows: I64, parameters: F32, settings: ViewSettings
) -> NDArray[np.float32]:
    """Where the nucleus is in each of the views that ``render_views`` renders.

    Parameters
    ----------
    shares
        ``(N, Y, X)`` uint8 of ``soft_edges``.
    rows, parameters
        As of ``render_views``.

    Returns
    -------
    ``(B, size, size)`` float32, 0 to 1, the nearest pixel's; 0 beyond the crop.

    Examples
    --------
    >>> shares = np.full((1, 64, 64), 255, dtype=np.uint8)
    >>> settings = ViewSettings()
    >>> float(render_outlines(shares, np.array([0]), plain_views(settings, 1), settings).min())
    1.0
    """
    out = np.empty((len(rows), settings.size, settings.size), dtype=np.float32)
    _outline(shares, np.ascontiguousarray(rows, dtype=np.int64), parameters, out)
    return out


def typical_radius(mask: U8, mpp: float) -> float:
    """Radius in crop pixels of the median nucleus with a contour; without any, of 3.5 um.

    >>> typical_radius(np.zeros((3, 8, 8), dtype=np.uint8), 0.25)
    14.0
    """
    areas = np.count_nonzero(mask.reshape(len(mask), -1), axis=1) if len(mask) else np.zeros(0)
    known = areas[areas > 0]
    if not len(known):
        return UNKNOWN_RADIUS_UM / mpp
    return float(np.sqrt(np.median(known) / np.pi))


def _density_table() -> F32:
    """Optical density ``-ln((I + 1) / 256)`` for intensities 0 to 255 in quarters."""
    level = np.arange(255 * _FINE + 1) / _FINE
    return (-np.log((level + 1) / 256)).astype(np.float32)


_DENSITY = _density_table()


# Kernels ----------------------------------------------------------------------------------------


@kernel
def _mix(value: np.uint64) -> np.uint64:
    """One step of splitmix64 (Steele, Lea, Flood 2014)."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def _uniform(state: NDArray[np.uint64], low: float, high: float) -> float:
    """The next number of a stream, in [low, high)."""
    state[0] = state[0] + np.uint64(0x9E3779B97F4A7C15)
    return low + (high - low) * (float(_mix(state[0]) >> np.uint64(11)) / 9007199254740992.0)


@kernel
def _turn(state: NDArray[np.uint64], zoom: float, out: F32) -> None:
    """A random rotation and mirror times ``zoom``, row by row into ``out[0:4]``."""
    angle = _uniform(state, 0.0, 2 * math.pi)
    mirror = -1.0 if _uniform(state, 0.0, 1.0) < 0.5 else 1.0
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    out[0], out[1], out[2], out[3] = cos, -sin * mirror, sin, cos * mirror


@kernel
def _colour(
    state: NDArray[np.uint64], numbers: NDArray[np.float64], unmix: NDArray[np.float64],
    stains: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64], out: F32,
) -> None:  # fmt: skip
    """Matrix and offset that jitter stains and normalise, from optical density to the view."""
    cos, sin = 1.0, 0.0
    if numbers[7] > 0:
        angle = _uniform(state, -numbers[7], numbers[7])
        cos, sin = math.cos(angle), math.sin(angle)
    light = _uniform(state, -numbers[8], numbers[8])
    gain = np.empty(3)
    shift = np.empty(3)
    turned = stains.copy()
    for c in range(3):
        gain[c] = _uniform(state, 1 - numbers[5], 1 + numbers[5])
        shift[c] = _uniform(state, -numbers[6], numbers[6]) if c < 2 else 0.0
        # Haematoxylin and eosin turn towards the third vector.
        turned[0, c] = cos * stains[0, c] + sin * stains[2, c]
        turned[1, c] = cos * stains[1, c] + sin * stains[2, c]
    for c in range(3):
        offset = light
        for k in range(3):
            offset += shift[k] * turned[k, c]
        out[9 + c] = (offset - mean[c]) / std[c]
        for d in range(3):
            total = 0.0
            for k in range(3):
                total += unmix[d, k] * gain[k] * turned[k, c]
            out[3 * c + d] = total / std[c]


@kernel
def _draw(
    numbers: NDArray[np.float64], rows: I64, slide: I64, order: I64, start: I64,
    key: NDArray[np.uint64], unmix: NDArray[np.float64], stains: NDArray[np.float64],
    mean: NDArray[np.float64], std: NDArray[np.float64], out: F32,
) -> None:  # fmt: skip
    """Fill ``out`` with the parameters of one view of every row."""
    state = np.zeros(1, dtype=np.uint64)
    zoom = numbers[1] / numbers[0]
    for v in range(len(rows)):
        row = rows[v]
        mixed = _mix(_mix(_mix(key[0]) ^ key[1]) ^ key[2])
        state[0] = _mix(mixed ^ np.uint64(row))
        drawn = zoom * _uniform(state, 1 - numbers[3], 1 + numbers[3])
        if numbers[2] > 0:
            _turn(state, drawn, out[v, _AFFINE : _AFFINE + 4])
        else:
            out[v, _AFFINE], out[v, _AFFINE + 3] = drawn, drawn
        out[v, _AFFINE + 4] = _uniform(state, -numbers[4], numbers[4])
        out[v, _AFFINE + 5] = _uniform(state, -numbers[4], numbers[4])
        _colour(state, numbers, unmix, stains, mean, std, out[v, _COLOUR : _COLOUR + 12])
        if _uniform(state, 0.0, 1.0) < numbers[10]:
            out[v, _SIGMA] = _uniform(state, 0.0, numbers[9])
        out[v, _HOLE] = numbers[13]
        out[v, _BACK] = OWN
        if key[2] == 1:
            choice = _uniform(state, 0.0, 1.0)
            first, last = start[slide[row]], start[slide[row] + 1]
            pick = first + int(_uniform(state, 0.0, float(last - first)))
            _turn(state, 1.0, out[v, _BACK_AFFINE : _BACK_AFFINE + 4])
            # Shifted, so that the other nucleus stands beside ours and not behind it.
            angle = _uniform(state, 0.0, 2 * math.pi)
            reach = _uniform(state, 0.25, 0.45) * numbers[1]
            out[v, _BACK_AFFINE + 4] = reach * math.sin(angle)
            out[v, _BACK_AFFINE + 5] = reach * math.cos(angle)
            if choice < numbers[11]:
                out[v, _BACK] = order[min(pick, last - 1)]
            elif choice < numbers[11] + numbers[12]:
                out[v, _BACK] = GREY


@kernel
def _mirrored(index: int, n: int) -> int:
    """An index beyond the crop, mirrored back into it."""
    if 0 <= index < n:
        return index
    period = 2 * n
    folded = index % period
    return folded if folded < n else period - 1 - folded


@kernel
def _sample(image: U8, y: np.float32, x: np.float32) -> tuple[np.float32, np.float32, np.float32]:
    """Bilinear intensity of three channels at a point, pixel centres at whole numbers."""
    height, width = image.shape[0], image.shape[1]
    top, left = math.floor(y), math.floor(x)
    dy, dx = y - np.float32(top), x - np.float32(left)
    if top >= 0 and left >= 0 and top + 1 < height and left + 1 < width:
        y0, x0 = np.uint64(top), np.uint64(left)
        y1, x1 = np.uint64(top + 1), np.uint64(left + 1)
    else:
        y0, y1 = np.uint64(_mirrored(top, height)), np.uint64(_mirrored(top + 1, height))
        x0, x1 = np.uint64(_mirrored(left, width)), np.uint64(_mirrored(left + 1, width))
    w11 = dy * dx
    w10, w01 = dy - w11, dx - w11
    w00 = np.float32(1) - dy - w01
    r, g, b = np.uint64(0), np.uint64(1), np.uint64(2)
    return (
        w00 * np.float32(image[y0, x0, r]) + w01 * np.float32(image[y0, x1, r])
        + w10 * np.float32(image[y1, x0, r]) + w11 * np.float32(image[y1, x1, r]),
        w00 * np.float32(image[y0, x0, g]) + w01 * np.float32(image[y0, x1, g])
        + w10 * np.float32(image[y1, x0, g]) + w11 * np.float32(image[y1, x1, g]),
        w00 * np.float32(image[y0, x0, b]) + w01 * np.float32(image[y0, x1, b])
        + w10 * np.float32(image[y1, x0, b]) + w11 * np.float32(image[y1, x1, b]),
    )  # fmt: skip


@kernel
def _box_of(mask: U8, reach: int) -> tuple[int, int, int, int]:
    """Rows and columns that a nucleus occupies, grown by ``reach``; an empty box for none."""
    height, width = mask.shape
    y0, y1, x0, x1 = height, -1, width, -1
    for y in range(height):
        for x in range(width):
            if mask[y, x] != 0:
                y0, y1, x0, x1 = min(y0, y), max(y1, y), min(x0, x), max(x1, x)
    if y1 < 0:
        return 0, 0, 0, 0
    return (
        max(0, y0 - reach), min(height, y1 + 1 + reach),
        max(0, x0 - reach), min(width, x1 + 1 + reach),
    )  # fmt: skip


@kernel
def _disc(edge: F32, out: F32) -> None:
    """Distances from a disc in the middle, for a nucleus without a contour."""
    height, width = out.shape
    for y in range(height):
        for x in range(width):
            dy, dx = y - (height - 1) / 2, x - (width - 1) / 2
            out[y, x] = max(0.0, math.sqrt(dy * dy + dx * dx) - edge[2])


@kernel
def _distances(mask: U8, y0: int, y1: int, x0: int, x1: int, far: np.float32, out: F32) -> None:
    """Distances from a contour inside a box: two-pass chamfer with steps 1 and sqrt 2."""
    slant, one = np.float32(math.sqrt(2.0)), np.float32(1)
    for y in range(y0, y1):
        for x in range(x0, x1):
            d = np.float32(0) if mask[y, x] else far
            if d > 0 and y > y0:
                d = min(d, out[y - 1, x] + one)
                if x > x0:
                    d = min(d, out[y - 1, x - 1] + slant)
                if x + 1 < x1:
                    d = min(d, out[y - 1, x + 1] + slant)
            if d > 0 and x > x0:
                d = min(d, out[y, x - 1] + one)
            out[y, x] = d
    for y in range(y1 - 1, y0 - 1, -1):
        for x in range(x1 - 1, x0 - 1, -1):
            d = out[y, x]
            if d > 0 and x + 1 < x1:
                d = min(d, out[y, x + 1] + one)
            if d > 0 and y + 1 < y1:
                d = min(d, out[y + 1, x] + one)
                if x > x0:
                    d = min(d, out[y + 1, x - 1] + slant)
                if x + 1 < x1:
                    d = min(d, out[y + 1, x + 1] + slant)
            out[y, x] = d


@kernel
def _edges_of(masks: U8, edge: F32, out: U8) -> None:
    """Soft edges of every nucleus; see ``soft_edges``."""
    height, width = masks.shape[1], masks.shape[2]
    distance = np.empty((height, width), dtype=np.float32)
    far = edge[0] + edge[1]
    for v in range(len(masks)):
        y0, y1, x0, x1 = _box_of(masks[v], math.ceil(far))
        if y1 > y0:
            out[v] = 0
            _distances(masks[v], y0, y1, x0, x1, far, distance)
        else:
            _disc(edge, distance)
            y0, y1, x0, x1 = 0, height, 0, width
        for y in range(y0, y1):
            for x in range(x0, x1):
                share = 1 - (distance[y, x] - edge[0]) / edge[1]
                out[v, y, x] = np.uint8(255 * min(1.0, max(0.0, share)) + 0.5)


@kernel
def _blur(view: F32, sigma: float, scratch: F32) -> None:
    """Gaussian blur of five taps along y, then x; the border is repeated."""
    size = view.shape[0]
    w1, w2 = math.exp(-0.5 / sigma**2), math.exp(-2.0 / sigma**2)
    total = 1 + 2 * w1 + 2 * w2
    a, b, c = np.float32(1 / total), np.float32(w1 / total), np.float32(w2 / total)
    for y in range(size):
        up, up2 = max(y - 1, 0), max(y - 2, 0)
        down, down2 = min(y + 1, size - 1), min(y + 2, size - 1)
        for x in range(size):
            for k in range(3):
                scratch[y, x, k] = (
                    a * view[y, x, k] + b * (view[up, x, k] + view[down, x, k])
                    + c * (view[up2, x, k] + view[down2, x, k])
                )  # fmt: skip
    for y in range(size):
        for x in range(size):
            left, left2 = max(x - 1, 0), max(x - 2, 0)
            right, right2 = min(x + 1, size - 1), min(x + 2, size - 1)
            for k in range(3):
                view[y, x, k] = (
                    a * scratch[y, x, k] + b * (scratch[y, left, k] + scratch[y, right, k])
                    + c * (scratch[y, left2, k] + scratch[y, right2, k])
                )  # fmt: skip


@kernel
def _pixel(
    r: np.float32, g: np.float32, b: np.float32, density: F32, colour: F32, out: F32
) -> None:
    """Intensities to normalised, jittered optical density."""
    quarter, half = np.float32(_FINE), np.float32(0.5)
    r = density[np.uint64(r * quarter + half)]
    g = density[np.uint64(g * quarter + half)]
    b = density[np.uint64(b * quarter + half)]
    out[0] = colour[0] * r + colour[1] * g + colour[2] * b + colour[9]
    out[1] = colour[3] * r + colour[4] * g + colour[5] * b + colour[10]
    out[2] = colour[6] * r + colour[7] * g + colour[8] * b + colour[11]


@kernel
def _mean_of(image: U8, out: F32) -> None:
    """Mean intensity of each channel."""
    total = np.zeros(3)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for c in range(3):
                total[c] += image[y, x, c]
    for c in range(3):
        out[c] = total[c] / (image.shape[0] * image.shape[1])


@kernel
def _one_background(image: U8, p: F32, density: F32, out: F32) -> None:
    """A view on the nucleus's own background."""
    size = out.shape[0]
    middle = np.float32((size - 1) / 2)
    mid_y, mid_x = np.float32((image.shape[0] - 1) / 2), np.float32((image.shape[1] - 1) / 2)
    colour = p[_COLOUR : _COLOUR + 12]
    hole = p[_HOLE] * p[_HOLE]
    for i in range(size):
        dy = np.float32(i) - middle
        for j in range(size):
            dx = np.float32(j) - middle
            ry = p[0] * dy + p[1] * dx + p[4]
            rx = p[2] * dy + p[3] * dx + p[5]
            if ry * ry + rx * rx < hole:
                out[i, j, :] = np.float32(0)
                continue
            r, g, b = _sample(image, mid_y + ry, mid_x + rx)
            _pixel(r, g, b, density, colour, out[i, j])


@kernel
def _two_backgrounds(
    image: U8, behind: U8, share: U8, p: F32, grey: F32, density: F32, out: F32
) -> None:
    """A view of the nucleus on another crop, or on grey."""
    size, height, width = out.shape[0], image.shape[0], image.shape[1]
    middle = np.float32((size - 1) / 2)
    mid_y, mid_x = np.float32((height - 1) / 2), np.float32((width - 1) / 2)
    colour = p[_COLOUR : _COLOUR + 12]
    is_grey = p[_BACK] == GREY
    half, per_level = np.float32(0.5), np.float32(1 / 255)
    for i in range(size):
        dy = np.float32(i) - middle
        for j in range(size):
            dx = np.float32(j) - middle
            ry = p[0] * dy + p[1] * dx + p[4]
            rx = p[2] * dy + p[3] * dx + p[5]
            y, x = mid_y + ry, mid_x + rx
            # Beyond the crop there is none of the nucleus.
            keep = np.float32(0)
            row, column = math.floor(y + half), math.floor(x + half)
            if 0 <= row < height and 0 <= column < width:
                keep = np.float32(share[np.uint64(row), np.uint64(column)]) * per_level
            r, g, b = grey[0], grey[1], grey[2]
            if keep < 1 and not is_grey:
                by = p[21] * ry + p[22] * rx + p[25]
                bx = p[23] * ry + p[24] * rx + p[26]
                r, g, b = _sample(behind, mid_y + by, mid_x + bx)
            if keep > 0:
                own_r, own_g, own_b = _sample(image, y, x)
                r += keep * (own_r - r)
                g += keep * (own_g - g)
                b += keep * (own_b - b)
            _pixel(r, g, b, density, colour, out[i, j])


@kernel
def _outline(shares: U8, rows: I64, parameters: F32, out: F32) -> None:
    """The share of the nucleus in every pixel of every view; see ``render_outlines``."""
    size, height, width = out.shape[1], shares.shape[1], shares.shape[2]
    middle, half = np.float32((size - 1) / 2), np.float32(0.5)
    mid_y, mid_x = np.float32((height - 1) / 2), np.float32((width - 1) / 2)
    for v in range(len(rows)):
        p, share = parameters[v], shares[rows[v]]
        for i in range(size):
            dy = np.float32(i) - middle
            for j in range(size):
                dx = np.float32(j) - middle
                y = math.floor(mid_y + p[0] * dy + p[1] * dx + p[4] + half)
                x = math.floor(mid_x + p[2] * dy + p[3] * dx + p[5] + half)
                out[v, i, j] = np.float32(0)
                if 0 <= y < height and 0 <= x < width:
                    level = np.float32(share[np.uint64(y), np.uint64(x)])
                    out[v, i, j] = level * np.float32(1 / 255)


@kernel
def _render(images: U8, edges: U8, rows: I64, parameters: F32, density: F32, out: F32) -> None:
    """Every view, one after the other; see ``render_views``."""
    size = out.shape[1]
    scratch = np.empty((size, size, 3), dtype=np.float32)
    grey = np.zeros(3, dtype=np.float32)
    for v in range(len(rows)):
        p = parameters[v]
        image = images[rows[v]]
        back = int(p[_BACK])
        if back == OWN:
            _one_background(image, p, density, out[v])
        else:
            if back == GREY:
                _mean_of(image, grey)
            behind = images[back] if back >= 0 else image
            _two_backgrounds(image, behind, edges[rows[v]], p, grey, density, out[v])
        if p[_SIGMA] > 0.05:
            _blur(out[v], p[_SIGMA], scratch)
