"""A region of interest: polygons with holes, in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import InputError


@dataclass(frozen=True, eq=False)
class Region:
    """Closed rings in ``(y, x)`` pixels, filled by the even-odd rule (a ring in a ring is a hole).

    Parameters
    ----------
    rings
        Each ``(k, 2)`` float64, k >= 3, in ``(y, x)``; closing point optional.
    name
        Where it came from, for messages.

    Examples
    --------
    >>> square = Region(([[0, 0], [0, 4], [4, 4], [4, 0]],))
    >>> square.contains([2.0, 5.0], [2.0, 2.0]).tolist()
    [True, False]
    >>> int(square.mask((6, 6)).sum())
    16
    """

    rings: tuple[NDArray[np.float64], ...]
    name: str = "roi"

    def __post_init__(self) -> None:
        rings = []
        for ring in self.rings:
            points = np.asarray(ring, dtype=np.float64)
            if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
                raise InputError(f"{self.name}: a ring needs three (y, x) points or more.")
            if not np.isfinite(points).all():
                raise InputError(f"{self.name}: a ring has a coordinate that is not finite.")
            rings.append(points[:-1] if (points[0] == points[-1]).all() else points)
        if not rings:
            raise InputError(f"{self.name}: it holds no polygon.")
        object.__setattr__(self, "rings", tuple(rings))

    def _edges(self) -> NDArray[np.float64]:
        """All edges as rows ``y0, x0, y1, x1``."""
        return np.concatenate([np.hstack([r, np.roll(r, -1, axis=0)]) for r in self.rings])

    def contains(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.bool_]:
        """True for every point inside, by counting the edges crossed towards +x."""
        py, px = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
        inside = np.zeros(py.shape, dtype=bool)
        for y0, x0, y1, x1 in self._edges():
            crosses = (y0 > py) != (y1 > py)
            if crosses.any():
                at = x0 + (py[crosses] - y0) * (x1 - x0) / (y1 - y0)
                inside[crosses] ^= px[crosses] < at
        return inside

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Boolean ``(Y, X)``: pixels whose centre is inside. Same rule as ``contains``."""
        height, width = shape
        toggles = np.zeros((height, width + 1), dtype=np.int32)
        for y0, x0, y1, x1 in self._edges():
            low, high = min(y0, y1), max(y0, y1)
            rows = np.arange(max(0, int(np.ceil(low))), min(height, int(np.ceil(high))))
            if rows.size:
                at = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
                # Pixels with x < at are crossed by a ray towards +x: toggle 0..ceil(at)-1.
                last = np.clip(np.ceil(at), 0, width).astype(np.int64)
                toggles[rows, 0] += 1
                toggles[rows, last] -= 1
        crossed: NDArray[np.bool_] = np.cumsum(toggles[:, :width], axis=1) % 2 == 1
        return crossed
