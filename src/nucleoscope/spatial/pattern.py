"""The nuclei of one image as a point pattern: places with a scale, and a type for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial.window import UNITS, Window

#: Types are kept as one byte each, so that a permutation of a million of them stays in cache.
MAX_TYPES = 250


@dataclass(frozen=True, eq=False)
class Pattern:
    """Nuclei of one image.

    Parameters
    ----------
    at
        ``(n, 2)`` float64 ``(y, x)`` or ``(n, 3)`` ``(z, y, x)``, all in ``unit``.
    codes
        ``(n,)`` uint8: index of each nucleus's type in ``names``.
    names
        The types, in the order of every matrix made from this pattern.
    unit
        ``"um"`` or ``"px"``.
    image
        Name of the image, for messages and tables.
    window
        Where nuclei could have been, in the same unit; None when not needed.
    strata
        ``(n,)`` int64: the tissue region of each nucleus, or None for one region.
    rows
        ``(n,)`` int64: row of each nucleus in the table it came from. Default: 0 to n - 1.

    Raises
    ------
    InputError
        Shapes differ, a coordinate is not finite, or a nucleus lies outside the window.

    Examples
    --------
    >>> pattern = Pattern([[0.0, 0.0], [3.0, 4.0]], [0, 1], ("immune", "tumour"))
    >>> len(pattern), pattern.n_dims, pattern.counts.tolist()
    (2, 2, [1, 1])
    """

    at: NDArray[np.float64]
    codes: NDArray[np.uint8]
    names: tuple[str, ...]
    unit: str = "um"
    image: str = ""
    window: Window | None = None
    strata: NDArray[np.int64] | None = None
    rows: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        at = np.ascontiguousarray(self.at, dtype=np.float64)
        if at.size == 0:
            at = at.reshape(0, at.shape[1] if at.ndim == 2 and at.shape[1] == 3 else 2)
        if at.ndim != 2 or at.shape[1] not in (2, 3):
            raise InputError(f"{self._where}places are (n, 2) or (n, 3); found shape {at.shape}.")
        if not np.isfinite(at).all():
            raise InputError(f"{self._where}a coordinate is not a finite number.")
        if self.unit not in UNITS:
            raise CallError(f"the unit is um or px; found {self.unit!r}.")
        if len(self.names) > MAX_TYPES:
            raise InputError(f"{self._where}{len(self.names)} types; at most {MAX_TYPES} fit.")
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "names", tuple(self.names))
        self._set("codes", self.codes, np.uint8)
        self._set("strata", self.strata, np.int64)
        self._set("rows", np.arange(len(at)) if self.rows is None else self.rows, np.int64)
        if len(at) and self.codes.max() >= len(self.names):
            raise InputError(f"{self._where}a type code has no name.")
        self._check_window()

    @property
    def _where(self) -> str:
        return f"{self.image}: " if self.image else ""

    def _set(self, what: str, values: object, dtype: type[np.generic]) -> None:
        if values is None:
            return
        array = np.ascontiguousarray(values, dtype=dtype)
        if array.shape != (len(self.at),):
            raise InputError(
                f"{self._where}{len(self.at)} nuclei but {array.shape} values of {what}."
            )
        object.__setattr__(self, what, array)

    def _check_window(self) -> None:
        if self.window is None:
            return
        if self.window.unit != self.unit or self.window.n_dims != self.n_dims:
            raise InputError(
                f"{self._where}the window is {self.window.n_dims}D in {self.window.unit} but the "
                f"nuclei are {self.n_dims}D in {self.unit}."
            )
        outside = int((~self.window.contains(self.at)).sum())
        if outside:
            raise InputError(
                f"{self._where}{outside} of {len(self)} nuclei lie outside the window; "
                "call pattern.inside(window) to leave them out."
            )

    def __len__(self) -> int:
        return len(self.at)

    @property
    def n_dims(self) -> int:
        """2 or 3."""
        return int(self.at.shape[1])

    @property
    def n_types(self) -> int:
        """How many types there are, also those without a nucleus in this image."""
        return len(self.names)

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(n_types,)``: nuclei of each type."""
        return np.bincount(self.codes, minlength=self.n_types).astype(np.int64)

    def where(self, keep: NDArray[np.bool_]) -> Pattern:
        """The nuclei for which ``keep`` is True."""
        assert self.rows is not None  # noqa: S101  set at construction
        strata = None if self.strata is None else self.strata[keep]
        return replace(
            self, at=self.at[keep], codes=self.codes[keep], strata=strata, rows=self.rows[keep]
        )

    def inside(self, window: Window) -> Pattern:
        """The nuclei inside ``window``, which becomes the pattern's window."""
        return replace(replace(self, window=None).where(window.contains(self.at)), window=window)

    def with_window(self) -> Pattern:
        """Itself, or with the rectangle that its nuclei suggest when it has no window."""
        if self.window is not None:
            return self
        return replace(self, window=Window.around(self.at, self.unit))

    def relabelled(self, codes: NDArray[np.uint8]) -> Pattern:
        """The same places with other types."""
        return replace(self, codes=codes)


def places(frame: pd.DataFrame, unit: str, *, image: str = "") -> NDArray[np.float64]:
    """Coordinates of a nucleus table in ``unit``: ``(n, 3)`` for stacks, ``(n, 2)`` otherwise.

    Raises
    ------
    InputError
        Micrometres are asked for but the table has none, or pixels are asked for in a stack,
        whose slices are not pixels.
    """
    where = f"{image}: " if image else ""
    planar = ["y_um", "x_um"] if unit == "um" else ["y", "x"]
    missing = [c for c in planar if c not in frame.columns or frame[c].isna().any()]
    if missing:
        raise InputError(
            f"{where}the table has no {missing[0]}, so its scale is unknown; "
            "measure with --spacing or --mpp, or give lengths in px."
        )
    z = frame["z_um"] if unit == "um" and "z_um" in frame.columns else frame["z"]
    is_stack = bool(frame["z"].notna().all()) and frame["z"].nunique() > 1
    if not is_stack:
        return frame[planar].to_numpy(dtype=np.float64)
    if unit == "px" or "z_um" not in frame.columns or z.isna().any():
        raise InputError(
            f"{where}nuclei lie in several slices, and a slice is not a pixel; "
            "give lengths in um (the table needs z_um), or set flat=True to look from above."
        )
    return np.column_stack([z.to_numpy(np.float64), frame[planar].to_numpy(np.float64)])


def patterns_of(
    tables: NucleusTable | Sequence[NucleusTable], *, by: str = "type", unit: str = "um"
) -> list[Pattern]:
    """One pattern per image, with the same list of types in each; nuclei without a type left out.

    Parameters
    ----------
    tables
        One table, possibly of several images, or several tables.
    by
        The column that types the nuclei: ``"type"``, ``"subtype"`` or any other.
    unit
        ``"um"`` or ``"px"``.

    Returns
    -------
    list[Pattern]
        In order of first appearance. ``rows`` counts through all tables put one after another.

    Raises
    ------
    CallError
        No such column, with those there are.
    InputError
        No nucleus has a type, or the coordinates do not exist in ``unit``.

    Examples
    --------
    >>> frame = pd.DataFrame({"id": [1, 2], "image": "a", "y": [0, 1], "x": 0, "type": ["t", "u"]})
    >>> [len(p) for p in patterns_of(NucleusTable(frame), unit="px")]
    [2]
    """
    every = [tables] if isinstance(tables, NucleusTable) else list(tables)
    frame = pd.concat([t.frame for t in every], ignore_index=True) if every else None
    if frame is None or frame.empty:
        return []
    if by not in frame.columns:
        raise CallError(f"the table has no column {by!r}; it has {', '.join(frame.columns)}.")
    types = frame[by].fillna("").astype(str)
    typed = (types != "") & (types != "nan")
    if not typed.any():
        raise InputError(f"no nucleus has a {by}; type the nuclei first, or name another column.")
    names = tuple(sorted(types[typed].unique()))
    code_of = {name: code for code, name in enumerate(names)}
    if len(names) > MAX_TYPES:
        raise InputError(f"{by} has {len(names)} values; at most {MAX_TYPES} types fit.")
    codes_of_all = types.map(code_of).fillna(0).to_numpy(np.uint8)
    patterns = []
    for image, members in frame.groupby("image", sort=False).indices.items():
        rows = np.asarray(members, np.int64)
        at = places(frame.iloc[rows], unit, image=str(image))
        keep = typed.to_numpy()[rows]
        codes = codes_of_all[rows[keep]]
        patterns.append(Pattern(at[keep], codes, names, unit, str(image), rows=rows[keep]))
    return patterns
