"""Crops on disk: one Zarr group of chunked, compressed arrays, read as far as they are indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.crops import CONTEXT_MPP, MORPHOLOGY_MPP, SIDE, CropStore
from nucleoscope.errors import InputError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits

VERSION = 1
#: Crops in a chunk: 3 MB of pixels.
CHUNK = 256
_PICTURES = {"morphology": (SIDE, SIDE, 3), "context": (SIDE, SIDE, 3), "mask": (SIDE, SIDE)}
_COLUMNS = {"border": "bool", "slide": "int32", "id": "int64"}
_CODECS = {"bytes", "blosc", "crc32c", "zstd"}


class CropWriter:
    """Takes crops block by block and stores whole chunks; made by ``write_crops``."""

    def __init__(self, group: Any, n: int, slides: Sequence[str]) -> None:
        from zarr.codecs import BloscCodec

        # Crops that overlap repeat each other, which a high level finds; LZ4 inflates fastest.
        codec = BloscCodec(cname="lz4", clevel=9, shuffle="noshuffle")
        self._n, self._done = n, 0
        self._arrays = {
            name: group.create_array(
                name, shape=(n, *rest), dtype="uint8", chunks=(CHUNK, *rest), compressors=codec
            )
            for name, rest in _PICTURES.items()
        }
        self._columns = {
            name: group.create_array(name, shape=(n,), dtype=kind, chunks=(max(n, 1),))
            for name, kind in _COLUMNS.items()
        }
        self._waiting: list[dict[str, NDArray[Any]]] = []
        self._kept: dict[str, list[NDArray[Any]]] = {name: [] for name in _COLUMNS}

    def add(self, block: CropStore) -> None:
        """Append crops; they are on disk when a chunk is full or the writer is closed."""
        for name in _COLUMNS:
            self._kept[name].append(np.asarray(getattr(block, name)))
        self._waiting.append({name: np.asarray(getattr(block, name)) for name in _PICTURES})
        if sum(len(part["mask"]) for part in self._waiting) >= CHUNK:
            self._flush(whole=True)

    def _flush(self, *, whole: bool) -> None:
        """Store what waits, or only its whole chunks."""
        n = sum(len(part["mask"]) for part in self._waiting)
        stored = n - n % CHUNK if whole else n
        rest = {}
        for name, array in self._arrays.items():
            joined = np.concatenate([part[name] for part in self._waiting])
            array[self._done : self._done + stored] = joined[:stored]
            rest[name] = joined[stored:].copy()
        self._done += stored
        self._waiting = [rest]

    def close(self) -> None:
        """Store the last crops and the columns.

        Raises
        ------
        InputError
            Another number of crops came than was announced.
        """
        if self._waiting:
            self._flush(whole=False)
        if self._done != self._n:
            raise InputError(f"{self._done} crops came where {self._n} were announced.")
        for name, array in self._columns.items():
            if self._n:
                array[:] = np.concatenate(self._kept[name])


@contextmanager
def write_crops(
    path: Path | str, n: int, slides: Sequence[str], *, overwrite: bool = False
) -> Iterator[CropWriter]:
    """Yield a writer for ``n`` crops; the folder appears whole at the end, or not at all.

    Parameters
    ----------
    path
        ``ATLAS/crops.zarr``.
    n
        How many crops will be added.
    slides
        Names of the slides; the blocks added index into these.
    overwrite
        Replace a folder that nucleoscope did not write.

    Raises
    ------
    CallError
        The folder exists and is not ours.
    ResourceError
        The disk is full.

    Examples
    --------
    >>> import tempfile
    >>> pictures = np.zeros((1, 64, 64, 3), np.uint8)
    >>> crops = CropStore(pictures, pictures, pictures[..., 0], [False], [0], ("a",), [4])
    >>> path = Path(tempfile.mkdtemp()) / "crops.zarr"
    >>> with write_crops(path, 1, ("a",)) as writer:
    ...     writer.add(crops)
    >>> read_crops(path).id.tolist()
    [4]
    """
    import zarr

    with guard.atomic_folder(path, overwrite=overwrite) as temp:
        attributes = {
            "nucleoscope_crops": VERSION, "slides": list(slides),
            "mpp": {"morphology": MORPHOLOGY_MPP, "context": CONTEXT_MPP},
        }  # fmt: skip
        group = zarr.create_group(temp, zarr_format=3, attributes=attributes)
        writer = CropWriter(group, n, slides)
        yield writer
        writer.close()


def _codec_names(value: Any) -> set[str]:
    """Names of all codecs of an array, nested ones included."""
    if isinstance(value, dict):
        return {str(value.get("name"))} | _codec_names(value.get("configuration", {}).get("codecs"))
    return set().union(*map(_codec_names, value)) if isinstance(value, list) else set()


def _check(folder: Path, limits: Limits) -> None:
    """Refuse an array with an unknown codec or an impossible size, before Zarr sees it."""
    meta = guard.read_json(folder / "zarr.json", limits=limits)
    if unknown := _codec_names(meta.get("codecs")) - _CODECS:
        raise UnsafeInputError(f"{folder}: codec {', '.join(sorted(unknown))} is not read.")
    shape = [int(v) for v in meta["shape"]]
    chunk = [int(v) for v in meta["chunk_grid"]["configuration"]["chunk_shape"]]
    limits.check("rows", shape[0], str(folder))
    limits.check("pixels", int(np.prod(chunk, dtype=object)), str(folder))
    guard.check_memory(8 * int(np.prod(chunk, dtype=object)), str(folder))


def read_crops(path: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> CropStore:
    """Open a crop store; its pictures stay on disk until they are indexed.

    Parameters
    ----------
    path
        ``crops.zarr``, or a folder that holds it.

    Raises
    ------
    InputError
        No crop store there, damaged, or of a later version.
    UnsafeInputError
        An unknown codec, or above a limit.
    """
    import zarr

    path = Path(path)
    path = path / "crops.zarr" if (path / "crops.zarr").is_dir() else path
    with guard.reading(path):
        meta = guard.read_json(path / "zarr.json", limits=limits).get("attributes", {})
        version = meta.get("nucleoscope_crops")
        if not isinstance(version, int) or version > VERSION:
            raise InputError(f"{path}: it is no crop store of version {VERSION} or before.")
        for name in (*_PICTURES, *_COLUMNS):
            _check(path / name, limits)
        group = zarr.open_group(path, mode="r")
        arrays: dict[str, Any] = {name: group[name] for name in (*_PICTURES, *_COLUMNS)}
        columns = {name: np.asarray(arrays[name][:]) for name in _COLUMNS}
        slides = tuple(str(name) for name in meta["slides"])
        return CropStore(
            arrays["morphology"], arrays["context"], arrays["mask"],
            columns["border"], columns["slide"], slides, columns["id"],
        )  # fmt: skip
