"""TIFF pages: are they all there, and what is in them.

A damaged TIFF file rarely crashes a reader; it comes back shorter or narrower and looks plausible.
So nothing is decoded before the chain of pages, every strip's place and every claimed size have
been checked, and a strip that inflates to another size than its page claims is an error.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleoscope.errors import InputError, UnsafeInputError
from nucleoscope.io.guard import Limits, check_memory

NO_COMPRESSION, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = (
    1, 5, 8, 32946, 32773, 34925, 50000,
)  # fmt: skip

#: Most bytes that one stored byte can become. Deflate's is 1032 by its format; an all-zero label
#: map reaches 30,000 with zstd, so unlisted codecs have a wide one.
MAX_RATIO = {
    NO_COMPRESSION: 1, LZW: 4_000, DEFLATE: 1_100, OLD_DEFLATE: 1_100, PACKBITS: 65, LZMA: 20_000,
}  # fmt: skip
OTHER_RATIO = 100_000

#: Decoded bytes by which an LZW strip may exceed its pixels.
_LZW_EXCESS = 4

#: Codecs whose output size is exact, decoded here; the others go through tifffile.
EXACT = {NO_COMPRESSION, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD}


# The chain of pages -----------------------------------------------------------------------------


def count_pages(file: BinaryIO, where: str, limits: Limits) -> int:
    """Walk the chain of image file directories and count them.

    Raises
    ------
    InputError
        Not a TIFF header, a chain that leaves the file or bites its tail, an absurd directory.
    """
    size = os.fstat(file.fileno()).st_size
    order = {b"II": "<", b"MM": ">"}.get(file.read(2))
    if order is None or size < 8:
        raise InputError(f"{where}: it is not a TIFF file.")
    is_big = struct.unpack(order + "H", file.read(2))[0] == 43
    entry, counter, pointer = (20, "Q", "Q") if is_big else (12, "H", "I")
    width = struct.calcsize(pointer)
    file.seek(8 if is_big else 4)
    seen: set[int] = set()
    at = _number(file, order + pointer, where)
    while at:
        if at in seen:
            raise InputError(f"{where}: its chain of pages is a circle; the file is damaged.")
        if at + struct.calcsize(counter) > size:
            raise InputError(
                f"{where}: page {len(seen) + 1} lies beyond the end of the file; the file looks "
                "cut short."
            )
        seen.add(at)
        limits.check("pages", len(seen), where)
        file.seek(at)
        n_tags = _number(file, order + counter, where)
        if not 0 < n_tags < 4096:
            raise InputError(f"{where}: page {len(seen)} claims {n_tags} tags; it is damaged.")
        file.seek(n_tags * entry, os.SEEK_CUR)
        if file.tell() + width > size:
            raise InputError(f"{where}: page {len(seen)} is cut off at the end of the file.")
        at = _number(file, order + pointer, where)
    return len(seen)


def _number(file: BinaryIO, code: str, where: str) -> int:
    """One unsigned integer at the current position."""
    raw = file.read(struct.calcsize(code))
    if len(raw) < struct.calcsize(code):
        raise InputError(f"{where}: it ends in the middle of a number; the file looks cut short.")
    return int(struct.unpack(code, raw)[0])


class _Trap(logging.Handler):
    """Collects what tifffile complains about in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = threading.get_ident()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one complaint."""
        if record.thread == self.thread:
            self.records.append(record.getMessage().splitlines()[0][:160])


@contextmanager
def trapped(where: str) -> Iterator[Callable[[], None]]:
    """Yield a check that raises InputError once tifffile has logged a warning.

    tifffile reports a broken chain or a lost text layer in its log and goes on with less; for a
    stack of slices that is a wrong answer, so each complaint is a refusal.
    """
    logger, trap = logging.getLogger("tifffile"), _Trap()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(trap)
    logger.setLevel(logging.WARNING)
    logger.propagate = False

    def check() -> None:
        if trap.records:
            raise InputError(f"{where}: the file is damaged ({trap.records[0]}).")

    try:
        yield check
    finally:
        logger.removeHandler(trap)
        logger.setLevel(level)
        logger.propagate = propagate


# One page ---------------------------------------------------------------------------------------


def check_page(page: Any, n: int, size: int, where: str, limits: Limits) -> None:
    """Refuse a page that claims more than the file holds, before anything is allocated.

    Raises
    ------
    InputError
        Empty or absurd size, a strip outside the file, strips missing.
    UnsafeInputError
        The claimed pixels exceed what the stored bytes can become, or a limit.
    """
    at = f"{where}: page {n + 1}"
    samples, height, width = page.samplesperpixel, page.imagelength, page.imagewidth
    if min(height, width, samples) < 1 or page.imagedepth != 1 or page.dtype is None:
        raise InputError(f"{at} is {height} x {width} of type {page.dtype}; it is damaged.")
    limits.check("pixels", height * width * samples, at)
    starts, counts = page.dataoffsets, page.databytecounts
    if len(starts) != len(counts) or len(starts) != _n_segments(page):
        raise InputError(
            f"{at} has {len(starts)} strips where {_n_segments(page)} are expected; it is damaged."
        )
    if any(c <= 0 or s <= 0 or s + c > size for s, c in zip(starts, counts, strict=True)):
        raise InputError(
            f"{at} has pixels beyond the end of the file or none; the file looks cut short."
        )
    claimed = height * width * samples * page.bitspersample // 8
    compression = int(page.compression)
    if compression != NO_COMPRESSION and compression not in tifffile.TIFF.DECOMPRESSORS:
        raise InputError(f"{at} is packed with a codec that is not read ({compression}).")
    stored = sum(counts)
    if claimed > stored * MAX_RATIO.get(compression, OTHER_RATIO):
        raise UnsafeInputError(
            f"{at} claims {claimed:,} bytes of pixels from {stored:,} stored bytes, which its "
            "compression cannot yield; the file is damaged or made to exhaust memory."
        )


def _n_segments(page: Any) -> int:
    """Strips or tiles that a page of this size must have."""
    if page.is_tiled:
        down = -(-page.imagelength // max(1, page.tilelength))
        across = -(-page.imagewidth // max(1, page.tilewidth))
        per_plane = down * across
    else:
        per_plane = -(-page.imagelength // _rows(page))
    planes = page.samplesperpixel if _is_planar(page) else 1
    return int(per_plane * planes)


def _rows(page: Any) -> int:
    """Rows of a full strip."""
    rows = int(page.rowsperstrip or page.imagelength)
    return max(1, min(rows, int(page.imagelength)))


def _is_planar(page: Any) -> bool:
    """True when each colour sample is stored as its own plane."""
    return int(page.planarconfig or 1) == 2 and page.samplesperpixel > 1


def is_exact(page: Any) -> bool:
    """True when the page can be decoded here, with its decoded sizes checked."""
    compression = int(page.compression)
    return (
        compression in EXACT
        and int(page.predictor) in (1, 2, 3)
        and page.bitspersample == page.dtype.itemsize * 8
        and page.dtype.kind in "uif"
        and int(page.fillorder) == 1
        and (compression == NO_COMPRESSION or compression in tifffile.TIFF.DECOMPRESSORS)
    )


class _Following:
    """A page without a directory of its own, stored right behind the first."""

    def __init__(self, first: Any, shift: int) -> None:
        self._first = first
        self.dataoffsets = tuple(offset + shift for offset in first.dataoffsets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


def contiguous_pages(page: Any, n: int, size: int) -> list[Any] | None:
    """``n`` pages stored one behind the other behind a single directory, or None.

    ImageJ writes stacks above 4 GB so, and tifffile when asked to truncate.
    """
    starts, counts = page.dataoffsets, page.databytecounts
    ends = [start + count for start, count in zip(starts, counts, strict=True)]
    length = sum(counts)
    is_plain = int(page.compression) == NO_COMPRESSION and list(starts[1:]) == ends[:-1]
    if not is_plain or not starts or not length or starts[0] + n * length > size:
        return None
    return [_Following(page, i * length) for i in range(n)]


def page_signature(page: Any) -> tuple[Any, ...]:
    """What must be equal in all pages of a stack."""
    return (
        page.imagelength, page.imagewidth, page.samplesperpixel, page.bitspersample,
        str(page.dtype), _is_planar(page),
    )  # fmt: skip


def _segment_shape(page: Any) -> tuple[int, int, int]:
    """Rows, columns and samples of a full strip or tile."""
    samples = 1 if _is_planar(page) else page.samplesperpixel
    if page.is_tiled:
        return (page.tilelength, page.tilewidth, samples)
    return (_rows(page), page.imagewidth, samples)


def _boxes(page: Any) -> Iterator[tuple[int, int, int]]:
    """Plane, first row and first column of each strip or tile, in the order of the file."""
    rows, columns, _ = _segment_shape(page)
    for plane in range(page.samplesperpixel if _is_planar(page) else 1):
        for y in range(0, page.imagelength, rows):
            for x in range(0, page.imagewidth, columns):
                yield plane, y, x


def _decode_segment(
    page: Any, raw: bytes, shape: tuple[int, int, int], is_last: bool, where: str
) -> NDArray[np.generic]:
    """One strip or tile, ``(rows, columns, samples)``; its decoded size must be the claimed one."""
    item = page.dtype.itemsize
    full = int(np.prod(_segment_shape(page))) * item
    wanted = int(np.prod(shape)) * item
    compression = int(page.compression)
    if compression != NO_COMPRESSION:
        # Room for more than claimed, so that too much is noticed and not cut off.
        raw = tifffile.TIFF.DECOMPRESSORS[compression](raw, out=full + 64)
    # Some scanners' LZW ends with a code too many: a few bytes behind the pixels, never within.
    excess = len(raw) - wanted if compression == LZW else 0
    is_whole = len(raw) == wanted or 0 < excess < _LZW_EXCESS
    if not is_whole and not (is_last and len(raw) == full):
        raise InputError(
            f"{where}: a strip holds {len(raw):,} bytes where its page claims {wanted:,}; "
            "the file is damaged."
        )
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    data = np.frombuffer(raw, dtype=dtype, count=wanted // item).reshape(shape)
    if int(page.predictor) == 1:
        return data
    if int(page.predictor) == 2:
        data = data.astype(page.dtype.newbyteorder("="))
    undo = tifffile.TIFF.UNPREDICTORS[int(page.predictor)]
    result: NDArray[np.generic] = undo(data, axis=-2)
    return result


def _read_exact(
    page: Any, pull: Callable[[int, int], bytes], out: NDArray[np.generic], where: str
) -> None:
    """Decode a page into ``out`` of ``(Y, X, samples)``, whose type is native."""
    rows, columns, samples = _segment_shape(page)
    boxes = list(_boxes(page))
    for (plane, y, x), start, count in zip(
        boxes, page.dataoffsets, page.databytecounts, strict=True
    ):
        height = min(rows, page.imagelength - y)
        width = min(columns, page.imagewidth - x)
        stored = (rows, columns, samples) if page.is_tiled else (height, width, samples)
        data = _decode_segment(page, pull(start, count), stored, height < rows, where)
        part = slice(plane, plane + 1) if _is_planar(page) else slice(None)
        out[y : y + height, x : x + width, part] = data[:height, :width]


def read_pages(
    file: BinaryIO,
    pages: list[Any],
    targets: list[NDArray[np.generic]],
    where: str,
) -> None:
    """Decode each page into its target ``(Y, X, samples)``, several pages at a time.

    Memory beyond the targets is a strip per thread.

    Raises
    ------
    InputError
        A page cannot be decoded to exactly the size it claims.
    """
    lock = threading.Lock()

    def pull(start: int, count: int) -> bytes:
        with lock:
            file.seek(start)
            raw = file.read(count)
        if len(raw) != count:
            raise InputError(f"{where}: it became shorter while it was read.")
        return raw

    def one(job: tuple[Any, NDArray[np.generic]]) -> None:
        page, out = job
        if is_exact(page):
            _read_exact(page, pull, out, where)
            return
        with lock:
            data = page.asarray(maxworkers=1)
        if data.size != out.size:
            raise InputError(f"{where}: a page decodes to another size than it claims.")
        out[...] = np.moveaxis(data, 0, -1) if _is_planar(page) else data.reshape(out.shape)

    n_workers = min(4, os.cpu_count() or 1, len(pages))
    if n_workers == 1:
        for job in zip(pages, targets, strict=True):
            one(job)
        return
    with ThreadPoolExecutor(n_workers) as pool:
        for _ in pool.map(one, zip(pages, targets, strict=True)):
            pass


def allocate(
    shape: tuple[int, ...], dtype: np.dtype[Any], where: str, limits: Limits
) -> NDArray[np.generic]:
    """An array for the whole image, after checking the pixel limit and the free memory."""
    n = 1
    for size in shape:
        n *= int(size)
    limits.check("pixels", n, where)
    check_memory(n * dtype.itemsize, where)
    return np.empty(shape, dtype=dtype.newbyteorder("="))


def unaccounted_bytes(pages: list[Any], path: Path) -> int:
    """Bytes of the file that no page points to; pages lost from the chain lie there.

    0 for files with sub-directories, whose data lie outside the chain by design.
    """
    if any(page.subifds for page in pages):
        return 0
    spans: list[tuple[int, int]] = []
    for page in pages:
        spans += zip(page.dataoffsets, page.databytecounts, strict=True)
        spans += [(tag.offset, 20) for tag in page.tags]
        spans += [(tag.valueoffset, tag.valuebytecount) for tag in page.tags]
    lost, end = 0, 0
    for start, length in sorted(spans):
        lost += max(0, start - end)
        end = max(end, start + length)
    return lost + max(0, path.stat().st_size - end)
