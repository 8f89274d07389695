"""Zeiss LSM: a TIFF whose channels are the samples of a page, with a binary header of its own.

tifffile reads the header (``CZ_LSMINFO``); every second page is a thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.raw import ImageInfo, RawImage, Request, arrange, scale_of, to_um, unique_names
from nucleoscope.io.tiffpages import allocate, check_page, count_pages, trapped

_TAG = 34412


def is_lsm(path: Path, head: bytes) -> bool:
    """True for a TIFF whose first directory has the tag of LSM's header."""
    if head[:4] != b"II\x2a\x00":
        return False
    with path.open("rb") as file:
        file.seek(int.from_bytes(head[4:8], "little"))
        n = int.from_bytes(file.read(2), "little")
        entries = file.read(12 * n)
    return any(
        int.from_bytes(entries[at : at + 2], "little") == _TAG for at in range(0, len(entries), 12)
    )


class _Page:
    """A page of a stack whose tags tifffile keeps with the first."""

    def __init__(self, page: Any) -> None:
        self._first = page.keyframe
        self.dataoffsets, self.databytecounts = page.dataoffsets, page.databytecounts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


@contextmanager
def _opened(path: Path, request: Request) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """The series of full-resolution pages, checked, and the header."""
    where, size = str(path), path.stat().st_size
    with guard.reading(path), path.open("rb") as file, trapped(path.name) as check:
        request.limits.check("file_bytes", size, where)
        count_pages(file, where, request.limits)
        file.seek(0)
        with tifffile.TiffFile(file, name=path.name) as tif:
            header = tif.lsm_metadata
            series = tif.series[0]
            check()
            if header is None or series.kind != "lsm":
                raise InputError(f"{where}: its LSM header is damaged.")
            for n, page in enumerate(series.pages):
                check_page(_Page(page), 2 * n, size, where, request.limits)
            yield tif, series, header
            check()


def _axes(series: Any) -> str:
    """Axes of the series in our letters; tifffile calls interleaved channels S."""
    letters: str = series.get_axes(True)
    return letters if "C" in letters else letters.replace("S", "C")


def _facts(
    header: dict[str, Any], sizes: dict[str, int], where: str
) -> tuple[tuple[str, ...] | None, tuple[float, float, float] | None, tuple[str, ...]]:
    """Channel names, spacing, notes."""
    lengths = [
        to_um(value, "m") if value > 0 else None
        for value in (float(header.get(f"VoxelSize{axis}", 0.0)) for axis in "ZYX")
    ]
    spacing, notes = scale_of(lengths, sizes.get("Z", 1) == 1, where)
    named = (header.get("ChannelColors") or {}).get("ColorNames") or []
    if len(named) != sizes.get("C", 1) or not any(named):
        return None, spacing, notes
    names, more = unique_names([str(name) for name in named], where)
    return names, spacing, (*notes, *more)


def read(path: Path, request: Request) -> RawImage:
    """Read an LSM stack.

    Raises
    ------
    InputError
        Damaged, a time series, or several positions.
    """
    where = str(path)
    with _opened(path, request) as (_, series, header):
        axes = request.axes or _axes(series)
        shape = tuple(int(n) for n in series.get_shape(True))
        sizes = dict(zip(axes, shape, strict=True))
        if more := [axis for axis in axes if axis not in "TCZYX"]:
            raise InputError(f"{where}: it has an axis {more[0]} (positions); export one position.")
        out = allocate(shape, series.dtype, where, request.limits)
        out[...] = series.asarray(maxworkers=1).reshape(shape)
        names, spacing, notes = _facts(header, sizes, where)
        data: NDArray[np.generic]
        data, _, is_2d = arrange(out, axes, where)
    return RawImage(data, names, spacing, is_2d=is_2d, notes=notes)


def describe(path: Path, request: Request) -> ImageInfo:
    """What the header of an LSM file says."""
    with _opened(path, request) as (_, series, header):
        axes = _axes(series)
        sizes = dict(zip(axes, (int(n) for n in series.get_shape(True)), strict=True))
        names, spacing, notes = _facts(header, sizes, str(path))
        dtype = series.dtype.name
    c, z, y, x = (sizes.get(axis, 1) for axis in "CZYX")
    return ImageInfo(
        "Zeiss LSM", (c, z, y, x), axes, names or tuple(f"ch{i}" for i in range(c)), spacing,
        dtype, notes,
    )  # fmt: skip
