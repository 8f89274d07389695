"""Stain of every nucleus and its ring, and the texture of its chromatin, in optical density."""

from __future__ import annotations

import math

import numpy as np

from nucleoscope.atlas.features_frame import (
    LEVEL_OD,
    N_LEVELS,
    Bytes,
    Float32s,
    Floats,
    Frame,
    Int32s,
    Int64s,
    depth_of,
)
from nucleoscope.jit import kernel

#: Columns of ``stains``.
STAIN = (
    "count", "h_mean", "h_sd", "h_skewness", "h_kurtosis", "h_min", "h_max",
    "h_p10", "h_p25", "h_p50", "h_p75", "h_p90", "h_mad", "h_energy", "h_entropy",
    "e_mean", "e_sd", "e_p10", "e_p50", "e_p90", "red", "green", "blue",
)  # fmt: skip
#: Columns of ``textures``.
TEXTURE = (
    "asm", "contrast", "correlation", "homogeneity", "entropy", "sum_entropy",
    "difference_entropy", "information_1", "information_2",
    "gradient_mean", "gradient_sd", "gradient_skewness", "gradient_kurtosis", "gradient_energy",
    "gradient_entropy", "edge_mean", "edge_sd",
    "clumps", "clump_share", "largest_clump", "rim_contrast", "depth",
)  # fmt: skip
_BINS = 256
_BIN_OD = 0.01
_GRADIENT_BINS = 64
_GRADIENT_BIN = 0.02  # OD per pixel


def stains(frame: Frame, owner: Int32s, reach: int) -> Floats:
    """``(n, 23)`` statistics, columns ``STAIN``, over the pixels that ``owner`` gives a nucleus.

    ``reach`` widens the boxes for a ring. Quantiles are read from bins of 0.01 OD, exact to that.
    NaN where a nucleus owns no pixel.
    """
    out = np.full((len(frame.boxes), len(STAIN)), np.nan)
    _stain_rows(
        owner, frame.boxes, reach, frame.height, frame.hematoxylin, frame.eosin, frame.image,
        frame.density, out,
    )  # fmt: skip
    return out


def textures(frame: Frame, stain: Floats, rim_px: float) -> Floats:
    """``(n, 22)`` texture measures of hematoxylin, columns ``TEXTURE``.

    Haralick's measures (Haralick et al. 1973, IEEE Trans SMC 3, 610) of one symmetric
    co-occurrence matrix of four directions at one pixel, only pairs inside the nucleus, levels
    of 0.05 OD. The gradient is a central difference. A clump is an 8-connected set of at least
    four pixels darker than mean + 1 sd. ``rim_contrast`` is hematoxylin within ``rim_px`` of the
    edge minus the rest. NaN for an empty nucleus, and for co-occurrence without a pair.
    """
    out = np.full((len(frame.boxes), len(TEXTURE)), np.nan)
    if len(out):
        depth = depth_of(frame.labels, frame.height)
        _texture_rows(
            frame.labels, frame.boxes, frame.height, frame.hematoxylin, depth,
            stain[:, 1:3], 3 * rim_px, out,
        )  # fmt: skip
    return out


@kernel
def _stain_rows(
    owner: Int32s, boxes: Int64s, reach: int, height: int, hematoxylin: Float32s, eosin: Float32s,
    image: Bytes, density: Float32s, out: Floats,
) -> None:  # fmt: skip
    """Sums and histograms of one nucleus after the other."""
    bins = np.empty((2, _BINS), np.int64)
    levels = np.empty(N_LEVELS, np.int64)
    for i in range(len(boxes)):
        if boxes[i, 2] <= boxes[i, 0]:
            continue
        block = boxes[i, 0] // height * height
        y0, y1 = max(boxes[i, 0] - reach, block), min(boxes[i, 2] + reach, block + height)
        x0, x1 = max(boxes[i, 1] - reach, 0), min(boxes[i, 3] + reach, owner.shape[1])
        bins[:] = 0
        levels[:] = 0
        n = 0
        low, high, elow, ehigh = np.inf, -np.inf, np.inf, -np.inf
        s1 = s2 = s3 = s4 = e1 = e2 = red = green = blue = 0.0
        for y in range(y0, y1):
            for x in range(x0, x1):
                if owner[y, x] != i + 1:
                    continue
                n += 1
                h, e = np.float64(hematoxylin[y, x]), np.float64(eosin[y, x])
                s1, s2, s3, s4 = s1 + h, s2 + h * h, s3 + h**3, s4 + h**4
                e1, e2 = e1 + e, e2 + e * e
                low, high = min(low, h), max(high, h)
                elow, ehigh = min(elow, e), max(ehigh, e)
                bins[0, min(int(h / _BIN_OD), _BINS - 1)] += 1
                bins[1, min(int(e / _BIN_OD), _BINS - 1)] += 1
                levels[min(int(h / LEVEL_OD), N_LEVELS - 1)] += 1
                red += density[image[y, x, 0]]
                green += density[image[y, x, 1]]
                blue += density[image[y, x, 2]]
        if n == 0:
            continue
        row = out[i]
        row[0] = n
        _spread(n, s1, s2, s3, s4, row[1:5])
        row[5], row[6] = low, high
        for k, share in enumerate((0.1, 0.25, 0.5, 0.75, 0.9)):
            row[7 + k] = min(max(_quantile(bins[0], n, share), low), high)
        row[12] = _deviation(bins[0], n, row[9])
        row[13], row[14] = _order(levels, n)
        mean = e1 / n
        row[15], row[16] = mean, math.sqrt(max(e2 / n - mean * mean, 0.0))
        for k, share in enumerate((0.1, 0.5, 0.9)):
            row[17 + k] = min(max(_quantile(bins[1], n, share), elow), ehigh)
        row[20], row[21], row[22] = red / n, green / n, blue / n


@kernel
def _spread(n: int, s1: float, s2: float, s3: float, s4: float, out: Floats) -> None:
    """Mean, sd, skewness and excess kurtosis from raw sums; the last two 0 without spread."""
    m, q2, q3, q4 = s1 / n, s2 / n, s3 / n, s4 / n
    variance = max(q2 - m * m, 0.0)
    out[0], out[1], out[2], out[3] = m, math.sqrt(variance), 0.0, 0.0
    if variance > 1e-10:
        third = q3 - 3 * m * q2 + 2 * m**3
        fourth = q4 - 4 * m * q3 + 6 * m * m * q2 - 3 * m**4
        out[2], out[3] = third / variance**1.5, fourth / variance**2 - 3


@kernel
def _quantile(bins: Int64s, n: int, share: float) -> float:
    """A quantile from a histogram, linear within its bin."""
    wanted, before = share * n, 0
    for k in range(len(bins)):
        if before + bins[k] >= wanted and bins[k] > 0:
            return float((k + (wanted - before) / bins[k]) * _BIN_OD)
        before += bins[k]
    return len(bins) * _BIN_OD


@kernel
def _deviation(bins: Int64s, n: int, centre: float) -> float:
    """Median absolute deviation from ``centre``, from a histogram."""
    away = np.zeros(len(bins), np.int64)
    for k in range(len(bins)):
        if bins[k]:
            away[int(abs((k + 0.5) * _BIN_OD - centre) / _BIN_OD)] += bins[k]
    return _quantile(away, n, 0.5)


@kernel
def _order(counts: Int64s, n: int) -> tuple[float, float]:
    """Energy and entropy (bits) of a histogram."""
    energy = entropy = 0.0
    for count in counts:
        if count:
            p = count / n
            energy += p * p
            entropy -= p * math.log2(p)
    return energy, entropy


@kernel
def _texture_rows(
    labels: Int32s, boxes: Int64s, height: int, hematoxylin: Float32s, depth: Int32s,
    stain: Floats, rim: float, out: Floats,
) -> None:  # fmt: skip
    """Texture of one nucleus after the other."""
    pairs = np.empty((N_LEVELS, N_LEVELS), np.int64)
    size = np.int64(1)
    for i in range(len(boxes)):
        size = max(size, (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1]))
    marks = np.empty(size, np.uint8)
    stack = np.empty(size, np.int64)
    for i in range(len(boxes)):
        if boxes[i, 2] <= boxes[i, 0]:
            continue
        row = out[i]
        pairs[:] = 0
        n_pairs = _count_pairs(labels, boxes[i], i + 1, hematoxylin, pairs)
        if n_pairs > 0:
            _haralick(pairs, n_pairs, row)
        _gradient(labels, boxes[i], i + 1, hematoxylin, depth, height, row)
        limit = stain[i, 0] + stain[i, 1]
        _clumps(labels, boxes[i], i + 1, hematoxylin, limit, marks, stack, row)
        _rim(labels, boxes[i], i + 1, hematoxylin, depth, rim, row)


@kernel
def _count_pairs(
    labels: Int32s, box: Int64s, own: int, hematoxylin: Float32s, pairs: Int64s
) -> int:
    """Co-occurrence of levels of neighbouring pixels of a nucleus, both ways round."""
    n = 0
    for y in range(box[0], box[2]):
        for x in range(box[1], box[3]):
            if labels[y, x] != own:
                continue
            a = min(int(hematoxylin[y, x] / LEVEL_OD), N_LEVELS - 1)
            for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
                yy, xx = y + dy, x + dx
                if yy < box[2] and box[1] <= xx < box[3] and labels[yy, xx] == own:
                    b = min(int(hematoxylin[yy, xx] / LEVEL_OD), N_LEVELS - 1)
                    pairs[a, b] += 1
                    pairs[b, a] += 1
                    n += 2
    return n


@kernel
def _haralick(pairs: Int64s, n: int, out: Floats) -> None:
    """Nine of Haralick's measures of a symmetric matrix of counts."""
    side = np.zeros(N_LEVELS, np.float64)
    sums = np.zeros(2 * N_LEVELS, np.float64)
    differences = np.zeros(N_LEVELS, np.float64)
    asm = contrast = homogeneity = entropy = mean = square = product = 0.0
    for a in range(N_LEVELS):
        for b in range(N_LEVELS):
            if pairs[a, b] == 0:
                continue
            p = pairs[a, b] / n
            side[a] += p
            sums[a + b] += p
            differences[abs(a - b)] += p
            asm += p * p
            contrast += p * (a - b) ** 2
            homogeneity += p / (1 + (a - b) ** 2)
            entropy -= p * math.log2(p)
            mean += p * a
            square += p * a * a
            product += p * a * b
    variance = square - mean * mean
    out[0], out[1], out[3], out[4] = asm, contrast, homogeneity, entropy
    out[2] = (product - mean * mean) / variance if variance > 1e-12 else 1.0
    out[5], out[6], own = _entropy(sums), _entropy(differences), _entropy(side)
    out[7] = (entropy - 2 * own) / own if own > 0 else 0.0
    out[8] = math.sqrt(max(1 - math.exp(-2 * math.log(2.0) * (2 * own - entropy)), 0.0))


@kernel
def _entropy(shares: Floats) -> float:
    """Entropy in bits."""
    total = 0.0
    for p in shares:
        if p > 0:
            total -= p * math.log2(p)
    return total


@kernel
def _gradient(
    labels: Int32s, box: Int64s, own: int, hematoxylin: Float32s, depth: Int32s, height: int,
    out: Floats,
) -> None:  # fmt: skip
    """Size of the gradient in OD per pixel, over the nucleus and at its edge (depth one pixel)."""
    bins = np.zeros(_GRADIENT_BINS, np.int64)
    n = n_edge = 0
    s1 = s2 = s3 = s4 = e1 = e2 = 0.0
    for y in range(box[0], box[2]):
        up = y if y % height == 0 else y - 1
        down = y if y % height == height - 1 else y + 1
        for x in range(box[1], box[3]):
            if labels[y, x] != own:
                continue
            left, right = max(x - 1, 0), min(x + 1, labels.shape[1] - 1)
            dy = (np.float64(hematoxylin[down, x]) - hematoxylin[up, x]) / max(down - up, 1)
            dx = (np.float64(hematoxylin[y, right]) - hematoxylin[y, left]) / max(right - left, 1)
            g = math.sqrt(dy * dy + dx * dx)
            n += 1
            s1, s2, s3, s4 = s1 + g, s2 + g * g, s3 + g**3, s4 + g**4
            bins[min(int(g / _GRADIENT_BIN), _GRADIENT_BINS - 1)] += 1
            if depth[y, x] <= 3:
                n_edge, e1, e2 = n_edge + 1, e1 + g, e2 + g * g
    _spread(n, s1, s2, s3, s4, out[9:13])
    out[13], out[14] = _order(bins, n)
    out[15] = e1 / n_edge
    out[16] = math.sqrt(max(e2 / n_edge - out[15] * out[15], 0.0))


@kernel
def _clumps(
    labels: Int32s, box: Int64s, own: int, hematoxylin: Float32s, limit: float,
    marks: Bytes, stack: Int64s, out: Floats,
) -> None:  # fmt: skip
    """Dark clumps: how many, their share of the area, and the pixels of the largest."""
    h, w = box[2] - box[0], box[3] - box[1]
    n = dark = 0
    for y in range(h):
        for x in range(w):
            inside = labels[box[0] + y, box[1] + x] == own
            n += inside
            is_dark = inside and hematoxylin[box[0] + y, box[1] + x] > limit
            marks[y * w + x] = is_dark
            dark += is_dark
    clumps = largest = 0
    for start in range(h * w):
        if not marks[start]:
            continue
        marks[start] = 0
        stack[0], top, size = start, 1, 0
        while top:
            top -= 1
            size += 1
            y, x = stack[top] // w, stack[top] % w
            for yy in range(max(y - 1, 0), min(y + 2, h)):
                for xx in range(max(x - 1, 0), min(x + 2, w)):
                    if marks[yy * w + xx]:
                        marks[yy * w + xx] = 0
                        stack[top] = yy * w + xx
                        top += 1
        clumps += size >= 4
        largest = max(largest, size)
    out[17], out[18], out[19] = clumps, dark / n, largest


@kernel
def _rim(
    labels: Int32s, box: Int64s, own: int, hematoxylin: Float32s, depth: Int32s, rim: float,
    out: Floats,
) -> None:  # fmt: skip
    """Hematoxylin of the rim minus the core (0 without a core), and the largest depth in pixels."""
    n_rim = n_core = deepest = 0
    s_rim = s_core = 0.0
    for y in range(box[0], box[2]):
        for x in range(box[1], box[3]):
            if labels[y, x] != own:
                continue
            deepest = max(deepest, depth[y, x])
            if depth[y, x] <= rim:
                n_rim, s_rim = n_rim + 1, s_rim + hematoxylin[y, x]
            else:
                n_core, s_core = n_core + 1, s_core + hematoxylin[y, x]
    out[20] = s_rim / n_rim - s_core / n_core if n_rim and n_core else 0.0
    out[21] = deepest / 3 - 0.5
