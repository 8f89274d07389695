"""TIFF in and out: OME-TIFF, ImageJ hyperstacks, plain pages, single-image slides.

A file is read completely or refused. Complete means: the pages that its text declares are the
pages that the chain reaches, every strip lies inside the file and inflates to the size its page
claims, tifffile had nothing to complain about, and every axis has a name, from the file or from
the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError
from nucleoscope.io import guard, omeset
from nucleoscope.io.qptiff import MARK, parse_qptiff
from nucleoscope.io.raw import (
    RGB,
    ImageInfo,
    RawImage,
    Request,
    check_axes,
    refuse_time,
    scale_of,
    to_um,
    unique_names,
)
from nucleoscope.io.tiffmeta import (
    Declared,
    SpreadOverFiles,
    parse_imagej,
    parse_ome,
    parse_shaped,
    plain,
)
from nucleoscope.io.tiffpages import (
    allocate,
    check_page,
    contiguous_pages,
    count_pages,
    page_signature,
    read_pages,
    trapped,
    unaccounted_bytes,
)

MAGICS = (b"II\x2a\x00", b"MM\x00\x2a", b"II\x2b\x00", b"MM\x00\x2b")


@dataclass(frozen=True, eq=False)
class _Layout:
    """A checked file: which page is which channel and slice."""

    declared: Declared
    pages: list[Any]  # (C * Z) pages, channel by channel
    axes: str
    n_channels: int
    n_slices: int
    is_rgb: bool
    channels: tuple[str, ...] | None
    spacing: tuple[float, float, float] | None
    notes: tuple[str, ...]


# Opening ----------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path, request: Request) -> Iterator[tuple[_Layout, BinaryIO]]:
    """Open and check a file; yields its layout and the file it is read from."""
    limits, where = request.limits, str(path)
    with guard.reading(path), path.open("rb") as file, trapped(path.name) as check:
        limits.check("file_bytes", path.stat().st_size, where)
        n_pages = count_pages(file, where, limits)
        file.seek(0)
        with tifffile.TiffFile(file, name=path.name) as tif:
            pages = [tif.pages[i] for i in range(len(tif.pages))]
            check()
            if not pages or len(pages) != n_pages:
                raise InputError(
                    f"{where}: {len(pages)} of its {n_pages} pages can be read; it is damaged."
                )
            layout = _layout(path, tif, pages, request)
            check()
            yield layout, file
            check()


def _layout(path: Path, tif: Any, pages: list[Any], request: Request) -> _Layout:
    """Match declared planes with the pages and name every axis."""
    where, size = str(path), path.stat().st_size
    declared, chain = _declared(path, tif, pages, request), pages
    pages, notes = _without_pyramid(declared, pages, where)
    if len(pages) == 1 and (declared.n_pages or 1) > 1 and declared.kind != "OME-TIFF":
        pages = contiguous_pages(pages[0], declared.n_pages or 1, size) or pages
    declared, short = _complete(declared, pages, request, where)
    notes += short
    used = [pages[i] for i in declared.pages]
    for n, page in zip(declared.pages, used, strict=True):
        check_page(page, int(n), size, where, request.limits)
        if page_signature(page) != page_signature(used[0]):
            raise InputError(
                f"{where}: its pages differ in size or type; save the one you need as its own file."
            )
    _check_plane(declared, used[0], where)
    notes += _photometric(used[0], request, where)
    if declared.n_pages is None and 2 * unaccounted_bytes(chain, path) >= _smallest(used):
        raise InputError(
            f"{where}: {len(chain)} pages are reachable but the file holds data for more; its "
            "chain of pages is broken."
        )
    return _named(declared, used, notes, request, where)


def _declared(path: Path, tif: Any, pages: list[Any], request: Request) -> Declared:
    """What the text layer says; OME before ImageJ before tifffile's JSON."""
    text, where = str(pages[0].description or ""), str(path)
    limits = request.limits
    if "<OME" in text or "</OME" in text or "OME>" in text[-20:]:
        return _with_conflicts(parse_ome(text, where, limits), pages[0], where)
    if MARK in text:
        return _with_tag_scale(parse_qptiff(pages, where, limits), pages[0], where)
    if text.startswith("ImageJ="):
        return parse_imagej(text, _resolution(pages[0]), where, limits)
    if text.lstrip().startswith('{"shape"'):
        return _with_tag_scale(parse_shaped(text, pages[0].ndim, where, limits), pages[0], where)
    if tif.is_svs or "Aperio" in text[:40]:
        return _svs(text, where)
    return _with_tag_scale(plain(len(pages)), pages[0], where)


def _svs(text: str, where: str) -> Declared:
    """The full-resolution image of an Aperio slide; its other pages are smaller copies."""
    found = re.search(r"MPP = ([0-9.]+)", text)
    mpp = float(found[1]) if found else None
    note = f"{where} is a slide, read whole at full resolution."
    return Declared(
        "Aperio SVS", "", (), np.arange(1), None, zyx_um=(None, mpp, mpp), notes=(note,)
    )


def _resolution(page: Any) -> tuple[float | None, float | None]:
    """Pixels per unit in y and x from the resolution tags."""

    def value(name: str) -> float | None:
        tag = page.tags.get(name)
        try:
            above, below = tag.value
            return above / below if above > 0 and below > 0 else None
        except (AttributeError, TypeError, ValueError):
            return None

    return value("YResolution"), value("XResolution")


def _tag_scale(page: Any) -> tuple[float | None, float | None]:
    """Pixel sizes in um (y, x) where the resolution tags are in centimetres."""
    tag = page.tags.get("ResolutionUnit")
    if tag is None or int(tag.value) != 3:
        return None, None
    y, x = (None if not r else to_um(1.0 / r, "cm") for r in _resolution(page))
    is_microscope = y is not None and x is not None and max(y, x) <= 10.0
    return (y, x) if is_microscope else (None, None)


def _with_tag_scale(declared: Declared, page: Any, where: str) -> Declared:
    """Take the pixel size from the resolution tags of a file without any other."""
    y, x = _tag_scale(page)
    if y is None:
        return declared
    note = f"{where}: the pixel size {y:g} um comes from its resolution tags in centimetres."
    return replace(declared, zyx_um=(None, y, x), notes=(*declared.notes, note))


def _with_conflicts(declared: Declared, page: Any, where: str) -> Declared:
    """Report where OME-XML and the resolution tags disagree; OME-XML wins."""
    notes = list(declared.notes)
    for axis, ome, tag in zip("yx", declared.zyx_um[1:], _tag_scale(page), strict=True):
        if ome is not None and tag is not None and not np.isclose(ome, tag, rtol=0.01):
            notes.append(
                f"{where}: the {axis} pixel size is {ome:g} um in its OME-XML and {tag:g} um in "
                "its resolution tags; the OME-XML is used."
            )
    return replace(declared, notes=tuple(notes))


def _without_pyramid(
    declared: Declared, pages: list[Any], where: str
) -> tuple[list[Any], list[str]]:
    """Drop smaller copies behind a colour page that stand for its pyramid."""
    first = pages[0]
    if declared.kind == "Aperio SVS":
        return pages[:1], list(declared.notes)
    if declared.kind == "qptiff":
        return pages, list(declared.notes)
    smaller = all(
        p.imagelength < first.imagelength and p.samplesperpixel == first.samplesperpixel
        for p in pages[1:]
    )
    if declared.n_pages is None and len(pages) > 1 and first.samplesperpixel > 1 and smaller:
        note = f"{where}: the first page is read; {len(pages) - 1} smaller copies are left out."
        return pages[:1], [*declared.notes, note]
    return pages, list(declared.notes)


def _complete(
    declared: Declared, pages: list[Any], request: Request, where: str
) -> tuple[Declared, list[str]]:
    """Demand that the declared pages are the pages there are."""
    n_found, n_declared = len(pages), declared.n_pages
    if n_declared is None:
        n = min(n_found, len(declared.pages))
        sizes = (n,) if declared.sizes else ()
        axes = declared.axes if n > 1 else ""
        short = replace(declared, pages=declared.pages[:n], axes=axes, sizes=sizes if n > 1 else ())
        return short, []
    if n_found == n_declared:
        return declared, []
    text = f"{where}: {n_found} pages but its {declared.kind} text declares {n_declared}"
    if n_found > n_declared:
        raise InputError(f"{text}; the two contradict each other, so save the file again.")
    if not request.allow_short:
        raise InputError(
            f"{text}; the file looks cut short. Pass --allow-short to read what is complete."
        )
    return _shortened(declared, n_found, text)


def _shortened(declared: Declared, n_found: int, text: str) -> tuple[Declared, list[str]]:
    """Keep the slices of which every channel is there."""
    grid = declared.pages.reshape(declared.sizes) < n_found
    at = declared.axes.find("Z")
    if at < 0:
        raise InputError(f"{text}, and no slices are complete.")
    others = tuple(i for i in range(grid.ndim) if i != at)
    whole = np.atleast_1d(grid.all(axis=others))
    n = int(np.argmin(whole)) if not whole.all() else len(whole)
    if n == 0:
        raise InputError(f"{text}, and no slice is complete.")
    kept = np.take(declared.pages.reshape(declared.sizes), range(n), axis=at)
    sizes = tuple(n if i == at else size for i, size in enumerate(declared.sizes))
    note = f"{text}; the first {n} slices were read, as allowed."
    return replace(declared, pages=kept.ravel(), sizes=sizes, n_pages=n_found), [note]


def _photometric(page: Any, request: Request, where: str) -> list[str]:
    """Refuse colour palettes, whose pixels are no intensities; report inverted greys."""
    if int(page.photometric or 1) == 3 and not request.as_labels:
        raise InputError(
            f"{where}: its pixels are numbers of palette colours; save it as grey or as RGB."
        )
    if page.photometric is not None and int(page.photometric) == 0:
        return [f"{where} is stored with white as 0; its values are taken as they are."]
    return []


def _check_plane(declared: Declared, page: Any, where: str) -> None:
    """Compare the declared rows, columns and type with those of the page."""
    plane = (page.imagelength, page.imagewidth)
    if declared.plane is not None and declared.plane != plane:
        raise InputError(
            f"{where}: its text declares {declared.plane[0]} x {declared.plane[1]} pixels and its "
            f"pages have {plane[0]} x {plane[1]}; the file is damaged."
        )
    names = {"float": "float32", "double": "float64", "bit": "bool"}
    dtype = None if declared.dtype is None else names.get(declared.dtype, declared.dtype)
    if dtype is not None and dtype != page.dtype.name:
        raise InputError(
            f"{where}: its text declares {declared.dtype} pixels and its pages hold "
            f"{page.dtype.name}; the file is damaged."
        )


def _smallest(pages: list[Any]) -> int:
    """Stored bytes of the smallest page, a whole kilobyte at least."""
    return max(1024, min(sum(int(n) for n in page.databytecounts) for page in pages))


# Naming the axes --------------------------------------------------------------------------------


def _named(
    declared: Declared, used: list[Any], notes: list[str], request: Request, where: str
) -> _Layout:
    """Give every axis of the stack its name and put the pages in channel-slice order."""
    is_rgb = used[0].samplesperpixel > 1
    if is_rgb and used[0].samplesperpixel not in (3, 4):
        raise InputError(f"{where}: {used[0].samplesperpixel} samples a pixel are not RGB.")
    kept = [i for i, size in enumerate(declared.sizes) if size > 1]
    letters = "".join(declared.axes[i] for i in kept)
    sizes = tuple(declared.sizes[i] for i in kept)
    letters, sizes = _asked(letters, sizes, is_rgb, request, where)
    order = np.arange(len(used)).reshape(sizes)
    if "T" in letters:
        raise refuse_time(sizes[letters.index("T")], where)
    n_channels = sizes[letters.index("C")] if "C" in letters else 1
    n_slices = sizes[letters.index("Z")] if "Z" in letters else 1
    if is_rgb and n_channels > 1:
        raise InputError(f"{where}: {n_channels} channels of RGB colour are not one image.")
    order = order.transpose([letters.index(a) for a in "CZ" if a in letters])
    spacing, odd = scale_of(declared.zyx_um, n_slices == 1, where)
    names, more = _names(declared, n_channels, is_rgb, where)
    return _Layout(
        declared, [used[i] for i in order.ravel()], letters + ("YXS" if is_rgb else "YX"),
        n_channels, n_slices, is_rgb, names, spacing, (*notes, *odd, *more),
    )  # fmt: skip


def _asked(
    letters: str, sizes: tuple[int, ...], is_rgb: bool, request: Request, where: str
) -> tuple[str, tuple[int, ...]]:
    """Apply the caller's axes, or ask for them where the file names none."""
    plane = "YXS" if is_rgb else "YX"
    if request.axes is None:
        if "?" not in letters:
            return letters, sizes
        if request.as_labels and len(sizes) == 1:
            return "Z", sizes
        shape = " x ".join(str(n) for n in sizes)
        raise InputError(
            f"{where}: the file does not say what its {shape} pages are; name the axes with "
            "--axes (ZYX for slices, ZCYX for slices of channels) and the scale with "
            "--spacing Z,Y,X."
        )
    given = request.axes.upper()
    lead = given.removesuffix("S").removesuffix("YX")
    if not given.removesuffix("S").endswith("YX"):
        raise InputError(f"{where}: its pages are rows and columns, so --axes ends with {plane}.")
    if len(lead) == 2 and len(sizes) == 1:
        sizes = _split(lead, sizes[0], request, where)
    if len(lead) > len(sizes) and len(sizes) == 0:
        lead = ""
    check_axes(lead + plane, len(sizes) + len(plane), where)
    return lead, sizes


def _split(lead: str, n: int, request: Request, where: str) -> tuple[int, int]:
    """Split one stack of pages into two axes by the number of channels."""
    channels = 0 if request.channels is None else len(request.channels)
    if "C" not in lead or not channels or n % channels:
        raise InputError(
            f"{where}: to split {n} pages by --axes {lead}YX the channels must be known; name "
            "them with channels=(...), as many as divide the pages."
        )
    return (n // channels, channels) if lead[1] == "C" else (channels, n // channels)


def _names(
    declared: Declared, n: int, is_rgb: bool, where: str
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Channel names where the file gives one for each channel."""
    if is_rgb:
        return RGB, ()
    if len(declared.channels) != n or not any(declared.channels):
        return None, ()
    return unique_names(declared.channels, where)


# The public functions ---------------------------------------------------------------------------


def is_tiff(path: Path, head: bytes) -> bool:
    """True when the first bytes are those of a TIFF or BigTIFF file."""
    return head[:4] in MAGICS


def read(path: Path, request: Request) -> RawImage:
    """Read a TIFF file completely, with the files beside it that hold its other planes.

    Raises
    ------
    InputError
        Incomplete, contradictory, damaged, a time series, or axes that nobody named.
    UnsafeInputError
        It claims more than it can hold, or its XML has entities.
    """
    try:
        return _read(path, request)
    except SpreadOverFiles:
        return omeset.read(path, request)


def _read(path: Path, request: Request) -> RawImage:
    """One file that holds all its planes."""
    where = str(path)
    with _opened(path, request) as (layout, file):
        page = layout.pages[0]
        c, z, y, x = layout.n_channels, layout.n_slices, page.imagelength, page.imagewidth
        samples = page.samplesperpixel
        shape = (z, y, x, samples) if layout.is_rgb else (c, z, y, x)
        out = allocate(shape, page.dtype, where, request.limits)
        flat = out.reshape(c * z, y, x, samples)
        read_pages(file, layout.pages, list(flat), where)
        data = out[..., :3].transpose(3, 0, 1, 2) if layout.is_rgb else out
        return RawImage(data, layout.channels, layout.spacing, layout.is_rgb, z == 1, layout.notes)


def describe(path: Path, request: Request) -> ImageInfo:
    """What a TIFF file declares, checked but not decoded; axes nobody named appear as ``Z``."""
    try:
        return _describe(path, request)
    except SpreadOverFiles:
        return omeset.describe(path, request)


def _describe(path: Path, request: Request) -> ImageInfo:
    """One file that holds all its planes."""
    with _opened(path, replace(request, as_labels=True)) as (layout, _):
        page = layout.pages[0]
        c = 3 if layout.is_rgb else layout.n_channels
        names = layout.channels or tuple(f"ch{i}" for i in range(c))
        axes, notes = layout.axes, layout.notes
        if "?" in layout.declared.axes and request.axes is None:
            axes = "?" + axes[1:]
            notes = (*notes, f"{path}: the file names no axes; give --axes and --spacing.")
        return ImageInfo(
            layout.declared.kind, (c, layout.n_slices, page.imagelength, page.imagewidth), axes,
            names, layout.spacing, page.dtype.name, notes,
        )  # fmt: skip


def write_ome_tiff(path: Path | str, image: Volume | Labels, *, overwrite: bool = False) -> None:
    """Write a volume or an instance map as OME-TIFF with its names and its scale.

    Parameters
    ----------
    path
        Ends in ``.ome.tif`` by custom.
    image
        ``Volume`` (axes CZYX, or RGB colour) or ``Labels`` (axes ZYX, int32).
    overwrite
        Replace a file that is not from this run.

    Raises
    ------
    CallError
        The file exists and ``overwrite`` is False.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "map.ome.tif"
    >>> write_ome_tiff(path, Labels(np.eye(8, dtype=np.int32), spacing=(1.0, 0.5, 0.5)))
    >>> read(path, Request(as_labels=True)).spacing
    (1.0, 0.5, 0.5)
    """
    data: NDArray[Any] = image.data
    metadata: dict[str, Any] = {"axes": "ZYX"}
    is_rgb = isinstance(image, Volume) and image.is_rgb
    if isinstance(image, Volume):
        metadata = {"axes": "CZYX", "Channel": {"Name": list(image.channels)}}
    if is_rgb:
        data, metadata = data.transpose(1, 2, 3, 0), {"axes": "ZYXS"}
    if image.spacing is not None:
        for axis, um in zip("ZYX", image.spacing, strict=True):
            metadata |= {f"PhysicalSize{axis}": um, f"PhysicalSize{axis}Unit": "µm"}
    with guard.atomic_write(path, overwrite=overwrite) as temp:
        tifffile.imwrite(
            temp, data, ome=True, metadata=metadata, compression="zlib",
            photometric="rgb" if is_rgb else "minisblack",
        )  # fmt: skip
