"""CZI, ND2 and LIF through bioio's readers, which are extras and imported only when one is met.

Axes, channel names and pixel sizes come from the maker's metadata as bioio gives them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nucleoscope.errors import MissingExtraError
from nucleoscope.io import guard
from nucleoscope.io.raw import ImageInfo, RawImage, Request, arrange, scale_of, unique_names


@dataclass(frozen=True)
class _Maker:
    """One format: its first bytes, its name and bioio's module for it."""

    magic: bytes
    name: str
    module: str


#: A new format that bioio reads is one row here.
MAKERS = (
    _Maker(b"ZISRAWFILE", "Zeiss CZI", "bioio_czi"),
    _Maker(b"\xda\xce\xbe\x0a", "Nikon ND2", "bioio_nd2"),
    _Maker(b"\x70\x00\x00\x00", "Leica LIF", "bioio_lif"),
)


def _maker(head: bytes) -> _Maker | None:
    """The format of a file's first bytes."""
    found = next((row for row in MAKERS if head.startswith(row.magic)), None)
    is_lif = found is not None and found.module == "bioio_lif"
    return None if is_lif and head[8:9] != b"\x2a" else found


def is_bio(path: Path, head: bytes) -> bool:
    """True for the first bytes of CZI, ND2 or LIF."""
    return _maker(head) is not None


@contextmanager
def _opened(path: Path, request: Request) -> Iterator[tuple[Any, str]]:
    """Bioio's reader of a file, on its first scene, and the format's name."""
    with path.open("rb") as file:
        maker = _maker(file.read(16))
    assert maker is not None  # noqa: S101  the row matched
    try:
        module = import_module(maker.module)
    except ImportError:
        raise MissingExtraError(f"{path}: reading {maker.name}", "bio") from None
    request.limits.check("file_bytes", path.stat().st_size, str(path))
    # The makers' libraries talk about their own future and about metadata nobody asked for.
    with guard.reading(path), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        yield module.Reader(path), maker.name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that readers log."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class _Facts:
    """What the metadata says."""

    axes: str
    sizes: dict[str, int]
    channels: tuple[str, ...] | None
    spacing: tuple[float, float, float] | None
    notes: tuple[str, ...]


def _facts(reader: Any, path: Path, request: Request) -> _Facts:
    """Axes, sizes, names and scale of the first scene."""
    where = str(path)
    axes = str(reader.dims.order)
    shape = tuple(int(n) for n in reader.shape)
    sizes = dict(zip(axes, shape, strict=True))
    notes: list[str] = []
    if len(reader.scenes) > 1:
        notes.append(f"{where} holds {len(reader.scenes)} scenes; the first is read.")
    lengths: list[float | None] = [None, None, None]
    given: list[str] | None = None
    try:
        found = reader.physical_pixel_sizes
        lengths = [_positive(getattr(found, axis)) for axis in "ZYX"]
        given = reader.channel_names
    except Exception as error:  # bioio's readers raise where a file has no scale
        what = str(error).splitlines()[0][:100]
        notes.append(f"{where}: its scale and channel names are not given ({what}).")
    spacing, odd = scale_of(lengths, sizes.get("Z", 1) == 1, where)
    names: tuple[str, ...] | None = None
    more: tuple[str, ...] = ()
    if given and len(given) == sizes.get("C", 1):
        names, more = unique_names([str(name) for name in given], where)
    return _Facts(axes, sizes, names, spacing, (*notes, *odd, *more))


def _positive(value: float | None) -> float | None:
    """A length, or None where the file has none."""
    return float(value) if value is not None and np.isfinite(value) and value > 0 else None


def read(path: Path, request: Request) -> RawImage:
    """Read the first scene of a CZI, ND2 or LIF file.

    Raises
    ------
    MissingExtraError
        bioio's reader of the format is not installed.
    InputError
        Damaged, a time series, or axes that are no image's.
    UnsafeInputError
        Above a limit.
    """
    with _opened(path, request) as (reader, _):
        facts = _facts(reader, path, request)
        n = int(np.prod(list(facts.sizes.values()), dtype=object))
        request.limits.check("pixels", n, str(path))
        guard.check_memory(n * np.dtype(reader.dtype).itemsize, str(path))
        if facts.sizes.get("T", 1) > 1:
            arrange(np.empty(tuple(facts.sizes.values()), "V0"), facts.axes, str(path))
        data, is_rgb, is_2d = arrange(reader.get_image_data(facts.axes), facts.axes, str(path))
    return RawImage(
        data, None if is_rgb else facts.channels, facts.spacing, is_rgb, is_2d, facts.notes
    )


def describe(path: Path, request: Request) -> ImageInfo:
    """What the metadata of a CZI, ND2 or LIF file says."""
    with _opened(path, request) as (reader, name):
        facts = _facts(reader, path, request)
        dtype = np.dtype(reader.dtype).name
    sizes, notes = facts.sizes, facts.notes
    if sizes.get("T", 1) > 1:
        notes = (*notes, f"{path}: it holds {sizes['T']} time points, of which none is read.")
    c, z, y, x = (sizes.get(axis, 1) for axis in "CZYX")
    c = sizes["S"] if sizes.get("S", 1) > 1 else c
    names = facts.channels or tuple(f"ch{i}" for i in range(c))
    return ImageInfo(name, (c, z, y, x), facts.axes, names, facts.spacing, dtype, notes)
