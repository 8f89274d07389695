"""Were the nuclei found, and typed: matching of centroids with points, and what follows from it.

Two rules pair predictions with truth. ``"optimal"`` takes the largest number of pairs within the
radius and, among those, the least total distance. ``"greedy"`` is the rule of Moradinasab et al.
2023 (LECL): truth in raster order, each takes the nearest prediction still free. The greedy rule
depends on the order of the points and may pair fewer; it is here to compare with published
figures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics.assignment import assign

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RULES = ("optimal", "greedy")


class Matching(NamedTuple):
    """Which prediction is which nucleus.

    ``predicted_index[k]`` and ``truth_index[k]`` are a pair, ``distances[k]`` apart (in pixels of
    the last axis; a z step counts as ``radius_x / radius_z`` of them). ``predicted`` and
    ``truth`` are the coordinates that were matched.
    """

    predicted_index: Ints
    truth_index: Ints
    distances: Floats
    unmatched_predicted: Ints
    unmatched_truth: Ints
    predicted: Floats
    truth: Floats
    radius: tuple[float, ...]
    rule: str


class Scores(NamedTuple):
    """Precision, recall and F1 with the counts they come from; NaN where 0 / 0 (nothing at all)."""

    precision: float
    recall: float
    f1: float
    tp: int
    fp: int
    fn: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain values for JSON; NaN becomes None."""
        return {name: jsonable(value) for name, value in self._asdict().items()}


class HovernetScores(NamedTuple):
    """``F_d`` of detection and ``F_c`` of each type, as HoVer-Net's evaluation defines them."""

    f_d: float
    f_c: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return {"f_d": jsonable(self.f_d), "f_c": {t: jsonable(f) for t, f in self.f_c.items()}}


def jsonable(value: float | int) -> float | int | None:
    """A number as JSON can hold it: NaN becomes None.

    >>> jsonable(float("nan")), jsonable(0.5), jsonable(3)
    (None, 0.5, 3)
    """
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if np.isfinite(value) else None


def match_points(
    predicted: ArrayLike,
    truth: ArrayLike,
    *,
    radius: float | tuple[float, ...],
    rule: str = "optimal",
) -> Matching:
    """Pair predicted positions with true ones, each used at most once, within a radius.

    A pair is allowed when ``sum_a ((p_a - t_a) / r_a)^2 <= 1`` (``< 1`` for the greedy rule, as
    published): a disc in 2D, an ellipsoid in 3D.

    Parameters
    ----------
    predicted, truth
        ``(n, 2)`` and ``(m, 2)`` in (y, x), or ``(n, 3)`` and ``(m, 3)`` in (z, y, x), pixels.
    radius
        One number for all axes, or one per axis, pixels; in 3D usually ``(slices, px, px)``.
    rule
        ``"optimal"``: most pairs, then least total distance. ``"greedy"``: the rule of LECL.

    Returns
    -------
    Matching
        Pairs ordered by truth index.

    Raises
    ------
    CallError
        Unknown rule, or a radius that is not positive or does not fit the number of axes.
    InputError
        Coordinates of another shape, or not finite.

    Notes
    -----
    Candidates come from a k-d tree, so memory grows with the pairs within the radius, never with
    ``n * m``.

    Examples
    --------
    Greedy spends the only prediction the second nucleus could have had:

    >>> truth, predicted = [[0, 0], [0, 10]], [[0, 6], [0, -9]]
    >>> len(match_points(predicted, truth, radius=9).distances)
    2
    >>> len(match_points(predicted, truth, radius=9, rule="greedy").distances)
    1

    References
    ----------
    Moradinasab et al. 2023, "Label-efficient Contrastive Learning-based model for nuclei
    detection and classification in 3D Cardiovascular Immunofluorescent Images", Evaluation.
    """
    if rule not in RULES:
        raise CallError(f"no matching rule {rule!r}; there are {', '.join(RULES)}.")
    p, t = _coordinates(predicted, "predicted"), _coordinates(truth, "truth")
    axes = t.shape[1] if len(t) else p.shape[1]
    p, t = p.reshape(-1, axes) if len(p) == 0 else p, t.reshape(-1, axes) if len(t) == 0 else t
    if p.shape[1] != t.shape[1]:
        raise InputError(f"predictions have {p.shape[1]} coordinates and truth {t.shape[1]}.")
    radii = _radii(radius, axes)
    rows, columns, distances = _candidates(p, t, radii)
    if rule == "optimal":
        pairs = assign(rows, columns, distances)
    else:
        pairs = _greedy(rows, columns, distances, t, radii[-1])
    pairs = pairs[np.argsort(columns[pairs], kind="stable")]
    rows, columns, distances = rows[pairs], columns[pairs], distances[pairs]
    return Matching(
        rows, columns, distances, _rest(len(p), rows), _rest(len(t), columns), p, t, radii, rule
    )


def _coordinates(values: ArrayLike, what: str) -> Floats:
    """Coordinates as ``(n, 2)`` or ``(n, 3)`` float64."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, array.shape[1] if array.ndim == 2 and array.shape[1] == 3 else 2)
    if array.ndim != 2 or array.shape[1] not in (2, 3):
        raise InputError(f"{what} positions are (n, 2) or (n, 3); found shape {array.shape}.")
    if not np.isfinite(array).all():
        raise InputError(f"{what} positions hold NaN or infinity.")
    return array


def _radii(radius: float | tuple[float, ...], axes: int) -> tuple[float, ...]:
    """One positive radius per axis."""
    radii = tuple(float(r) for r in np.atleast_1d(np.asarray(radius, dtype=np.float64)))
    radii = radii * axes if len(radii) == 1 else radii
    if len(radii) != axes or not all(np.isfinite(r) and r > 0 for r in radii):
        raise CallError(
            f"a matching radius is one positive number or one per axis ({axes}); found {radius!r}."
        )
    return radii


def _candidates(
    predicted: Floats, truth: Floats, radii: tuple[float, ...]
) -> tuple[Ints, Ints, Floats]:
    """Pairs within the radii: prediction, truth, distance in units of the last axis."""
    if len(predicted) == 0 or len(truth) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    scale = radii[-1] / np.asarray(radii)
    p, t = predicted * scale, truth * scale
    # The tree may round either way at the rim: ask for a hair more, then decide here.
    near = cKDTree(p).sparse_distance_matrix(
        cKDTree(t), radii[-1] * (1 + 1e-9), output_type="ndarray"
    )
    rows, columns = near["i"].astype(np.int64), near["j"].astype(np.int64)
    distances = np.sqrt(((p[rows] - t[columns]) ** 2).sum(axis=1))
    keep = np.flatnonzero(distances <= radii[-1])
    keep = keep[np.lexsort((columns[keep], rows[keep]))]
    return rows[keep], columns[keep], distances[keep]


def _greedy(rows: Ints, columns: Ints, distances: Floats, truth: Floats, radius: float) -> Ints:
    """Truth in raster order takes the nearest free prediction closer than ``radius``."""
    rank = np.empty(len(truth), np.int64)
    rank[np.lexsort(truth.T[::-1])] = np.arange(len(truth))
    order = np.lexsort((rows, distances, rank[columns]))
    order = order[distances[order] < radius]
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    chosen = []
    for pair in order.tolist():
        row, column = int(rows[pair]), int(columns[pair])
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            chosen.append(pair)
    return np.asarray(chosen, dtype=np.int64)


def _rest(n: int, used: Ints) -> Ints:
    """Indices below ``n`` that are not in ``used``."""
    free = np.ones(n, dtype=bool)
    free[used] = False
    return np.flatnonzero(free).astype(np.int64)


def scores_from_counts(tp: int, fp: int, fn: int) -> Scores:
    """Precision, recall and F1 from counts.

    Precision without predictions is 0 when there was something to find, and recall without
    truth is 0 when something was predicted; with neither, all three are NaN.

    >>> scores_from_counts(3, 1, 0)
    Scores(precision=0.75, recall=1.0, f1=0.857..., tp=3, fp=1, fn=0)
    """
    if tp + fp + fn == 0:
        return Scores(np.nan, np.nan, np.nan, 0, 0, 0)
    precision, recall = tp / max(tp + fp, 1), tp / max(tp + fn, 1)
    return Scores(precision, recall, 2 * tp / (2 * tp + fp + fn), int(tp), int(fp), int(fn))


def detection_scores(matching: Matching) -> Scores:
    """Precision, recall and F1 of detection (NP), whatever the types.

    >>> detection_scores(match_points([[0, 0], [9, 9]], [[0, 1]], radius=3))
    Scores(precision=0.5, recall=1.0, f1=0.666..., tp=1, fp=1, fn=0)
    """
    return scores_from_counts(
        len(matching.distances), len(matching.unmatched_predicted), len(matching.unmatched_truth)
    )


def type_scores(
    matching: Matching, predicted_types: ArrayLike, true_types: ArrayLike
) -> dict[str, Scores]:
    """Precision, recall and F1 of each type (NC), as the LECL paper counts them.

    For a type, the predictions of that type are matched anew with the truth of that type, by the
    same rule and radius. Truth without a type (``""``) teaches nothing about types: it is left
    out, together with the predictions that were matched with it.

    Parameters
    ----------
    matching
        Of all nuclei; brings coordinates, radius and rule.
    predicted_types, true_types
        ``(n,)`` and ``(m,)`` text, in the order of the positions given to `match_points`.

    Returns
    -------
    dict
        Type to `Scores`, for every type present on either side, sorted.

    Raises
    ------
    InputError
        As many types as positions were expected.

    Examples
    --------
    >>> matching = match_points([[0, 0], [9, 9]], [[0, 1], [9, 8]], radius=3)
    >>> scores = type_scores(matching, ["positive", "positive"], ["positive", "negative"])
    >>> {t: s.f1 for t, s in scores.items()}
    {'negative': 0.0, 'positive': 0.666...}
    """
    p_types, t_types = _types(matching, predicted_types, true_types)
    counted = _typed(matching, t_types)
    scores = {}
    for kind in _kinds(p_types[counted], t_types):
        again = match_points(
            matching.predicted[counted & (p_types == kind)],
            matching.truth[t_types == kind],
            radius=matching.radius,
            rule=matching.rule,
        )
        scores[kind] = detection_scores(again)
    return scores


def _types(
    matching: Matching, predicted_types: ArrayLike, true_types: ArrayLike
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Both lists of types as text arrays of the matching's lengths."""
    p = np.asarray(predicted_types, dtype=np.str_).reshape(-1)
    t = np.asarray(true_types, dtype=np.str_).reshape(-1)
    if len(p) != len(matching.predicted) or len(t) != len(matching.truth):
        raise InputError(
            f"{len(p)} predicted and {len(t)} true types were given for "
            f"{len(matching.predicted)} predicted and {len(matching.truth)} true positions."
        )
    return p, t


def _typed(matching: Matching, true_types: NDArray[np.str_]) -> NDArray[np.bool_]:
    """True for predictions that are not matched with an untyped nucleus."""
    counted = np.ones(len(matching.predicted), dtype=bool)
    untyped = true_types[matching.truth_index] == ""
    counted[matching.predicted_index[untyped]] = False
    return counted


def _kinds(predicted: NDArray[np.str_], true: NDArray[np.str_]) -> list[str]:
    """The types on either side, without the empty one."""
    return sorted({*predicted.tolist(), *true.tolist()} - {""})


class PairCounts(NamedTuple):
    """What `hovernet_scores` needs of one type, summable over images."""

    both: int
    predicted_only: int
    true_only: int
    unpaired_predicted: int
    unpaired_true: int


def pair_counts(
    matching: Matching, predicted_types: ArrayLike, true_types: ArrayLike
) -> dict[str, PairCounts]:
    """Per type: pairs both / only predicted / only true of it, and unpaired nuclei of it.

    Untyped truth is left out as in `type_scores`.
    """
    p_types, t_types = _types(matching, predicted_types, true_types)
    p_pair, t_pair = p_types[matching.predicted_index], t_types[matching.truth_index]
    typed = t_pair != ""
    p_pair, t_pair = p_pair[typed], t_pair[typed]
    p_rest, t_rest = p_types[matching.unmatched_predicted], t_types[matching.unmatched_truth]
    return {
        kind: PairCounts(
            int(((p_pair == kind) & (t_pair == kind)).sum()),
            int(((p_pair == kind) & (t_pair != kind)).sum()),
            int(((p_pair != kind) & (t_pair == kind)).sum()),
            int((p_rest == kind).sum()),
            int((t_rest == kind).sum()),
        )
        for kind in _kinds(p_types[_typed(matching, t_types)], t_types)
    }


def f_type(counts: PairCounts) -> float:
    """``F_c = 2 TP_c / (2 TP_c + 2 FP_c + 2 FN_c + FP_d + FN_d)`` over the pairs of one type.

    ``TN_c`` of the formula is zero, because only pairs with the type on either side are counted.

    >>> f_type(PairCounts(8, 1, 1, 0, 0))
    0.8
    """
    both, predicted_only, true_only, loose_predicted, loose_true = counts
    total = 2 * (both + predicted_only + true_only) + loose_predicted + loose_true
    return 2 * both / total if total else float("nan")


def hovernet_type_scores(
    matching: Matching, predicted_types: ArrayLike, true_types: ArrayLike
) -> HovernetScores:
    """``F_d`` and ``F_c`` over the pairs of one matching (Graham et al. 2019, HoVer-Net, 4.2).

    Unlike `type_scores`, the pairs of the type-blind matching are kept, and a wrong type costs
    twice what a missed nucleus costs. HoVer-Net uses a radius of 12 px.

    Examples
    --------
    >>> matching = match_points([[0, 0], [9, 9]], [[0, 1], [9, 8]], radius=12)
    >>> hovernet_type_scores(matching, ["a", "a"], ["a", "b"])
    HovernetScores(f_d=1.0, f_c={'a': 0.5, 'b': 0.0})
    """
    counts = pair_counts(matching, predicted_types, true_types)
    return HovernetScores(detection_scores(matching).f1, {t: f_type(c) for t, c in counts.items()})
