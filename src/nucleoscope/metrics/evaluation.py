"""The figures of a whole set of images: pooled, mean over images, and how far to trust them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data import NucleusTable, Points, Region
from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics.calibration import Reliability, reliability
from nucleoscope.metrics.detection import (
    RULES,
    HovernetScores,
    Matching,
    PairCounts,
    Scores,
    detection_scores,
    f_type,
    jsonable,
    match_points,
    pair_counts,
    scores_from_counts,
    type_scores,
)
from nucleoscope.seeds import generator

Interval = tuple[float, float]
Floats = NDArray[np.float64]

#: The three figures every summary has, in order.
FIGURES = ("precision", "recall", "f1")


class RuleScores(NamedTuple):
    """One image under one matching rule."""

    detection: Scores
    types: dict[str, Scores]


class Pairs(NamedTuple):
    """The optimal pairs of one image: slices apart (NaN unknown), types, their probability."""

    dz: Floats
    predicted_type: NDArray[np.str_]
    true_type: NDArray[np.str_]
    type_prob: Floats


class ImageResult(NamedTuple):
    """One image, scored; what `evaluate_images` sums up."""

    name: str
    radius: tuple[float, ...]
    rules: dict[str, RuleScores]
    counts: dict[str, PairCounts]
    pairs: Pairs


@dataclass(frozen=True)
class Summary:
    """One figure over all images.

    ``pooled`` from the summed counts; ``mean`` the mean over images of precision, recall and F1,
    images with nothing to score left out; the intervals are percentile bootstrap over images,
    None for a single image.
    """

    pooled: Scores
    mean: dict[str, float]
    pooled_interval: dict[str, Interval | None]
    mean_interval: dict[str, Interval | None]
    n_images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "pooled": self.pooled.to_dict(),
            "mean": {k: jsonable(v) for k, v in self.mean.items()},
            "pooled_interval": {k: list(v) if v else None for k, v in self.pooled_interval.items()},
            "mean_interval": {k: list(v) if v else None for k, v in self.mean_interval.items()},
            "n_images": self.n_images,
        }


@dataclass(frozen=True)
class RuleEvaluation:
    """Detection and every type under one matching rule."""

    detection: Summary
    types: dict[str, Summary]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "detection": self.detection.to_dict(),
            "types": {kind: summary.to_dict() for kind, summary in self.types.items()},
        }


@dataclass(frozen=True)
class Evaluation:
    """Everything `evaluate_images` finds; ``to_dict`` for JSON, `format_table` for people.

    ``balanced_accuracy`` is the mean over true types of the share of matched nuclei typed right;
    ``z_accuracy`` the share of matches at most one slice apart; ``calibration_error`` and
    ``reliability`` judge ``type_prob`` on matched nuclei. NaN where there is nothing to judge.
    """

    images: tuple[ImageResult, ...]
    radius: tuple[float, ...]
    level: float
    rules: dict[str, RuleEvaluation]
    hovernet: HovernetScores
    balanced_accuracy: float
    z_accuracy: float
    calibration_error: float
    reliability: Reliability = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "n_images": len(self.images),
            "radius_px": list(self.radius),
            "level": self.level,
            "rules": {rule: found.to_dict() for rule, found in self.rules.items()},
            "hovernet": self.hovernet.to_dict(),
            "balanced_accuracy": jsonable(self.balanced_accuracy),
            "z_accuracy": jsonable(self.z_accuracy),
            "calibration_error": jsonable(self.calibration_error),
            "reliability": self.reliability.to_dict(),
            "images": [_image_dict(image) for image in self.images],
        }


def _image_dict(image: ImageResult) -> dict[str, Any]:
    """One image for JSON: its scores under both rules."""
    return {
        "image": image.name,
        "rules": {
            rule: {
                "detection": found.detection.to_dict(),
                "types": {kind: scores.to_dict() for kind, scores in found.types.items()},
            }
            for rule, found in image.rules.items()
        },
    }


def evaluate_tables(
    predicted: NucleusTable,
    truth: Points | NucleusTable,
    *,
    region: Region | None = None,
    radius: float | tuple[float, ...] = 15.0,
    name: str | None = None,
) -> ImageResult:
    """Score the nuclei found in one image against its points.

    Parameters
    ----------
    predicted
        Nuclei of one image.
    truth
        Points, or another table, of the same image.
    region
        Both sides are dropped outside it, by centroid and by point.
    radius
        A number (or two) matches in (y, x) pixels; three, ``(z, y, x)``, match in 3D within an
        ellipsoid, which needs z on both sides.
    name
        Of the image; default: the table's.

    Raises
    ------
    InputError
        More than one image in a table, or a 3D radius where z is unknown.

    Examples
    --------
    >>> import pandas as pd
    >>> found = NucleusTable(pd.DataFrame({"id": [1], "y": [5.0], "x": [5.0], "type": ["a"]}))
    >>> result = evaluate_tables(found, Points([0], [5], [9], ["a"]), radius=15)
    >>> result.rules["optimal"].types["a"].f1
    1.0
    """
    images = sorted(set(predicted.frame["image"]))
    if len(images) > 1 or (isinstance(truth, NucleusTable) and truth.frame["image"].nunique() > 1):
        raise InputError("a table holds nuclei of several images; score one image at a time.")
    p_zyx, p_types, p_prob = _inside(*_columns(predicted), region)
    t_zyx, t_types, _ = _inside(*_columns(truth), region)
    axes = slice(0, 3) if np.size(radius) == 3 else slice(1, 3)
    matchings = {
        rule: match_points(p_zyx[:, axes], t_zyx[:, axes], radius=radius, rule=rule)
        for rule in RULES
    }
    best = matchings["optimal"]
    p, t = best.predicted_index, best.truth_index
    return ImageResult(
        name if name is not None else (images[0] if images else ""),
        best.radius,
        {rule: _rule_scores(matching, p_types, t_types) for rule, matching in matchings.items()},
        pair_counts(best, p_types, t_types),
        Pairs(np.abs(p_zyx[p, 0] - t_zyx[t, 0]), p_types[p], t_types[t], p_prob[p]),
    )


def _columns(nuclei: NucleusTable | Points) -> tuple[Floats, NDArray[np.str_], Floats]:
    """Positions ``(n, 3)``, types and their probability (NaN where unknown)."""
    if isinstance(nuclei, Points):
        return nuclei.zyx(), nuclei.types, np.full(len(nuclei), np.nan)
    frame = nuclei.frame
    zyx = frame[["z", "y", "x"]].to_numpy(dtype=np.float64).reshape(-1, 3)
    types = frame["type"].to_numpy().astype(np.str_)
    return zyx, types, frame["type_prob"].to_numpy(dtype=np.float64)


def _inside(
    zyx: Floats, types: NDArray[np.str_], prob: Floats, region: Region | None
) -> tuple[Floats, NDArray[np.str_], Floats]:
    """The rows inside the region."""
    if region is None:
        return zyx, types, prob
    keep = region.contains(zyx[:, 1], zyx[:, 2])
    return zyx[keep], types[keep], prob[keep]


def _rule_scores(
    matching: Matching, p_types: NDArray[np.str_], t_types: NDArray[np.str_]
) -> RuleScores:
    """Detection and types of one matching."""
    return RuleScores(detection_scores(matching), type_scores(matching, p_types, t_types))


def evaluate_images(
    results: Sequence[ImageResult],
    *,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Sum up scored images: pooled counts, means over images, intervals, both matching rules.

    Parameters
    ----------
    results
        From `evaluate_tables`, all with the same radius.
    n_bootstrap
        How many times the images are drawn again, with replacement, for the intervals.
    level
        Coverage of the percentile intervals, in (0, 1).
    seed
        Of the bootstrap; the same seed gives the same intervals.

    Raises
    ------
    CallError
        No image, a level outside (0, 1), or results of different radii.

    References
    ----------
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13 (percentile interval).

    Examples
    --------
    >>> import pandas as pd
    >>> found = NucleusTable(pd.DataFrame({"id": [1], "y": [5.0], "x": [5.0], "type": ["a"]}))
    >>> one = evaluate_tables(found, Points([0], [5], [9], ["a"]), name="one")
    >>> evaluation = evaluate_images([one, one])
    >>> evaluation.rules["optimal"].detection.pooled.tp
    2
    """
    if not results:
        raise CallError("there is no image to evaluate.")
    if not 0 < level < 1:
        raise CallError(f"the level of an interval lies between 0 and 1; found {level}.")
    if len({result.radius for result in results}) > 1:
        raise CallError("the images were matched with different radii; use one for all.")
    draws = generator(seed).integers(len(results), size=(n_bootstrap, len(results)))
    columns = zip(*(result.pairs for result in results), strict=True)
    pairs = Pairs(*(np.concatenate(column) for column in columns))
    curve = _reliability(pairs)
    return Evaluation(
        images=tuple(results),
        radius=results[0].radius,
        level=level,
        rules={rule: _evaluate_rule(results, rule, draws, level) for rule in RULES},
        hovernet=_hovernet(results),
        balanced_accuracy=_balanced_accuracy(pairs),
        z_accuracy=_z_accuracy(pairs.dz),
        calibration_error=curve.error(),
        reliability=curve,
    )


def _evaluate_rule(
    results: Sequence[ImageResult], rule: str, draws: NDArray[np.int64], level: float
) -> RuleEvaluation:
    """Summaries of detection and of every type under one rule."""
    nothing = scores_from_counts(0, 0, 0)
    kinds = sorted({kind for result in results for kind in result.rules[rule].types})

    found = [result.rules[rule] for result in results]
    return RuleEvaluation(
        summarise([image.detection for image in found], draws, level),
        {
            kind: summarise([image.types.get(kind, nothing) for image in found], draws, level)
            for kind in kinds
        },
    )


def summarise(scores: Sequence[Scores], draws: NDArray[np.int64], level: float) -> Summary:
    """Pool and average one figure over images; intervals from the drawn image indices.

    ``draws`` is ``(n_bootstrap, n_images)``, indices of images.
    """
    table = np.array([(s.precision, s.recall, s.f1) for s in scores], dtype=np.float64)
    counts = np.array([(s.tp, s.fp, s.fn) for s in scores], dtype=np.int64)
    scored = counts.sum(axis=1) > 0
    pooled = scores_from_counts(*counts.sum(axis=0).tolist())
    mean = table[scored].mean(axis=0) if scored.any() else np.full(3, np.nan)
    again = counts[draws].sum(axis=1)
    return Summary(
        pooled,
        dict(zip(FIGURES, mean.tolist(), strict=True)),
        _intervals(_figures(again), len(scores), level),
        _intervals(_mean_scored(table[draws], scored[draws]), len(scores), level),
        int(scored.sum()),
    )


def _figures(counts: NDArray[np.int64]) -> Floats:
    """``(n, 3)`` precision, recall, F1 from ``(n, 3)`` counts; NaN where there are none."""
    tp, fp, fn = counts.T
    some = np.where(counts.sum(axis=1) > 0, 1.0, np.nan)
    precision, recall = tp / np.maximum(tp + fp, 1), tp / np.maximum(tp + fn, 1)
    f1 = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    return np.stack([precision * some, recall * some, f1 * some], axis=1)


def _mean_scored(tables: Floats, scored: NDArray[np.bool_]) -> Floats:
    """Means over images that had something to score, per draw."""
    n = np.where(scored.any(axis=1), scored.sum(axis=1), np.nan)
    total: Floats = np.where(scored[..., None], tables, 0).sum(axis=1) / n[:, None]
    return total


def _intervals(values: Floats, n_images: int, level: float) -> dict[str, Interval | None]:
    """Percentile interval of each column; None for one image or nothing drawn."""
    values = values[np.isfinite(values).all(axis=1)]
    if n_images < 2 or len(values) == 0:
        return dict.fromkeys(FIGURES)
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return {f: (float(a), float(b)) for f, a, b in zip(FIGURES, low, high, strict=True)}


def _hovernet(results: Sequence[ImageResult]) -> HovernetScores:
    """``F_d`` and ``F_c`` from the counts of all images together."""
    kinds = sorted({kind for result in results for kind in result.counts})
    none = PairCounts(0, 0, 0, 0, 0)
    detection = np.array([result.rules["optimal"].detection[3:] for result in results])
    summed = {
        kind: PairCounts(*np.sum([r.counts.get(kind, none) for r in results], axis=0).tolist())
        for kind in kinds
    }
    f_d = scores_from_counts(*detection.sum(axis=0).tolist()).f1
    return HovernetScores(f_d, {kind: f_type(counts) for kind, counts in summed.items()})


def _balanced_accuracy(pairs: Pairs) -> float:
    """Mean over true types of the share typed right."""
    kinds = sorted(set(pairs.true_type.tolist()) - {""})
    right = pairs.predicted_type == pairs.true_type
    return float(np.mean([right[pairs.true_type == k].mean() for k in kinds])) if kinds else np.nan


def _z_accuracy(dz: Floats) -> float:
    """Share of matches at most one slice apart, of those with z on both sides."""
    known = dz[np.isfinite(dz)]
    return float((known <= 1).mean()) if len(known) else np.nan


def _reliability(pairs: Pairs) -> Reliability:
    """The curve of ``type_prob`` over matched nuclei of known type."""
    typed = pairs.true_type != ""
    right = pairs.predicted_type[typed] == pairs.true_type[typed]
    return reliability(pairs.type_prob[typed], right)


def format_table(evaluation: Evaluation) -> str:
    """The evaluation as Markdown: one row per rule, per detection or type, pooled and mean.

    The interval is that of F1.
    """
    radius = " x ".join(f"{r:g}" for r in evaluation.radius)
    lines = [
        f"{len(evaluation.images)} images, matched within {radius} px, "
        f"{evaluation.level:.0%} bootstrap interval over images.",
        "",
        "| rule | what | over | precision | recall | F1 | interval of F1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule, found in evaluation.rules.items():
        for what, summary in [("nuclei", found.detection), *found.types.items()]:
            lines += _rows(rule, what, summary)
    return "\n".join([*lines, "", *_remarks(evaluation)])


def _rows(rule: str, what: str, summary: Summary) -> list[str]:
    """Two Markdown rows of one summary."""
    label = f"{rule} (LECL)" if rule == "greedy" else rule
    pooled = dict(zip(FIGURES, summary.pooled[:3], strict=True))
    return [
        f"| {label} | {what} | {over} | "
        + " | ".join(_number(values[f]) for f in FIGURES)
        + f" | {_interval(interval['f1'])} |"
        for over, values, interval in (
            ("pooled", pooled, summary.pooled_interval),
            ("mean of images", summary.mean, summary.mean_interval),
        )
    ]


def _remarks(evaluation: Evaluation) -> list[str]:
    """The figures that are one number each, as a Markdown list; unknown ones left out."""
    f_c = {f"HoVer-Net F_c of {kind}": f for kind, f in evaluation.hovernet.f_c.items()}
    figures = {
        "HoVer-Net F_d": evaluation.hovernet.f_d,
        **f_c,
        "balanced accuracy of type on matched nuclei": evaluation.balanced_accuracy,
        "share of matches at most one slice apart": evaluation.z_accuracy,
        "expected calibration error of the type": evaluation.calibration_error,
    }
    return [f"- {name}: {_number(value)}" for name, value in figures.items() if np.isfinite(value)]


def _number(value: float) -> str:
    """Three decimals, or a dash."""
    return f"{value:.3f}" if np.isfinite(value) else "-"


def _interval(interval: Interval | None) -> str:
    """``low to high``, or a dash."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-"
