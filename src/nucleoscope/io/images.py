"""Any image file to a Volume: the format is found by its first bytes, never by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucleoscope.data.labels import Labels
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.io import bio, guard, lsm, named, omeset, omezarr, raster, tiff, zipped
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits
from nucleoscope.io.raw import ImageInfo, RawImage, Request, arrange, check_axes, to_volume
from nucleoscope.units import Spacing

__all__ = [
    "READERS", "ImageFormat", "ImageInfo", "as_volume", "describe", "find_beside", "image_stem",
    "is_image", "read_labels", "read_volume",
]  # fmt: skip


@dataclass(frozen=True)
class ImageFormat:
    """One row of ``READERS``: how to know a format and how to read it.

    Parameters
    ----------
    name
        For messages.
    matches
        ``(path, first 132 bytes) -> bool``; a folder has no bytes.
    read
        ``(path, request) -> RawImage``.
    describe
        ``(path, request) -> ImageInfo``, from the header alone where possible.
    """

    name: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Path, Request], RawImage]
    describe: Callable[[Path, Request], ImageInfo]


#: A new format is one row here and passes ``nucleoscope.testing.ReaderContract``.
READERS = [
    ImageFormat("LSM", lsm.is_lsm, lsm.read, lsm.describe),
    ImageFormat("TIFF", tiff.is_tiff, tiff.read, tiff.describe),
    ImageFormat("OME-Zarr", omezarr.is_omezarr, omezarr.read, omezarr.describe),
    ImageFormat("zipped OME-Zarr", zipped.is_zipped, zipped.read, zipped.describe),
    ImageFormat("PNG or JPEG", raster.is_raster, raster.read, raster.describe),
    ImageFormat("OME companion", omeset.is_companion, omeset.read, omeset.describe),
    ImageFormat("CZI, ND2 or LIF", bio.is_bio, bio.read, bio.describe),
]

#: Formats that are known and not read here, so that the message can say so.
_KNOWN = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file; save it as OME-TIFF with its own program",
    b"PK\x03\x04": "a zip archive without an OME-Zarr image; unpack it first",
    b"\x93NUMPY": "a numpy file; load it and call nucleoscope.io.images.as_volume",
    b"\xac\xed\x00\x05": "Java's own serialisation (QuPath's .qpdata), which is not read; export "
    "the objects in QuPath with File > Export objects as GeoJSON",
    b"SQLite format 3": "a database, not an image; tiatoolbox's holds nuclei",
    b"PAR1": "a table (Parquet), not an image",
}

_SUFFIXES = (
    ".ome.tiff", ".ome.tif", ".ome.btf", ".ome.zarr.zip", ".zarr.zip", ".ome.zarr", ".ozx",
    ".companion.ome", ".lsm", ".ome.png", ".qptiff", ".tiff", ".tif",
    ".btf", ".tf8", ".zarr", ".svs", ".ndpi", ".scn", ".mrxs", ".png", ".jpeg", ".jpg", ".czi",
    ".nd2", ".lif", ".dcm",
)  # fmt: skip


def image_stem(path: Path | str) -> str:
    """The file name without its image suffix.

    >>> image_stem("a/plaque.ome.tif"), image_stem("b.v2.svs"), image_stem("c.OME.ZARR")
    ('plaque', 'b.v2', 'c')
    """
    name = Path(path).name
    for suffix in _SUFFIXES:
        if name.casefold().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def find_beside(image_path: Path | str, suffixes: Iterable[str]) -> Path | None:
    """The first file ``<stem><suffix>`` beside an image, or None.

    Parameters
    ----------
    image_path
        ``plaque.ome.tif``.
    suffixes
        In order of preference, such as ``(".points.csv", ".points.xml")``.

    Examples
    --------
    >>> find_beside("nowhere/plaque.ome.tif", [".points.csv"]) is None
    True
    """
    image = Path(image_path)
    for suffix in suffixes:
        found = image.parent / f"{image_stem(image)}{suffix}"
        if found.exists():
            return found
    return None


def _format_of(path: Path) -> ImageFormat:
    """The row of ``READERS`` for a file, by its content."""
    head = b""
    with guard.reading(path):
        if not path.is_dir():
            with path.open("rb") as file:
                head = file.read(132)
        for row in READERS:
            if row.matches(path, head):
                return row
    known = next((text for magic, text in _KNOWN.items() if head.startswith(magic)), None)
    if head[128:] == b"DICM":
        known = "a DICOM file, which is read by region as a slide (read_slide)"
    if known is None:
        what = "a folder without OME-Zarr metadata" if path.is_dir() else "no image format we read"
        names = ", ".join(row.name for row in READERS)
        known = f"{what} (we read {names})"
    raise InputError(f"{path}: it is {known}.")


def read_volume(
    path: Path | str,
    *,
    axes: str | None = None,
    spacing: Spacing | None = None,
    channels: Sequence[str] | None = None,
    allow_short: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> Volume:
    """Read an image completely, with its channel names and its scale, or refuse it.

    Parameters
    ----------
    path
        OME-TIFF (one file or several), ImageJ TIFF, LSM, qptiff, plain TIFF, OME-Zarr (a folder
        or a zip), PNG, JPEG, an SVS slide small enough; CZI, ND2 and LIF with the extra ``bio``.
    axes
        Letters of TCZYXS, slowest first, for a file that names none, such as ``"ZCYX"``.
    spacing
        ``(z, y, x)`` in um; replaces what the file says.
    channels
        Names, one per channel in the file's order; replace what the file says.
    allow_short
        Read the complete slices of a file that was cut short, instead of refusing it.
    limits
        What a file may ask for.

    Returns
    -------
    Volume
        ``(C, Z, Y, X)``; ``spacing`` is None where neither file nor caller gives it, and
        ``notes`` tell what the reader decided.

    Raises
    ------
    InputError
        Absent, incomplete, contradictory or damaged; a time series; axes that nobody named.
    UnsafeInputError
        Above a limit, or XML with entities.
    CallError
        Impossible axes or a wrong number of channel names.

    Notes
    -----
    Memory is the image and a strip per thread.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> path = Path(tempfile.mkdtemp()) / "plaque.ome.tif"
    >>> stack = Volume(np.zeros((1, 3, 8, 8), np.uint8), ("DAPI",), (1.5, 0.5, 0.5))
    >>> tiff.write_ome_tiff(path, stack)
    >>> volume = read_volume(path)
    >>> volume.name, volume.shape, volume.channels, volume.spacing
    ('plaque', (3, 8, 8), ('DAPI',), (1.5, 0.5, 0.5))
    """
    path = Path(path)
    names = None if channels is None else tuple(channels)
    request = Request(axes, spacing, names, allow_short, limits)
    raw = _format_of(path).read(path, request)
    return to_volume(raw, request, path, image_stem(path))


def read_labels(path: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> Labels:
    """Read an instance map from OME-Zarr, a label TIFF or a label PNG.

    The pages of a TIFF that names no axes are slices.

    Raises
    ------
    InputError
        More than one channel, or pixels that are not integers.
    """
    path = Path(path)
    raw = _format_of(path).read(path, Request(limits=limits, as_labels=True))
    if raw.data.shape[0] != 1:
        raise InputError(
            f"{path}: an instance map has one channel; this file has {raw.data.shape[0]}."
        )
    return Labels(raw.data[0], raw.spacing)


def describe(path: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> ImageInfo:
    """What a file declares: format, shape, axes, channels, scale, pixel type, oddities.

    Raises
    ------
    InputError
        Absent, damaged, or of no format that is read.
    """
    path = Path(path)
    return _format_of(path).describe(path, Request(limits=limits))


def is_image(path: Path | str) -> bool:
    """True when the content of a file is of an image format that is known, sound or not.

    >>> is_image("nowhere.tif")
    False
    """
    try:
        _format_of(Path(path))
    except InputError:
        return False
    return True


def as_volume(
    array: Any,
    *,
    axes: str | None = None,
    spacing: Spacing | None = None,
    channels: Sequence[str] | None = None,
    name: str = "image",
) -> Volume:
    """A Volume from an array in memory.

    Parameters
    ----------
    array
        uint8, uint16, float32 or float64: numpy, dask (computed here), xarray, an image of a
        SpatialData, or a SpatialData with one image. A Volume is given back as it is.
    axes
        One letter of TCZYXS per dimension; ``S`` is RGB colour. None takes the names of an array
        that has them.
    spacing
        ``(z, y, x)`` in um; None takes the scale to ``um`` of an image of a SpatialData.
    channels
        One name each; None takes the coordinates along ``c`` of an array that has them.
    name
        As in ``Volume``.

    Raises
    ------
    CallError
        The axes do not fit the array, or nobody named them.
    InputError
        A time axis longer than one, a dtype that is not read, or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> as_volume(np.zeros((5, 2, 8, 9), np.uint8), axes="ZCYX").data.shape
    (2, 5, 8, 9)
    """
    if isinstance(array, Volume):
        return array
    found = named.of(array, name)
    axes = axes or found.axes
    if axes is None:
        shape = " x ".join(str(n) for n in found.data.shape)
        raise CallError(
            f"{name}: the array of {shape} does not name its axes; say axes= with one letter of "
            "TCZYXS per dimension."
        )
    letters = check_axes(axes, found.data.ndim, name)
    data, is_rgb, is_2d = arrange(found.data, letters, name)
    names = found.channels if channels is None else tuple(channels)
    if names is not None and channels is None and len(names) != len(data):
        names = None
    raw = RawImage(data, None, None, is_rgb, is_2d and "Z" not in letters)
    return to_volume(raw, Request(axes, spacing or found.spacing, names), name, name)
