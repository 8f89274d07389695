"""OME-Zarr in and out: NGFF 0.4 (Zarr 2) and 0.5 (Zarr 3), images and instance maps.

Moore et al. 2023, Histochem Cell Biol 160, 223; specification at ngff.openmicroscopy.org/0.5.
Reading takes level 0. Codecs are taken from a list of known, harmless ones before Zarr sees the
array, because Zarr 2 metadata may name a codec that unpickles.
"""

from __future__ import annotations

import colorsys
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.io.raw import (
    ImageInfo,
    RawImage,
    Request,
    arrange,
    check_axes,
    scale_of,
    to_um,
    unique_names,
)
from nucleoscope.units import Spacing

Version = Literal["0.4", "0.5"]

_CODECS = {
    "bytes", "transpose", "blosc", "zstd", "gzip", "zlib", "lz4", "crc32c", "shuffle",
    "sharding_indexed", "numcodecs.blosc", "numcodecs.zlib", "numcodecs.lz4", "numcodecs.zstd",
}  # fmt: skip
_DTYPES = {f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)} | {
    "bool", "float16", "float32", "float64",
}  # fmt: skip
_CHUNK = 512


# Reading ----------------------------------------------------------------------------------------


def is_omezarr(path: Path, head: bytes) -> bool:
    """True for a folder with Zarr group metadata."""
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zattrs"))


def _attributes(folder: Path, request: Request) -> dict[str, Any]:
    """NGFF attributes of a group; those of 0.5 lie under ``ome``."""
    for name in ("zarr.json", ".zattrs"):
        if (folder / name).is_file():
            value = guard.read_json(folder / name, limits=request.limits)
            if not isinstance(value, dict):
                raise InputError(f"{folder / name}: it is not a JSON object.")
            attributes = value.get("attributes", {}) if name == "zarr.json" else value
            found = attributes.get("ome", attributes) if isinstance(attributes, dict) else {}
            return found if isinstance(found, dict) else {}
    return {}


def _image_group(path: Path, request: Request) -> tuple[Path, dict[str, Any]]:
    """The group that holds the multiscales: this one, its first image, or its only label map."""
    attributes = _attributes(path, request)
    if "bioformats2raw.layout" in attributes and "multiscales" not in attributes:
        return _image_group(path / "0", request)
    if request.as_labels and "image-label" not in attributes and (path / "labels").is_dir():
        names = _attributes(path / "labels", request).get("labels", [])
        if len(names) != 1:
            listed = ", ".join(map(str, names)) or "none"
            raise InputError(f"{path}: it holds label maps {listed}; open PATH/labels/NAME.")
        return _image_group(_inside(path / "labels", str(names[0])), request)
    if not attributes.get("multiscales"):
        raise InputError(f"{path}: it is a Zarr folder without an OME-Zarr image (multiscales).")
    return path, attributes


def _inside(folder: Path, name: str) -> Path:
    """A path named by metadata, which must stay inside the folder."""
    parts = PurePosixPath(name).parts
    child = folder.joinpath(*parts)
    escapes = not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name
    if escapes or not child.resolve().is_relative_to(folder.resolve()):
        raise UnsafeInputError(f"{folder}: its metadata points outside itself ({name[:80]!r}).")
    return child


def _array_metadata(folder: Path, request: Request) -> dict[str, Any]:
    """Check the metadata of an array: known codecs, plain numbers, a size that can be.

    Raises
    ------
    UnsafeInputError
        A codec or dtype that is not on the list, or above a limit.
    """
    is_v3 = (folder / "zarr.json").is_file()
    meta = guard.read_json(folder / ("zarr.json" if is_v3 else ".zarray"), limits=request.limits)
    shape, codecs = meta["shape"], _codec_names(meta)
    if not codecs <= _CODECS:
        raise UnsafeInputError(f"{folder}: codec {', '.join(codecs - _CODECS)} is not read.")
    raw = str(meta["data_type" if is_v3 else "dtype"])
    dtype = raw if is_v3 else (np.dtype(raw).name if "O" not in raw else raw)
    if dtype not in _DTYPES:
        raise UnsafeInputError(f"{folder}: an array of {dtype[:40]} is not an image.")
    grid = meta["chunk_grid"]["configuration"]["chunk_shape"] if is_v3 else meta["chunks"]
    if not all(isinstance(n, int) and n > 0 for n in [*shape, *grid]) or len(grid) != len(shape):
        raise InputError(f"{folder}: shape {shape} in chunks of {grid} is not an image.")
    for sizes in (shape, grid):
        request.limits.check("pixels", math.prod(sizes), str(folder))
        guard.check_memory(math.prod(sizes) * np.dtype(dtype).itemsize, str(folder))
    return {"shape": tuple(shape), "chunks": tuple(grid), "dtype": dtype, "codecs": codecs}


def _codec_names(meta: dict[str, Any]) -> set[str]:
    """Names of all codecs, filters and compressors, nested ones included."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.update(str(value[key]) for key in ("name", "id") if key in value)
            walk(value.get("configuration"))
            for key in ("codecs", "index_codecs"):
                walk(value.get(key))
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk([meta.get("codecs"), meta.get("compressor"), meta.get("filters")])
    return found


def _axes(multiscale: dict[str, Any], n_dims: int, where: str) -> tuple[str, list[str]]:
    """Axis letters and units of a multiscale."""
    axes = multiscale.get("axes", ["t", "c", "z", "y", "x"])
    entries = [a if isinstance(a, dict) else {"name": a} for a in axes]
    letters = "".join(str(entry.get("name", "?"))[:1] for entry in entries)
    return check_axes(letters, n_dims, where), [str(e.get("unit") or "") for e in entries]


def _scale(multiscale: dict[str, Any], dataset: dict[str, Any], n_dims: int) -> list[float]:
    """Product of the scale transformations of level 0 and of the whole image."""
    scale = np.ones(n_dims)
    for owner in (dataset, multiscale):
        for transform in owner.get("coordinateTransformations") or []:
            if transform.get("type") == "scale" and len(transform.get("scale", [])) == n_dims:
                scale = scale * np.asarray(transform["scale"], dtype=np.float64)
    return [float(value) for value in scale]


def _channel_names(
    attributes: dict[str, Any], n: int, where: str
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Names from ``omero``; numbers written by other programs become text."""
    channels = (attributes.get("omero") or {}).get("channels") or []
    labels = [c.get("label") for c in channels if isinstance(c, dict)]
    if len(labels) != n or all(label is None for label in labels):
        return None, ()
    return unique_names([None if label is None else str(label) for label in labels], where)


def _header(path: Path, request: Request) -> tuple[Path, dict[str, Any], RawImage, str]:
    """Everything but the pixels: array folder, its metadata, an empty RawImage, axes."""
    where = str(path)
    group, attributes = _image_group(path, request)
    multiscale = attributes["multiscales"][0]
    dataset = multiscale["datasets"][0]
    folder = _inside(group, str(dataset["path"]))
    meta = _array_metadata(folder, request)
    letters, units = _axes(multiscale, len(meta["shape"]), where)
    letters = check_axes(request.axes, len(letters), where) if request.axes else letters
    scale = _scale(multiscale, dataset, len(letters))
    sizes = dict(zip(letters, meta["shape"], strict=True))
    is_2d = sizes.get("Z", 1) == 1
    lengths = {a: to_um(s, u) for a, s, u in zip(letters, scale, units, strict=True)}
    spacing, notes = scale_of([lengths.get(a) for a in "ZYX"], is_2d, where)
    names, more = _channel_names(attributes, sizes.get("C", 1), where)
    missing = _missing_chunks(folder, meta, where)
    if len(attributes["multiscales"]) > 1:
        more = (*more, f"{where} holds several images; the first is read.")
    empty = np.empty((0,), dtype=meta["dtype"])
    raw = RawImage(empty, names, spacing, False, is_2d, (*notes, *more, *missing))
    return folder, meta, raw, letters


def _missing_chunks(folder: Path, meta: dict[str, Any], where: str) -> tuple[str, ...]:
    """Refuse missing chunks in a store of ours, which writes them all; report them in others."""
    if "sharding_indexed" in meta["codecs"]:
        return ()
    expected = math.prod(-(-s // c) for s, c in zip(meta["shape"], meta["chunks"], strict=True))
    hidden = (".zarray", ".zattrs", ".zgroup", "zarr.json")
    found = sum(name not in hidden for _, _, files in os.walk(folder) for name in files)
    if found >= expected:
        return ()
    text = f"{where}: {expected - found} of {expected} chunks are absent"
    if (folder.parent / guard.MARKER).is_file():
        raise InputError(f"{text}; the folder was damaged after it was written.")
    return (f"{text} and read as the fill value.",)


def read(path: Path, request: Request) -> RawImage:
    """Read level 0 of an OME-Zarr image or instance map.

    Raises
    ------
    InputError
        No image, damaged metadata or chunks, a time series.
    UnsafeInputError
        An unknown codec, a path that leaves the folder, above a limit.
    """
    with guard.reading(path):
        folder, _, raw, letters = _header(path, request)
        import zarr

        array: NDArray[Any] = np.asarray(zarr.open_array(folder, mode="r")[...])
        data, is_rgb, is_2d = arrange(array, letters, str(path))
    return RawImage(data, raw.channels, raw.spacing, is_rgb, is_2d, raw.notes)


def describe(path: Path, request: Request) -> ImageInfo:
    """What the metadata of an OME-Zarr folder says."""
    with guard.reading(path):
        _, meta, raw, letters = _header(path, request)
    sizes = dict(zip(letters, meta["shape"], strict=True))
    c, z, y, x = (sizes.get(axis, 1) for axis in "CZYX")
    names = raw.channels or tuple(f"ch{i}" for i in range(c))
    notes = raw.notes
    if sizes.get("T", 1) > 1:
        notes = (*notes, f"{path}: it holds {sizes['T']} time points, of which none is read.")
    return ImageInfo(
        "OME-Zarr", (c, z, y, x), letters, names, raw.spacing, str(meta["dtype"]), notes
    )


# Writing ----------------------------------------------------------------------------------------


def _multiscale(axes: str, spacing: Spacing | None, name: str) -> dict[str, Any]:
    """One level; units only where the scale is known."""
    lengths = dict(zip("zyx", spacing or (1.0, 1.0, 1.0), strict=True))
    entries: list[dict[str, str]] = []
    for axis in axes:
        entry = {"name": axis, "type": "channel" if axis == "c" else "space"}
        if axis != "c" and spacing is not None:
            entry["unit"] = "micrometer"
        entries.append(entry)
    scale = [lengths.get(axis, 1.0) for axis in axes]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"name": name, "axes": entries, "datasets": [level]}


def _write_group(
    path: Path | str,
    data: NDArray[Any],
    attributes: Callable[[str], dict[str, Any]],
    axes: str,
    version: Version,
    overwrite: bool,
) -> None:
    """Write a group with one array, atomically; every chunk is stored, also an empty one."""
    if version not in ("0.4", "0.5"):
        raise CallError(f"OME-Zarr version {version!r} is not written; choose 0.4 or 0.5.")
    import zarr
    from zarr.codecs import BloscCodec

    is_v3 = version == "0.5"
    chunks = tuple(
        1 if a in "cz" else min(_CHUNK, n) for a, n in zip(axes, data.shape, strict=True)
    )
    with guard.atomic_folder(path, overwrite=overwrite) as temp:
        own = attributes(version)
        group = zarr.create_group(
            temp, zarr_format=3 if is_v3 else 2, attributes={"ome": own} if is_v3 else own
        )
        keys: dict[str, Any] = (
            {"compressors": BloscCodec(cname="zstd", clevel=1), "dimension_names": list(axes)}
            if is_v3
            else {
                "compressors": _v2_blosc(),
                "chunk_key_encoding": {"name": "v2", "separator": "/"},
            }
        )
        array = group.create_array(
            "0", shape=data.shape, dtype=data.dtype, chunks=chunks, fill_value=0,
            config={"write_empty_chunks": True}, **keys,
        )  # fmt: skip
        array[...] = data


def _v2_blosc() -> Any:
    """The compressor of Zarr 2 arrays."""
    from numcodecs import Blosc  # type: ignore[import-untyped]

    return Blosc(cname="zstd", clevel=1)


def _colour(value: int) -> list[int]:
    """A colour for an id: neighbours in number are far apart in hue (golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb((value * 0.618033988749895) % 1.0, 0.65, 0.95)
    return [round(red * 255), round(green * 255), round(blue * 255), 255]


def _properties(ids: Sequence[int], table: NucleusTable | None) -> list[dict[str, Any]]:
    """Type and score of each nucleus in the map; the specification wants an entry for every id."""
    if table is None:
        return []
    columns = zip(table.frame["id"], table.frame["type"], table.frame["score"], strict=True)
    rows = {int(i): {"type": str(t), "score": round(float(s), 6)} for i, t, s in columns}
    return [{"label-value": i, **rows.get(i, {})} for i in ids]


def write_labels(
    path: Path | str,
    labels: Labels,
    *,
    table: NucleusTable | None = None,
    version: Version = "0.5",
    overwrite: bool = False,
) -> None:
    """Write an instance map as an OME-Zarr image-label group, all or nothing.

    Parameters
    ----------
    path
        ``OUT/<stem>/labels.ome.zarr``.
    labels
        ``(Z, Y, X)`` int32; one slice is written with axes YX.
    table
        Adds type and score of each nucleus as label properties.
    version
        NGFF ``"0.5"`` (Zarr 3) or ``"0.4"`` (Zarr 2, for older viewers).
    overwrite
        Replace a folder that nucleoscope did not write.

    Raises
    ------
    CallError
        The folder exists and is not ours.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.ome.zarr"
    >>> write_labels(path, Labels(np.eye(4, dtype=np.int32)))
    >>> describe(path, Request()).axes
    'YX'
    """
    is_2d = labels.shape[0] == 1
    axes = "yx" if is_2d else "zyx"
    ids = labels.ids().tolist()

    def attributes(version: str) -> dict[str, Any]:
        image_label: dict[str, Any] = {
            "colors": [{"label-value": i, "rgba": _colour(i)} for i in ids]
            or [{"label-value": 0, "rgba": [0, 0, 0, 0]}],
        }
        if properties := _properties(ids, table):
            image_label["properties"] = properties
        return _with_version(
            {
                "multiscales": [_multiscale(axes, labels.spacing, Path(path).name)],
                "image-label": image_label,
            },
            version,
        )

    data = labels.data[0] if is_2d else labels.data
    _write_group(path, data, attributes, axes, version, overwrite)


def _with_version(attributes: dict[str, Any], version: str) -> dict[str, Any]:
    """Put the version where the specification of that version wants it."""
    if version == "0.5":
        return {"version": version, **attributes}
    for key, value in attributes.items():
        if key == "multiscales":
            value[0]["version"] = version
        elif key == "image-label":
            value["version"] = version
    return attributes


def write_volume(
    path: Path | str, volume: Volume, *, version: Version = "0.5", overwrite: bool = False
) -> None:
    """Write a volume as an OME-Zarr image (CZYX, or CYX for a 2D image), all or nothing.

    Raises
    ------
    CallError
        The folder exists and is not ours.
    """
    axes = "cyx" if volume.is_2d else "czyx"
    data = volume.data[:, 0] if volume.is_2d else volume.data
    top = 1.0 if data.dtype.kind == "f" else float(2 ** (8 * data.dtype.itemsize) - 1)
    colours = ("FF0000", "00FF00", "0000FF") if volume.is_rgb else ("FFFFFF",) * len(data)
    channels = [
        {
            "label": name,
            "color": colour,
            "active": True,
            "window": {"min": 0.0, "max": top, "start": 0.0, "end": top},
        }
        for name, colour in zip(volume.channels, colours, strict=True)
    ]

    def attributes(version: str) -> dict[str, Any]:
        multiscale = _multiscale(axes, volume.spacing, volume.name)
        return _with_version(
            {"multiscales": [multiscale], "omero": {"channels": channels}}, version
        )

    _write_group(path, data, attributes, axes, version, overwrite)
