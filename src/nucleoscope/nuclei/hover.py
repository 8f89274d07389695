"""From a network's maps to instances (HoVer-Net), and from instances to its training targets.

Graham et al. 2019 (Medical Image Analysis 58:101563), section 3.2: the offsets inside a nucleus
fall from +1 to -1 across every border between two nuclei, so their derivative marks the border;
what remains of the foreground between the borders are markers, and a watershed grows them back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.maps import HoverMaps
from nucleoscope.errors import CallError, InputError
from nucleoscope.jit import kernel
from nucleoscope.nuclei.runs import Runs, find_runs

Float32s = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

#: Lowest and highest derivative of the H map, then of the V map.
Slopes = tuple[tuple[float, float], tuple[float, float]]

REACH = 10  # of the 21-tap derivative, in pixels


def _taps(smoothings: int, differences: int) -> Float32s:
    """Weights of taps 0..10 of ``[1, 1]`` and ``[-1, 1]`` convolved so often; sum of |w| is 1."""
    taps = np.ones(1)
    for _ in range(smoothings):
        taps = np.convolve(taps, [1.0, 1.0])
    for _ in range(differences):
        taps = np.convolve(taps, [-1.0, 1.0])
    return (taps[REACH:] / np.abs(taps).sum()).astype(np.float32)


# The 21-tap Sobel pair is a binomial; its scale cancels in the normalisation that follows.
SMOOTH = _taps(2 * REACH, 0)
DERIVE = _taps(2 * REACH - 1, 1)


@dataclass(frozen=True)
class DecodeSettings:
    """The constants of the decoding.

    Parameters
    ----------
    threshold
        Foreground probability from which a pixel belongs to a nucleus, in (0, 1).
    edge
        Edge strength in (0, 1) from which a pixel separates two nuclei.
    opening
        Width of the ellipse that opens the markers: 5 (Graham et al. 2019) or 3 (LECL).
    min_area, min_marker
        Smallest foreground component and marker, in pixels.
    slopes
        Range of the derivatives that maps to edge strengths 1..0. None takes it from the map
        itself, as published; a tile then depends on what else is in it, so give the ``slopes``
        of the whole image where tiled must equal untiled.

    Raises
    ------
    CallError
        A constant is out of its range.
    """

    threshold: float = 0.5
    edge: float = 0.4
    opening: int = 5
    min_area: int = 10
    min_marker: int = 10
    slopes: Slopes | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "edge"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise CallError(f"{name} lies between 0 and 1; found {getattr(self, name)!r}.")
        if self.opening not in (3, 5):
            raise CallError(f"opening is 3 or 5 pixels; found {self.opening!r}.")
        if self.min_area < 1 or self.min_marker < 1:
            raise CallError("min_area and min_marker are 1 pixel or more.")


#: Graham et al. 2019.
PUBLISHED = DecodeSettings()
#: LECL opens with the smaller ellipse, for smaller nuclei.
LECL = DecodeSettings(opening=3)


def decode(maps: HoverMaps, *, settings: DecodeSettings = PUBLISHED) -> Int32s:
    """Instances of one slice from its foreground and offset maps.

    With ``n(.)`` the min-max normalisation to [0, 1], ``D`` the 21-tap Sobel derivative along
    the map's own axis and ``q`` the foreground above ``threshold``: edge = ``max(1 - n(D h),
    1 - n(D v)) q``; markers = the foreground with edge below 0.4, holes filled, opened; energy =
    ``-G (1 - edge) q`` with ``G`` a 3x3 Gaussian; instances = watershed of the energy from the
    markers within the foreground (Graham et al. 2019, section 3.2). Foreground without a marker
    is dropped, as published.

    Parameters
    ----------
    maps
        Foreground and HV maps; ``types`` is not read.
    settings
        Constants; ``PUBLISHED`` or ``LECL``.

    Returns
    -------
    (Y, X) int32, 0 = none, ids 1..n in raster order of the markers.

    Raises
    ------
    InputError
        The maps hold NaN or infinity.

    Notes
    -----
    Time is linear in pixels; memory is about five times the foreground map. The instances are
    those of the literal algorithm up to float32 rounding of the derivative.

    Examples
    --------
    >>> y, x = np.mgrid[:40, :40].astype(np.float32)
    >>> foreground = ((y - 20) ** 2 + (x - 20) ** 2 < 144).astype(np.float32)
    >>> hv = np.stack([x - 20, y - 20]) / 12 * foreground
    >>> int(decode(HoverMaps(foreground, hv)).max())
    1
    """
    # Refuse first: a NaN passes every comparison as "background".
    if not np.isfinite(maps.foreground.sum(dtype=np.float64)):
        raise InputError("the foreground map holds NaN or infinity; the network diverged.")
    runs, component, n = find_runs(
        (maps.foreground >= settings.threshold).view(np.uint8)
    ).without_small(settings.min_area)
    if n == 0:
        return np.zeros(maps.foreground.shape, dtype=np.int32)
    edges = _Edges(maps, settings.slopes)
    markers, marker_id, n_markers = _markers(runs, edges, settings)
    return _watershed(runs, component, n, (markers, marker_id, n_markers), edges)


def slopes(maps: HoverMaps) -> Slopes:
    """Range of the derivatives of a whole image, for ``DecodeSettings.slopes``.

    >>> flat = HoverMaps(np.zeros((4, 4), np.float32), np.zeros((2, 4, 4), np.float32))
    >>> slopes(flat)
    ((0.0, 0.0), (0.0, 0.0))
    """
    return _Edges(maps, None).slopes


class _Edges:
    """The derivatives of the offset maps and how they become edge strengths."""

    def __init__(self, maps: HoverMaps, fixed: Slopes | None) -> None:
        hv = np.ascontiguousarray(maps.hv, dtype=np.float32)
        self.h, self.v = np.empty_like(hv[0]), np.empty_like(hv[1])
        found = (
            _derivative(hv[0], SMOOTH, DERIVE, False, self.h),
            _derivative(hv[1], DERIVE, SMOOTH, True, self.v),
        )
        if not np.isfinite(found).all():
            raise InputError("the HV maps hold NaN or infinity; the network diverged.")
        self.slopes: Slopes = found if fixed is None else fixed
        self.scaling = np.array([_scaling(*pair) for pair in self.slopes], dtype=np.float32)


def _scaling(low: float, high: float) -> tuple[float, float]:
    """Offset and factor of the min-max normalisation; a constant map becomes 0."""
    return (low, 1.0 / (high - low) if high > low else 0.0)


def _markers(runs: Runs, edges: _Edges, settings: DecodeSettings) -> tuple[Runs, Int64s, int]:
    """Runs of the markers, the marker (0..n-1) of each, and n."""
    image = np.zeros(edges.h.shape, dtype=np.uint8)
    _inner(runs.first, runs.start, runs.stop, edges.h, edges.v, edges.scaling,
           np.float32(settings.edge), image)  # fmt: skip
    _fill_holes(image)
    opened = np.empty_like(image)
    half_widths = np.array([1, 0] if settings.opening == 3 else [2, 2, 0])
    _erode(image, half_widths, opened)
    np.bitwise_xor(opened, 1, out=opened)
    _erode(opened, half_widths, image)  # dilation is erosion of the complement
    np.bitwise_xor(image, 1, out=image)
    return find_runs(image).without_small(settings.min_marker)


def _fill_holes(image: Bytes) -> None:
    """Fill background that no 4-connected path joins to the border, in place."""
    height, width = image.shape
    gaps = find_runs(image).gaps(width)
    component, n = gaps.components()
    rows = gaps.rows()
    at_border = (rows == 0) | (rows == height - 1) | (gaps.start == 0) | (gaps.stop == width)
    is_open = np.zeros(n, dtype=bool)
    is_open[component[at_border]] = True
    holes = gaps.select(~is_open[component])
    holes.paint(image, np.ones(holes.start.size, dtype=np.uint8))


def _watershed(
    runs: Runs, component: Int64s, n: int, markers: tuple[Runs, Int64s, int], edges: _Edges
) -> Int32s:
    """Grow the markers within the foreground, one component at a time.

    Only components with two markers or more need a queue; the others are painted.
    """
    marker_runs, marker, n_markers = markers
    only, used = _meet(*runs, component, n, *marker_runs, marker, n_markers)
    number = np.cumsum(used).astype(np.int32)  # a marker within a hole alone has no pixel
    value = np.where(only >= 0, number[np.maximum(only, 0)], np.int32(-1)).astype(np.int32)
    image = np.zeros(edges.h.shape, dtype=np.int32)
    runs.paint(image, value[component])
    is_shared = only == SEVERAL
    if is_shared.any():
        _plant(image, *runs, is_shared[component], *marker_runs, number[marker])
        chosen = np.flatnonzero(is_shared[component])
        chosen = chosen[np.argsort(component[chosen], kind="stable")]
        _flood(image, edges.h, edges.v, edges.scaling, component[chosen],
               runs.rows()[chosen], runs.start[chosen], runs.stop[chosen])  # fmt: skip
    lost = runs.select(only[component] == NONE)
    lost.paint(image, np.zeros(lost.start.size, dtype=np.int32))
    return image


# What a foreground component holds, when it is not the index of its only marker.
NONE, SEVERAL = -1, -2


@kernel
def _reflect(i: int, n: int) -> int:
    """Index mirrored at the first and last pixel, which are not repeated."""
    if n == 1:
        return 0
    while i < 0 or i >= n:
        i = -i if i < 0 else 2 * n - 2 - i
    return i


@kernel
def _derivative(
    plane: Float32s, down: Float32s, across: Float32s, is_vertical: bool, out: Float32s
) -> tuple[float, float]:
    """Separable 21 taps: ``down`` then ``across``, one of them odd; the range found."""
    height, width = plane.shape
    row = np.zeros(width + 20, np.float32)
    low = np.full(width, np.inf, np.float32)
    high = np.full(width, -np.inf, np.float32)
    check = np.zeros(width, np.float32)
    sums = row[10 : 10 + width]
    for y in range(height):
        centre = plane[y]
        for x in range(width):
            sums[x] = down[0] * centre[x]
        for k in range(1, 11, 2):
            above, below = plane[_reflect(y - k, height)], plane[_reflect(y + k, height)]
            above2, below2 = plane[_reflect(y - k - 1, height)], plane[_reflect(y + k + 1, height)]
            a, b = down[k], down[k + 1]
            if is_vertical:
                for x in range(width):
                    sums[x] += a * (below[x] - above[x]) + b * (below2[x] - above2[x])
            else:
                for x in range(width):
                    sums[x] += a * (below[x] + above[x]) + b * (below2[x] + above2[x])
        for x in range(10):
            row[x] = sums[_reflect(x - 10, width)]
            row[10 + width + x] = sums[_reflect(width + x, width)]
        _across(row, across, is_vertical, out[y])
        for x in range(width):
            value = out[y, x]
            low[x] = value if value < low[x] else low[x]
            high[x] = value if value > high[x] else high[x]
            check[x] += value - value  # stays 0 unless a value is not finite
    return low.min() + check.sum(), high.max() + check.sum()


@kernel
def _across(row: Float32s, w: Float32s, is_even: bool, out: Float32s) -> None:
    """21 taps along a padded row, even or odd."""
    w1, w2, w3, w4, w5 = w[1], w[2], w[3], w[4], w[5]
    w6, w7, w8, w9, w10 = w[6], w[7], w[8], w[9], w[10]
    if is_even:
        for x in range(out.size):
            out[x] = (
                w[0] * row[x + 10]
                + w1 * (row[x + 11] + row[x + 9]) + w2 * (row[x + 12] + row[x + 8])
                + w3 * (row[x + 13] + row[x + 7]) + w4 * (row[x + 14] + row[x + 6])
                + w5 * (row[x + 15] + row[x + 5]) + w6 * (row[x + 16] + row[x + 4])
                + w7 * (row[x + 17] + row[x + 3]) + w8 * (row[x + 18] + row[x + 2])
                + w9 * (row[x + 19] + row[x + 1]) + w10 * (row[x + 20] + row[x])
            )  # fmt: skip
    else:
        for x in range(out.size):
            out[x] = (
                w1 * (row[x + 11] - row[x + 9]) + w2 * (row[x + 12] - row[x + 8])
                + w3 * (row[x + 13] - row[x + 7]) + w4 * (row[x + 14] - row[x + 6])
                + w5 * (row[x + 15] - row[x + 5]) + w6 * (row[x + 16] - row[x + 4])
                + w7 * (row[x + 17] - row[x + 3]) + w8 * (row[x + 18] - row[x + 2])
                + w9 * (row[x + 19] - row[x + 1]) + w10 * (row[x + 20] - row[x])
            )  # fmt: skip


@kernel
def _inner(
    first: Int64s,
    start: Int32s,
    stop: Int32s,
    h: Float32s,
    v: Float32s,
    scaling: Float32s,
    edge: np.float32,
    image: Bytes,
) -> None:
    """Set the foreground pixels whose edge strength is below ``edge``."""
    one = np.float32(1)
    h_low, h_factor, v_low, v_factor = scaling[0, 0], scaling[0, 1], scaling[1, 0], scaling[1, 1]
    for y in range(first.size - 1):
        for i in range(first[y], first[y + 1]):
            for x in range(start[i], stop[i]):
                across = one - (h[y, x] - h_low) * h_factor
                down = one - (v[y, x] - v_low) * v_factor
                image[y, x] = max(across, down) < edge


@kernel
def _erode(image: Bytes, half_widths: Int64s, out: Bytes) -> None:
    """Erode by an element of rows ``half_widths[abs(dy)]``; beyond the border is foreground."""
    height, width = image.shape
    reach = half_widths.size - 1
    for y in range(height):
        target = out[y]
        target[:] = 1
        for other in range(max(0, y - reach), min(height, y + reach + 1)):
            source = image[other]
            for shift in range(half_widths[abs(other - y)] + 1):
                for x in range(width - shift):
                    target[x] &= source[x + shift]
                for x in range(width - shift):
                    target[x + shift] &= source[x]


@kernel
def _meet(
    first: Int64s,
    start: Int32s,
    stop: Int32s,
    component: Int64s,
    n: int,
    marker_first: Int64s,
    marker_start: Int32s,
    marker_stop: Int32s,
    marker: Int64s,
    n_markers: int,
) -> tuple[Int64s, NDArray[np.bool_]]:
    """The only marker of each component, or NONE or SEVERAL; and which markers meet one."""
    only = np.full(n, NONE)
    used = np.zeros(n_markers + 1, np.bool_)
    for y in range(first.size - 1):
        i, j = first[y], marker_first[y]
        while i < first[y + 1] and j < marker_first[y + 1]:
            if start[i] < marker_stop[j] and marker_start[j] < stop[i]:
                used[marker[j]] = True
                c = component[i]
                if only[c] == NONE:
                    only[c] = marker[j]
                elif only[c] != marker[j]:
                    only[c] = SEVERAL
            if stop[i] < marker_stop[j]:
                i += 1
            else:
                j += 1
    return only, used


@kernel
def _plant(
    image: Int32s,
    first: Int64s,
    start: Int32s,
    stop: Int32s,
    is_shared: NDArray[np.bool_],
    marker_first: Int64s,
    marker_start: Int32s,
    marker_stop: Int32s,
    marker: Int32s,
) -> None:
    """Write the markers into the components that hold several."""
    for y in range(first.size - 1):
        i, j = first[y], marker_first[y]
        while i < first[y + 1] and j < marker_first[y + 1]:
            if is_shared[i]:
                for x in range(max(start[i], marker_start[j]), min(stop[i], marker_stop[j])):
                    image[y, x] = marker[j]
            if stop[i] < marker_stop[j]:
                i += 1
            else:
                j += 1


@kernel
def _energy(image: Int32s, h: Float32s, v: Float32s, scaling: Float32s, y: int, x: int) -> float:
    """Negative 3x3 Gaussian of ``(1 - edge)`` within the foreground, at one pixel."""
    height, width = image.shape
    total = np.float32(0)
    for dy in range(-1, 2):
        row = _reflect(y + dy, height)
        for dx in range(-1, 2):
            column = _reflect(x + dx, width)
            if image[row, column] != 0:
                across = (h[row, column] - scaling[0, 0]) * scaling[0, 1]
                down = (v[row, column] - scaling[1, 0]) * scaling[1, 1]
                weight = np.float32((2 - abs(dy)) * (2 - abs(dx)))
                total += weight * min(across, down)
    return -total


@kernel
def _push(value: Float32s, age: Int64s, place: Int64s, n: int, new: tuple[float, int, int]) -> None:
    """Sift a new element up a heap of ``n``, ordered by value, then age."""
    i = n
    while i > 0:
        up = (i - 1) // 2
        if value[up] < new[0] or (value[up] == new[0] and age[up] <= new[1]):
            break
        value[i], age[i], place[i] = value[up], age[up], place[up]
        i = up
    value[i], age[i], place[i] = new


@kernel
def _pop(value: Float32s, age: Int64s, place: Int64s, n: int) -> int:
    """Take the lowest element off a heap of ``n``; its place."""
    lowest = place[0]
    last_value, last_age, last_place = value[n - 1], age[n - 1], place[n - 1]
    i, down = 0, 1
    while down < n - 1:
        right = down + 1
        if right < n - 1 and (
            value[right] < value[down] or (value[right] == value[down] and age[right] < age[down])
        ):
            down = right
        if last_value < value[down] or (last_value == value[down] and last_age <= age[down]):
            break
        value[i], age[i], place[i] = value[down], age[down], place[down]
        i, down = down, 2 * down + 1
    value[i], age[i], place[i] = last_value, last_age, last_place
    return lowest


@kernel
def _flood(
    image: Int32s,
    h: Float32s,
    v: Float32s,
    scaling: Float32s,
    component: Int64s,
    row: Int64s,
    start: Int32s,
    stop: Int32s,
) -> None:
    """Grow markers (> 0) over the open pixels (-1) of the runs given, grouped by component."""
    height, width = image.shape
    step_y, step_x = (-1, 0, 0, 1), (0, -1, 1, 0)
    value = np.empty(1024, np.float32)
    age = np.empty(1024, np.int64)
    place = np.empty(1024, np.int64)
    i = 0
    while i < row.size:
        last, area = i, 0
        while last < row.size and component[last] == component[i]:
            area += stop[last] - start[last]
            last += 1
        if area > value.size:
            value = np.empty(2 * area, np.float32)
            age = np.empty(2 * area, np.int64)
            place = np.empty(2 * area, np.int64)
        n, clock = 0, 0
        for run in range(i, last):
            y = row[run]
            for x in range(start[run], stop[run]):
                if image[y, x] > 0 and _has_open(image, y, x):
                    clock += 1
                    energy = _energy(image, h, v, scaling, y, x)
                    _push(value, age, place, n, (energy, 0, y * width + x))
                    n += 1
        while n > 0:
            here = _pop(value, age, place, n)
            n -= 1
            y, x = here // width, here % width
            for k in range(4):
                b, a = y + step_y[k], x + step_x[k]
                if 0 <= b < height and 0 <= a < width and image[b, a] == -1:
                    clock += 1
                    image[b, a] = image[y, x]
                    energy = _energy(image, h, v, scaling, b, a)
                    _push(value, age, place, n, (energy, clock, b * width + a))
                    n += 1
        i = last


@kernel
def _has_open(image: Int32s, y: int, x: int) -> bool:
    """Whether a 4-neighbour is still open."""
    height, width = image.shape
    return bool(
        (y > 0 and image[y - 1, x] == -1)
        or (x > 0 and image[y, x - 1] == -1)
        or (x + 1 < width and image[y, x + 1] == -1)
        or (y + 1 < height and image[y + 1, x] == -1)
    )
