"""OME-TIFF spread over several files: a companion, or a first file that lists the others.

The OME-XML names for every plane the file and the page that hold it (OME-TIFF specification,
"multi-file datasets"). Files are taken from the folder of the list only, by plain name.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleoscope.errors import InputError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.io.guard import Element, Limits
from nucleoscope.io.raw import ImageInfo, RawImage, Request, refuse_time, scale_of, unique_names
from nucleoscope.io.tiffmeta import (
    Declared,
    PixelsSizes,
    children,
    count_of,
    from_pixels,
    pixels_sizes,
)
from nucleoscope.io.tiffpages import allocate, check_page, count_pages, read_pages, trapped

_HEAD = 4096


@dataclass(frozen=True, eq=False)
class _Set:
    """A data set: what it declares, and file and page of each plane ``(C, Z)``."""

    declared: Declared
    files: list[Path]
    file_of: NDArray[np.int64]
    page_of: NDArray[np.int64]
    channels: tuple[str, ...] | None
    spacing: tuple[float, float, float] | None
    notes: tuple[str, ...]


def is_companion(path: Path, head: bytes) -> bool:
    """True for OME-XML on its own."""
    if path.is_dir() or head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"<":
        return False
    with path.open("rb") as file:
        text = file.read(_HEAD)
    return b"<OME" in text or b":OME " in text


def _sibling(folder: Path, name: str, where: str) -> Path:
    """A file that the list names, which must be a plain name in its folder."""
    plain = PurePath(name).name
    if not plain or plain != name or "\\" in name:
        raise UnsafeInputError(f"{where}: it names the file {name[:80]!r} outside its folder.")
    return folder / plain


def _metadata(path: Path, limits: Limits, depth: int = 0) -> tuple[Element, Path]:
    """The root of the OME-XML that lists the planes, and the file it is in."""
    with guard.reading(path):
        with path.open("rb") as file:
            is_xml = file.read(1) not in (b"I", b"M")
        if is_xml:
            text: str | bytes = guard.read_bytes(path, limits=limits, kind="xml_bytes")
        else:
            with trapped(path.name), tifffile.TiffFile(path) as tif:
                text = str(tif.pages[0].description or "")  # type: ignore[union-attr]
        root = guard.parse_xml(text, where=str(path), limits=limits)
    for pointer in children(root, "BinaryOnly"):
        if depth:
            raise InputError(f"{path}: its list of planes points to another list.")
        other = _sibling(path.parent, str(pointer.get("MetadataFile", "")), str(path))
        if not other.is_file():
            raise InputError(
                f"{path}: its planes are listed in {other.name}, which is not beside it; copy it "
                "there."
            )
        return _metadata(other, limits, 1)
    return root, path


def _open_set(path: Path, request: Request) -> _Set:
    """Match every plane with a file that is there."""
    root, listed_in = _metadata(path, request.limits)
    where = str(listed_in)
    blocks = [p for image in children(root, "Image") for p in children(image, "Pixels")]
    if not blocks:
        raise InputError(f"{where}: its OME-XML describes no image.")
    sizes = pixels_sizes(blocks[0], where, request.limits)
    if sizes.samples > 1:
        raise InputError(f"{where}: colour spread over several files is not read; join the files.")
    if sizes.sizes["T"] > 1:
        raise refuse_time(sizes.sizes["T"], where)
    files, file_of, page_of = _planes(blocks[0], sizes, listed_in, where)
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise InputError(
            f"{where}: {len(absent)} of the {len(files)} files of its planes are absent, such as "
            f"{absent[0]}; copy them beside it."
        )
    declared = from_pixels(blocks[0], sizes, page_of, page_of.size, where, len(blocks))
    spacing, odd = scale_of(declared.zyx_um, sizes.sizes["Z"] == 1, where)
    names: tuple[str, ...] | None = None
    if len(declared.channels) == sizes.sizes["C"] and any(declared.channels):
        names, more = unique_names(declared.channels, where)
        odd = (*odd, *more)
    to_cz = [sizes.order.index(axis) for axis in "TCZ"]
    grids = [grid.reshape(sizes.shape).transpose(to_cz)[0] for grid in (file_of, page_of)]
    return _Set(declared, files, grids[0], grids[1], names, spacing, (*declared.notes, *odd))


def _planes(
    pixels: Element, sizes: PixelsSizes, listed_in: Path, where: str
) -> tuple[list[Path], NDArray[np.int64], NDArray[np.int64]]:
    """The files, and for every plane which of them and which of its pages."""
    total = math.prod(sizes.shape)
    files: list[Path] = []
    file_of, page_of = np.full(total, -1), np.full(total, -1)
    for block in children(pixels, "TiffData"):
        first = tuple(count_of(block, f"First{axis}", where, 0) for axis in sizes.order)
        if any(f >= s for f, s in zip(first, sizes.shape, strict=True)):
            raise InputError(f"{where}: a TiffData of its OME-XML lies outside the image.")
        names = [uuid.get("FileName") for uuid in children(block, "UUID")]
        name = next((n for n in names if n), listed_in.name)
        file = _sibling(listed_in.parent, name, where)
        if file not in files:
            files.append(file)
        at = int(np.ravel_multi_index(first, sizes.shape))
        has_page = block.get("IFD") is not None
        n = count_of(block, "PlaneCount", where, 1 if has_page else total - at)
        if at + n > total or (file_of[at : at + n] >= 0).any():
            raise InputError(f"{where}: a TiffData of its OME-XML has more planes than fit.")
        file_of[at : at + n] = files.index(file)
        page_of[at : at + n] = count_of(block, "IFD", where, 0) + np.arange(n)
    if (file_of < 0).any():
        raise InputError(
            f"{where}: its OME-XML gives {int((file_of < 0).sum())} of {total} planes no file."
        )
    return files, file_of.astype(np.int64), page_of.astype(np.int64)


def _pages(tif: Any, found: _Set, n: int, file: Path, limits: Limits) -> list[Any]:
    """The pages of one file that hold planes, checked."""
    where, size = str(file), file.stat().st_size
    wanted = found.page_of[found.file_of == n].tolist()
    if max(wanted) >= len(tif.pages):
        raise InputError(
            f"{where}: page {max(wanted) + 1} is listed and it has {len(tif.pages)}; it looks cut "
            "short."
        )
    pages = [tif.pages[i] for i in wanted]
    for i, page in zip(wanted, pages, strict=True):
        check_page(page, i, size, where, limits)
        if (page.imagelength, page.imagewidth) != found.declared.plane or page.samplesperpixel > 1:
            raise InputError(f"{where}: page {i + 1} is of another size than its OME-XML says.")
    return pages


def read(path: Path, request: Request) -> RawImage:
    """Read all planes of a data set of several files.

    Raises
    ------
    InputError
        A file is absent or damaged, or planes are missing from the list.
    UnsafeInputError
        The list names a file outside its folder, or above a limit.
    """
    with guard.reading(path):
        found = _open_set(path, request)
        out: NDArray[np.generic] | None = None
        for n, file in enumerate(found.files):
            with ExitStack() as stack:
                stack.enter_context(guard.reading(file))
                check = stack.enter_context(trapped(file.name))
                binary = stack.enter_context(file.open("rb"))
                count_pages(binary, str(file), request.limits)
                binary.seek(0)
                tif = stack.enter_context(tifffile.TiffFile(binary, name=file.name))
                pages = _pages(tif, found, n, file, request.limits)
                if out is None:
                    shape = (*found.page_of.shape, pages[0].imagelength, pages[0].imagewidth)
                    out = allocate(shape, pages[0].dtype, str(path), request.limits)
                if any(page.dtype != out.dtype for page in pages):
                    raise InputError(f"{file}: its pixels are of another type than the others'.")
                targets = [out[c, z][..., None] for c, z in np.argwhere(found.file_of == n)]
                read_pages(binary, pages, targets, str(file))
                check()
    assert out is not None  # noqa: S101  a data set has a file
    is_2d = out.shape[1] == 1
    return RawImage(out, found.channels, found.spacing, is_2d=is_2d, notes=found.notes)


def describe(path: Path, request: Request) -> ImageInfo:
    """What the list of a data set of several files says."""
    with guard.reading(path):
        found = _open_set(path, request)
    n_channels, n_slices = found.page_of.shape
    plane = found.declared.plane or (0, 0)
    names = found.channels or tuple(f"ch{i}" for i in range(n_channels))
    axes = "".join(axis for axis, n in (("C", n_channels), ("Z", n_slices)) if n > 1)
    dtype = {"float": "float32", "double": "float64"}.get(
        found.declared.dtype or "", found.declared.dtype or "unknown"
    )
    note = f"{path}: the image lies in {len(found.files)} files."
    return ImageInfo(
        "OME-TIFF of several files", (n_channels, n_slices, *plane), f"{axes}YX", names,
        found.spacing, dtype, (*found.notes, note),
    )  # fmt: skip
