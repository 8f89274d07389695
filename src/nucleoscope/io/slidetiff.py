"""Tiled TIFF slides, tile by tile: SVS, pyramidal OME-TIFF, qptiff and their like.

tifffile reads the directory; a region's tiles are then read at their place in the file and decoded
here, by two threads. Nothing keeps a file open between regions, so a slide can be read from
several threads.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleoscope.data.slide import PLAUSIBLE_MPP, Box
from nucleoscope.errors import InputError, NucleoscopeError
from nucleoscope.io import guard
from nucleoscope.io.guard import Limits
from nucleoscope.io.tiffmeta import parse_ome
from nucleoscope.io.tiffpages import count_pages, trapped

UInt8s = NDArray[np.uint8]
Int64s = NDArray[np.int64]

_JPEG = 7
#: Colours stored as YCbCr without saying so to the codec; OpenSlide knows them.
_APERIO_YCBCR = 33003
#: Makers whose levels are more than a chain of pages; tiffslide knows them.
_SPECIAL = ("is_scn", "is_bif", "is_philips", "is_ndpi")
#: Above this a scale from resolution tags is a screen's, not a microscope's.
_MOST_TAG_MPP = 10.0
_THREADS = min(2, os.cpu_count() or 1)
_TILES_FOR_THREADS = 8
_MOST_TILE = 1 << 26  # samples
#: Decoded tiles kept, in bytes: neighbouring regions share the tiles of their rims.
_CACHE = 64 << 20


@dataclass(frozen=True, eq=False)
class TiffSlide:
    """What a slide file holds: its levels, their scale, and what to read them with."""

    shapes: tuple[tuple[int, int], ...]
    mpp: float | None
    reader: TileReader
    notes: tuple[str, ...]


class NotTiled(NucleoscopeError):
    """The file is no tiled RGB pyramid; tells the caller which way to go."""


# Pixels -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Level:
    """One page: where its tiles are and how they are packed."""

    page: Any
    starts: Int64s
    counts: Int64s

    @cached_property
    def shape(self) -> tuple[int, int]:
        return int(self.page.imagelength), int(self.page.imagewidth)

    @cached_property
    def tile(self) -> tuple[int, int]:
        return int(self.page.tilelength), int(self.page.tilewidth)

    @cached_property
    def across(self) -> int:
        return -(-self.shape[1] // self.tile[1])

    @cached_property
    def _jpeg(self) -> dict[str, Any] | None:
        """Arguments of the JPEG decoder, or None for another codec (rules of tifffile)."""
        page = self.page
        if int(page.compression) != _JPEG or page.samplesperpixel != 3:
            return None
        is_bare_rgb = int(page.photometric) == 2 and not page.is_jfif
        return {
            "tables": page.jpegtables,
            "colorspace": 2 if is_bare_rgb else None,
            "outcolorspace": 2,
        }

    def decode(self, raw: bytes, index: int) -> UInt8s:
        """One tile, ``(rows, columns, 3)``; its size must be the claimed one."""
        if self._jpeg is not None:
            out = np.empty((*self.tile, 3), dtype=np.uint8)
            imagecodecs.jpeg8_decode(raw, out=out, **self._jpeg)
            return out
        data = self.page.decode(raw, index, jpegtables=self.page.jpegtables)[0]
        tile: UInt8s = data[0, ..., :3]
        return tile


class _Tiles:
    """The decoded tiles used last, up to a number of bytes; for several threads."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._tiles: OrderedDict[tuple[int, int], UInt8s] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[int, int]) -> UInt8s | None:
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: tuple[int, int], tile: UInt8s) -> None:
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._bytes += tile.nbytes
            while self._bytes > self._most:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes


class TileReader:
    """Reads boxes of the levels of one file.

    Parameters
    ----------
    path
        The file.
    levels
        Its pages, the largest first.
    """

    def __init__(self, path: Path, levels: list[_Level]) -> None:
        self._path, self._levels = path, levels
        self._pool: ThreadPoolExecutor | None = None
        self._tiles = _Tiles(_CACHE)

    def __call__(self, level: int, box: Box) -> UInt8s:
        """A box inside a level, in its pixels; tiles that were never stored are white."""
        at, (y0, x0, y1, x1) = self._levels[level], box
        height, width = at.tile
        out = np.empty((y1 - y0, x1 - x0, 3), dtype=np.uint8)
        with guard.reading(self._path):
            file = os.open(self._path, os.O_RDONLY)
            try:

                def put(row: int, column: int) -> None:
                    top, left = row * height, column * width
                    ya, yb = max(top, y0), min(top + height, y1)
                    xa, xb = max(left, x0), min(left + width, x1)
                    tile = self._tile(file, level, row * at.across + column)
                    part = 255 if tile is None else tile[ya - top : yb - top, xa - left : xb - left]
                    out[ya - y0 : yb - y0, xa - x0 : xb - x0] = part

                jobs = [
                    (row, column)
                    for row in range(y0 // height, -(-y1 // height))
                    for column in range(x0 // width, -(-x1 // width))
                ]
                self._run(put, jobs)
            finally:
                os.close(file)
        return out

    def _run(self, put: Any, jobs: list[tuple[int, int]]) -> None:
        """All tiles, by two threads when there are enough of them."""
        if len(jobs) < _TILES_FOR_THREADS or _THREADS == 1:
            for job in jobs:
                put(*job)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tiles")
        halves = [self._pool.submit(lambda part: [put(*job) for job in part], jobs[i::_THREADS])
                  for i in range(_THREADS)]  # fmt: skip
        failed = [half.exception() for half in halves]
        if error := next((e for e in failed if e is not None), None):
            raise error

    def _tile(self, file: int, level: int, index: int) -> UInt8s | None:
        """One decoded tile, or None where none is stored."""
        at = self._levels[level]
        count = int(at.counts[index])
        if not count:
            return None
        tile = self._tiles.get((level, index))
        if tile is None:
            raw = os.pread(file, count, int(at.starts[index]))
            if len(raw) != count:
                raise InputError(f"{self._path}: it became shorter while it was read.")
            tile = at.decode(raw, index)
            self._tiles.put((level, index), tile)
        return tile


# Opening ----------------------------------------------------------------------------------------


def open_tiff(path: Path, limits: Limits) -> TiffSlide:
    """The levels of a tiled RGB slide, checked before any pixel is decoded.

    Raises
    ------
    NotTiled
        Not a tiled RGB pyramid; another reader may know it.
    InputError
        Damaged, or no colour.
    """
    where = str(path)
    with guard.reading(path), path.open("rb") as file, trapped(path.name) as check:
        limits.check("file_bytes", path.stat().st_size, where)
        count_pages(file, where, limits)
        file.seek(0)
        with tifffile.TiffFile(file, name=path.name) as tif:
            if special := next((name for name in _SPECIAL if getattr(tif, name)), None):
                raise NotTiled(special.removeprefix("is_"))
            base = tif.series[0]
            check()
            _check_colour(base, where)
            pages: list[Any] = [level.keyframe for level in base.levels]
            levels = [_level(page, n, path, limits) for n, page in enumerate(pages)]
            mpp, notes = _scale(tif, pages[0], where, limits)
            check()
    levels.sort(key=lambda level: -level.shape[1])
    kept = [levels[0], *(b for a, b in pairwise(levels)
                         if b.shape < a.shape and b.shape[0] <= a.shape[0])]  # fmt: skip
    holes = sum(int((level.counts == 0).sum()) for level in kept)
    if holes:
        notes = (*notes, f"{where}: {holes} tiles are not stored and read as white.")
    return TiffSlide(tuple(level.shape for level in kept), mpp, TileReader(path, kept), notes)


def _check_colour(series: Any, where: str) -> None:
    """Refuse what is not RGB of 8 bits."""
    page = series.pages[0]
    samples = page.samplesperpixel if len(series.levels[0].pages) == 1 else 1
    if samples not in (3, 4) or int(page.photometric) not in (2, 6):
        raise InputError(
            f"{where}: it holds {len(series.pages)} grey channels and no colour; a slide is RGB, "
            "so read it with read_volume and detect its nuclei by channel."
        )
    if page.dtype != np.uint8:
        raise InputError(f"{where}: its pixels are {page.dtype}; a slide has 8 bits per colour.")
    if int(page.compression) == _APERIO_YCBCR:
        raise NotTiled("openslide")
    if not page.is_tiled or int(page.planarconfig) != 1:
        raise NotTiled("plain")


def _level(page: Any, n: int, path: Path, limits: Limits) -> _Level:
    """One level, after a look at every number its tiles depend on."""
    at, size = f"{path}: level {n}", path.stat().st_size
    height, width = int(page.imagelength), int(page.imagewidth)
    limits.check("pixels", height * width * 3, at)
    if not page.is_tiled or page.samplesperpixel not in (3, 4) or page.dtype != np.uint8:
        raise NotTiled("tiffslide")
    down, across = int(page.tilelength), int(page.tilewidth)
    if min(height, width, down, across) < 1 or down * across * 3 > _MOST_TILE:
        raise InputError(f"{at} has tiles of {down} x {across}; the file is damaged.")
    starts = np.array(page.dataoffsets, dtype=np.int64)
    counts = np.array(page.databytecounts, dtype=np.int64)
    wanted = -(-height // down) * -(-width // across)
    if len(starts) != wanted or len(counts) != wanted:
        raise InputError(f"{at} has {len(starts)} tiles where {wanted} are expected.")
    if (counts < 0).any() or (starts[counts > 0] + counts[counts > 0] > size).any():
        raise InputError(f"{at} has tiles beyond the end of the file; it looks cut short.")
    if int(page.compression) not in tifffile.TIFF.DECOMPRESSORS:
        raise InputError(f"{at} is packed with a codec that is not read ({page.compression}).")
    level = _Level(page, starts, counts)
    _ = page.decode  # made while the file is open: it looks at the tags
    return level


# Scale ------------------------------------------------------------------------------------------


def _scale(tif: Any, page: Any, where: str, limits: Limits) -> tuple[float | None, tuple[str, ...]]:
    """Micrometres per pixel that the file gives, or None, with a note on what cannot be right."""
    y, x = _declared_um(tif, page, where, limits)
    if y is None or x is None:
        return None, ()
    low, high = PLAUSIBLE_MPP
    if not (low <= y <= high and low <= x <= high):
        return None, (f"{where} gives {x:g} um per pixel, which counts as unknown.",)
    if abs(y - x) > 0.02 * max(x, y):
        raise InputError(
            f"{where}: its pixels are {y:g} x {x:g} um, not square; resample it or give --mpp."
        )
    return (y + x) / 2, ()


def _declared_um(
    tif: Any, page: Any, where: str, limits: Limits
) -> tuple[float | None, float | None]:
    """Pixel height and width in um by the text of the file, or else by its resolution tags."""
    text = str(page.description or "")
    if found := re.search(r"MPP\s*=\s*([0-9.]+(?:[eE][-+]?\d+)?)", text):
        return float(found[1]), float(found[1])
    if tif.is_ome:
        try:
            _, y, x = parse_ome(str(tif.pages[0].description), where, limits).zyx_um
        except NucleoscopeError:
            y = x = None
        if y is not None and x is not None:
            return y, x
    unit = {2: 25_400.0, 3: 10_000.0}.get(int(page.tags.valueof("ResolutionUnit", 2)))
    lengths = []
    for name in ("YResolution", "XResolution"):
        value = page.tags.valueof(name, None)
        per_unit = value[0] / value[1] if value and value[1] else 0.0
        lengths.append(unit / per_unit if unit and per_unit > 0 else None)
    y, x = lengths
    is_screen = y is None or x is None or max(y, x) > _MOST_TAG_MPP
    return (None, None) if is_screen else (y, x)
