"""Large JSON files, element by element: only the array or object asked for is taken apart.

A whole slide's nuclei are hundreds of megabytes of JSON, and gigabytes as Python objects. The text
is cut where the nesting returns to the level of the elements, a few megabytes at a time, and
each piece goes through the strict parser of the gate.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.guard import Limits

GZIP = b"\x1f\x8b"
_PIECE = 4 << 20
_HEAD = 64 << 10


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, inflated when it is gzip."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP
        file.seek(0)
        if is_gzip:
            with gzip.GzipFile(fileobj=file) as inflated:
                yield inflated  # type: ignore[misc]
        else:
            yield file


def head(path: Path, size: int = _HEAD) -> bytes:
    """The first bytes of a file, inflated when it is gzip."""
    with opened(path) as file:
        return file.read(size)


def _depths(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Places of brackets outside strings, the nesting behind each, and the brackets."""
    plain = text
    if b"\\" in text:  # escaped characters are no quotes
        plain = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    codes = np.frombuffer(plain, dtype=np.uint8)
    outside = np.cumsum(codes == ord('"'), dtype=np.int32) % 2 == 0
    opens = (codes == ord("[")) | (codes == ord("{"))
    closes = (codes == ord("]")) | (codes == ord("}"))
    at = np.flatnonzero((opens | closes) & outside)
    return at, np.cumsum(np.where(opens[at], 1, -1)), codes[at]


def container(text: bytes, key: str | None) -> int:
    """Place of the bracket of the root (``key`` None) or of the value of a key of the root, or -1.

    >>> container(b'{"a": {"nuc": 1}, "nuc": {', "nuc")
    25
    """
    at, depth, _ = _depths(text)
    if key is None:
        return int(at[0]) if at.size else -1
    for found in re.finditer(rb'"%s"\s*:\s*(?=[\[{])' % re.escape(key.encode()), text):
        place = int(np.searchsorted(at, found.end()))
        if place < at.size and at[place] == found.end() and depth[place] == 2:
            return found.end()
    return -1


class Elements:
    """The elements of one array or object of a JSON file, a few thousand at a time.

    Parameters
    ----------
    path
        JSON, or gzip of it.
    key
        A key of the root object whose value is the array or object; None for the root itself.
    limits
        What the file may ask for; ``text_bytes`` counts inflated bytes.

    After iterating, ``rest`` is the document without the elements.
    """

    def __init__(self, path: Path, key: str | None, limits: Limits) -> None:
        self._path, self._key, self._limits = path, key, limits
        self.rest: Any = None

    def __iter__(self) -> Iterator[Any]:
        where = str(self._path)
        with opened(self._path) as file:
            text = file.read(_PIECE)
            start = container(text, self._key)
            if start < 0:
                raise InputError(f"{where}: {self._key!r} is not among the first of its entries.")
            before, is_list = text[:start], text[start : start + 1] == b"["
            brackets = (b"[", b"]") if is_list else (b"{", b"}")
            text, total = text[start + 1 :], len(text)
            while True:
                end, closed = _cut(text)
                if piece := text[:end].strip(b" \t\r\n,"):
                    yield guard.parse_json(
                        brackets[0] + piece + brackets[1], where=where, limits=self._limits
                    )
                text = text[end:]
                if closed:
                    break
                more = file.read(max(_PIECE, len(text)))
                total += len(more)
                self._limits.check("text_bytes", total, where)
                if not more:
                    raise InputError(f"{where}: it ends inside its list of nuclei.")
                text += more
            after = text.lstrip(b" \t\r\n,")[1:] + file.read(self._limits.xml_bytes)
            document = before + brackets[0] + brackets[1] + after
            self.rest = guard.parse_json(document, where=where, limits=self._limits)


def _cut(text: bytes) -> tuple[int, bool]:
    """How far whole elements reach, and whether the container closes behind them."""
    at, depth, _ = _depths(text)
    closing = np.flatnonzero(depth < 0)
    if closing.size:
        return int(at[closing[0]]), True
    whole = np.flatnonzero(depth == 0)
    return (int(at[whole[-1]]) + 1, False) if whole.size else (0, False)
