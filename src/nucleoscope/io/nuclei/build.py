"""From rows of whatever a file holds to Nuclei, with one set of rules for what is odd."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits

Floats = NDArray[np.float64]

#: Above this share of nuclei with another within ``_NEAR_PX``, a file holds two segmentations.
_MOST_DOUBLE = 0.25
_NEAR_PX = 2.0


@dataclass(frozen=True)
class Source:
    """What the caller said about a file."""

    where: str
    image: str | None = None
    scale: float = 1.0
    limits: Limits = DEFAULT_LIMITS

    def to_level_zero(self, yx: Floats) -> Floats:
        """Pixels of the file as pixels of level 0; the centre of the first pixel is 0 in both."""
        return yx if self.scale == 1.0 else (yx + 0.5) * self.scale - 0.5


@dataclass
class Rows:
    """Nuclei collected one by one.

    ``rings`` are ``(k, 2)`` in ``(y, x)``; an empty ring is an unknown outline. ``centres`` are
    ``(y, x)`` or None where the ring gives it.
    """

    rings: list[Floats] = field(default_factory=list)
    centres: list[tuple[float, float] | None] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_vertices: int = 0

    def add(
        self,
        ring: Floats,
        centre: tuple[float, float] | None = None,
        *,
        kind: str = "",
        prob: float = float("nan"),
        id: int | None = None,
    ) -> None:
        """Append one nucleus."""
        self.rings.append(ring)
        self.n_vertices += len(ring)
        self.centres.append(centre)
        self.types.append(kind)
        self.probs.append(prob)
        self.ids.append(len(self.ids) + 1 if id is None else id)


def opened_ring(ring: Floats) -> Floats:
    """A ring without its closing vertex and without vertices that repeat the next one."""
    if len(ring) < 2:
        return ring
    moved = np.empty(len(ring), dtype=bool)
    moved[:-1] = (ring[1:] != ring[:-1]).any(axis=1)
    moved[-1] = (ring[0] != ring[-1]).any()
    if moved[:-1].all():
        return ring if moved[-1] else ring[:-1]
    kept: Floats = ring[moved]
    return kept


def centroids(outlines: Outlines) -> Floats:
    """Centres of area ``(n, 2)``; the mean vertex where there is no area; NaN where unknown."""
    n = len(outlines)
    sizes = np.diff(outlines.offsets)
    owner = np.repeat(np.arange(n), sizes)
    mean = np.full((n, 2), np.nan)
    known = sizes > 0
    for axis in (0, 1):
        sums = np.bincount(owner, weights=outlines.vertices[:, axis], minlength=n)
        mean[known, axis] = sums[known] / sizes[known]
    after = np.arange(len(owner)) + 1
    after[outlines.offsets[1:][known] - 1] = outlines.offsets[:-1][known]
    near = outlines.vertices - mean[owner]  # so that large coordinates cost no digits
    cross = near[:, 0] * near[after, 1] - near[after, 0] * near[:, 1]
    area = np.bincount(owner, weights=cross, minlength=n)
    sound = known & (np.abs(area) > 1e-9)
    for axis in (0, 1):
        moment = np.bincount(owner, weights=cross * (near + near[after])[:, axis], minlength=n)
        mean[sound, axis] += moment[sound] / (3 * area[sound])
    return mean


def nuclei_of(rows: Rows, source: Source) -> Nuclei:
    """Check the rows and make Nuclei of them.

    A ring with fewer than three distinct vertices is an unknown outline; a nucleus at exactly the
    place of an earlier one is left out; both are said in the notes.

    Raises
    ------
    InputError
        A coordinate that is not finite, ids that repeat, or two segmentations in one file.
    """
    source.limits.check("rows", len(rows.ids), source.where)
    source.limits.check("vertices", rows.n_vertices, source.where)
    rings = [opened_ring(ring) for ring in rows.rings]
    short = sum(0 < len(ring) < 3 for ring in rings)
    means = [ring.mean(axis=0) if 0 < len(ring) < 3 else None for ring in rings]
    outlines = _outlines([ring if len(ring) > 2 else ring[:0] for ring in rings], source)
    centres = centroids(outlines)
    for i, given in enumerate(zip(rows.centres, means, strict=True)):
        best = next((value for value in given if value is not None), None)
        if best is not None:
            centres[i] = source.to_level_zero(np.asarray(best, dtype=np.float64))
    _check_finite(centres, source.where)
    notes = list(rows.notes)
    if short:
        notes.append(f"{source.where}: {short} outlines have fewer than 3 vertices; not used.")
    frame = pd.DataFrame(
        {"id": rows.ids, "image": source.image or "", "y": centres[:, 0], "x": centres[:, 1],
         "type": rows.types, "type_prob": rows.probs}
    )  # fmt: skip
    frame = frame.astype({"id": "int64", "type_prob": "float64", "type": object})
    return without_doubles(frame, outlines, notes, source.where)


def _outlines(rings: list[Floats], source: Source) -> Outlines:
    """Outlines in pixels of level 0; a vertex that is not finite is named with its nucleus."""
    try:
        found = Outlines.from_rings(rings)
    except InputError as error:
        raise InputError(f"{source.where}: {error}") from None
    return found if source.scale == 1.0 else Outlines(
        source.to_level_zero(found.vertices), found.offsets
    )  # fmt: skip


def _check_finite(centres: Floats, where: str) -> None:
    """Refuse a nucleus without a place."""
    bad = np.flatnonzero(~np.isfinite(centres).all(axis=1))
    if bad.size:
        raise InputError(f"{where}: nucleus {bad[0] + 1} has neither a finite centre nor outline.")


def without_doubles(
    frame: pd.DataFrame, outlines: Outlines | None, notes: list[str], where: str
) -> Nuclei:
    """Nuclei without those that lie exactly where an earlier one does.

    Raises
    ------
    InputError
        Ids that repeat, or so many nuclei beside each other that there are two segmentations.
    """
    again = frame.duplicated(["image", "y", "x"]).to_numpy()
    if again.any():
        notes = [*notes, f"{where}: {int(again.sum())} nuclei repeat another's place; left out."]
        frame = frame[~again].reset_index(drop=True)
        outlines = None if outlines is None else outlines.take(~again)
    _check_single(frame, where)
    if outlines is not None and not outlines.is_known().any():
        outlines = None
    try:
        table = NucleusTable(frame)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return Nuclei(table, outlines, None, tuple(notes))


def _check_single(frame: pd.DataFrame, where: str) -> None:
    """Refuse two segmentations of one slide in one file."""
    from scipy.spatial import cKDTree

    if len(frame) < 20:
        return
    yx: Any = frame[["y", "x"]].to_numpy(dtype=np.float64)
    distance, _ = cKDTree(yx).query(yx, k=2, distance_upper_bound=_NEAR_PX)
    double = int(np.isfinite(distance[:, 1]).sum())
    if double > _MOST_DOUBLE * len(frame):
        raise InputError(
            f"{where}: {double:,} of {len(frame):,} nuclei lie within {_NEAR_PX:g} pixels of "
            "another, so it seems to hold two segmentations of one slide; keep one."
        )
