"""The views of the published Nuc2Vec, constant by constant, from crops of 64 px.

Feng, Vanderbilt, Fuchs, MIDL 2021. A crop of 64 px is shown at 128 px by repeating pixels, as the
authors do for slides. The query keeps its background; the key's nucleus, cut out by the bounding
box of its contour, is pasted on another window of the same slide. Then both are changed alike:
a centred part of 0.5 to 1 of the area, colour jitter with a full circle of hues, blur, quarter
turns and mirrors. As torchvision does it, but in one kernel and in an order of jitters drawn anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel
from nucleoscope.learn.view_kernels import F32, I64, U8, box_of, mix, uniform
from nucleoscope.learn.views import Slides

#: Mean and spread of ImageNet's colours, by which the authors normalise.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PaperViews:
    """The published augmentation; the defaults are its constants.

    Parameters
    ----------
    size
        Side of a view in pixels; a crop pixel is shown ``size / 64`` times.
    area
        Smallest share of the area that is kept around the centre; the largest is 1.
    jitter_share, brightness, contrast, saturation, hue
        How often colours change, and by how much at most; a hue of 0.5 is the full circle.
    blur_share, blur
        How often it is blurred, and the smallest and largest sigma in pixels of the view.
    turn_share, mirror_share
        How often it is turned by 90 degrees; mirrored along each axis.
    """

    size: int = 128
    area: float = 0.5
    jitter_share: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.5
    saturation: float = 0.4
    hue: float = 0.5
    blur_share: float = 0.5
    blur: tuple[float, float] = (0.1, 1.0)
    turn_share: float = 0.5
    mirror_share: float = 0.5

    def numbers(self) -> NDArray[np.float64]:
        """The settings as the kernel takes them."""
        return np.array([
            self.area, self.jitter_share, self.brightness, self.contrast, self.saturation, self.hue,
            self.blur_share, *self.blur, self.turn_share, self.mirror_share,
        ])  # fmt: skip


def paper_views(
    images: U8, mask: U8, rows: I64, settings: PaperViews, slides: Slides | None,
    *, radius: float, draw: tuple[int, int, int] = (0, 0, 0),
) -> F32:  # fmt: skip
    """Draw and render one published view of every row.

    Parameters
    ----------
    images, mask, rows, radius
        As of ``render_views``; without a contour the box is that of a disc of this radius.
    settings
        The constants.
    slides
        Where other backgrounds are taken from; None leaves everything as it is (for embedding).
    draw
        Seed, step and view, which the draws depend on, with the row; view 1 is the key.

    Returns
    -------
    ``(B, size, size, 3)`` float32, normalised as ImageNet is.

    Examples
    --------
    >>> images = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    >>> mask, row = np.zeros((1, 64, 64), dtype=np.uint8), np.array([0])
    >>> made = paper_views(images, mask, row, PaperViews(), None, radius=14.0)
    >>> made.shape, [round(float(v), 2) for v in made[0, 0, 0]]
    ((1, 128, 128, 3), [-2.12, -2.04, -1.8])
    """
    out = np.empty((len(rows), settings.size, settings.size, 3), dtype=np.float32)
    key = np.array([*draw, slides is not None], dtype=np.uint64)
    where = slides if slides is not None else Slides.of(np.zeros(len(images), dtype=np.int64))
    _paper(
        images, mask, np.ascontiguousarray(rows, dtype=np.int64), settings.numbers(), where.slide,
        where.order, where.start, key, radius, np.array(IMAGENET_MEAN), np.array(IMAGENET_STD), out,
    )  # fmt: skip
    return out


# Kernels ----------------------------------------------------------------------------------------


@kernel
def _bounds(mask: U8, radius: float) -> tuple[int, int, int, int]:
    """Bounding box of a contour, half-open; of a disc in the middle where there is none."""
    height, width = mask.shape
    y0, y1, x0, x1 = box_of(mask, 0)
    if y1 > y0:
        return y0, y1, x0, x1
    return (
        max(0, int(height / 2 - radius)), min(height, int(height / 2 + radius + 1)),
        max(0, int(width / 2 - radius)), min(width, int(width / 2 + radius + 1)),
    )  # fmt: skip


@kernel
def _pasted(
    image: U8, behind: U8, box: tuple[int, int, int, int], dy: int, dx: int, out: U8
) -> None:
    """The box of one crop on another crop, shifted and wrapped around."""
    height, width = image.shape[0], image.shape[1]
    for y in range(height):
        for x in range(width):
            inside = box[0] <= y < box[1] and box[2] <= x < box[3]
            for c in range(3):
                if inside:
                    out[y, x, c] = image[y, x, c]
                else:
                    out[y, x, c] = behind[(y + dy) % height, (x + dx) % width, c]


@kernel
def _zoomed(image: U8, share: float, out: F32) -> None:
    """The centred part of this share of the area, bilinear, from 0 to 1."""
    size = out.shape[0]
    times = size / image.shape[0]
    side = size * math.sqrt(share)
    start = (size - side) / 2
    for i in range(size):
        y = min(max(start + (i + 0.5) * side / size - 0.5, 0.0), size - 1.0)
        y0 = int(y)
        y1 = min(y0 + 1, size - 1)
        wy = y - y0
        for j in range(size):
            x = min(max(start + (j + 0.5) * side / size - 0.5, 0.0), size - 1.0)
            x0 = int(x)
            x1 = min(x0 + 1, size - 1)
            wx = x - x0
            a, b = int(y0 / times), int(y1 / times)
            e, f = int(x0 / times), int(x1 / times)
            for c in range(3):
                top = (1 - wx) * image[a, e, c] + wx * image[a, f, c]
                low = (1 - wx) * image[b, e, c] + wx * image[b, f, c]
                out[i, j, c] = ((1 - wy) * top + wy * low) / 255


@kernel
def _blend(view: F32, amount: float, kind: int) -> None:
    """Towards black (0), the mean grey (1) or each pixel's grey (2), by ``amount``."""
    size = view.shape[0]
    middle = 0.0
    if kind == 1:
        for i in range(size):
            for j in range(size):
                middle += 0.2989 * view[i, j, 0] + 0.587 * view[i, j, 1] + 0.114 * view[i, j, 2]
        middle /= size * size
    for i in range(size):
        for j in range(size):
            other = middle
            if kind == 2:
                other = 0.2989 * view[i, j, 0] + 0.587 * view[i, j, 1] + 0.114 * view[i, j, 2]
            for c in range(3):
                value = amount * view[i, j, c] + (1 - amount) * other
                view[i, j, c] = min(1.0, max(0.0, value))


@kernel
def _hue(view: F32, turn: float) -> None:
    """Turn the hue by ``turn`` of a circle (RGB to HSV and back, Smith 1978)."""
    size = view.shape[0]
    for i in range(size):
        for j in range(size):
            r, g, b = view[i, j, 0], view[i, j, 1], view[i, j, 2]
            high, low = max(r, max(g, b)), min(r, min(g, b))
            spread = high - low
            if spread <= 0:
                continue
            if high == r:
                h = (g - b) / spread
            elif high == g:
                h = 2 + (b - r) / spread
            else:
                h = 4 + (r - g) / spread
            h = (h / 6 + turn) % 1.0 * 6
            for c in range(3):
                k = (5 - 2 * c + h) % 6.0
                view[i, j, c] = high - spread * max(0.0, min(1.0, min(k, 4 - k)))


@kernel
def _soften(view: F32, sigma: float, scratch: F32) -> None:
    """Gaussian blur of seven taps along y, then x; the border is repeated."""
    size = view.shape[0]
    weight = np.empty(7)
    for k in range(7):
        weight[k] = math.exp(-0.5 * ((k - 3) / sigma) ** 2)
    weight /= weight.sum()
    for i in range(size):
        for j in range(size):
            for c in range(3):
                total = 0.0
                for k in range(7):
                    total += weight[k] * view[min(max(i + k - 3, 0), size - 1), j, c]
                scratch[i, j, c] = total
    for i in range(size):
        for j in range(size):
            for c in range(3):
                total = 0.0
                for k in range(7):
                    total += weight[k] * scratch[i, min(max(j + k - 3, 0), size - 1), c]
                view[i, j, c] = total


@kernel
def _jitter(view: F32, state: NDArray[np.uint64], numbers: NDArray[np.float64]) -> None:
    """Brightness, contrast, saturation and hue in a random order."""
    order = np.array([0, 1, 2, 3])
    for k in range(3, 0, -1):
        other = int(uniform(state, 0.0, k + 1.0))
        order[k], order[other] = order[other], order[k]
    for kind in order:
        reach = numbers[2 + kind]
        if kind == 3:
            _hue(view, uniform(state, -reach, reach))
        else:
            _blend(view, uniform(state, 1 - reach, 1 + reach), kind)


@kernel
def _paper(
    images: U8, mask: U8, rows: I64, numbers: NDArray[np.float64], slide: I64, order: I64,
    start: I64, key: NDArray[np.uint64], radius: float, mean: NDArray[np.float64],
    std: NDArray[np.float64], out: F32,
) -> None:  # fmt: skip
    """One view of every row; see ``paper_views``."""
    size = out.shape[1]
    view = np.empty((size, size, 3), dtype=np.float32)
    scratch = np.empty((size, size, 3), dtype=np.float32)
    pasted = np.empty(images.shape[1:], dtype=np.uint8)
    state = np.zeros(1, dtype=np.uint64)
    changes = key[3] != 0
    for v in range(len(rows)):
        row = rows[v]
        state[0] = mix(mix(mix(mix(key[0]) ^ key[1]) ^ key[2]) ^ np.uint64(row))
        if changes and key[2] == 1:
            first, last = start[slide[row]], start[slide[row] + 1]
            pick = order[min(first + int(uniform(state, 0.0, float(last - first))), last - 1)]
            dy = int(uniform(state, 0.0, float(images.shape[1])))
            dx = int(uniform(state, 0.0, float(images.shape[2])))
            _pasted(images[row], images[pick], _bounds(mask[row], radius), dy, dx, pasted)
        else:
            pasted[:] = images[row]
        _zoomed(pasted, uniform(state, numbers[0], 1.0) if changes else 1.0, view)
        turn = up = left = False
        if changes:
            if uniform(state, 0.0, 1.0) < numbers[1]:
                _jitter(view, state, numbers)
            if uniform(state, 0.0, 1.0) < numbers[6]:
                _soften(view, uniform(state, numbers[7], numbers[8]), scratch)
            turn = uniform(state, 0.0, 1.0) < numbers[9]
            up = uniform(state, 0.0, 1.0) < numbers[10]
            left = uniform(state, 0.0, 1.0) < numbers[10]
        for i in range(size):
            for j in range(size):
                y = size - 1 - i if up else i
                x = size - 1 - j if left else j
                if turn:
                    y, x = x, size - 1 - y
                for c in range(3):
                    out[v, i, j, c] = (view[y, x, c] - mean[c]) / std[c]
