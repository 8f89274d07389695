"""Nuclei as they come in: a table, and where known their outlines and instance map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nucleoscope.data.labels import Labels
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError


@dataclass(frozen=True, eq=False)
class Nuclei:
    """The nuclei of one slide or image.

    Parameters
    ----------
    table
        One row per nucleus.
    outlines
        One per row, in the same order, or None when no outline is known.
    labels
        The instance map they came from, whose ids are the table's, or None.
    notes
        What the reader had to decide, one sentence each.

    Raises
    ------
    InputError
        Another number of outlines than of rows.

    Examples
    --------
    >>> import pandas as pd
    >>> table = NucleusTable(pd.DataFrame({"id": [7, 9], "y": [1.0, 5.0], "x": [2.0, 3.0]}))
    >>> nuclei = Nuclei(table, Outlines.from_rings([[(0, 1), (0, 3), (2, 2)], []]))
    >>> len(nuclei), nuclei.take([1]).table.frame["id"].tolist()
    (2, [9])
    """

    table: NucleusTable
    outlines: Outlines | None = None
    labels: Labels | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.outlines is not None and len(self.outlines) != len(self.table):
            raise InputError(f"{len(self.outlines)} outlines were given for {len(self)} nuclei.")

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: ArrayLike) -> Nuclei:
        """The nuclei of these rows (numbers or a boolean array), in this order."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64)
        outlines = None if self.outlines is None else self.outlines.take(index)
        table = NucleusTable(self.table.frame.iloc[index])
        return Nuclei(table, outlines, self.labels, self.notes)
