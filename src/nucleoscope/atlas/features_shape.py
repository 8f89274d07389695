"""Shape of every nucleus in pixels: moments, perimeter, convex hull, Fourier descriptors."""

from __future__ import annotations

import math

import numpy as np

from nucleoscope.atlas.features_frame import Bytes, Floats, Int32s, Int64s
from nucleoscope.jit import kernel

#: Columns of ``shapes``, all in pixels.
SHAPE = (
    "area", "y", "x", "var_y", "var_x", "cov", "perimeter", "touching", "hull_area",
    "hull_perimeter", "feret_max", "feret_min", "radius_mean", "radius_sd",
    "lobes_2", "lobes_3", "lobes_4", "lobes_5", "lobes_6", "lobes_7",
)  # fmt: skip
LOBES = (2, 3, 4, 5, 6, 7)


def shapes(labels: Int32s, boxes: Int64s) -> Floats:
    """``(n, 20)`` shape measures, columns ``SHAPE``; NaN for an empty box.

    Area, moments and perimeter are those of scikit-image (perimeter: Benkrid, Crookes & Benkrid
    2000). The hull is that of the pixels' corners. ``lobes_k`` is the share of the outline that
    bulges out ``k`` times around: with c the Fourier coefficients of the outline as a complex
    function of its length (Granlund 1972, IEEE Trans Comput 21, 195),
    ``sqrt(|c_{1-k}|^2 + |c_{1+k}|^2) / |c_1|``; of several outlines the one around the largest
    area is taken.
    """
    out = np.full((len(boxes), len(SHAPE)), np.nan)
    if len(boxes):
        _shapes(labels, boxes, out)
    return out


@kernel
def _shapes(labels: Int32s, boxes: Int64s, out: Floats) -> None:
    """Every nucleus in a patch of its own, with a border of zeros."""
    high = max((boxes[:, 2] - boxes[:, 0]).max(), 1)
    wide = max((boxes[:, 3] - boxes[:, 1]).max(), 1)
    patch = np.zeros((high + 2, wide + 2), np.uint8)
    points = np.empty((2 * (high + 2) * (wide + 2), 2), np.float64)
    for i in range(len(boxes)):
        y0, x0, y1, x1 = boxes[i]
        if y1 <= y0:
            continue
        h, w = y1 - y0, x1 - x0
        patch[: h + 2, : w + 2] = 0
        for y in range(h):
            for x in range(w):
                if labels[y0 + y, x0 + x] == i + 1:
                    patch[y + 1, x + 1] = 1
        own = patch[: h + 2, : w + 2]
        _moments(own, y0 - 1, x0 - 1, out[i])
        _edges(own, labels, y0 - 1, x0 - 1, out[i])
        _hull(own, points, out[i])
        n = _outline(own, points)
        _fourier(points[:n], out[i, 1] - (y0 - 1), out[i, 2] - (x0 - 1), out[i])


@kernel
def _moments(patch: Bytes, top: int, left: int, out: Floats) -> None:
    """Area, centroid and second central moments divided by the area."""
    n = sy = sx = syy = sxx = sxy = 0
    for y in range(patch.shape[0]):
        for x in range(patch.shape[1]):
            if patch[y, x]:
                n, sy, sx = n + 1, sy + y, sx + x
                syy, sxx, sxy = syy + y * y, sxx + x * x, sxy + x * y
    cy, cx = sy / n, sx / n
    out[0], out[1], out[2] = n, top + cy, left + cx
    out[3], out[4], out[5] = syy / n - cy * cy, sxx / n - cx * cx, sxy / n - cy * cx


@kernel
def _edges(patch: Bytes, labels: Int32s, top: int, left: int, out: Floats) -> None:
    """Perimeter, and the share of the edge pixels that touch another nucleus; marks them 2."""
    h, w = patch.shape
    n = touching = 0
    for y in range(1, h - 1):
        for x in range(1, w - 1):
            if not patch[y, x]:
                continue
            is_edge = is_touching = False
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                if not patch[y + dy, x + dx]:
                    is_edge = True
                    yy, xx = top + y + dy, left + x + dx
                    if 0 <= yy < labels.shape[0] and 0 <= xx < labels.shape[1]:
                        is_touching = is_touching or labels[yy, xx] > 0
            if is_edge:
                patch[y, x] = 2
                n, touching = n + 1, touching + is_touching
    perimeter = 0.0
    for y in range(1, h - 1):
        for x in range(1, w - 1):
            if patch[y, x] != 2:
                continue
            code = 0
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if patch[y + dy, x + dx] == 2:
                        code += 1 if dy == dx == 0 else (10 if dy * dx else 2)
            if code in (5, 7, 15, 17, 25, 27):
                perimeter += 1.0
            elif code in (21, 33):
                perimeter += math.sqrt(2.0)
            elif code in (13, 23):
                perimeter += (1.0 + math.sqrt(2.0)) / 2
    out[6], out[7] = perimeter, touching / n


@kernel
def _hull(patch: Bytes, points: Floats, out: Floats) -> None:
    """Convex hull of the pixels' corners: area, perimeter, largest and smallest width."""
    h, w = patch.shape
    n = 0
    for side in (1, -1):  # down along the left, then up along the right
        first = n
        for row in range(1, h):
            y = row if side == 1 else h - row
            edge = -1
            for near in (y - 1, y):
                for column in range(w):
                    x = column if side == 1 else w - 1 - column
                    if patch[near, x]:
                        corner = x if side == 1 else x + 1
                        if edge < 0 or side * corner < side * edge:
                            edge = corner
                        break
            if edge < 0:
                continue
            while n - first >= 2 and _turn(points[n - 2], points[n - 1], y, edge) >= 0:
                n -= 1
            points[n, 0], points[n, 1] = y, edge
            n += 1
    area = length = widest = 0.0
    narrowest = np.inf
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        area += points[i, 1] * points[j, 0] - points[j, 1] * points[i, 0]
        dy, dx = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1]
        edge_length = math.sqrt(dy * dy + dx * dx)
        length += edge_length
        width = 0.0
        for k in range(n):
            ey, ex = points[k, 0] - points[i, 0], points[k, 1] - points[i, 1]
            widest = max(widest, ey * ey + ex * ex)
            if edge_length > 0:
                width = max(width, abs(ey * dx - ex * dy) / edge_length)
        if edge_length > 0:
            narrowest = min(narrowest, width)
    out[8], out[9] = abs(area) / 2, length
    out[10], out[11] = math.sqrt(widest), narrowest


@kernel
def _turn(a: Floats, b: Floats, y: float, x: float) -> float:
    """Negative where ``a, b, (y, x)`` bends as a hull in our order does."""
    return float((b[1] - a[1]) * (y - a[0]) - (b[0] - a[0]) * (x - a[1]))


@kernel
def _outline(patch: Bytes, points: Floats) -> int:
    """Midpoints of the pixel edges around the largest area, clockwise on screen; their number."""
    seen = np.zeros(patch.shape, np.uint8)
    best_y, best_x, largest = 0, 0, -1.0
    for y in range(1, patch.shape[0] - 1):
        for x in range(1, patch.shape[1] - 1):
            if patch[y, x] and not patch[y - 1, x] and not seen[y, x]:
                n = _walk(patch, y, x, seen, points)
                area = 0.0
                for i in range(n):
                    j = i + 1 if i + 1 < n else 0
                    area += points[i, 1] * points[j, 0] - points[j, 1] * points[i, 0]
                if area > largest:
                    best_y, best_x, largest = y, x, area
    return _walk(patch, best_y, best_x, seen, points)


@kernel
def _walk(patch: Bytes, row: int, column: int, seen: Bytes, points: Floats) -> int:
    """Walk along pixel edges with the nucleus on the right, from the top of a pixel."""
    y, x, dy, dx = row, column, 0, 1
    n = 0
    while True:
        points[n, 0], points[n, 1] = y + dy / 2 - 0.5, x + dx / 2 - 0.5
        n += 1
        if dx == 1:
            seen[y, x] = 1
        y, x = y + dy, x + dx
        right = patch[y + (dy + dx - 1) // 2, x + (dx - dy - 1) // 2]
        left = patch[y + (dy - dx - 1) // 2, x + (dx + dy - 1) // 2]
        if not right:
            dy, dx = dx, -dy
        elif left:
            dy, dx = -dx, dy
        if y == row and x == column and dx == 1:
            return n


@kernel
def _fourier(points: Floats, cy: float, cx: float, out: Floats) -> None:
    """Mean and spread of the radius, and the lobes."""
    n = len(points)
    length = 0.0
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        length += math.hypot(points[j, 0] - points[i, 0], points[j, 1] - points[i, 1])
    waves = np.zeros(17, np.complex128)  # k = -8 to 8
    at = mean = square = 0.0
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        ds = math.hypot(points[j, 0] - points[i, 0], points[j, 1] - points[i, 1])
        y, x = (points[i, 0] + points[j, 0]) / 2 - cy, (points[i, 1] + points[j, 1]) / 2 - cx
        mean += math.hypot(y, x) * ds
        square += (y * y + x * x) * ds
        phase = -2 * math.pi * (at + ds / 2) / length
        turn = complex(math.cos(phase), math.sin(phase))
        forward, backward = complex(x, y) * ds, complex(x, y) * ds
        for k in range(1, 9):
            forward, backward = forward * turn, backward * turn.conjugate()
            waves[8 + k] += forward
            waves[8 - k] += backward
        at += ds
    mean /= length
    out[12], out[13] = mean, math.sqrt(max(square / length - mean * mean, 0.0))
    for k in range(2, 8):
        energy = abs(waves[9 - k]) ** 2 + abs(waves[9 + k]) ** 2
        out[12 + k] = math.sqrt(energy) / max(abs(waves[9]), 1e-12)
