"""A stack to one plane: the plain maximum, and the maximum within each nucleus's own slices.

EMIP (Moradinasab et al. 2023, section 3.1) keeps, in the cell of each nucleus, only the slices
that hold this nucleus, so that marker of a cell above or below leaves no trace. Projection sees
cells and z ranges, never points: in training they come from annotation, in prediction from
detections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data import Projection, Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.jit import kernel

Cells = NDArray[np.int32] | None
Ranges = NDArray[np.bool_] | None


@kernel
def runs(row: NDArray[np.int32], start: NDArray[np.int64]) -> int:
    """Where each run of equal values in ``row`` starts, and its length at the end; their number.

    ``start`` has one place more than ``row``.
    """
    n = 1
    start[0] = 0
    for x in range(1, len(row)):
        start[n] = x
        n += row[x] != row[x - 1]
    start[n] = len(row)
    return n


@kernel
def _emip(
    stack: NDArray[Any],
    cells: NDArray[np.int32],
    kept: NDArray[np.uint8],
    out: NDArray[Any],
) -> None:
    """Raise ``out`` ``(C, Y, X)`` to the maximum over each cell's slices of ``(C, Z, Y, X)``.

    ``kept[c, g]`` holds slices ``8 g`` to ``8 g + 7`` of cell ``c``, one per bit. It is spread over
    the row run by run of equal cell; what follows is the plain maximum under a mask.
    """
    n_y, n_x = cells.shape
    start = np.empty(n_x + 1, np.int64)
    bits = np.empty((kept.shape[1], n_x), np.uint8)
    for y in range(n_y):
        n = runs(cells[y], start)
        for r in range(n):
            c = cells[y, start[r]]
            for g in range(kept.shape[1]):
                bits[g, start[r] : start[r + 1]] = kept[c, g]
        for channel in range(len(stack)):
            target = out[channel, y]
            for z in range(stack.shape[1]):
                source, mine, bit = stack[channel, z, y], bits[z >> 3], np.uint8(1 << (z & 7))
                for x in range(n_x):
                    if mine[x] & bit and source[x] > target[x]:
                        target[x] = source[x]


def _floor(stack: NDArray[np.generic]) -> Any:
    """What a pixel without any slice gets: 0, or the darkest value where there are negative ones.

    It can then never exceed the plain maximum.
    """
    return stack.dtype.type(0) if stack.dtype.kind == "u" else min(stack.min(), stack.dtype.type(0))


def mip(stack: NDArray[np.generic], cells: Cells = None, z_ranges: Ranges = None) -> Any:
    """Maximum intensity projection of ``(..., Z, Y, X)``; cells and z ranges play no part.

    Examples
    --------
    >>> mip(np.array([[[1, 5]], [[4, 2]]], np.uint8)).tolist()
    [[4, 5]]
    """
    return stack.max(axis=-3)


def emip(stack: NDArray[np.generic], cells: Cells = None, z_ranges: Ranges = None) -> Any:
    """Extended maximum intensity projection: ``max_z I(z, y, x)`` over ``z`` in ``S_c(y, x)``.

    Parameters
    ----------
    stack
        ``(Z, Y, X)``, or ``(C, Z, Y, X)`` for several channels at once.
    cells
        ``(Y, X)`` int32: 1 to n, 0 = no cell.
    z_ranges
        ``(n, Z)`` bool; row ``i`` belongs to cell ``i + 1``.

    Returns
    -------
    The stack without its z axis, same dtype; pixels without a cell or whose cell has no slice are
    0 (the stack's minimum where that is negative).

    Raises
    ------
    CallError
        Cells or z ranges are missing, or do not fit the stack.

    Examples
    --------
    >>> stack = np.array([[[1, 5]], [[4, 2]]], np.uint8)
    >>> emip(stack, np.array([[1, 2]], np.int32), np.array([[True, False], [False, True]])).tolist()
    [[1, 2]]

    References
    ----------
    Moradinasab et al. 2023, section 3.1, algorithm 1.
    """
    if cells is None or z_ranges is None:
        raise CallError("the emip projection needs cells and z_ranges; give both or use mip.")
    if cells.shape != stack.shape[-2:] or z_ranges.shape[1:] != stack.shape[-3:-2]:
        raise CallError(
            f"emip: a stack of shape {stack.shape} does not fit cells {cells.shape} "
            f"and z ranges {z_ranges.shape}."
        )
    labels = np.ascontiguousarray(cells, dtype=np.int32)
    if labels.size and (labels.min() < 0 or labels.max() > len(z_ranges)):
        raise InputError(
            f"emip: cells run from {labels.min()} to {labels.max()} "
            f"but there are {len(z_ranges)} rows of z ranges."
        )
    kept = np.packbits(np.pad(z_ranges, ((1, 0), (0, 0))), axis=1, bitorder="little")
    volume = stack if stack.ndim == 4 else stack[None]
    out = np.full((len(volume), *cells.shape), _floor(stack), dtype=stack.dtype)
    _emip(volume, labels, kept, out)
    return out if stack.ndim == 4 else out[0]


#: Every projection by name; a new one is a function of the same arguments and a row here.
PROJECTIONS: MappingProxyType[str, Callable[[NDArray[np.generic], Cells, Ranges], Any]] = (
    MappingProxyType({"mip": mip, "emip": emip})
)


def _chosen(
    volume: Volume, channels: str | Sequence[str | int] | None, nuclei: str | int
) -> set[int]:
    """Indices of the channels to which the method applies; the others get the plain maximum."""
    everything = set(range(len(volume.channels)))
    if channels is None or channels == "both":
        return everything
    if channels == "marker":
        return everything - {volume.channel_index(nuclei)}
    if isinstance(channels, str):
        raise CallError(f"channels is 'marker', 'both' or a list of channels; found {channels!r}.")
    return {volume.channel_index(channel) for channel in channels}


def project(
    volume: Volume,
    *,
    method: str = "mip",
    cells: Cells = None,
    z_ranges: Ranges = None,
    channels: str | Sequence[str | int] | None = None,
    nuclei: str | int = "DAPI",
) -> Projection:
    """Project a stack to one plane.

    Parameters
    ----------
    volume
        The stack.
    method
        A name in `PROJECTIONS`: ``"mip"`` or ``"emip"``.
    cells, z_ranges
        ``(Y, X)`` int32 and ``(n, Z)`` bool; for ``emip`` only.
    channels
        To which channels ``method`` applies, the others get the plain maximum. ``"marker"``: all
        but ``nuclei``, as the published code does; ``"both"`` or None: all, as the paper says;
        or a list of channels.
    nuclei
        The nuclei channel; looked at only for ``channels="marker"``.

    Returns
    -------
    Projection
        Same channels, dtype and scale as the stack.

    Raises
    ------
    CallError
        Unknown method or channel; cells or z ranges missing or of another shape.

    Examples
    --------
    >>> stack = Volume(np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2), ("DAPI",))
    >>> project(stack, method="mip").data.tolist()
    [[[4, 5], [6, 7]]]

    References
    ----------
    Moradinasab et al. 2023, section 3.1.
    """
    if method not in PROJECTIONS:
        raise CallError(f"no projection {method!r}; there are {', '.join(PROJECTIONS)}.")
    chosen = _chosen(volume, channels, nuclei)
    data = volume.data
    if len(chosen) == len(data):
        planes = PROJECTIONS[method](data, cells, z_ranges)
    else:
        planes = mip(data)
        for c in chosen:
            planes[c] = PROJECTIONS[method](data[c], cells, z_ranges)
    return Projection(planes, volume.channels, method, volume.spacing)
