"""What a page shows of one image: tiles of its planes, outlines of its nuclei, rows of its table.

Everything is a function of the image and numbers: a tile is a PNG of at most 512 x 512 pixels of
one channel of one slice, or of the maximum over slices, at full resolution or a power of two
coarser, so that an image of any size is shown in bounded pieces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError
from nucleoscope.nuclei.measure import contours
from nucleoscope.nuclei.outline import outlines_of
from nucleoscope.view.overlay import channel_tints, encode_png
from nucleoscope.view.text import short, visible

__all__ = ["TILE", "Scene", "columns_of", "tile_of"]

#: Side of a tile in pixels of the screen.
TILE = 512
#: Slices whose outlines are kept.
_KEPT = 64


def tile_of(plane: NDArray[np.generic], level: int, row: int, column: int) -> NDArray[np.float32]:
    """Block means of a plane: tile ``(row, column)`` where a pixel stands for ``2 ** level``.

    Parameters
    ----------
    plane
        ``(..., Y, X)``.
    level
        0 is full resolution.

    Returns
    -------
    ndarray
        float32 ``(..., h, w)``, at most ``TILE`` each; blocks cut by the border are means of what
        there is.

    Raises
    ------
    InputError
        There is no such tile.

    Examples
    --------
    >>> tile_of(np.arange(6.0).reshape(2, 3), 1, 0, 0).tolist()
    [[2.0, 3.5]]
    """
    step = 2 ** min(max(level, 0), 30)
    side = TILE * step
    height, width = plane.shape[-2:]
    if not (0 <= level <= 30 and 0 <= row * side < height and 0 <= column * side < width):
        raise InputError(f"the image has no tile {row}, {column} at level {level}.")
    cut = plane[..., row * side : (row + 1) * side, column * side : (column + 1) * side]
    if step == 1:
        return cut.astype(np.float32)
    # A border block repeats its last pixels: close to its mean, and the shape stays regular.
    pad = [(0, 0)] * (cut.ndim - 2) + [(0, -n % step) for n in cut.shape[-2:]]
    padded = np.pad(cut, pad, mode="edge") if any(b for _, b in pad) else cut
    height, width = (n // step for n in padded.shape[-2:])
    blocks = padded.reshape(*padded.shape[:-2], height, step, width, step)
    means: NDArray[np.float32] = blocks.mean(axis=(-3, -1), dtype=np.float32)
    return means


def columns_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as columns of plain values: ``name``, ``is_number`` and ``values``; unknown is null.

    >>> columns_of(pd.DataFrame({"z": [1.5, float("nan")]}))
    [{'name': 'z', 'is_number': True, 'values': [1.5, None]}]
    """
    found = []
    for name in frame.columns:
        values = frame[name]
        is_number = values.dtype.kind in "iufb"
        if is_number:
            plain: list[Any] = [_plain(v) for v in values.tolist()]
        else:
            plain = [short(str(visible(str(v)))) for v in values]
        found.append({"name": str(visible(str(name))), "is_number": is_number, "values": plain})
    return found


def _plain(value: float) -> float | int | None:
    """A number as JSON holds it, to seven digits."""
    if isinstance(value, int):
        return int(value)
    return float(f"{value:.7g}") if math.isfinite(value) else None


@dataclass(frozen=True, eq=False)
class Scene:
    """An image to look at, with its nuclei where there are any.

    Parameters
    ----------
    volume
        The image.
    labels, table
        Its instance map and table, or None.
    nuclei
        Name of the nuclear stain; None looks for a usual one.
    notices
        Sentences the page shows.
    """

    volume: Volume
    labels: Labels | None = None
    table: NucleusTable | None = None
    nuclei: str | None = None
    notices: tuple[str, ...] = ()
    _flat: dict[int, NDArray[np.generic]] = field(default_factory=dict, repr=False)
    _traced: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)

    def describe(self) -> dict[str, Any]:
        """Size, scale and channels with their colours and the limits of their contrast."""
        volume = self.volume
        depth, height, width = volume.shape
        return {
            "name": short(str(visible(volume.name))),
            "depth": depth, "height": height, "width": width,
            "spacing": None if volume.spacing is None else list(volume.spacing),
            "is_rgb": volume.is_rgb,
            "channels": [] if volume.is_rgb else self._channels(),
            "has_nuclei": self.labels is not None,
            "notices": [short(str(visible(notice))) for notice in self.notices],
        }  # fmt: skip

    def _channels(self) -> list[dict[str, Any]]:
        """Each channel's name, colour, range, and the percentiles 1 and 99.8 of its values."""
        volume, found = self.volume, []
        tints = channel_tints(volume.channels, self.nuclei)
        if volume.data.shape[0] == 1:
            tints = ("#FFFFFF",)
        for name, tint, data in zip(volume.channels, tints, volume.data, strict=True):
            sample = data.reshape(-1)[:: max(1, data.size // 500_000)]
            low, high = (float(v) for v in np.percentile(sample, [1.0, 99.8]))
            least, most = float(data.min()), float(data.max())
            if high <= low:
                low, high = least, max(most, least + 1)
            found.append({
                "name": short(str(visible(name))), "colour": tint, "low": low, "high": high,
                "min": least, "max": max(most, high),
            })  # fmt: skip
        return found

    def tile(
        self, channel: int, z: int, level: int, row: int, column: int,
        *, low: float = 0.0, high: float = 255.0,
    ) -> bytes:  # fmt: skip
        """A tile as PNG: grey between ``low`` and ``high``, or in colour for an RGB image.

        Parameters
        ----------
        channel
            Its number; not used for RGB.
        z
            A slice; -1 is the maximum over slices.
        level, row, column
            See ``tile_of``.
        low, high
            Values that become black and white.

        Raises
        ------
        InputError
            No such channel, slice or tile.
        """
        if self.volume.is_rgb:
            colours = tile_of(self._plane(slice(None), max(z, 0)), level, row, column)
            return encode_png(np.rint(np.moveaxis(colours, 0, -1)).astype(np.uint8))
        grey = tile_of(self._plane(channel, z), level, row, column)
        scale = 255.0 / max(high - low, 1e-9)
        return encode_png(np.rint(np.clip((grey - low) * scale, 0, 255)).astype(np.uint8))

    def _plane(self, channel: int | slice, z: int) -> NDArray[np.generic]:
        """One plane; the maximum over slices is made once."""
        data = self.volume.data
        n, depth = data.shape[:2]
        if not -1 <= z < depth or (isinstance(channel, int) and not 0 <= channel < n):
            raise InputError(f"the image has no slice {z} of channel {channel}.")
        if z >= 0 or not isinstance(channel, int):
            plane: NDArray[np.generic] = data[channel, z]
            return plane
        if channel not in self._flat:
            self._flat[channel] = data[channel].max(axis=0)
        return self._flat[channel]

    def outlines(self, z: int) -> dict[str, Any]:
        """Outlines of the nuclei of a slice, or (-1) of all, each where it is largest.

        Returns
        -------
        dict
            ``ids``; ``offsets`` of each ring and ``xy``, its corners one after the other in half
            pixels: whole numbers, since outlines run along pixel edges.

        Raises
        ------
        InputError
            No such slice.
        """
        labels = self.labels
        if labels is None:
            return {"ids": [], "offsets": [0], "xy": []}
        if not -1 <= z < labels.shape[0]:
            raise InputError(f"the image has no slice {z}.")
        if z not in self._traced:
            if len(self._traced) >= _KEPT:
                self._traced.clear()
            self._traced[z] = _all(labels) if z < 0 else _slice(labels.data[z])
        return self._traced[z]

    def nucleus_at(self, z: int, y: float, x: float) -> int:
        """Id of the nucleus at a place, 0 for none; of a column (z = -1) the nearest centre's."""
        labels = self.labels
        row, column = round(y), round(x)
        if labels is None or not (0 <= row < labels.shape[1] and 0 <= column < labels.shape[2]):
            return 0
        if z >= 0:
            return int(labels.data[min(z, labels.shape[0] - 1), row, column])
        ids = np.unique(labels.data[:, row, column])
        ids = ids[ids > 0]
        if len(ids) < 2 or self.table is None:
            return int(ids[0]) if len(ids) else 0
        frame = self.table.frame
        near = frame[frame["id"].isin(ids)]
        centres = near[["y", "x"]].to_numpy(dtype=np.float64)
        apart = np.hypot(centres[:, 0] - y, centres[:, 1] - x)
        return int(near["id"].iloc[int(apart.argmin())]) if len(near) else int(ids[0])

    def rows(self) -> list[dict[str, Any]]:
        """The table as columns."""
        return [] if self.table is None else columns_of(self.table.frame.drop(columns="image"))


def _slice(plane: NDArray[np.int32]) -> dict[str, Any]:
    """Outlines of one slice."""
    traced = contours(plane)
    return _packed(traced.ids, np.stack([traced.x, traced.y], axis=1), traced.offsets)


def _all(labels: Labels) -> dict[str, Any]:
    """Outlines of all nuclei, each from the slice where it is largest."""
    ids = np.unique(labels.data)
    ids = ids[ids > 0]
    outlines: Outlines = outlines_of(labels, ids)[0]
    return _packed(ids, outlines.vertices[:, ::-1], outlines.offsets)


def _packed(ids: NDArray[Any], xy: NDArray[np.float64], offsets: NDArray[Any]) -> dict[str, Any]:
    """As plain lists."""
    doubled = np.rint(2 * xy).astype(np.int64)
    return {"ids": ids.tolist(), "offsets": offsets.tolist(), "xy": doubled.ravel().tolist()}
