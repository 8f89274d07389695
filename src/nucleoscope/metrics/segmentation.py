"""How well instance maps agree: Dice, AJI, AJI+, PQ and F1 at an IoU, from one overlap table.

All figures come from the list of overlapping pairs, which is made in one pass: memory is linear
in the image and in the pairs, in 2D and 3D alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucleoscope.data import Labels
from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics.assignment import assign
from nucleoscope.metrics.detection import Scores, jsonable, scores_from_counts

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Overlaps(NamedTuple):
    """Which instances overlap: ids and areas of both sides, and every overlapping pair.

    ``predicted_index[k]`` and ``truth_index[k]`` are positions in the id lists, ``intersection``
    the pixels they share.
    """

    predicted_ids: Ints
    truth_ids: Ints
    predicted_area: Ints
    truth_area: Ints
    predicted_index: Ints
    truth_index: Ints
    intersection: Ints

    def union(self) -> Ints:
        """Pixels in either instance, per pair."""
        both = self.predicted_area[self.predicted_index] + self.truth_area[self.truth_index]
        return both - self.intersection

    def iou(self) -> Floats:
        """Intersection over union, per pair, in (0, 1]."""
        return self.intersection / self.union()


class PanopticQuality(NamedTuple):
    """``pq = dq * sq``: detection quality (F1 at IoU > 0.5) times mean IoU of the matches."""

    pq: float
    dq: float
    sq: float
    tp: int
    fp: int
    fn: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain values for JSON; NaN becomes None."""
        return {name: jsonable(value) for name, value in self._asdict().items()}


class SegmentationScores(NamedTuple):
    """All figures of one pair of instance maps; NaN where both maps are empty."""

    dice: float
    aji: float
    aji_plus: float
    panoptic: PanopticQuality
    f1_at: dict[float, Scores]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; NaN becomes None."""
        return {
            "dice": jsonable(self.dice),
            "aji": jsonable(self.aji),
            "aji_plus": jsonable(self.aji_plus),
            "panoptic": self.panoptic.to_dict(),
            "f1_at": {f"{iou:g}": scores.to_dict() for iou, scores in self.f1_at.items()},
        }


def overlaps(predicted: Labels | ArrayLike, truth: Labels | ArrayLike) -> Overlaps:
    """The overlap table of two instance maps of the same shape (0 = no nucleus).

    Raises
    ------
    InputError
        Shapes differ, or a map is not of integers or has negative ids.

    Examples
    --------
    >>> table = overlaps([[1, 1, 0]], [[0, 7, 7]])
    >>> table.intersection.tolist(), table.union().tolist()
    ([1], [3])
    """
    p, t = _flat(predicted), _flat(truth)
    if p[1] != t[1]:
        raise InputError(f"instance maps differ in shape: {p[1]} and {t[1]}.")
    p_ids, p_index, p_area = _compact(p[0])
    t_ids, t_index, t_area = _compact(t[0])
    both = np.flatnonzero((p_index >= 0) & (t_index >= 0))
    key = p_index[both] * max(len(t_ids), 1) + t_index[both]
    pairs, shared = np.unique(key, return_counts=True)
    rows, columns = np.divmod(pairs, max(len(t_ids), 1))
    return Overlaps(p_ids, t_ids, p_area, t_area, rows, columns, shared.astype(np.int64))


def _flat(labels: Labels | ArrayLike) -> tuple[NDArray[np.integer], tuple[int, ...]]:
    """A map as a flat integer array, with its shape."""
    array = labels.data if isinstance(labels, Labels) else np.asarray(labels)
    if array.dtype.kind not in "iub":
        raise InputError(f"an instance map holds integers; found {array.dtype}.")
    if array.size and int(array.min()) < 0:
        raise InputError("an instance map has no negative ids.")
    return array.reshape(-1), array.shape


def _compact(flat: NDArray[np.integer]) -> tuple[Ints, Ints, Ints]:
    """Ids, per pixel the position of its id (-1 for 0), and areas."""
    ids, index, area = np.unique(flat, return_inverse=True, return_counts=True)
    skip = int(len(ids) > 0 and ids[0] == 0)
    return ids[skip:].astype(np.int64), index.astype(np.int64) - skip, area[skip:].astype(np.int64)


def dice(predicted: Labels | ArrayLike, truth: Labels | ArrayLike) -> float:
    """``2 |P and T| / (|P| + |T|)`` of the foregrounds, whatever the ids.

    >>> dice([[1, 1, 0]], [[0, 7, 7]])
    0.5
    """
    return _dice(overlaps(predicted, truth))


def _dice(table: Overlaps) -> float:
    total = int(table.predicted_area.sum() + table.truth_area.sum())
    return 2 * int(table.intersection.sum()) / total if total else float("nan")


def aji(predicted: Labels | ArrayLike, truth: Labels | ArrayLike) -> float:
    """Aggregated Jaccard index (Kumar et al. 2017, IEEE TMI 36:1550, algorithm 1).

    Every true nucleus takes the prediction of highest IoU, which several may take; predictions
    nobody took count in the union.

    >>> aji([[1, 1, 0]], [[0, 7, 7]]) == 1 / 3
    True
    """
    return _aji(overlaps(predicted, truth))


def _aji(table: Overlaps) -> float:
    order = np.lexsort((table.predicted_index, -table.iou(), table.truth_index))
    first = np.flatnonzero(np.diff(table.truth_index[order], prepend=-1))
    return _jaccard(table, order[first])


def aji_plus(predicted: Labels | ArrayLike, truth: Labels | ArrayLike) -> float:
    """AJI with one-to-one pairs that maximise the sum of IoU (Graham et al. 2019, HoVer-Net).

    >>> aji_plus([[1, 1, 1, 1]], [[7, 7, 8, 8]])
    0.333...
    """
    return _aji_plus(overlaps(predicted, truth))


def _aji_plus(table: Overlaps) -> float:
    return _jaccard(
        table, assign(table.predicted_index, table.truth_index, -table.iou(), single=0.0)
    )


def _jaccard(table: Overlaps, chosen: Ints) -> float:
    """Summed intersections over summed unions plus all that is in no chosen pair."""
    loose_p = np.ones(len(table.predicted_ids), dtype=bool)
    loose_t = np.ones(len(table.truth_ids), dtype=bool)
    loose_p[table.predicted_index[chosen]] = False
    loose_t[table.truth_index[chosen]] = False
    loose = table.predicted_area[loose_p].sum() + table.truth_area[loose_t].sum()
    total = int(table.union()[chosen].sum() + loose)
    return int(table.intersection[chosen].sum()) / total if total else float("nan")


def panoptic_quality(predicted: Labels | ArrayLike, truth: Labels | ArrayLike) -> PanopticQuality:
    """Panoptic quality (Kirillov et al. 2019): matches are pairs with IoU > 0.5.

    >>> panoptic_quality([[1, 1, 1, 0]], [[7, 7, 0, 0]])
    PanopticQuality(pq=0.666..., dq=1.0, sq=0.666..., tp=1, fp=0, fn=0)
    """
    return _panoptic(overlaps(predicted, truth))


def _panoptic(table: Overlaps) -> PanopticQuality:
    iou = table.iou()
    matched = iou > 0.5  # so no instance can be in two matches
    tp = int(matched.sum())
    fp, fn = len(table.predicted_ids) - tp, len(table.truth_ids) - tp
    dq = scores_from_counts(tp, fp, fn).f1
    sq = float(iou[matched].mean()) if tp else 0.0
    return PanopticQuality(dq * sq, dq, sq, tp, fp, fn)


def f1_at_iou(
    predicted: Labels | ArrayLike, truth: Labels | ArrayLike, *, thresholds: Sequence[float]
) -> dict[float, Scores]:
    """Precision, recall and F1 when a match is an IoU of at least the threshold.

    The largest one-to-one matching is taken, which above 0.5 is the only one.

    Raises
    ------
    CallError
        A threshold outside (0, 1].

    Examples
    --------
    >>> {t: s.f1 for t, s in f1_at_iou([[1, 1]], [[7, 0]], thresholds=[0.5, 0.7]).items()}
    {0.5: 1.0, 0.7: 0.0}
    """
    return _f1_at(overlaps(predicted, truth), thresholds)


def _f1_at(table: Overlaps, thresholds: Sequence[float]) -> dict[float, Scores]:
    found = {}
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise CallError(f"an IoU threshold lies in (0, 1]; found {threshold}.")
        allowed = np.flatnonzero(table.iou() >= threshold)
        rows, columns = table.predicted_index[allowed], table.truth_index[allowed]
        tp = len(assign(rows, columns, np.zeros(len(allowed))))
        fp, fn = len(table.predicted_ids) - tp, len(table.truth_ids) - tp
        found[float(threshold)] = scores_from_counts(tp, fp, fn)
    return found


def segmentation_scores(
    predicted: Labels | ArrayLike,
    truth: Labels | ArrayLike,
    *,
    thresholds: Sequence[float] = (0.5, 0.7, 0.9),
) -> SegmentationScores:
    """All figures from one overlap table; the functions above give them one at a time.

    Raises as `overlaps` and `f1_at_iou`.

    >>> segmentation_scores([[1, 1, 0]], [[7, 7, 0]]).aji
    1.0
    """
    table = overlaps(predicted, truth)
    return SegmentationScores(
        _dice(table), _aji(table), _aji_plus(table), _panoptic(table), _f1_at(table, thresholds)
    )
