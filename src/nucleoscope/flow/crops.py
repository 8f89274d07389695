"""Slides and nuclei to a crop store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nucleoscope.atlas.crops import check_inside, crop_blocks
from nucleoscope.data.crops import SIDE, CropStore
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.slide import Slide
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.progress import bar
from nucleoscope.io import guard
from nucleoscope.io.crops import read_crops, write_crops
from nucleoscope.io.nuclei import read_nuclei
from nucleoscope.io.slides import read_slide

_LOG = logging.getLogger("nucleoscope.flow.crops")

#: Bytes of one nucleus's crops.
BYTES = 7 * SIDE * SIDE

Image = Slide | Path | str | Any
Found = Nuclei | Path | str


def open_slides(images: Image | Sequence[Image], *, mpp: float | None = None) -> list[Slide]:
    """Slides from files, arrays ``(Y, X, 3)`` uint8 or slides, each with a known scale.

    Parameters
    ----------
    images
        One or several.
    mpp
        Micrometres per pixel; replaces what the files say.

    Raises
    ------
    InputError
        A scale is unknown, or two slides have one name.
    """
    slides = [_slide(image, mpp) for image in _listed(images)]
    names = [slide.name for slide in slides]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"two slides are called {twice[0]}; give each slide once, with one file of nuclei, and "
            "rename files that share a name."
        )
    for slide in slides:
        slide.known_mpp()
    return slides


def _listed(values: Any) -> list[Any]:
    """One value or several as a list."""
    return list(values) if isinstance(values, list | tuple) else [values]


def _slide(image: Image, mpp: float | None) -> Slide:
    """One slide from whatever was given."""
    if isinstance(image, Slide):
        return image if mpp is None else image.with_mpp(mpp)
    if isinstance(image, np.ndarray):
        return Slide.from_array(image, mpp=mpp)
    return read_slide(image, mpp=mpp)


def open_nuclei(nuclei: Found | Sequence[Found], slides: Sequence[Slide]) -> list[Nuclei]:
    """The nuclei of each slide, in the slides' order; an empty ``image`` becomes the slide's name.

    Raises
    ------
    CallError
        Not one file of nuclei for each slide.
    InputError
        Nuclei outside their slide, or of other images.
    """
    given = _listed(nuclei)
    if len(given) != len(slides):
        raise CallError(
            f"{len(given)} files of nuclei were given for {len(slides)} slides; give one for each, "
            "in the same order (of two segmentations of a slide choose one)."
        )
    found = []
    for one, slide in zip(given, slides, strict=True):
        own = one if isinstance(one, Nuclei) else read_nuclei(one, image=slide.name)
        check_inside(slide, own)
        found.append(_named(own, slide.name))
    return found


def _named(nuclei: Nuclei, name: str) -> Nuclei:
    """Nuclei whose table says which image they are of."""
    frame = nuclei.table.frame
    if not set(frame["image"]) <= {""}:
        return nuclei
    return replace(nuclei, table=NucleusTable(frame.assign(image=name)))


def crop_nuclei(
    images: Image | Sequence[Image],
    nuclei: Found | Sequence[Found],
    output: Path | str | None = None,
    *,
    mpp: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> CropStore:
    """Cut both fields of every nucleus of one or several slides.

    Parameters
    ----------
    images
        Slides: files, arrays ``(Y, X, 3)`` uint8, or ``Slide``.
    nuclei
        One file (anything ``read_nuclei`` reads) or ``Nuclei`` for each slide.
    output
        Folder to write, such as ``ATLAS/crops.zarr``; default in memory.
    mpp
        Micrometres per pixel of all the slides; default what each file says.
    overwrite
        Replace a folder that nucleoscope did not write.
    quiet
        No progress bar.

    Returns
    -------
    CropStore
        Slide by slide, each along a space-filling curve; ``table_rows`` finds the nuclei's rows.
        With ``output`` its pictures are read from disk as they are indexed.

    Raises
    ------
    InputError
        An unknown scale, nuclei outside their slide, a damaged file.
    CallError
        Not one file of nuclei for each slide, or ``output`` exists and is not ours.
    ResourceError
        Crops in memory that do not fit, or a full disk.

    Notes
    -----
    28 kB of pixels per nucleus; with ``output`` the memory does not grow with their number.

    Examples
    --------
    >>> import pandas as pd
    >>> from nucleoscope.data.table import NucleusTable
    >>> table = NucleusTable(pd.DataFrame({"id": [3], "y": [40.0], "x": [50.0]}))
    >>> store = crop_nuclei(np.zeros((99, 99, 3), np.uint8), Nuclei(table), mpp=0.5)
    >>> store.morphology.shape, store.id.tolist()
    ((1, 64, 64, 3), [3])
    """
    slides = open_slides(images, mpp=mpp)
    found = open_nuclei(nuclei, slides)
    notes = [slide.notes for slide in slides] + [one.notes for one in found]
    for note in [note for part in notes for note in part]:
        _LOG.warning(note)
    names = tuple(slide.name for slide in slides)
    n = sum(map(len, found))
    with bar("crops", quiet=quiet) as tell:

        def told() -> Iterator[CropStore]:
            done = 0
            for block in _blocks(slides, found, names):
                yield block
                done += len(block)
                tell(done / n, f"{done:,} of {n:,} nuclei")

        if output is None:
            return _in_memory(told(), n, names)
        with write_crops(output, n, names, overwrite=overwrite) as writer:
            for block in told():
                writer.add(block)
    return read_crops(output)


def _blocks(
    slides: Sequence[Slide], found: Sequence[Nuclei], names: tuple[str, ...]
) -> Iterator[CropStore]:
    """The crops of all slides, square by square."""
    for number, (slide, nuclei) in enumerate(zip(slides, found, strict=True)):
        ids = nuclei.table.frame["id"].to_numpy()
        for block in crop_blocks(slide, nuclei):
            which = np.full(len(block.rows), number, dtype=np.int32)
            yield CropStore(
                block.morphology, block.context, block.mask, block.border, which, names,
                ids[block.rows],
            )  # fmt: skip


def _in_memory(blocks: Iterator[CropStore], n: int, names: tuple[str, ...]) -> CropStore:
    """All crops in arrays that are made once."""
    guard.check_memory(n * BYTES, f"the crops of {n:,} nuclei (name an output to keep them there)")
    picture = (n, SIDE, SIDE, 3)
    morphology, context = np.empty(picture, np.uint8), np.empty(picture, np.uint8)
    mask, border = np.empty(picture[:3], np.uint8), np.empty(n, np.bool_)
    slide, ids = np.empty(n, np.int32), np.empty(n, np.int64)
    at = 0
    for block in blocks:
        here = slice(at, at := at + len(block))
        morphology[here], context[here], mask[here] = block.morphology, block.context, block.mask
        border[here], slide[here], ids[here] = block.border, block.slide, block.id
    return CropStore(morphology, context, mask, border, slide, names, ids)
