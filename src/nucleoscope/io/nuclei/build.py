"""From rows of whatever a file holds to Nuclei, with one set of rules for what is odd."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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


#: Nuclei packed at a time: their rings become one array, a tenth of what lists of them take.
_BLOCK = 8192
_NOWHERE = (float("nan"), float("nan"))
_NONE: Floats = np.empty((0, 2))


@dataclass(frozen=True, eq=False)
class _Block:
    """Some nuclei: open rings one after the other, their ``sizes``, and a centre for each.

    A ring with one or two vertices has become a centre; ``n_short`` says how many.
    """

    vertices: Floats
    sizes: NDArray[np.int64]
    centres: Floats
    n_short: int

    @classmethod
    def of(cls, vertices: Floats, sizes: NDArray[np.int64], given: Floats) -> _Block:
        """A block of rings, closed or not; ``given`` centres (or NaN) go before computed ones."""
        vertices, sizes = _opened(vertices, sizes)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        is_short = (sizes > 0) & (sizes < 3)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        means = _means(vertices, owner, sizes)
        centres = np.where(is_short[:, None], means, _centres(vertices, offsets, owner, means))
        known = ~np.isnan(given).all(axis=1)
        centres[known] = given[known]
        if is_short.any():
            vertices = vertices[~is_short[owner]]
            sizes = np.where(is_short, 0, sizes)
        return cls(vertices, sizes, centres, int(is_short.sum()))


class _Growing:
    """Rows ``(n, 2)`` that grow in place: pages that are not yet used cost no memory."""

    def __init__(self) -> None:
        self._data, self._n = np.empty((0, 2)), 0

    def extend(self, rows: Floats) -> None:
        """Append rows."""
        n = self._n + len(rows)
        if n > len(self._data):
            # No view of it leaves this object before the end.
            self._data.resize((max(n, 2 * len(self._data)), 2), refcheck=False)
        self._data[self._n : n] = rows
        self._n = n

    def done(self) -> Floats:
        """All rows; nothing is appended afterwards."""
        self._data.resize((self._n, 2), refcheck=False)
        return self._data


@dataclass
class Rows:
    """Nuclei collected one by one or many at a time.

    Rings are ``(k, 2)`` in ``(y, x)``; an empty ring is an unknown outline. Centres are
    ``(y, x)`` or None where the ring gives it.
    """

    types: list[str] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_vertices: int = 0
    _vertices: _Growing = field(default_factory=_Growing)
    _blocks: list[_Block] = field(default_factory=list)
    _rings: list[Floats] = field(default_factory=list)
    _centres: list[tuple[float, float]] = field(default_factory=list)

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
        self._rings.append(ring)
        self.n_vertices += len(ring)
        self._centres.append(_NOWHERE if centre is None else centre)
        self.types.append(kind)
        self.probs.append(prob)
        self.ids.append(len(self.ids) + 1 if id is None else id)
        if len(self._rings) >= _BLOCK:
            self._pack()

    def add_many(
        self, vertices: Floats, sizes: NDArray[np.int64], centres: Floats, kinds: list[str]
    ) -> None:
        """Append nuclei whose rings lie one after the other; a centre is NaN where unknown."""
        self._pack()
        self._append(_Block.of(vertices, sizes, centres))
        self.n_vertices += len(vertices)
        self.types += kinds
        self.probs += [float("nan")] * len(kinds)
        self.ids += range(len(self.ids) + 1, len(self.ids) + 1 + len(kinds))

    def _pack(self) -> None:
        """Turn the rings at hand into a block."""
        if not self._rings:
            return
        sizes = np.array([len(ring) for ring in self._rings], dtype=np.int64)
        vertices = np.concatenate(self._rings).astype(np.float64, copy=False).reshape(-1, 2)
        centres = np.array(self._centres, dtype=np.float64)
        self._rings, self._centres = [], []
        self._append(_Block.of(vertices, sizes, centres))

    def _append(self, block: _Block) -> None:
        """Take a block; its vertices go behind the earlier ones."""
        self._vertices.extend(block.vertices)
        self._blocks.append(replace(block, vertices=_NONE))

    def packed(self) -> _Block:
        """All nuclei as one block, once."""
        self._pack()
        return _Block(
            self._vertices.done(),
            np.concatenate([np.zeros(0, np.int64), *(block.sizes for block in self._blocks)]),
            np.concatenate([_NONE, *(block.centres for block in self._blocks)]),
            sum(block.n_short for block in self._blocks),
        )

    def only(self, keep: NDArray[np.bool_], note: str) -> Rows:
        """The nuclei for which ``keep`` is True, numbered anew, with a further note."""
        block, rows = self.packed(), np.flatnonzero(keep).tolist()
        vertices = block.vertices[np.repeat(keep, block.sizes)]
        chosen = Rows(
            [self.types[i] for i in rows], [self.probs[i] for i in rows],
            list(range(1, len(rows) + 1)), [*self.notes, note], len(vertices),
        )  # fmt: skip
        chosen._append(_Block(vertices, block.sizes[keep], block.centres[keep], block.n_short))
        return chosen


def _opened(vertices: Floats, sizes: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Rings without vertices that repeat the next one, the closing one among them."""
    ends = np.cumsum(sizes)
    after = np.arange(1, len(vertices) + 1)
    after[ends[sizes > 0] - 1] = (ends - sizes)[sizes > 0]
    moved = (vertices != vertices[after]).any(axis=1)
    moved |= np.repeat(sizes == 1, sizes)
    if moved.all():
        return vertices, sizes
    counts = np.concatenate([[0], np.cumsum(moved)])
    return vertices[moved], counts[ends] - counts[ends - sizes]


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
    sizes = np.diff(outlines.offsets)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    means = _means(outlines.vertices, owner, sizes)
    return _centres(outlines.vertices, outlines.offsets, owner, means)


def _means(vertices: Floats, owner: NDArray[Any], sizes: NDArray[Any]) -> Floats:
    """Mean vertex of each ring; NaN of an empty one."""
    mean = np.full((len(sizes), 2), np.nan)
    known = sizes > 0
    for axis in (0, 1):
        sums = np.bincount(owner, weights=vertices[:, axis], minlength=len(sizes))
        mean[known, axis] = sums[known] / sizes[known]
    return mean


def _centres(vertices: Floats, offsets: NDArray[Any], owner: NDArray[Any], mean: Floats) -> Floats:
    """Centre of area of each ring, or its mean vertex where it has none."""
    n = len(mean)
    known = np.diff(offsets) > 0
    centre = mean.copy()
    after = np.arange(len(owner)) + 1
    after[offsets[1:][known] - 1] = offsets[:-1][known]
    near = vertices - mean[owner]  # so that large coordinates cost no digits
    cross = near[:, 0] * near[after, 1] - near[after, 0] * near[:, 1]
    area = np.bincount(owner, weights=cross, minlength=n)
    sound = known & (np.abs(area) > 1e-9)
    for axis in (0, 1):
        moment = np.bincount(owner, weights=cross * (near + near[after])[:, axis], minlength=n)
        centre[sound, axis] += moment[sound] / (3 * area[sound])
    return centre


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
    block = rows.packed()
    outlines = _outlines(block, source)
    centres = source.to_level_zero(block.centres)
    _check_finite(centres, source.where)
    notes = list(rows.notes)
    if block.n_short:
        notes.append(
            f"{source.where}: {block.n_short} outlines have fewer than 3 vertices; not used."
        )
    frame = pd.DataFrame(
        {"id": rows.ids, "image": source.image or "", "y": centres[:, 0], "x": centres[:, 1],
         "type": rows.types, "type_prob": rows.probs}
    )  # fmt: skip
    frame = frame.astype({"id": "int64", "type_prob": "float64", "type": object})
    return without_doubles(frame, outlines, notes, source.where)


def _outlines(block: _Block, source: Source) -> Outlines:
    """Outlines in pixels of level 0; a vertex that is not finite is named with its nucleus."""
    offsets = np.concatenate([[0], np.cumsum(block.sizes)])
    try:
        return Outlines(source.to_level_zero(block.vertices), offsets)
    except InputError as error:
        raise InputError(f"{source.where}: {error}") from None


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
