"""What the text inside a TIFF file declares: OME-XML, ImageJ's lines, tifffile's JSON.

OME: the 2016-06 schema (Linkert et al. 2010, J Cell Biol 189, 777). ImageJ: the ``key=value`` lines
its FileSaver writes into ImageDescription.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import InputError
from nucleoscope.io.guard import Element, Limits, parse_json, parse_xml
from nucleoscope.io.raw import to_um


@dataclass(frozen=True, eq=False)
class Declared:
    """Planes a file declares, in its own order of axes.

    Parameters
    ----------
    kind
        ``"OME-TIFF"``, ``"ImageJ TIFF"`` or ``"TIFF"``.
    axes, sizes
        Of the stack of pages, slowest first; ``"?"`` for an axis without a name.
    pages
        For each position of the stack, the page that holds it.
    n_pages
        Pages that the file must have; None when it does not say.
    plane
        ``(Y, X)`` of a page, or None when not declared.
    """

    kind: str
    axes: str
    sizes: tuple[int, ...]
    pages: NDArray[np.int64]
    n_pages: int | None
    plane: tuple[int, int] | None = None
    dtype: str | None = None
    channels: tuple[str | None, ...] = ()
    zyx_um: tuple[float | None, float | None, float | None] = (None, None, None)
    notes: tuple[str, ...] = field(default=())


# OME --------------------------------------------------------------------------------------------


def children(element: Element, name: str) -> list[Element]:
    """Child elements of that name in any namespace."""
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def count_of(element: Element, name: str, where: str, default: int | None = None) -> int:
    """A positive (or, with a default, non-negative) integer attribute."""
    text = element.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 12:
        raise InputError(f"{where}: its OME-XML has {name}={text!r} where a count is expected.")
    value = int(text)
    if value == 0 and default is None:
        raise InputError(f"{where}: its OME-XML declares {name}=0, an empty image.")
    return value


def _physical(pixels: Element, axis: str, where: str) -> tuple[float | None, tuple[str, ...]]:
    """PhysicalSize of an axis in um; None, with a note, when it is absent or no length."""
    text, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
    if text is None:
        return None, ()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    um = to_um(value, unit)
    if um is None or not math.isfinite(um) or um <= 0:
        what = f"PhysicalSize{axis}={text!r} {unit}"
        return None, (f"{where}: {what} in its OME-XML is not a length, so it is left out.",)
    return um, ()


class SpreadOverFiles(InputError):
    """The planes of an OME-TIFF lie in several files; ``metadata`` is the file that lists them."""

    def __init__(self, where: str, metadata: str) -> None:
        super().__init__(f"{where}: its planes are spread over other files ({metadata[:80]}).")
        self.metadata = metadata


def _check_single_file(root: Element, pixels: Element, where: str) -> None:
    """Say when planes lie in other files."""
    own = root.get("UUID")
    for child in children(pixels, "TiffData"):
        for uuid in children(child, "UUID"):
            file = uuid.get("FileName")
            same = file is None or PurePath(file).name == PurePath(where).name
            if not same and (own is None or (uuid.text or "").strip() != own):
                raise SpreadOverFiles(where, PurePath(where).name)


@dataclass(frozen=True)
class PixelsSizes:
    """Sizes of one OME Pixels element; ``order`` is slowest first, without Y and X."""

    order: str
    sizes: dict[str, int]
    samples: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes of ``order``."""
        return tuple(self.sizes[axis] for axis in self.order)


def pixels_sizes(pixels: Element, where: str, limits: Limits) -> PixelsSizes:
    """Read SizeC, SizeZ, SizeT, DimensionOrder and SamplesPerPixel."""
    order = pixels.get("DimensionOrder", "")
    if len(order) != 5 or not order.startswith("XY") or set(order) != set("XYZCT"):
        raise InputError(f"{where}: its OME-XML has DimensionOrder={order!r}, which is none.")
    sizes = {axis: count_of(pixels, f"Size{axis}", where) for axis in "ZCT"}
    samples = {count_of(c, "SamplesPerPixel", where, 1) or 1 for c in children(pixels, "Channel")}
    n_samples = samples.pop() if len(samples) == 1 else 1
    if sizes["C"] % n_samples:
        raise InputError(f"{where}: SizeC={sizes['C']} is no multiple of {n_samples} samples.")
    sizes["C"] //= n_samples
    limits.check("pages", math.prod(sizes.values()), where)
    return PixelsSizes(order[:1:-1], sizes, n_samples)


def _page_map(pixels: Element, sizes: PixelsSizes, start: int, where: str) -> NDArray[np.int64]:
    """Page of every plane by the TiffData elements; -1 where none is named."""
    total = math.prod(sizes.shape)
    blocks = children(pixels, "TiffData")
    if not blocks:
        return np.arange(start, start + total).reshape(sizes.shape)
    pages = np.full(total, -1, dtype=np.int64)
    following = start
    for block in blocks:
        first = tuple(count_of(block, f"First{axis}", where, 0) for axis in sizes.order)
        if any(f >= s for f, s in zip(first, sizes.shape, strict=True)):
            raise InputError(f"{where}: a TiffData of its OME-XML lies outside the image.")
        at = int(np.ravel_multi_index(first, sizes.shape))
        has_page = block.get("IFD") is not None
        page = count_of(block, "IFD", where, following)
        n = count_of(block, "PlaneCount", where, 1 if has_page else total - at)
        if at + n > total:
            raise InputError(f"{where}: a TiffData of its OME-XML has more planes than fit.")
        pages[at : at + n] = np.arange(page, page + n)
        following = page + n
    return pages.reshape(sizes.shape)


def parse_ome(text: str, where: str, limits: Limits) -> Declared:
    """Read OME-XML into what it declares about its first image.

    Raises
    ------
    InputError
        Not OME, planes missing from the map or mapped twice.
    SpreadOverFiles
        The planes lie in several files.
    UnsafeInputError
        The XML has a document type or entities.
    """
    root = parse_xml(text, where=where, limits=limits)
    images = children(root, "Image")
    blocks = [pixels for image in images for pixels in children(image, "Pixels")]
    for pointer in children(root, "BinaryOnly"):
        raise SpreadOverFiles(where, str(pointer.get("MetadataFile", "")))
    if not blocks:
        raise InputError(f"{where}: its OME-XML describes no image; open the main file instead.")
    start, maps, first = 0, [], None
    for pixels in blocks:
        _check_single_file(root, pixels, where)
        sizes = pixels_sizes(pixels, where, limits)
        first = first or sizes
        maps.append(_page_map(pixels, sizes, start, where))
        start = int(maps[-1].max()) + 1
    assert first is not None  # noqa: S101  blocks is not empty
    used = np.concatenate([pages.ravel() for pages in maps])
    if (used < 0).any() or len(np.unique(used)) != len(used):
        raise InputError(f"{where}: its OME-XML does not give every plane a page of its own.")
    if int(used.max()) != len(used) - 1:
        raise InputError(f"{where}: the page numbers in its OME-XML leave gaps.")
    return from_pixels(blocks[0], first, maps[0], len(used), where, len(blocks))


def from_pixels(
    pixels: Element, sizes: PixelsSizes, pages: NDArray[np.int64], n_pages: int, where: str, n: int
) -> Declared:
    """Assemble what the first image of an OME file declares."""
    notes = [f"{where} holds {n} images; the first is read."] if n > 1 else []
    lengths = []
    for axis in "ZYX":
        um, odd = _physical(pixels, axis, where)
        lengths.append(um)
        notes.extend(odd)
    names = tuple(channel.get("Name") for channel in children(pixels, "Channel"))
    return Declared(
        "OME-TIFF",
        sizes.order,
        sizes.shape,
        pages.ravel(),
        n_pages,
        (count_of(pixels, "SizeY", where), count_of(pixels, "SizeX", where)),
        pixels.get("Type"),
        names,
        (lengths[0], lengths[1], lengths[2]),
        tuple(notes),
    )


# ImageJ -----------------------------------------------------------------------------------------


def parse_imagej(
    text: str, resolution: tuple[float | None, float | None], where: str, limits: Limits
) -> Declared:
    """Read ImageJ's description lines; ``resolution`` is pixels per unit in y and x.

    Raises
    ------
    InputError
        The counts contradict each other.
    """
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def count(key: str) -> int:
        value = pairs.get(key, "1").strip()
        if not (value.isascii() and value.isdigit() and 0 < len(value) < 10 and int(value)):
            raise InputError(f"{where}: ImageJ's {key}={value!r} is not a count.")
        return int(value)

    images = count("images")
    frames, slices, channels = count("frames"), count("slices"), count("channels")
    limits.check("pages", images, where)
    axes, sizes = "TZC", (frames, slices, channels)  # type: tuple[str, tuple[int, ...]]
    if images > 1 and frames * slices * channels == 1:
        axes, sizes = "?", (images,)
    elif frames * slices * channels != images:
        raise InputError(
            f"{where}: ImageJ declares {images} images but {channels} channels x {slices} slices "
            f"x {frames} frames; the description is damaged."
        )
    return Declared(
        "ImageJ TIFF", axes, sizes, np.arange(images), images,
        zyx_um=_imagej_scale(pairs, resolution),
    )  # fmt: skip


def _imagej_scale(
    pairs: dict[str, str], resolution: tuple[float | None, float | None]
) -> tuple[float | None, float | None, float | None]:
    """Pixel sizes in um from ImageJ's unit, spacing and the resolution tags."""
    unit = pairs.get("unit", "")

    def um(value: float | None, of: str) -> float | None:
        found = None if value is None else to_um(value, pairs.get(of, unit))
        return found if found is not None and math.isfinite(found) and found > 0 else None

    try:
        step: float | None = abs(float(pairs["spacing"]))
    except (KeyError, ValueError):
        step = None
    y, x = (None if not r else 1.0 / r for r in resolution)
    return um(step, "zunit"), um(y, "yunit"), um(x, "unit")


# tifffile's JSON and nothing at all -------------------------------------------------------------


def parse_shaped(text: str, plane_dims: int, where: str, limits: Limits) -> Declared:
    """Read the ``{"shape": [...], "axes": ...}`` description that tifffile writes.

    ``plane_dims`` is how many of the last dimensions lie within a page.

    Raises
    ------
    InputError
        No such JSON.
    """
    value = parse_json(text, where=where, limits=limits)
    shape = value.get("shape") if isinstance(value, dict) else None
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise InputError(f"{where}: its JSON description has no shape.")
    limits.check("pages", math.prod(shape[: len(shape) - plane_dims]), where)
    sizes = tuple(shape[: len(shape) - plane_dims])
    axes = value.get("axes")
    known = isinstance(axes, str) and len(axes) == len(shape) and set(axes) <= set("TCZYXS")
    lead = axes[: len(sizes)] if known else "?" * len(sizes)
    if len(set(lead) - {"?"}) != len(lead.replace("?", "")):
        lead = "?" * len(sizes)
    n = math.prod(sizes)
    inner = shape[len(sizes) :]
    plane = (inner[0], inner[1]) if len(inner) == 2 else None
    return Declared("TIFF", lead, sizes, np.arange(n), n, plane)


def plain(n_pages: int) -> Declared:
    """What a TIFF without any description declares: a stack of pages without a name."""
    axes, sizes = ("?", (n_pages,)) if n_pages > 1 else ("", ())
    return Declared("TIFF", axes, sizes, np.arange(n_pages), None)
