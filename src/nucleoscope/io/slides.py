"""Any slide to a Slide: the format is found by its first bytes, never by its name."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.slide import PLAUSIBLE_MPP, Box, ReadRegion, Slide
from nucleoscope.errors import CallError, InputError, MissingExtraError
from nucleoscope.io import guard
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits
from nucleoscope.io.images import image_stem, read_volume
from nucleoscope.io.omezarr import is_omezarr
from nucleoscope.io.raster import JPEG, is_raster
from nucleoscope.io.slidetiff import NotTiled, open_tiff
from nucleoscope.io.tiff import is_tiff

UInt8s = NDArray[np.uint8]

__all__ = ["SLIDE_READERS", "SlideFormat", "read_slide"]


@dataclass(frozen=True)
class SlideFormat:
    """One row of ``SLIDE_READERS``.

    Parameters
    ----------
    name
        For messages.
    matches
        ``(path, first 132 bytes) -> bool``; a folder has no bytes.
    open
        ``(path, limits) -> Slide`` with the scale that the file gives, or None.
    """

    name: str
    matches: Callable[[Path, bytes], bool]
    open: Callable[[Path, Limits], Slide]


# Formats ----------------------------------------------------------------------------------------


def _plain(path: Path, limits: Limits) -> Slide:
    """An image read whole."""
    volume = read_volume(path, limits=limits)
    if not volume.is_rgb or volume.shape[0] != 1 or volume.data.dtype != np.uint8:
        what = "colour of more than 8 bits" if volume.is_rgb else "no colour"
        raise InputError(
            f"{path}: it holds {what} ({len(volume.channels)} channels of {volume.data.dtype}); "
            "a slide is RGB of 8 bits."
        )
    mpp, notes = None, volume.notes
    if volume.spacing is not None:
        mpp, notes = _plausible(volume.spacing[2], path, notes)
    pixels = np.ascontiguousarray(volume.data[:, 0].transpose(1, 2, 0).astype(np.uint8, copy=False))
    return replace(Slide.from_array(pixels, mpp=mpp, name=image_stem(path)), notes=notes)


def _plausible(
    mpp: float | None, path: Path, notes: tuple[str, ...] = ()
) -> tuple[float | None, tuple[str, ...]]:
    """The file's scale, or None and a note where it cannot be a slide's."""
    low, high = PLAUSIBLE_MPP
    if mpp is None or low <= mpp <= high:
        return mpp, notes
    return None, (*notes, f"{path} gives {mpp:g} um per pixel, which counts as unknown.")


def _tiff(path: Path, limits: Limits) -> Slide:
    """A TIFF: tile by tile where it is tiled, else through what knows its maker."""
    try:
        found = open_tiff(path, limits)
    except NotTiled as kind:
        ways = {"plain": _plain, "openslide": _openslide}
        return ways.get(str(kind), _tiffslide)(path, limits)
    return Slide(image_stem(path), found.shapes, found.mpp, found.reader, found.notes)


def _number(value: Any) -> float | None:
    """A property as a number, or None."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _tiffslide(path: Path, limits: Limits) -> Slide:
    """Leica, Philips, Ventana and Hamamatsu slides."""
    from tiffslide import TiffSlide

    with guard.reading(path):
        slide = TiffSlide(path)

        def reader(level: int, box: Box) -> UInt8s:
            y0, x0, y1, x1 = box
            at = _level_zero((x0, y0), slide.level_downsamples[level])
            with guard.reading(path):
                region = slide.read_region(at, level, (x1 - x0, y1 - y0), as_array=True)
            return np.ascontiguousarray(region[..., :3])

        mpp = _number(slide.properties.get("tiffslide.mpp-x"))
        return _slide(path, slide.level_dimensions, mpp, reader, slide.close, limits)


def _openslide(path: Path, limits: Limits) -> Slide:
    """What only OpenSlide reads, such as Mirax."""
    try:
        import openslide  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise MissingExtraError(f"{path}: reading this slide", "wsi") from None
    with guard.reading(path):
        slide = openslide.OpenSlide(path)

        def reader(level: int, box: Box) -> UInt8s:
            y0, x0, y1, x1 = box
            at = _level_zero((x0, y0), slide.level_downsamples[level])
            with guard.reading(path):
                region = np.asarray(slide.read_region(at, level, (x1 - x0, y1 - y0)))
            # Where a scanner stored nothing, OpenSlide is transparent: white here.
            return np.where(region[..., 3:] == 0, np.uint8(255), region[..., :3])

        mpp = _number(slide.properties.get("openslide.mpp-x"))
        return _slide(path, slide.level_dimensions, mpp, reader, slide.close, limits)


def _dicom(path: Path, limits: Limits) -> Slide:
    """DICOM whole-slide images: one file, or the folder of a series."""
    try:
        import wsidicom  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise MissingExtraError(f"{path}: reading a DICOM slide", "wsi") from None
    with guard.reading(path):
        try:
            slide = wsidicom.WsiDicom.open(path)
        except wsidicom.errors.WsiDicomNotFoundError:
            raise InputError(
                f"{path}: it holds no level of a DICOM slide (VOLUME image); give the folder that "
                "holds the whole series."
            ) from None
        levels = [level.level for level in slide.levels]

        def reader(level: int, box: Box) -> UInt8s:
            y0, x0, y1, x1 = box
            with guard.reading(path):
                region = slide.read_region((x0, y0), levels[level], (x1 - x0, y1 - y0))
            return np.asarray(region.convert("RGB"))

        sizes = [(level.size.width, level.size.height) for level in slide.levels]
        return _slide(path, sizes, float(slide.mpp.width), reader, slide.close, limits)


def _level_zero(xy: tuple[int, int], downsample: float) -> tuple[int, int]:
    """The level-0 pixel where a pixel of a level begins."""
    x, y = (int(np.ceil(v * downsample)) for v in xy)
    return x, y


def _slide(
    path: Path, sizes: Any, mpp: float | None, reader: ReadRegion, close: Any, limits: Limits
) -> Slide:
    """A Slide from sizes in (x, y); its file is closed when nobody holds the reader any more."""
    weakref.finalize(reader, close)
    shapes = tuple((int(y), int(x)) for x, y in sizes)
    limits.check("pixels", shapes[0][0] * shapes[0][1] * 3, str(path))
    known, notes = _plausible(mpp, path)
    return Slide(image_stem(path), shapes, known, reader, notes)


def _is_dicom(path: Path, head: bytes) -> bool:
    """True for DICOM's magic at byte 128, and for a folder with such a file."""
    if not path.is_dir():
        return head[128:132] == b"DICM"
    return any(_head(file)[128:132] == b"DICM" for file in sorted(path.iterdir()) if file.is_file())


def _is_mirax(path: Path, head: bytes) -> bool:
    """A Mirax slide is a JPEG beside a folder of the same name that holds its index."""
    return head.startswith(JPEG) and path.with_suffix("").joinpath("Slidedat.ini").is_file()


#: A new slide format is one row here; the first that matches is taken.
SLIDE_READERS = [
    SlideFormat("TIFF, SVS, qptiff", is_tiff, _tiff),
    SlideFormat("DICOM", _is_dicom, _dicom),
    SlideFormat("Mirax", _is_mirax, _openslide),
    SlideFormat("PNG or JPEG", is_raster, _plain),
    SlideFormat("OME-Zarr", is_omezarr, _plain),
]


# Reading ----------------------------------------------------------------------------------------


def _head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(132)


def read_slide(
    path: Path | str, *, mpp: float | None = None, limits: Limits = DEFAULT_LIMITS
) -> Slide:
    """Open a slide or image for reading by region.

    Parameters
    ----------
    path
        PNG, JPEG, TIFF plain or pyramidal, SVS, qptiff, other makers' TIFFs through tiffslide;
        Mirax through OpenSlide and DICOM (a file or a series' folder) through wsidicom, both in
        the extra ``wsi``.
    mpp
        Micrometres per pixel of the full resolution; replaces what the file says.
    limits
        What a file may ask for.

    Returns
    -------
    Slide
        Its ``mpp`` is None where neither file nor caller gives it; ``notes`` tell when they
        contradict each other.

    Raises
    ------
    CallError
        ``mpp`` outside 0.05 to 50.
    InputError
        Absent, damaged, no colour, or of no format that is read.
    UnsafeInputError
        Above a limit.
    MissingExtraError
        A DICOM or Mirax slide without the extra ``wsi``.

    Notes
    -----
    Tiled files cost a look at their directory; an untiled image is read whole.

    Examples
    --------
    >>> import imagecodecs, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "tile.png"
    >>> guard.write_bytes(path, imagecodecs.png_encode(np.zeros((8, 9, 3), np.uint8)))
    >>> slide = read_slide(path, mpp=0.5)
    >>> slide.name, slide.shape, slide.mpp
    ('tile', (8, 9), 0.5)
    """
    path = Path(path)
    low, high = PLAUSIBLE_MPP
    if mpp is not None and not low <= mpp <= high:
        raise CallError(f"--mpp {mpp:g}: um per pixel of a slide lie between {low:g} and {high:g}.")
    with guard.reading(path):
        head = b"" if path.is_dir() else _head(path)
        row = next((row for row in SLIDE_READERS if row.matches(path, head)), None)
        if row is None:
            names = ", ".join(row.name for row in SLIDE_READERS)
            raise InputError(f"{path}: it is no slide format that is read ({names}).")
        slide = row.open(path, limits)
    if mpp is None or mpp == slide.mpp:
        return slide
    notes = slide.notes
    if slide.mpp is not None and abs(mpp - slide.mpp) > 0.02 * slide.mpp:
        notes = (*notes, f"--mpp {mpp:g} replaces the {slide.mpp:g} um per pixel of {path}.")
    return replace(slide, mpp=mpp, notes=notes)
