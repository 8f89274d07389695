"""Crops: two small pictures of every nucleus at fixed scales, and its outline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError

#: Pixels of a crop's side; micrometres per pixel of the morphology and of the context field.
SIDE = 64
MORPHOLOGY_MPP = 0.25
CONTEXT_MPP = 1.0

_SHAPES = {"morphology": (SIDE, SIDE, 3), "context": (SIDE, SIDE, 3), "mask": (SIDE, SIDE)}


@dataclass(frozen=True, eq=False)
class CropStore:
    """Crops of N nuclei, in memory or on disk.

    Neighbours in the store are neighbours on the slide, so its rows are in another order than
    the table's: ``table_rows`` says which row of a table each crop shows.

    Parameters
    ----------
    morphology
        ``(N, 64, 64, 3)`` uint8 at 0.25 um per pixel: a field of 16 um.
    context
        ``(N, 64, 64, 3)`` uint8 at 1 um per pixel: a field of 64 um.
    mask
        ``(N, 64, 64)`` uint8 in the morphology field: 1 = this nucleus; all 0 = no outline known.
    border
        ``(N,)`` bool: the context field reaches beyond the slide and is mirrored there.
    slide
        ``(N,)`` int32, an index into ``slides``.
    slides
        The ``image`` names of the slides.
    id
        ``(N,)`` int64, the nucleus's id in its slide.

    ``morphology``, ``context`` and ``mask`` may be zarr arrays, of which only what is indexed is
    read.

    Raises
    ------
    InputError
        Shapes or types do not fit, or a slide index is out of range.

    Examples
    --------
    >>> pictures = np.zeros((2, 64, 64, 3), np.uint8)
    >>> store = CropStore(pictures, pictures, pictures[..., 0], [False, True], [0, 0],
    ...                   ("a",), [4, 9])
    >>> len(store), store.take([1]).id.tolist()
    (2, [9])
    """

    morphology: Any
    context: Any
    mask: Any
    border: NDArray[np.bool_]
    slide: NDArray[np.int32]
    slides: tuple[str, ...]
    id: NDArray[np.int64]

    def __post_init__(self) -> None:
        ids = np.asarray(self.id, dtype=np.int64)
        border = np.asarray(self.border, dtype=np.bool_)
        slide = np.asarray(self.slide, dtype=np.int32)
        n = len(ids)
        for name, rest in _SHAPES.items():
            array = getattr(self, name)
            if tuple(array.shape) != (n, *rest) or array.dtype != np.uint8:
                raise InputError(
                    f"crops: {name} is {(n, *rest)} uint8; found {tuple(array.shape)} "
                    f"{array.dtype}."
                )
        if border.shape != (n,) or slide.shape != (n,) or ids.shape != (n,):
            raise InputError(f"crops: border, slide and id need one value for each of {n} crops.")
        if n and (slide.min() < 0 or slide.max() >= len(self.slides)):
            raise InputError(f"crops: a slide index is not among the {len(self.slides)} slides.")
        for name, value in (("id", ids), ("border", border), ("slide", slide)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "slides", tuple(self.slides))

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: ArrayLike) -> CropStore:
        """The crops of these rows, in this order, in memory."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64)
        distinct, back = np.unique(index, return_inverse=True)
        morphology, context, mask = (_rows_of(getattr(self, n), distinct)[back] for n in _SHAPES)
        return CropStore(
            morphology, context, mask,
            self.border[index], self.slide[index], self.slides, self.id[index],
        )  # fmt: skip

    def blocks(self, size: int = 4096) -> Iterator[tuple[int, CropStore]]:
        """First row and crops of runs of ``size`` rows, in memory, one after the other."""
        for start in range(0, len(self), size):
            here = slice(start, start + size)
            morphology, context, mask = (np.asarray(getattr(self, n)[here]) for n in _SHAPES)
            yield start, CropStore(
                morphology, context, mask,
                self.border[here], self.slide[here], self.slides, self.id[here],
            )  # fmt: skip

    def table_rows(self, table: NucleusTable) -> NDArray[np.int64]:
        """For each crop, the row of ``table`` that holds its nucleus, by image and id.

        A table whose ``image`` column is empty is taken for that of the only slide.

        Raises
        ------
        InputError
            A crop's nucleus is not in the table.
        """
        images = table.frame["image"].to_numpy()
        if len(self.slides) == 1 and set(images) <= {""}:
            images = np.full(len(table), self.slides[0], dtype=object)
        have = pd.MultiIndex.from_arrays([images, table.frame["id"].to_numpy()])
        names = np.array(self.slides, dtype=object)
        want = pd.MultiIndex.from_arrays([names[self.slide], self.id])
        rows: NDArray[np.int64] = have.get_indexer(want).astype(np.int64)
        if (rows < 0).any():
            at = int(np.flatnonzero(rows < 0)[0])
            raise InputError(
                f"crops: nucleus {self.id[at]} of {names[self.slide[at]]} is not in the table; "
                "the crops belong to other nuclei."
            )
        return rows


def _rows_of(array: Any, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Ascending rows of a numpy or zarr array."""
    if isinstance(array, np.ndarray):
        return np.asarray(array[rows])
    return np.asarray(array.oindex[rows])
