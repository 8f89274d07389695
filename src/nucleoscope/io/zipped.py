"""OME-Zarr inside a zip archive (.ozx, .ome.zarr.zip), with the store at its root or one folder in.

The archive is unpacked into a temporary folder under the gate's rules and read there; to describe
it only the metadata is unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nucleoscope.errors import InputError, NucleoscopeError
from nucleoscope.io import guard, omezarr
from nucleoscope.io.raw import ImageInfo, RawImage, Request

_METADATA = ("zarr.json", ".zattrs", ".zarray", ".zgroup", ".zmetadata")


def is_zipped(path: Path, head: bytes) -> bool:
    """True for a zip archive with the metadata of a Zarr group."""
    if not head.startswith(guard.ZIP):
        return False
    names = guard.zip_names(path)
    return any(name.rpartition("/")[2] in ("zarr.json", ".zattrs") for name in names)


@contextmanager
def unzipped(path: Path, request: Request, *, pixels: bool = True) -> Iterator[Path]:
    """The unpacked store; errors name the archive and not the temporary folder.

    Without ``pixels`` all but the metadata are empty files.
    """
    with guard.unpacked(path, limits=request.limits, only=None if pixels else _METADATA) as temp:
        roots = sorted(
            found.parent for name in ("zarr.json", ".zattrs") for found in temp.rglob(name)
        )
        if not roots:
            raise InputError(f"{path}: it holds no OME-Zarr image.")
        root = min(roots, key=lambda folder: (len(folder.parts), folder))
        try:
            yield root
        except NucleoscopeError as error:
            said = str(error).replace(str(root), str(path)).replace(str(temp), str(path))
            raise type(error)(said) from None


def _renamed(notes: tuple[str, ...], root: Path, path: Path) -> tuple[str, ...]:
    return tuple(note.replace(str(root), str(path)) for note in notes)


def read(path: Path, request: Request) -> RawImage:
    """Read level 0 of a zipped OME-Zarr image or instance map.

    Raises
    ------
    InputError, UnsafeInputError
        As of an OME-Zarr folder, or a damaged or unsafe archive.
    """
    with unzipped(path, request) as root:
        raw = omezarr.read(root, request)
        notes = _renamed(raw.notes, root, path)
        return RawImage(raw.data, raw.channels, raw.spacing, raw.is_rgb, raw.is_2d, notes)


def describe(path: Path, request: Request) -> ImageInfo:
    """What the metadata of a zipped OME-Zarr says."""
    with unzipped(path, request, pixels=False) as root:
        info = omezarr.describe(root, request)
        return ImageInfo(
            "OME-Zarr in a zip", info.shape, info.axes, info.channels, info.spacing, info.dtype,
            _renamed(info.notes, root, path),
        )  # fmt: skip
