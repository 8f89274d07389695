"""Nuclei as COCO instances: polygons, or run lengths plain and packed.

COCO counts ``(x, y)`` from the corner of the first pixel; run lengths go down the columns and begin
with background (Lin et al. 2014, ECCV; pycocotools ``maskApi``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError
from nucleoscope.io.images import image_stem
from nucleoscope.io.nuclei.build import Rows, Source, nuclei_of
from nucleoscope.io.nuclei.maps import of_labels
from nucleoscope.io.nuclei.stream import Elements, container
from nucleoscope.io.outlines import as_coordinates

_NOTHING = np.empty((0, 2))


def is_coco(path: Path, head: bytes) -> bool:
    """True for a root object with COCO's ``images`` or ``annotations``."""
    has_images = container(head, "images") >= 0 and b'"file_name"' in head
    has_annotations = container(head, "annotations") >= 0 and b'"image_id"' in head
    return has_images or has_annotations


@dataclass
class _Found:
    """Annotations one by one, before it is known which image they are of."""

    images: list[int] = field(default_factory=list)
    categories: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    centres: list[tuple[float, float] | None] = field(default_factory=list)
    shapes: list[Any] = field(default_factory=list)  # rings, or (counts, height, width)


def read_coco(path: Path, head: bytes, source: Source) -> Nuclei:
    """The annotations of one image; of several, that of the name asked for.

    Run lengths become an instance map where all nuclei have them; where later ones overlap
    earlier ones they win.
    """
    where, found = source.where, _Found()
    pieces = Elements(path, "annotations", source.limits)
    for piece in pieces:
        for annotation in piece:
            try:
                _add(found, annotation, where)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError):
                raise InputError(
                    f"{where}: annotation {len(found.ids) + 1} is not COCO's (id, image_id, "
                    "category_id, segmentation)."
                ) from None
        source.limits.check("rows", len(found.ids), where)
    image = _image(pieces.rest, found, source)
    names = {int(c["id"]): str(c.get("name", c["id"])) for c in pieces.rest.get("categories") or []}
    keep = [i for i, of in enumerate(found.images) if image is None or of == image]
    # Our own files call nuclei without a type "nucleus", number 0.
    types = [
        "" if (found.categories[i], names.get(found.categories[i])) == (0, "nucleus")
        else names.get(found.categories[i], str(found.categories[i]))
        for i in keep
    ]  # fmt: skip
    packed = [isinstance(found.shapes[i], tuple) for i in keep]
    if packed and all(packed):
        nuclei = _of_runs(found, keep, types, source)
    else:
        nuclei = _of_rings(found, keep, types, sum(packed), source)
    scores = dict(zip((found.ids[i] for i in keep), (found.scores[i] for i in keep), strict=True))
    if not all(np.isnan(value) for value in scores.values()):
        frame = nuclei.table.frame
        table = NucleusTable(frame.assign(score=frame["id"].map(scores).astype("float64")))
        nuclei = Nuclei(table, nuclei.outlines, nuclei.labels, nuclei.notes)
    return nuclei


def _add(found: _Found, annotation: dict[str, Any], where: str) -> None:
    """Append one annotation."""
    shape = annotation.get("segmentation") or []
    if isinstance(shape, dict):
        height, width = (int(n) for n in shape["size"])
        if height < 1 or width < 1:
            raise ValueError("an image of no size")
        shapes: Any = (shape["counts"], height, width)
    else:
        rings = [np.array(ring, dtype=np.float64).reshape(-1, 2)[:, ::-1] for ring in shape]
        shapes = max(rings, key=len) - 0.5 if rings else _NOTHING
    found.shapes.append(shapes)
    found.images.append(int(annotation["image_id"]))
    found.categories.append(int(annotation.get("category_id", -1)))
    found.ids.append(int(annotation.get("nucleus_id", annotation["id"])))
    found.scores.append(float(annotation.get("score", np.nan)))
    centre = annotation.get("centroid")
    if centre is None and isinstance(shapes, np.ndarray) and not len(shapes):
        x, y, width, height = annotation["bbox"]
        centre = (x + width / 2, y + height / 2)
    place = None if centre is None else as_coordinates([centre], where)[0] - 0.5
    found.centres.append(None if place is None else (float(place[0]), float(place[1])))


def _image(rest: dict[str, Any], found: _Found, source: Source) -> int | None:
    """The id of the image wanted; None where there is one image, whatever its name."""
    files = {int(i["id"]): str(i.get("file_name", i["id"])) for i in rest.get("images") or []}
    there = sorted(set(files) | set(found.images))
    if len(there) < 2:
        return None
    stems = {image_stem(PurePath(files.get(i, str(i))).name): i for i in there}
    wanted = None if source.image is None else image_stem(PurePath(source.image).name)
    if wanted not in stems:
        raise InputError(
            f"{source.where}: it holds the nuclei of {len(there)} images "
            f"({', '.join(list(stems)[:5])}) and none of {wanted or 'an image that was named'}."
        )
    return stems[wanted]


def _of_rings(
    found: _Found, keep: list[int], types: list[str], n_packed: int, source: Source
) -> Nuclei:
    """Nuclei with polygons; the few with run lengths keep their centre only."""
    rows = Rows()
    if n_packed:
        rows.notes.append(
            f"{source.where}: {n_packed} of {len(keep)} nuclei are run lengths among polygons; "
            "their outlines are not used."
        )
    for i, kind in zip(keep, types, strict=True):
        shape, centre = found.shapes[i], found.centres[i]
        if isinstance(shape, tuple):
            at = np.flatnonzero(plane_of(shape[0], shape[1], shape[2], source.where).ravel())
            y, x = divmod(at, shape[2])
            shape, centre = _NOTHING, (float(y.mean()), float(x.mean())) if at.size else centre
        rows.add(shape, centre, kind=kind, id=found.ids[i])
    return nuclei_of(rows, source)


def _of_runs(found: _Found, keep: list[int], types: list[str], source: Source) -> Nuclei:
    """An instance map painted from run lengths."""
    sizes = {found.shapes[i][1:] for i in keep}
    if len(sizes) > 1:
        raise InputError(f"{source.where}: the run lengths of one image are of {len(sizes)} sizes.")
    (height, width), *_ = sizes
    source.limits.check("pixels", height * width, source.where)
    plane = np.zeros((height, width), dtype=np.int32)
    for i in keep:
        plane[plane_of(found.shapes[i][0], height, width, source.where)] = found.ids[i]
    nuclei = of_labels(Labels(plane), source)
    by_id = dict(zip((found.ids[i] for i in keep), types, strict=True))
    frame = nuclei.table.frame
    table = NucleusTable(frame.assign(type=[by_id[i] for i in frame["id"].tolist()]))
    hidden = len(keep) - len(table)
    notes = (f"{source.where}: {hidden} nuclei lie wholly under others.",) if hidden else ()
    return Nuclei(table, None, nuclei.labels, notes)


def plane_of(counts: Any, height: int, width: int, where: str) -> NDArray[np.bool_]:
    """The mask ``(Y, X)`` of run lengths, given as numbers or packed as text.

    Raises
    ------
    InputError
        They do not add up to the image.

    Examples
    --------
    >>> plane_of([1, 3], 2, 2, "a").astype(int).tolist()
    [[0, 1], [1, 1]]
    >>> plane_of("13", 2, 2, "a").astype(int).tolist()
    [[0, 1], [1, 1]]
    """
    lengths = np.asarray(unpacked_runs(counts) if isinstance(counts, str) else counts, np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise InputError(f"{where}: run lengths do not add up to {height} x {width} pixels.")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape((height, width), order="F")


def unpacked_runs(text: str) -> list[int]:
    """Run lengths from COCO's packed text: five bits a character, differences from the third on.

    >>> unpacked_runs("13")
    [1, 3]
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[-2]
        lengths.append(value)
        value = shift = 0
    return lengths
