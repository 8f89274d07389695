"""Instance maps: label images, HoVer-Net and CoNSeP ``.mat`` files, plain numpy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.io.images import read_labels
from nucleoscope.io.nuclei.build import Source
from nucleoscope.io.omezarr import is_omezarr
from nucleoscope.io.raster import PNG
from nucleoscope.io.tiff import is_tiff

NUMPY = b"\x93NUMPY"
_MAT5 = b"MATLAB 5.0 MAT-file"
_HDF5 = b"\x89HDF\r\n\x1a\n"


def of_labels(labels: Labels, source: Source) -> Nuclei:
    """One row per nucleus of a map of one slice; its ids are kept.

    Raises
    ------
    InputError
        Several slices, or a foreground map (one value in several pieces).
    CallError
        A scale: a map has the slide's own pixels.
    """
    if source.scale != 1.0:
        raise CallError(f"{source.where}: an instance map has the slide's own pixels; no scale.")
    if labels.shape[0] != 1:
        raise InputError(f"{source.where}: its map has {labels.shape[0]} slices; a slide has one.")
    plane = labels.data[0]
    at = np.flatnonzero(plane)
    ids, owner = _ranked(plane.ravel()[at])
    size = np.bincount(owner, minlength=len(ids))
    y, x = (np.bincount(owner, weights=v, minlength=len(ids)) for v in divmod(at, plane.shape[1]))
    _refuse_image(plane, source.where)
    if len(ids) == 1:
        _refuse_foreground(plane, source.where)
    frame = pd.DataFrame(
        {"id": ids, "image": source.image or "", "y": y / size, "x": x / size, "area_px": size}
    )
    return Nuclei(NucleusTable(frame), None, labels)


def _ranked(values: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct values, ascending, and the rank of each value."""
    if not values.size or int(values.max()) > 4 * values.size:
        ids, owner = np.unique(values, return_inverse=True)
        return ids.astype(np.int64), owner.astype(np.int64)
    is_there = np.bincount(values) > 0
    return np.flatnonzero(is_there), (np.cumsum(is_there) - 1)[values]


def _refuse_image(plane: NDArray[np.int32], where: str) -> None:
    """Refuse a picture: in an instance map most neighbours in a row have one value."""
    left, right = plane[:, :-1], plane[:, 1:]
    both = (left != 0) & (right != 0)
    n, differ = int(both.sum()), int((both & (left != right)).sum())
    if n and differ > n / 2:
        raise InputError(
            f"{where}: {differ / n:.0%} of its neighbouring pixels differ, so it looks like a "
            "picture; give the instance map."
        )


def _refuse_foreground(plane: NDArray[np.int32], where: str) -> None:
    """Refuse a map whose nuclei all have one value."""
    from scipy import ndimage

    n = int(ndimage.label(plane != 0)[1])
    if n > 1:
        raise InputError(
            f"{where}: it holds one value, {int(plane.max())}, in {n} pieces: a foreground map; "
            "give an instance map, where each nucleus has its own number."
        )


def is_label_image(path: Path, head: bytes) -> bool:
    """True for TIFF, PNG and OME-Zarr."""
    return is_tiff(path, head) or is_omezarr(path, head) or head.startswith(PNG)


def read_label_image(path: Path, head: bytes, source: Source) -> Nuclei:
    """A label TIFF or PNG (StarDist, Cellpose, ImageJ, QuPath) or OME-Zarr labels."""
    return of_labels(read_labels(path, limits=source.limits), source)


def is_numpy(path: Path, head: bytes) -> bool:
    """True for a .npy file."""
    return head.startswith(NUMPY)


def read_numpy(path: Path, head: bytes, source: Source) -> Nuclei:
    """A plain integer array; one that would have to be unpickled (Cellpose _seg.npy) is refused."""
    source.limits.check("file_bytes", path.stat().st_size, source.where)
    with guard.reading(path):
        if b"'|O'" in head[:200] or b"'O'" in head[:200]:
            raise UnsafeInputError(
                f"{path}: it is a pickle, which runs code when it is read, so it is refused; save "
                "the masks as TIFF instead (cellpose --save_tif, or io.save_masks(..., tif=True))."
            )
        array = np.lib.format.open_memmap(path, mode="r")
        source.limits.check("pixels", array.size, source.where)
        return of_labels(Labels(np.array(array)), source)


def is_mat(path: Path, head: bytes) -> bool:
    """True for MATLAB 5 files, and for HDF5, which ``read_mat`` refuses."""
    return head.startswith((_MAT5, _HDF5)) or head.startswith(b"MATLAB 7.3")


def read_mat(path: Path, head: bytes, source: Source) -> Nuclei:
    """HoVer-Net's ``inst_map``, ``inst_type``, ``inst_centroid`` (and ``inst_uid``).

    Types belong to the ids in ascending order unless ``inst_uid`` says otherwise.
    """
    from scipy import io as scipy_io

    if not head.startswith(_MAT5):
        raise InputError(f"{path}: it is a MATLAB 7.3 (HDF5) file; save it with save -v7.")
    with guard.reading(path):
        source.limits.check("file_bytes", path.stat().st_size, source.where)
        shapes = {name: shape for name, shape, _ in scipy_io.whosmat(path)}
        if "inst_map" not in shapes:
            listed = ", ".join(shapes) or "nothing"
            raise InputError(f"{path}: it holds {listed} and no inst_map.")
        for shape in shapes.values():
            source.limits.check("pixels", int(np.prod(shape, dtype=object)), source.where)
        # Lizard calls the same things class and id.
        wanted = ("inst_map", "inst_type", "inst_uid", "class", "id")
        names = [name for name in wanted if name in shapes]
        content = scipy_io.loadmat(path, variable_names=names)
        found = np.asarray(content["inst_map"])
        if found.dtype.kind == "f" and (found == np.round(found)).all():
            found = found.astype(np.int64)
        nuclei = of_labels(Labels(found), source)
    return _typed(nuclei, content, source.where)


def _typed(nuclei: Nuclei, content: dict[str, Any], where: str) -> Nuclei:
    """Nuclei with the types of ``inst_type``, where there are any."""
    types = content.get("inst_type", content.get("class"))
    if types is None:
        return nuclei
    frame = nuclei.table.frame
    ids = frame["id"].to_numpy()
    types = np.asarray(types).ravel()
    of = np.asarray(content.get("inst_uid", content.get("id", ids))).ravel().astype(np.int64)
    if len(types) != len(of):
        raise InputError(f"{where}: {len(types)} types for {len(of)} nuclei.")
    by_id = dict(zip(of.tolist(), types.tolist(), strict=True))
    names = [str(int(by_id[i])) if i in by_id else "" for i in ids.tolist()]
    return Nuclei(NucleusTable(frame.assign(type=names)), None, nuclei.labels)
