"""Published collections of annotated nuclei, read from the folders as they are downloaded.

PanNuke (Gamper et al. 2020, arXiv 2003.10778), CoNSeP (Graham et al. 2019, Med. Image Anal. 58),
Lizard (Graham et al. 2021, ICCVW), MoNuSeg (Kumar et al. 2020, IEEE TMI 39), NuCLS (Amgad et al.
2022, GigaScience 11). Nothing is downloaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits
from nucleoscope.io.images import read_volume
from nucleoscope.io.nuclei import read_nuclei
from nucleoscope.io.nuclei.build import Source
from nucleoscope.io.nuclei.maps import of_labels
from nucleoscope.io.raw import RGB

__all__ = ["COLLECTIONS", "Collection", "Example", "read_collection"]


@dataclass(frozen=True, eq=False)
class Example:
    """One annotated image of a collection.

    Parameters
    ----------
    image
        RGB.
    nuclei
        Its nuclei, with the collection's own names of types.
    """

    image: Volume
    nuclei: Nuclei


@dataclass(frozen=True)
class Collection:
    """One row of ``COLLECTIONS``.

    Parameters
    ----------
    name
        What the user calls it.
    types
        Names of its numbered types, in order; empty where its files name them.
    pairs
        ``(folder) -> [(image file, annotation file)]``; none where it is another layout.
    read
        ``(image file, annotation file, types, limits) -> Iterator[Example]``.
    """

    name: str
    types: tuple[str, ...]
    pairs: Callable[[Path], list[tuple[Path, Path]]]
    read: Callable[[Path, Path, tuple[str, ...], Limits], Iterator[Example]]


def _beside(
    image_pattern: str, annotation_suffix: str, folders: tuple[str, str]
) -> Callable[[Path], list[tuple[Path, Path]]]:
    """Images matched with the annotation of the same stem in a folder of another name."""
    images, annotations = (name.casefold() for name in folders)

    def pairs(folder: Path) -> list[tuple[Path, Path]]:
        found: dict[str, Path] = {}
        for path in sorted(folder.rglob(f"*{annotation_suffix}")):
            if annotations in path.parent.name.casefold():
                found[path.stem] = path
        return [
            (path, found[path.stem])
            for path in sorted(folder.rglob(image_pattern))
            if images in path.parent.name.casefold() and path.stem in found
        ]

    return pairs


def _one(
    image: Path, annotation: Path, types: tuple[str, ...], limits: Limits
) -> Iterator[Example]:
    """One image file and one annotation file."""
    nuclei = read_nuclei(annotation, image=image.stem, limits=limits)
    yield Example(read_volume(image, limits=limits), _named(nuclei, types))


def _named(nuclei: Nuclei, types: tuple[str, ...]) -> Nuclei:
    """Nuclei whose numbered types have names."""
    if not types:
        return nuclei
    names = {"": "", "0": ""} | {str(i): name for i, name in enumerate(types, start=1)}
    frame = nuclei.table.frame
    kinds = [names.get(kind, kind) for kind in frame["type"]]
    table = NucleusTable(frame.assign(type=kinds))
    return Nuclei(table, nuclei.outlines, nuclei.labels, nuclei.notes)


# PanNuke ----------------------------------------------------------------------------------------


def _pannuke_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """``images/foldN/images.npy`` with ``masks/foldN/masks.npy``."""
    found = []
    for images in sorted(folder.rglob("images.npy")):
        masks = images.parent.parent.parent / "masks" / images.parent.name / "masks.npy"
        if masks.is_file():
            found.append((images, masks))
    return found


def _array(path: Path, n_axes: int, last: int) -> NDArray[Any]:
    """A numpy file opened where it lies; one that would have to be unpickled is refused."""
    with guard.reading(path):
        with path.open("rb") as file:
            head = file.read(200)
        if b"'|O'" in head or b"'O'" in head:
            raise UnsafeInputError(f"{path}: it is a pickle, which runs code when it is read.")
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    if array.ndim != n_axes or array.shape[-1] != last:
        raise InputError(f"{path}: its shape {array.shape} is not PanNuke's (n, y, x, {last}).")
    return array


def _pannuke(
    images: Path, masks: Path, types: tuple[str, ...], limits: Limits
) -> Iterator[Example]:
    """Every tile of a fold: five instance maps by type, then background; 40x, 0.25 um."""
    pixels, maps = _array(images, 4, 3), _array(masks, 4, len(types) + 1)
    if pixels.shape[:3] != maps.shape[:3]:
        raise InputError(f"{masks}: {maps.shape} maps do not fit {pixels.shape} images.")
    fold = images.parent.name
    for n in range(len(pixels)):
        name = f"{fold}_{n:04d}"
        limits.check("pixels", pixels[n].size, str(images))
        data = np.asarray(pixels[n]).round().astype(np.uint8).transpose(2, 0, 1)[:, None]
        spacing = (1.0, 0.25, 0.25)
        image = Volume(data, RGB, spacing, name, is_rgb=True, is_2d=True)
        yield Example(image, _by_type(np.asarray(maps[n]), types, f"{masks}: tile {n}", name))


def _by_type(maps: NDArray[Any], types: tuple[str, ...], where: str, name: str) -> Nuclei:
    """One instance map from one map per type; ids of different types are made different."""
    plane = np.zeros(maps.shape[:2], dtype=np.int32)
    kinds: dict[int, str] = {}
    for index, kind in enumerate(types):
        for value in np.unique(maps[..., index]).tolist():
            if value > 0:
                number = len(kinds) + 1
                plane[maps[..., index] == value] = number
                kinds[number] = kind
    nuclei = of_labels(Labels(plane, (1.0, 0.25, 0.25)), Source(where, name))
    frame = nuclei.table.frame
    table = NucleusTable(frame.assign(type=[kinds[i] for i in frame["id"].tolist()]))
    return Nuclei(table, None, nuclei.labels)


_IMAGES_LABELS = _beside("*.png", ".mat", ("images", "labels"))

#: A new collection is one row here; without a name the first whose layout is there is taken.
COLLECTIONS = (
    Collection(
        "pannuke", ("neoplastic", "inflammatory", "connective", "dead", "epithelial"),
        _pannuke_pairs, _pannuke,
    ),
    Collection(
        "consep",
        ("other", "inflammatory", "healthy epithelial", "dysplastic/malignant epithelial",
         "fibroblast", "muscle", "endothelial"),
        _IMAGES_LABELS, _one,
    ),
    Collection(  # CoNSeP's folders with types of its own: taken where "lizard" is in a name
        "lizard",
        ("neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective"),
        _IMAGES_LABELS, _one,
    ),
    Collection("monuseg", (), _beside("*.tif", ".xml", ("images", "annotations")), _one),
    Collection("nucls", (), _beside("*.png", ".csv", ("rgb", "csv")), _one),
)  # fmt: skip


def read_collection(
    folder: Path | str, *, name: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Example]:
    """The annotated images of a published collection, one by one.

    Parameters
    ----------
    folder
        As downloaded and unpacked.
    name
        One of ``pannuke, consep, lizard, monuseg, nucls``; None takes what the layout says.

    Yields
    ------
    Example
        Image and nuclei; coordinates in pixels, the centre of the first at 0.

    Raises
    ------
    CallError
        No such collection.
    InputError
        The folder has another layout, or a file is damaged.

    Examples
    --------
    >>> list(read_collection(".", name="kaggle"))
    Traceback (most recent call last):
    ...
    nucleoscope.errors.CallError: no collection 'kaggle'; there are pannuke, consep, ...
    """
    folder = Path(folder)
    names = [row.name for row in COLLECTIONS]
    if name is not None and name not in names:
        raise CallError(f"no collection {name!r}; there are {', '.join(names)}.")
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder.")
    rows = [row for row in COLLECTIONS if name in (None, row.name)]
    if name is None and any("lizard" in str(p).casefold() for p in (folder, *folder.iterdir())):
        rows = [row for row in COLLECTIONS if row.name == "lizard"]
    for row in rows:
        if pairs := row.pairs(folder):
            for image, annotation in pairs:
                yield from row.read(image, annotation, row.types, limits)
            return
    raise InputError(
        f"{folder}: it has not the folders of {name or 'any collection that is read'} "
        f"({', '.join(names)}); give the folder as it was unpacked."
    )
