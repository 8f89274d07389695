"""The loops over pixels behind ``views``: drawing, sampling, backgrounds, stain and blur.

A view is made row by row. A crop is turned into floats once, four to a pixel, so that a point is
read as vectors of four, and where its border is mirrored is looked up, so that no pixel is asked
whether it lies inside.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
#: A crop to sample: its pixels as floats, where rows and columns lie among them, its middle along y
#: and x, and how far beyond its border is looked.
Crop = tuple[F32, I64, I64, np.float32, np.float32, int]
#: Room for a row of a view: points, points behind, intensities, the nucleus's own, its share.
Work = tuple[F32, F32, F32, F32, F32]

#: Intensities are looked up in quarters of a grey level.
_FINE = 4

# Columns of a row of parameters.
AFFINE, COLOUR, OFFSET, SIGMA, HOLE, BACK, BACK_AFFINE = 0, 6, 15, 18, 19, 20, 21
N_PARAMETERS = 27
#: In the column of the background: its own, or plain grey; else the row of another nucleus.
OWN, GREY = -1, -2


def _density_table() -> F32:
    """Optical density ``-ln((I + 1) / 256)`` for intensities 0 to 255 in quarters."""
    level = np.arange(255 * _FINE + 1) / _FINE
    return (-np.log((level + 1) / 256)).astype(np.float32)


DENSITY = _density_table()


@kernel
def mix(value: np.uint64) -> np.uint64:
    """One step of splitmix64 (Steele, Lea, Flood 2014)."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def uniform(state: NDArray[np.uint64], low: float, high: float) -> float:
    """The next number of a stream, in [low, high)."""
    state[0] = state[0] + np.uint64(0x9E3779B97F4A7C15)
    return low + (high - low) * (float(mix(state[0]) >> np.uint64(11)) / 9007199254740992.0)


@kernel
def _turn(state: NDArray[np.uint64], zoom: float, out: F32) -> None:
    """A random rotation and mirror times ``zoom``, row by row into ``out[0:4]``."""
    angle = uniform(state, 0.0, 2 * math.pi)
    mirror = -1.0 if uniform(state, 0.0, 1.0) < 0.5 else 1.0
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
        angle = uniform(state, -numbers[7], numbers[7])
        cos, sin = math.cos(angle), math.sin(angle)
    light = uniform(state, -numbers[8], numbers[8])
    gain = np.empty(3)
    shift = np.empty(3)
    turned = stains.copy()
    for c in range(3):
        gain[c] = uniform(state, 1 - numbers[5], 1 + numbers[5])
        shift[c] = uniform(state, -numbers[6], numbers[6]) if c < 2 else 0.0
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
def draw(
    numbers: NDArray[np.float64], rows: I64, slide: I64, order: I64, start: I64,
    key: NDArray[np.uint64], unmix: NDArray[np.float64], stains: NDArray[np.float64],
    mean: NDArray[np.float64], std: NDArray[np.float64], out: F32,
) -> None:  # fmt: skip
    """Fill ``out`` with the parameters of one view of every row."""
    state = np.zeros(1, dtype=np.uint64)
    zoom = numbers[1] / numbers[0]
    for v in range(len(rows)):
        row = rows[v]
        mixed = mix(mix(mix(key[0]) ^ key[1]) ^ key[2])
        state[0] = mix(mixed ^ np.uint64(row))
        drawn = zoom * uniform(state, 1 - numbers[3], 1 + numbers[3])
        if numbers[2] > 0:
            _turn(state, drawn, out[v, AFFINE : AFFINE + 4])
        else:
            out[v, AFFINE], out[v, AFFINE + 3] = drawn, drawn
        out[v, AFFINE + 4] = uniform(state, -numbers[4], numbers[4])
        out[v, AFFINE + 5] = uniform(state, -numbers[4], numbers[4])
        _colour(state, numbers, unmix, stains, mean, std, out[v, COLOUR : COLOUR + 12])
        if uniform(state, 0.0, 1.0) < numbers[10]:
            out[v, SIGMA] = uniform(state, 0.0, numbers[9])
        out[v, HOLE] = numbers[13]
        out[v, BACK] = OWN
        if key[2] == 1:
            choice = uniform(state, 0.0, 1.0)
            first, last = start[slide[row]], start[slide[row] + 1]
            pick = first + int(uniform(state, 0.0, float(last - first)))
            _turn(state, 1.0, out[v, BACK_AFFINE : BACK_AFFINE + 4])
            # Shifted, so that the other nucleus stands beside ours and not behind it.
            angle = uniform(state, 0.0, 2 * math.pi)
            reach = uniform(state, 0.25, 0.45) * numbers[1]
            out[v, BACK_AFFINE + 4] = reach * math.sin(angle)
            out[v, BACK_AFFINE + 5] = reach * math.cos(angle)
            if choice < numbers[11]:
                out[v, BACK] = order[min(pick, last - 1)]
            elif choice < numbers[11] + numbers[12]:
                out[v, BACK] = GREY


@kernel
def _mirrored(index: int, n: int) -> int:
    """An index beyond the crop, mirrored back into it."""
    if 0 <= index < n:
        return index
    period = 2 * n
    folded = index % period
    return folded if folded < n else period - 1 - folded


@kernel
def _reach(parameters: F32, size: int) -> int:
    """How far from the middle of a crop any of the views looks, in pixels, and one more."""
    middle, most = (size - 1) / 2, 0.0
    for v in range(len(parameters)):
        p = parameters[v]
        far = max(abs(p[0]) + abs(p[1]), abs(p[2]) + abs(p[3])) * middle
        far += max(abs(p[4]), abs(p[5]))
        turned = max(abs(p[21]) + abs(p[22]), abs(p[23]) + abs(p[24])) * far
        most = max(most, far, turned + max(abs(p[25]), abs(p[26])))
    return math.ceil(most) + 1


@kernel
def _folds(n: int, reach: int, step: int) -> I64:
    """Where in memory pixels ``-reach`` to ``n + reach`` lie, mirrored back into the crop."""
    table = np.empty(n + 2 * reach + 1, dtype=np.int64)
    for k in range(len(table)):
        table[k] = step * _mirrored(k - reach, n)
    return table


@kernel
def _floats(image: U8, out: F32) -> None:
    """A crop as floats, four to a pixel: a point is then read as vectors of four."""
    width = image.shape[1]
    for y in range(image.shape[0]):
        for x in range(width):
            at = 4 * (y * width + x)
            for c in range(3):
                out[at + c] = np.float32(image[y, x, c])


@kernel
def _sample(image: Crop, at: F32, first: int, last: int, out: F32) -> None:
    """Bilinear intensities at points ``(2, n)`` relative to the middle, from first to before last.

    Pixel centres lie at whole numbers. Point ``j`` goes to ``out[4 * j : 4 * j + 4]``.
    """
    pixels, fold_y, fold_x, mid_y, mid_x, reach = image
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for j in range(first, last):
        y, x = mid_y + at[0, j], mid_x + at[1, j]
        top, left = math.floor(y), math.floor(x)
        dy, dx = y - np.float32(top), x - np.float32(left)
        w11 = dy * dx
        w10, w01 = dy - w11, dx - w11
        w00 = np.float32(1) - dy - w01
        y0, x0 = fold_y[np.uint64(top + reach)], fold_x[np.uint64(left + reach)]
        y1, x1 = fold_y[np.uint64(top + reach + 1)], fold_x[np.uint64(left + reach + 1)]
        a, b = np.uint64(y0 + x0), np.uint64(y0 + x1)
        c, d = np.uint64(y1 + x0), np.uint64(y1 + x1)
        # All four are read before any is written: the compiler makes vectors of them.
        r = w00 * pixels[a] + w01 * pixels[b] + w10 * pixels[c] + w11 * pixels[d]
        a1, b1, c1, d1 = a + one, b + one, c + one, d + one
        g = w00 * pixels[a1] + w01 * pixels[b1] + w10 * pixels[c1] + w11 * pixels[d1]
        a2, b2, c2, d2 = a + two, b + two, c + two, d + two
        u = w00 * pixels[a2] + w01 * pixels[b2] + w10 * pixels[c2] + w11 * pixels[d2]
        a3, b3, c3, d3 = a + three, b + three, c + three, d + three
        v = w00 * pixels[a3] + w01 * pixels[b3] + w10 * pixels[c3] + w11 * pixels[d3]
        k = np.uint64(4 * j)
        out[k], out[k + one], out[k + two], out[k + three] = r, g, u, v


@kernel
def box_of(mask: U8, reach: int) -> tuple[int, int, int, int]:
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
def edges_of(masks: U8, edge: F32, out: U8) -> None:
    """Soft edges of every nucleus; see ``soft_edges``."""
    height, width = masks.shape[1], masks.shape[2]
    distance = np.empty((height, width), dtype=np.float32)
    far = edge[0] + edge[1]
    for v in range(len(masks)):
        y0, y1, x0, x1 = box_of(masks[v], math.ceil(far))
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
    """Gaussian blur of five taps along y, then x; the border is repeated.

    Rows are walked as runs of ``3 * size`` numbers, which compilers turn into vector instructions.
    """
    size = view.shape[0]
    n = 3 * size
    w1, w2 = math.exp(-0.5 / sigma**2), math.exp(-2.0 / sigma**2)
    total = 1 + 2 * w1 + 2 * w2
    a, b, c = np.float32(1 / total), np.float32(w1 / total), np.float32(w2 / total)
    flat, half = view.reshape(size, n), scratch.reshape(size, n)
    for y in range(size):
        here, up, up2 = flat[y], flat[max(y - 1, 0)], flat[max(y - 2, 0)]
        down, down2 = flat[min(y + 1, size - 1)], flat[min(y + 2, size - 1)]
        for j in range(n):
            half[y, j] = a * here[j] + b * (up[j] + down[j]) + c * (up2[j] + down2[j])
    for y in range(size):
        row, out = half[y], flat[y]
        for j in range(6, n - 6):
            out[j] = a * row[j] + b * (row[j - 3] + row[j + 3]) + c * (row[j - 6] + row[j + 6])
        for j in range(n):
            if 6 <= j < n - 6:
                continue
            k, last = j % 3, n - 3 + j % 3
            near = row[max(j - 3, k)] + row[min(j + 3, last)]
            out[j] = a * row[j] + b * near + c * (row[max(j - 6, k)] + row[min(j + 6, last)])


@kernel
def _coloured(row: F32, density: F32, colour: F32, out: F32) -> None:
    """A row of intensities, four to a pixel, to normalised, jittered optical density."""
    quarter, half = np.float32(_FINE), np.float32(0.5)
    for k in range(len(row)):
        row[k] = density[np.uint32(np.int32(row[k] * quarter + half))]
    for j in range(len(out)):
        r, g, b = row[4 * j], row[4 * j + 1], row[4 * j + 2]
        out[j, 0] = colour[0] * r + colour[1] * g + colour[2] * b + colour[9]
        out[j, 1] = colour[3] * r + colour[4] * g + colour[5] * b + colour[10]
        out[j, 2] = colour[6] * r + colour[7] * g + colour[8] * b + colour[11]


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
def _points(p: F32, i: int, out: F32) -> None:
    """Where row ``i`` of a view looks, relative to the middle of the crop."""
    size = out.shape[1]
    middle = np.float32((size - 1) / 2)
    dy = np.float32(i) - middle
    for j in range(size):
        dx = np.float32(j) - middle
        out[0, j] = p[0] * dy + p[1] * dx + p[4]
        out[1, j] = p[2] * dy + p[3] * dx + p[5]


@kernel
def _one_background(image: Crop, p: F32, density: F32, work: Work, out: F32) -> None:
    """A view on the nucleus's own background."""
    size = out.shape[0]
    at, row = work[0], work[2]
    hole = p[HOLE] * p[HOLE]
    for i in range(size):
        _points(p, i, at)
        _sample(image, at, 0, size, row)
        _coloured(row, density, p[COLOUR : COLOUR + 12], out[i])
        if hole > 0:
            for j in range(size):
                if at[0, j] * at[0, j] + at[1, j] * at[1, j] < hole:
                    out[i, j, :] = np.float32(0)


@kernel
def _two_backgrounds(
    image: Crop, behind: Crop, share: U8, p: F32, grey: F32, density: F32, work: Work, out: F32
) -> None:
    """A view of the nucleus on another crop, or on grey."""
    size, height, width = out.shape[0], share.shape[0], share.shape[1]
    mid_y, mid_x = np.float32((height - 1) / 2), np.float32((width - 1) / 2)
    is_grey = p[BACK] == GREY
    half, per_level = np.float32(0.5), np.float32(1 / 255)
    at, there, row, own, keep = work
    for i in range(size):
        _points(p, i, at)
        for j in range(size):
            there[0, j] = p[21] * at[0, j] + p[22] * at[1, j] + p[25]
            there[1, j] = p[23] * at[0, j] + p[24] * at[1, j] + p[26]
        first, last = size, 0
        for j in range(size):
            # Beyond the crop there is none of the nucleus.
            level = np.uint8(0)
            y, x = math.floor(mid_y + at[0, j] + half), math.floor(mid_x + at[1, j] + half)
            if 0 <= y < height and 0 <= x < width:
                level = share[np.uint64(y), np.uint64(x)]
            keep[j] = np.float32(level) * per_level
            if level > 0:
                first, last = min(first, j), j + 1
        if is_grey:
            for j in range(4 * size):
                row[j] = grey[j % 4]
        else:
            _sample(behind, there, 0, size, row)
        _sample(image, at, first, last, own)
        for j in range(first, last):
            for k in range(4 * j, 4 * j + 4):
                if keep[j] < 1 or is_grey:
                    row[k] += keep[j] * (own[k] - row[k])
                else:
                    row[k] = own[k]
        _coloured(row, density, p[COLOUR : COLOUR + 12], out[i])


@kernel
def outline(shares: U8, rows: I64, parameters: F32, out: F32) -> None:
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
def render(images: U8, edges: U8, rows: I64, parameters: F32, density: F32, out: F32) -> None:
    """Every view, one after the other; see ``render_views``."""
    size, height, width = out.shape[1], images.shape[1], images.shape[2]
    scratch = np.empty((size, size, 3), dtype=np.float32)
    grey = np.zeros(4, dtype=np.float32)
    work = (
        np.empty((2, size), dtype=np.float32), np.empty((2, size), dtype=np.float32),
        np.empty(4 * size, dtype=np.float32), np.empty(4 * size, dtype=np.float32),
        np.empty(size, dtype=np.float32),
    )  # fmt: skip
    reach = _reach(parameters, size)
    folds = _folds(height, reach, 4 * width), _folds(width, reach, 4)
    middle = np.float32((height - 1) / 2), np.float32((width - 1) / 2)
    mine = np.zeros(4 * height * width, dtype=np.float32)
    other = np.zeros(4 * height * width, dtype=np.float32)
    for v in range(len(rows)):
        p = parameters[v]
        back = int(p[BACK])
        _floats(images[rows[v]], mine)
        image = mine, folds[0], folds[1], middle[0], middle[1], reach
        if back == OWN:
            _one_background(image, p, density, work, out[v])
        else:
            if back == GREY:
                _mean_of(images[rows[v]], grey)
            else:
                _floats(images[back], other)
            behind = other, folds[0], folds[1], middle[0], middle[1], reach
            _two_backgrounds(image, behind, edges[rows[v]], p, grey, density, work, out[v])
        if p[SIGMA] > 0.05:
            _blur(out[v], p[SIGMA], scratch)
