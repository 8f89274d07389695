"""From a network's maps to instances (HoVer-Net), and from instances to its training targets.

Graham et al. 2019 (Medical Image Analysis 58:101563), section 3.2: the offsets inside a nucleus
fall from +1 to -1 across every border between two nuclei, so their derivative marks the border;
what remains of the foreground between the borders are markers, and a watershed grows them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.maps import HoverMaps
from nucleoscope.errors import CallError, InputError
from nucleoscope.jit import kernel
from nucleoscope.nuclei.flood import reflect, watershed
from nucleoscope.nuclei.measure import IdRuns, extents
from nucleoscope.nuclei.runs import Parts, Runs, find_runs

Float32s = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

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
    half: Float32s = (taps[REACH:] / np.abs(taps).sum()).astype(np.float32)
    return half


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
    with np.errstate(all="ignore"):
        total = maps.foreground.sum()
    if not np.isfinite(total):
        raise InputError("the foreground map holds NaN or infinity; the network diverged.")
    mask = (maps.foreground >= settings.threshold).view(np.uint8)
    foreground = find_runs(np.ascontiguousarray(mask)).without_small(settings.min_area)
    if foreground.n == 0:
        return np.zeros(mask.shape, dtype=np.int32)
    across, down, found = _derivatives(maps)
    ranges = found if settings.slopes is None else settings.slopes
    scaling = np.array([_scaling(*pair) for pair in ranges], dtype=np.float32)
    inner = np.zeros(mask.shape, dtype=np.uint8)
    _inner(foreground.runs, across, down, scaling, np.float32(settings.edge), inner)
    return watershed(foreground, _markers(inner, settings), interior=across)


def slopes(maps: HoverMaps) -> Slopes:
    """Range of the derivatives of a whole image, for ``DecodeSettings.slopes``.

    >>> flat = HoverMaps(np.zeros((4, 4), np.float32), np.zeros((2, 4, 4), np.float32))
    >>> slopes(flat)
    ((0.0, 0.0), (0.0, 0.0))
    """
    return _derivatives(maps)[2]


class InstanceTypes(NamedTuple):
    """What the network says of each instance, ids ascending.

    ``type_index`` is the row of the NC map (0 = unclassified), ``type_prob`` its probability
    (NaN when unclassified), ``probabilities`` the mean NC probability of every row ``(n, K)``,
    ``score`` the mean foreground probability.
    """

    ids: Int64s
    type_index: Int64s
    type_prob: Floats
    probabilities: Floats
    score: Floats

    def names(self, types: Sequence[str]) -> list[str]:
        """The type of each instance; ``types`` names rows 1.. of the NC map."""
        listed = ["unclassified", *types]
        return [listed[index] for index in self.type_index]


def instance_types(
    labels: NDArray[np.integer[Any]],
    maps: HoverMaps,
    *,
    vote: Literal["mean", "majority"] = "mean",
    min_support: float = 0.1,
) -> InstanceTypes:
    """Type, type probability and detection score of each instance.

    ``mean``: the type with the highest mean NC probability over the instance's pixels, its
    probability taken among the types alone (background left out). ``majority``: the most
    frequent arg max, or the second most frequent where that is background; its probability is
    its share of the pixels (Graham et al. 2019). A nucleus that only the foreground map
    supports is unclassified: its mean probability of all types together (or their share of the
    votes) is below ``min_support``, or there is no NC map.

    Parameters
    ----------
    labels
        ``(Y, X)`` instance map.
    maps
        Of the same slice.
    vote
        See above.
    min_support
        In [0, 1]; a nucleus without any support is unclassified in any case.

    Raises
    ------
    InputError
        Instance map and maps differ in shape.

    Examples
    --------
    >>> labels = np.array([[1, 1, 0]], dtype=np.int32)
    >>> types = np.array([[[0.2, 0.2, 1]], [[0.6, 0.6, 0]], [[0.2, 0.2, 0]]], dtype=np.float32)
    >>> maps = HoverMaps(np.ones((1, 3), np.float32), np.zeros((2, 1, 3), np.float32), types)
    >>> found = instance_types(labels, maps)
    >>> found.names(["immune", "tumour"]), found.type_prob.round(2).tolist()
    (['immune'], [0.75])
    """
    if labels.shape != maps.foreground.shape:
        raise InputError(
            f"the instance map is {labels.shape} but the maps are {maps.foreground.shape}."
        )
    runs, owner, ids = IdRuns.of(labels)
    types = np.zeros((0, *labels.shape), np.float32) if maps.types is None else maps.types
    totals = np.zeros((ids.size, types.shape[0] + 2))
    votes = np.zeros((ids.size, types.shape[0]), dtype=np.int64)
    _tally(runs, owner, maps.foreground, types, totals, votes)
    size = totals[:, :1]
    means = totals[:, 2:] / size
    weights = (means if vote == "mean" else votes / size)[:, 1:]
    total = weights.sum(axis=1)
    known = (total > 0) & (total >= min_support)
    best = weights.argmax(axis=1) if weights.shape[1] else np.zeros(ids.size, dtype=np.int64)
    prob = np.full(ids.size, np.nan)
    prob[known] = weights[known, best[known]] / (total[known] if vote == "mean" else 1.0)
    return InstanceTypes(ids, np.where(known, best + 1, 0), prob, means, totals[:, 1] / size[:, 0])


def hover_targets(instances: NDArray[np.integer[Any]]) -> Float32s:
    """Offsets to the centre of each nucleus, what the HV branch is taught.

    Pixel offsets ``x - [cx + 1/2]`` and ``y - [cy + 1/2]`` to the rounded centre of mass, the
    negative side divided by its largest magnitude and the positive side by its own, so that
    each nucleus spans [-1, 1] (Graham et al. 2019, section 3.1). The published code counts
    pixels from 1 there and so shifts every centre by one pixel; this does not.

    Parameters
    ----------
    instances
        ``(Y, X)`` instance map; or ``(Z, Y, X)``, each slice taken for itself.

    Returns
    -------
    ``(2, Y, X)`` float32, horizontal then vertical, 0 outside nuclei; ``(Z, 2, Y, X)`` for a
    stack.

    Examples
    --------
    >>> hover_targets(np.array([[0, 1, 1, 1, 0]]))[0].tolist()
    [[0.0, -1.0, 0.0, 1.0, 0.0]]
    """
    if instances.ndim == 3:
        planes = [hover_targets(plane) for plane in instances]
        return np.stack(planes) if planes else np.zeros((0, 2, *instances.shape[1:]), np.float32)
    found = extents(instances)
    runs, owner, _ = IdRuns.of(instances)
    target = np.zeros((2, *instances.shape), dtype=np.float32)
    centre_x = np.floor(found.x + 0.5).astype(np.int64)
    centre_y = np.floor(found.y + 0.5).astype(np.int64)
    left, right = centre_x - found.low[:, 2], found.high[:, 2] - 1 - centre_x
    up, down = centre_y - found.low[:, 1], found.high[:, 1] - 1 - centre_y
    _slope_runs(runs, centre_x[owner], left[owner], right[owner], target[0])
    dy = runs.rows() - centre_y[owner]
    side = np.where(dy < 0, up[owner], down[owner])
    runs.paint(target[1], (dy / np.maximum(side, 1)).astype(np.float32))
    return target


@kernel
def _tally(
    runs: Runs,
    owner: Int64s,
    foreground: Float32s,
    types: Float32s,
    totals: Floats,
    votes: Int64s,
) -> None:
    """Sum pixels, foreground and NC probabilities (columns of ``totals``), count arg maxima."""
    for y in range(runs.first.size - 1):
        for i in range(runs.first[y], runs.first[y + 1]):
            n = owner[i]
            totals[n, 0] += runs.stop[i] - runs.start[i]
            for x in range(runs.start[i], runs.stop[i]):
                totals[n, 1] += foreground[y, x]
                best = 0
                for k in range(types.shape[0]):
                    totals[n, k + 2] += types[k, y, x]
                    if types[k, y, x] > types[best, y, x]:
                        best = k
                if types.shape[0] > 0:
                    votes[n, best] += 1


@kernel
def _slope_runs(
    runs: Runs,
    centre: Int64s,
    left: Int64s,
    right: Int64s,
    target: Float32s,
) -> None:
    """Write scaled horizontal offsets into the pixels of each run."""
    for y in range(runs.first.size - 1):
        for i in range(runs.first[y], runs.first[y + 1]):
            for x in range(runs.start[i], runs.stop[i]):
                side = left[i] if x < centre[i] else right[i]
                target[y, x] = (x - centre[i]) / max(side, 1)


def _derivatives(maps: HoverMaps) -> tuple[Float32s, Float32s, Slopes]:
    """Derivative of H along x, of V along y, and their ranges."""
    hv = np.ascontiguousarray(maps.hv, dtype=np.float32)
    across, down = np.empty_like(hv[0]), np.empty_like(hv[1])
    found = (
        _derivative(hv[0], SMOOTH, DERIVE, False, across),
        _derivative(hv[1], DERIVE, SMOOTH, True, down),
    )
    if not np.isfinite(found).all():
        raise InputError("the HV maps hold NaN or infinity; the network diverged.")
    return across, down, found


def _scaling(low: float, high: float) -> tuple[float, float]:
    """Offset and factor of the min-max normalisation; a constant map becomes 0."""
    return (low, 1.0 / (high - low) if high > low else 0.0)


def _markers(image: Bytes, settings: DecodeSettings) -> Parts:
    """Fill holes, open, drop the small; ``image`` is overwritten."""
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
            above, below = plane[reflect(y - k, height)], plane[reflect(y + k, height)]
            above2, below2 = plane[reflect(y - k - 1, height)], plane[reflect(y + k + 1, height)]
            a, b = down[k], down[k + 1]
            if is_vertical:
                for x in range(width):
                    sums[x] += a * (below[x] - above[x]) + b * (below2[x] - above2[x])
            else:
                for x in range(width):
                    sums[x] += a * (below[x] + above[x]) + b * (below2[x] + above2[x])
        for x in range(10):
            row[x] = sums[reflect(x - 10, width)]
            row[10 + width + x] = sums[reflect(width + x, width)]
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
    runs: Runs,
    h: Float32s,
    v: Float32s,
    scaling: Float32s,
    edge: np.float32,
    image: Bytes,
) -> None:
    """Set foreground pixels with an edge below ``edge``; ``h`` becomes ``1 - edge``, 0 outside."""
    one = np.float32(1)
    h_low, h_factor, v_low, v_factor = scaling[0, 0], scaling[0, 1], scaling[1, 0], scaling[1, 1]
    for y in range(runs.first.size - 1):
        done = 0
        for i in range(runs.first[y], runs.first[y + 1]):
            h[y, done : runs.start[i]] = 0
            done = runs.stop[i]
            for x in range(runs.start[i], done):
                inside = min((h[y, x] - h_low) * h_factor, (v[y, x] - v_low) * v_factor)
                h[y, x] = min(max(inside, np.float32(0)), one)
                image[y, x] = one - inside < edge
        h[y, done:] = 0


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
