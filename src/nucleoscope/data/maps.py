"""What the network is taught (pseudo labels, projections) and what it says (maps)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import InputError
from nucleoscope.units import Spacing

#: Value of a pixel in ``PseudoLabels.foreground``.
BACKGROUND, NUCLEUS, UNLABELLED = 0, 1, 255


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """Everything made from points alone.

    Parameters
    ----------
    cells
        ``(Y, X)`` int32: index (1..n) of the nearest point in xy, everywhere. In index order of
        the points, so row ``i`` of the points is cell ``i + 1``.
    instances
        ``(Z, Y, X)`` int32: index (1..n) of the nucleus at each voxel, 0 elsewhere. Indices are
        those of ``cells``.
    foreground
        ``(Z, Y, X)`` uint8: 0 background, 1 nucleus, 255 unlabelled (not taught).
    z_ranges
        ``(n, Z)`` bool: the slices that hold each nucleus (row ``i`` belongs to cell ``i + 1``).
    n_fallback
        How many nuclei had no voxel of their own and got the slices around their click (E8).
    """

    cells: NDArray[np.int32]
    instances: NDArray[np.int32]
    foreground: NDArray[np.uint8]
    z_ranges: NDArray[np.bool_]
    n_fallback: int = 0

    def __post_init__(self) -> None:
        if self.instances.shape != self.foreground.shape:
            raise InputError("instances and foreground differ in shape.")
        if self.cells.shape != self.instances.shape[1:]:
            raise InputError("cells and instances differ in rows and columns.")
        if self.z_ranges.ndim != 2 or self.z_ranges.shape[1] != self.instances.shape[0]:
            raise InputError("z_ranges is (n, Z).")


@dataclass(frozen=True, eq=False)
class Projection:
    """A stack projected to one plane.

    Parameters
    ----------
    data
        ``(C, Y, X)``, same dtype as the stack.
    channels
        One name per channel.
    method
        ``"mip"`` or ``"emip"``.
    spacing
        Of the stack, for its y and x.
    """

    data: NDArray[np.generic]
    channels: tuple[str, ...]
    method: str
    spacing: Spacing | None = None

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or len(self.channels) != self.data.shape[0]:
            raise InputError("a projection is (C, Y, X) with one name per channel.")


@dataclass(frozen=True, eq=False)
class HoverMaps:
    """A network's answer for one slice.

    Parameters
    ----------
    foreground
        ``(Y, X)`` float32 in [0, 1]: probability of nucleus (NP).
    hv
        ``(2, Y, X)`` float32: horizontal (x) then vertical (y) offsets to the nucleus's centre,
        in [-1, 1] (Graham et al. 2019, section 3.1).
    types
        ``(K, Y, X)`` float32: probability of each type (NC), index 0 = background; or None.
    """

    foreground: NDArray[np.float32]
    hv: NDArray[np.float32]
    types: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        plane = self.foreground.shape
        if len(plane) != 2 or self.hv.shape != (2, *plane):
            raise InputError("HoverMaps: foreground is (Y, X) and hv is (2, Y, X).")
        if self.types is not None and self.types.shape[1:] != plane:
            raise InputError("HoverMaps: types is (K, Y, X).")


@dataclass(frozen=True, eq=False)
class StackMaps:
    """Per-voxel answers for a stack, on a grid of ``stride`` image pixels.

    Parameters
    ----------
    foreground
        ``(Z, h, w)`` float32: probability of nucleus.
    centre
        ``(Z, h, w)`` float32: 1 at centres of nuclei, falling off.
    offsets
        ``(3, Z, h, w)`` float32: z (slices), y, x (map pixels) to the centre of the nucleus.
    types
        ``(K, Z, h, w)`` float32 logits of the type branch; K = 0 without one.
    stride
        Image pixels per map pixel.
    """

    foreground: NDArray[np.float32]
    centre: NDArray[np.float32]
    offsets: NDArray[np.float32]
    types: NDArray[np.float32]
    stride: int

    @classmethod
    def blank(cls, shape: tuple[int, int, int], stride: int, *, n_types: int) -> StackMaps:
        """Maps of zeros, to be filled."""
        return cls(
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros((3, *shape), np.float32),
            np.zeros((n_types, *shape), np.float32),
            stride,
        )
