"""The atlas: nuclei, one embedding each, and what was found out about them, row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError

Float16s = NDArray[np.float16]

#: How far a row's length may be from 1: half precision rounds 1,000 coordinates to within this.
LENGTH_TOLERANCE = 0.02
_BLOCK = 65536


@dataclass(frozen=True, eq=False)
class Atlas:
    """Nuclei with their embeddings; every part has one row per nucleus, in one order.

    Parameters
    ----------
    table
        The ``N`` nuclei.
    embedding
        ``(N, D)`` float16, the morphology vectors ``z_m``, rows of length 1 (``unit_rows``).
    context
        ``(N, Dc)`` float16, the vectors ``z_c`` of the surroundings, rows of length 1, or None.
        They stay apart from ``embedding``, so that subtypes say nothing about neighbours.
    features
        Interpretable columns ``f_*``, or None.
    subtypes
        Column ``subtype`` and one ``subtype_<level>`` per level, as text, or None.
    map2d
        Columns ``map_x``, ``map_y``, or None.

    Raises
    ------
    InputError
        Numbers of rows differ, rows are not finite or not of length 1, or a column has a wrong
        name.

    Examples
    --------
    >>> table = NucleusTable(pd.DataFrame({"id": [1, 2], "y": [0.0, 9.0], "x": [0.0, 9.0]}))
    >>> atlas = Atlas(table, unit_rows([[3.0, 4.0], [0.0, 2.0]]))
    >>> len(atlas), atlas.embedding.dtype.name, atlas.embedding[1].tolist()
    (2, 'float16', [0.0, 1.0])
    """

    table: NucleusTable
    embedding: Float16s
    context: Float16s | None = None
    features: pd.DataFrame | None = None
    subtypes: pd.DataFrame | None = None
    map2d: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        n = len(self.table)
        object.__setattr__(self, "embedding", _checked(self.embedding, n, "embedding"))
        if self.context is not None:
            object.__setattr__(self, "context", _checked(self.context, n, "context"))
        for name in ("features", "subtypes", "map2d"):
            frame = getattr(self, name)
            if frame is not None:
                object.__setattr__(self, name, _aligned(frame, n, name))
        self._check_columns()

    def _check_columns(self) -> None:
        """Refuse columns with names of something else."""
        if self.features is not None:
            wrong = [str(c) for c in self.features.columns if not str(c).startswith("f_")]
            twice = [str(c) for c in self.features.columns if c in self.table.frame.columns]
            if wrong or twice:
                raise InputError(
                    f"features: their columns begin with f_ and are not in the table as well; "
                    f"found {', '.join((wrong or twice)[:3])}."
                )
        if self.subtypes is not None and "subtype" not in self.subtypes.columns:
            raise InputError("subtypes: they need a column 'subtype'.")
        if self.map2d is not None and not {"map_x", "map_y"} <= set(self.map2d.columns):
            raise InputError("map2d: it needs the columns 'map_x' and 'map_y'.")

    def __len__(self) -> int:
        return len(self.table)

    def with_parts(self, **parts: Any) -> Atlas:
        """The same nuclei with other parts: ``atlas.with_parts(map2d=frame)``."""
        return replace(self, **parts)

    def frame(self) -> pd.DataFrame:
        """Table, subtypes and features side by side, in the order of the public contract."""
        parts = [self.table.frame]
        if self.subtypes is not None:
            parts = [self.table.frame.drop(columns=list(self.subtypes), errors="ignore")]
            parts.append(self.subtypes)
        if self.features is not None:
            parts.append(self.features)
        return pd.concat(parts, axis=1)

    def joint(self, alpha: float = 0.5) -> NDArray[np.float32]:
        """Morphology and surroundings as one vector of length 1: ``[z_m, alpha z_c]``, scaled.

        ``alpha`` 0 is morphology alone; Nuc2Vec knows only that.

        Raises
        ------
        InputError
            The atlas has no context vectors.
        """
        morphology = self.embedding.astype(np.float32)
        if alpha == 0:
            return morphology
        if self.context is None:
            raise InputError("the atlas holds no context vectors; embed with them, or alpha=0.")
        both = np.hstack([morphology, np.float32(alpha) * self.context.astype(np.float32)])
        both /= np.float32(np.sqrt(1 + alpha**2))
        return both


def unit_rows(vectors: ArrayLike) -> Float16s:
    """Rows scaled to length 1, as float16, block by block.

    Parameters
    ----------
    vectors
        ``(N, D)`` finite numbers; no row of zeros.

    Raises
    ------
    InputError
        A row is zero or not finite, or the array is not ``(N, D)``.

    Examples
    --------
    >>> unit_rows([[3.0, 4.0]]).astype(float).round(2).tolist()
    [[0.6, 0.8]]
    """
    raw = np.asarray(vectors)
    if raw.ndim != 2:
        raise InputError(f"an embedding is (nuclei, dimensions); found shape {raw.shape}.")
    out = np.empty(raw.shape, np.float16)
    for start in range(0, len(raw), _BLOCK):
        block = raw[start : start + _BLOCK].astype(np.float64)
        length = np.sqrt(np.einsum("ij,ij->i", block, block))
        bad = ~(np.isfinite(length) & (length > 0))
        if bad.any():
            raise InputError(
                f"an embedding has {int(bad.sum())} rows that are zero or not finite, "
                f"first row {start + int(np.argmax(bad))}."
            )
        out[start : start + _BLOCK] = block / length[:, None]
    return out


def _checked(vectors: Any, n: int, name: str) -> Float16s:
    """Half precision rows of length 1, one per nucleus."""
    array = np.asarray(vectors)
    if array.ndim != 2 or len(array) != n or array.shape[1] == 0:
        raise InputError(f"{name}: shape {array.shape} for {n} nuclei; expected ({n}, D).")
    if array.dtype.kind != "f":
        raise InputError(f"{name}: it holds {array.dtype}; expected float16.")
    half = array.astype(np.float16, copy=False)
    for start in range(0, n, _BLOCK):
        block = half[start : start + _BLOCK].astype(np.float32)
        off = np.abs(np.sqrt(np.einsum("ij,ij->i", block, block)) - 1)
        bad = ~(off <= LENGTH_TOLERANCE)
        if bad.any():
            raise InputError(
                f"{name}: row {start + int(np.argmax(bad))} is not of length 1; "
                "scale the rows with unit_rows."
            )
    return half


def _aligned(frame: pd.DataFrame, n: int, name: str) -> pd.DataFrame:
    """A frame with one row per nucleus and the table's index."""
    if len(frame) != n:
        raise InputError(f"{name}: {len(frame)} rows for {n} nuclei.")
    return frame.reset_index(drop=True)
