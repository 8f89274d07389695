"""A stack: channels, slices, rows, columns, with its names and its scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.units import Spacing, check_spacing


@dataclass(frozen=True, eq=False)
class Volume:
    """An image with named channels; a 2D image is a volume of one slice.

    Parameters
    ----------
    data
        ``(C, Z, Y, X)``, uint8, uint16, float32 or float64, finite.
    channels
        One unique name per channel.
    spacing
        ``(z, y, x)`` in um per voxel, or None when unknown. Of a 2D image only y and x count;
        its z entry is whatever was given.
    name
        The file's stem; used in messages and in the ``image`` column of tables.
    is_rgb
        True for a brightfield colour image with channels ``("red", "green", "blue")``.
    is_2d
        True when the file had no z axis (tables then leave ``z`` empty).
    notes
        What the reader had to decide or found odd, one sentence each; goes into the manifest.

    Raises
    ------
    InputError
        Wrong shape, dtype, duplicate channel names, implausible spacing, NaN or infinity.
    """

    data: NDArray[np.generic]
    channels: tuple[str, ...]
    spacing: Spacing | None = None
    name: str = "image"
    is_rgb: bool = False
    is_2d: bool = False
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.data.ndim != 4:
            raise InputError(
                f"{self.name}: a volume is (C, Z, Y, X); found shape {self.data.shape}."
            )
        if 0 in self.data.shape:
            raise InputError(f"{self.name}: the image is empty, shape {self.data.shape}.")
        if self.data.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            raise InputError(
                f"{self.name}: pixels are {self.data.dtype}; "
                "nucleoscope reads uint8, uint16, float32 and float64."
            )
        if self.data.dtype.kind == "f" and not np.isfinite(self.data).all():
            raise InputError(f"{self.name}: the image holds NaN or infinite pixels.")
        if len(self.channels) != self.data.shape[0]:
            raise InputError(
                f"{self.name}: {len(self.channels)} channel names "
                f"for {self.data.shape[0]} channels."
            )
        if len(set(self.channels)) != len(self.channels):
            raise InputError(f"{self.name}: channel names repeat: {', '.join(self.channels)}.")
        if self.is_2d and self.data.shape[1] != 1:
            raise InputError(f"{self.name}: a 2D image has one slice; found {self.data.shape[1]}.")
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "spacing", check_spacing(self.spacing))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        _, z, y, x = self.data.shape
        return (z, y, x)

    def channel_index(self, channel: str | int) -> int:
        """Index of a channel given by name (any case) or by number, also written as text.

        Raises
        ------
        CallError
            No such channel; the message lists the ones there are.
        """
        names = [name.casefold() for name in self.channels]
        if isinstance(channel, str) and channel.casefold() in names:
            return names.index(channel.casefold())
        try:
            index = int(channel)
        except ValueError:
            index = -1
        if not 0 <= index < len(names):
            listed = ", ".join(f"{i} {name}" for i, name in enumerate(self.channels))
            raise CallError(f"{self.name}: no channel {channel!r}; it has {listed}.")
        return index

    def channel(self, channel: str | int) -> NDArray[np.generic]:
        """One channel as ``(Z, Y, X)``, not copied."""
        plane: NDArray[np.generic] = self.data[self.channel_index(channel)]
        return plane

    def select(self, channels: Sequence[str | int]) -> Volume:
        """A volume with these channels only, in this order."""
        indices = [self.channel_index(channel) for channel in channels]
        return replace(
            self, data=self.data[indices], channels=tuple(self.channels[i] for i in indices)
        )
