"""After the network: the working point of detection, and the rule and calibration of each marker.

Both are chosen on held-out images where there are any; few numbers are fitted, so few images do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.calibrate import Groups, platt, two_groups
from nucleoscope.data.labels import Labels
from nucleoscope.data.maps import StackMaps
from nucleoscope.errors import InputError
from nucleoscope.learn.feed import Lesson
from nucleoscope.learn.infer import (
    candidates,
    evidence_at,
    find_nuclei,
    height_logits,
    maps_of,
    network_logits,
    nuclei_from,
)
from nucleoscope.learn.lesson import Partial
from nucleoscope.learn.model import MarkerSpec, Model, ModelConfig, PlacementSpec
from nucleoscope.learn.placement import least_away
from nucleoscope.learn.typing import Scene, Typer, fit_typer
from nucleoscope.metrics.detection import match_points
from nucleoscope.nuclei.markers import FEATURES, Evidence, fit_learned, marker_evidence
from nucleoscope.nuclei.measure import extents
from nucleoscope.nuclei.peaks import Peaks, find_peaks

#: Working points that are tried.
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
VALLEYS = (0.7, 0.8, 0.9, 0.95, 0.98)
#: The same for stained sections, where nuclei crowd and background resembles them.
COLOUR_THRESHOLDS, COLOUR_VALLEYS = (*THRESHOLDS[3:], 0.65, 0.7, 0.75), (0.9, 0.95, 0.98)
#: F1 within this of the best counts as equally good.
PLATEAU = 0.01
#: A detection belongs to a click within this many nucleus radii and slices.
MATCH_RADII, MATCH_SLICES = 2.0, 2.0
#: In one plane nothing lies above another, and nuclei stand closer.
MATCH_RADII_2D = 1.0
#: Fewer pairs of nucleus and click than these place nothing.
ENOUGH_PAIRS = 200
#: Held-out nuclei of each type that calibrate a marker; with fewer, those that taught do too.
ENOUGH_TYPED = 5
#: Scores of all nuclei are in two groups if the groups' means are this many standard deviations
#: apart (two normals of one spread and equal size have two peaks from 2 on).
APART = 3.0
#: Nuclei without a click that it takes to see groups; clicked ones fall into them by themselves.
ENOUGH_UNTOLD = 30
#: Rims of nuclei are not wider.
RIM_PIXELS = 8


@dataclass(frozen=True, eq=False)
class Seen:
    """One image as the model sees it."""

    lesson: Lesson
    maps: StackMaps


def look(model: Model, lessons: Sequence[Lesson]) -> list[Seen]:
    """The model's maps of every lesson."""
    return [Seen(lesson, maps_of(model, lesson.volume)) for lesson in lessons]


def _counts(
    seen: Sequence[Seen], config: ModelConfig, thresholds: Sequence[float]
) -> NDArray[np.float64]:
    """``(T, 3)`` true positives, found and true nuclei.

    Of images annotated in part, likely proposals count as clicked; where there are none, counts
    are extrapolated from the clicks.
    """
    counts = np.zeros((len(thresholds), 3))
    for one in seen:
        hits = _hits_at(one, config, thresholds)
        partial = one.lesson.partial
        if partial is None or partial.is_likely.any():
            counts += hits
        else:
            counts += extrapolated(hits, len(partial.clicks) / partial.share)
    return counts


def _f1_of(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 ``(...)`` of ``(..., 3)`` counts; 1 when there is nothing and nothing was found."""
    both = counts[..., 1] + counts[..., 2]
    score: NDArray[np.float64] = np.where(
        both > 0, 2 * counts[..., 0] / np.maximum(both, 1e-9), 1.0
    )  # fmt: skip
    return score


def extrapolated(counts: NDArray[np.integer], nuclei: float) -> NDArray[np.float64]:
    """From counts against some of the nuclei to counts against all of them.

    Clicks are a sample of the nuclei, so recall R can be read off them. What is found beside them
    may be right or wrong, so precision cannot; but of M nuclei R M are found, and of N found no
    more than N are right. M is known from the share of clicked nuclei (``Partial.share``).

    Parameters
    ----------
    counts
        ``(..., 3)`` clicked nuclei found, all found, clicks.
    nuclei
        M.

    Returns
    -------
    ndarray
        ``(..., 3)`` ``min(R M, N)``, N and M.

    Examples
    --------
    >>> extrapolated(np.array([[10, 150, 10], [8, 70, 10]]), 100.0).tolist()
    [[100.0, 150.0, 100.0], [70.0, 70.0, 100.0]]
    """
    hit, found, clicks = np.moveaxis(counts.astype(np.float64), -1, 0)
    recall = np.divide(hit, clicks, out=np.zeros_like(hit), where=clicks > 0)
    right = np.minimum(recall * nuclei, found)
    return np.stack([right, found, np.full_like(found, nuclei)], axis=-1)


def _hits_at(seen: Seen, config: ModelConfig, thresholds: Sequence[float]) -> NDArray[np.int64]:
    """Rows of (true positives, found, clicks) inside the taught region, one per threshold."""
    if config.decode == "peaks":
        lowest = config.model_copy(update={"threshold": min(thresholds)})
        peaks = find_peaks(seen.maps.centre, lowest.peak_settings(seen.maps.stride))
    else:
        peaks = find_nuclei(seen.maps, config, seen.lesson.volume.shape)[1]
    rows = []
    for threshold in thresholds:
        # A weaker peak never removes a better one, so a higher threshold only cuts the list.
        kept = peaks.score > threshold if config.decode == "peaks" else slice(None)
        rows.append(_hits(Peaks(peaks.zyx[kept], peaks.score[kept]), seen, config.radius_px))
    return np.array(rows, dtype=np.int64)


def _hits(peaks: Peaks, seen: Seen, radius: float) -> tuple[int, int, int]:
    """True positives, detections and clicks, inside the taught region."""
    lesson, stride = seen.lesson, seen.maps.stride
    found = peaks.zyx[:, 1:] * stride + (stride - 1) / 2
    rows = np.rint(found).astype(int).clip(0, np.array(lesson.volume.shape[1:]) - 1)
    inside = _taught_area(lesson)[rows[:, 0], rows[:, 1]]
    truth = lesson.centres[lesson.is_taught, 1:]
    reach = MATCH_RADII_2D if lesson.volume.is_rgb else MATCH_RADII
    found = found[inside]
    if lesson.partial is None:
        n_right = len(match_points(found, truth, radius=reach * radius).predicted_index)
        return n_right, len(found), len(truth)
    return _partial_hits(found, lesson.partial, reach * radius)


def _partial_hits(
    found: NDArray[np.float64], partial: Partial, reach: float
) -> tuple[int, int, int]:
    """The same for an image annotated in part; what lies at a doubtful place is not counted."""
    known = np.concatenate([partial.clicks, partial.proposals[partial.is_likely]])[:, 1:]
    matching = match_points(found, known, radius=reach)
    if not partial.is_likely.any():
        return len(matching.predicted_index), len(found), len(known)
    rest = np.delete(found, matching.predicted_index, axis=0)
    doubtful = partial.proposals[~partial.is_likely][:, 1:]
    n_open = len(match_points(rest, doubtful, radius=reach).predicted_index)
    return len(matching.predicted_index), len(found) - n_open, len(known)


def _taught_area(lesson: Lesson) -> NDArray[np.bool_]:
    """Pixels where something was taught in some slice; of a part, the annotated region."""
    if lesson.partial is not None:
        return lesson.partial.area
    area: NDArray[np.bool_] = (lesson.foreground != 255).any(axis=0)
    if lesson.volume.is_rgb:  # a single plane, in which the rims of nuclei say nothing
        size = 2 * RIM_PIXELS + 1
        area = ndimage.minimum_filter(ndimage.maximum_filter(area, size), size)
    return area


def f1(hits: tuple[int, int, int]) -> float:
    """F1 of (true positives, found, true); 1 when there is nothing and nothing was found."""
    both = hits[1] + hits[2]
    return 2 * hits[0] / both if both else 1.0


def detection_f1(seen: Sequence[Seen], config: ModelConfig) -> float:
    """Pooled detection F1 at the model's working point.

    Of images annotated in part it is an estimate, see ``_counts``.
    """
    return float(_f1_of(_counts(seen, config, (config.threshold,)))[0])


def working_point(seen: Sequence[Seen], config: ModelConfig) -> ModelConfig:
    """The threshold and valley with the best F1, well inside the range that is as good.

    A few images cannot tell valleys apart that differ by a nucleus or two, so of those within half
    of ``PLATEAU`` of the best the usual one is taken. With it, F1 hardly changes over a wide range
    of thresholds and then falls. New stacks are dimmer, more crowded or noisier than these, so the
    middle of the thresholds within ``PLATEAU`` of the best is taken, not the best itself: the
    geometric one, for what changes heights multiplies them.
    """
    if config.decode != "peaks":
        return config  # the published constants
    if not seen:
        return config
    thresholds = COLOUR_THRESHOLDS if config.is_rgb else THRESHOLDS
    valleys = COLOUR_VALLEYS if config.is_rgb else VALLEYS
    points = [config.model_copy(update={"valley": valley}) for valley in valleys]
    scores = _f1_of(np.stack([_counts(seen, point, thresholds) for point in points], axis=1))
    best = scores.max(axis=0)
    fair = [j for j in range(len(valleys)) if best[j] >= best.max() - PLATEAU / 2]
    j = min(fair, key=lambda k: (abs(valleys[k] - config.valley), -best[k]))
    is_good = scores[:, j] >= best[j] - PLATEAU
    low = high = int(scores[:, j].argmax())
    while low > 0 and is_good[low - 1]:
        low -= 1
    while high + 1 < len(thresholds) and is_good[high + 1]:
        high += 1
    threshold = math.sqrt(thresholds[low] * thresholds[high])
    return config.model_copy(update={"threshold": threshold, "valley": valleys[j]})


def typing_scenes(seen: Sequence[Seen], config: ModelConfig, *, judges: bool) -> list[Scene]:
    """The nuclei of colour images, outlined from their clicks as if they had been found there."""
    return [_scene(one, config, judges) for one in seen]


def _scene(seen: Seen, config: ModelConfig, judges: bool) -> Scene:
    lesson = seen.lesson
    inside = lesson.is_taught
    yx = lesson.centres[inside, 1:]
    found, network = evidence_at(seen.maps, lesson.volume, yx, config)
    return Scene(found, yx, network, lesson.types[inside, 0], judges)


def sieve_scenes(seen: Sequence[Seen], config: ModelConfig, *, judges: bool) -> list[Scene]:
    """Every peak of colour images; its type is 1 where a click belongs to it, else 0."""
    return [_peaks_of(one, config, judges) for one in seen]


def _peaks_of(seen: Seen, config: ModelConfig, judges: bool) -> Scene:
    lesson = seen.lesson
    peaks, yx, found = candidates(seen.maps, lesson.volume, config)
    clicks = lesson.centres[lesson.is_taught, 1:]
    matching = match_points(yx, clicks, radius=MATCH_RADII_2D * config.radius_px)
    types = np.zeros(len(peaks), dtype=np.int64)
    types[matching.predicted_index] = 1
    rows = np.rint(yx).astype(int).clip(0, np.array(lesson.volume.shape[1:]) - 1)
    types[~_taught_area(lesson)[rows[:, 0], rows[:, 1]]] = -1
    return Scene(found, yx, height_logits(peaks), types, judges)


def fit_sieve(scenes: Sequence[Scene], n_nuclei: int) -> tuple[Typer, float] | tuple[None, None]:
    """The sieve, and the probability from which F1 is best on the images that judge.

    Parameters
    ----------
    scenes
        Of `sieve_scenes`.
    n_nuclei
        Clicks in the images that judge.

    Returns
    -------
    Typer, float
        None and None where all peaks of the images are nuclei, or none is.
    """
    sieve = fit_typer(scenes, 2)
    if sieve is None:
        return None, None
    judges = [s for s in scenes if s.judges]
    chance = [sieve.probabilities(s.evidence, s.yx, s.network)[:, 1] for s in judges]
    right = [s.types[s.types >= 0] == 1 for s in judges]
    asked = [c[s.types >= 0] for c, s in zip(chance, judges, strict=True)]
    return sieve, best_threshold(np.concatenate(asked), np.concatenate(right), n_nuclei)


def best_threshold(chance: NDArray[np.float64], right: NDArray[np.bool_], n_true: int) -> float:
    """Middle of the thresholds whose F1 is within half of ``PLATEAU`` of the best.

    >>> best_threshold(np.array([0.9, 0.8, 0.2]), np.array([True, True, False]), 2)
    0.495
    """
    tried = np.arange(5, 96) / 100
    scores = np.array([f1_at(chance > t, right, n_true) for t in tried])
    good = tried[scores >= scores.max() - PLATEAU / 2]
    return round(float((good[0] + good[-1]) / 2), 3)


def f1_at(kept: NDArray[np.bool_], right: NDArray[np.bool_], n_true: int) -> float:
    """F1 of the kept ones."""
    both = int(kept.sum()) + n_true
    return 2 * int((kept & right).sum()) / both if both else 1.0


def fit_placement(seen: Sequence[Seen], config: ModelConfig) -> PlacementSpec | None:
    """The share of the centroid and the shift that bring nuclei nearest to their clicks.

    Parameters
    ----------
    seen
        Colour images, preferably such as did not teach the network.
    config
        With its working point.

    Returns
    -------
    PlacementSpec
        None where there are fewer than ``ENOUGH_PAIRS`` nuclei that were clicked and found.
    """
    ways, errors = [np.zeros((0, 2))], [np.zeros((0, 2))]
    for one in seen:
        way, error = _ways(one, config)
        ways.append(way)
        errors.append(error)
    way, error = np.concatenate(ways), np.concatenate(errors)
    if len(way) < ENOUGH_PAIRS:
        return None
    return least_away(way, error)


def _ways(seen: Seen, config: ModelConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of nuclei both clicked and found, the ways from peak to centroid and to click, ``(n, 2)``."""
    lesson, stride = seen.lesson, seen.maps.stride
    peaks = find_peaks(seen.maps.centre, config.peak_settings(stride))
    labels = nuclei_from(seen.maps, peaks, config, lesson.volume.shape)
    found = extents(labels)
    yx = ((peaks.zyx[:, 1:] + 0.5) * stride - 0.5)[found.ids - 1]
    clicks = lesson.centres if lesson.clicks is None else lesson.clicks
    matching = match_points(
        yx, clicks[lesson.is_taught, 1:], radius=MATCH_RADII_2D * config.radius_px
    )
    rows = matching.predicted_index
    centroid = np.stack([found.y, found.x], axis=1)
    return (
        (centroid - yx)[rows],
        clicks[lesson.is_taught, 1:][matching.truth_index] - yx[rows],
    )


@dataclass(frozen=True, eq=False)
class Typed:
    """Detections: evidence, the network's logit, and their type where a click told it.

    ``told`` is 1 for positive, 0 for negative, -1 where it is not known.
    """

    evidence: NDArray[np.float64]
    logit: NDArray[np.float64]
    told: NDArray[np.int8]

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Which are told to be positive."""
        return np.asarray(self.told == 1)

    def known(self) -> Typed:
        """Those whose type is told."""
        rows = self.told >= 0
        return Typed(self.evidence[rows], self.logit[rows], self.told[rows])


def typed_detections(seen: Sequence[Seen], config: ModelConfig, group: int) -> Typed:
    """Match detections to clicks in 3D and collect what is known of them for one marker."""
    return _joined([_typed_of(one, config, group) for one in seen])


def _typed_of(seen: Seen, config: ModelConfig, group: int) -> Typed:
    lesson, stride = seen.lesson, seen.maps.stride
    labels, peaks = find_nuclei(seen.maps, config, lesson.volume.shape)
    present = Labels(labels).ids()
    logits = network_logits(seen.maps, labels, len(peaks), config)[present - 1, group]
    evidence = marker_evidence(Labels(labels), lesson.volume.data[group], lesson.volume.data[-1])
    found = peaks.zyx[present - 1] * [1, stride, stride] + [0, (stride - 1) / 2, (stride - 1) / 2]
    known = lesson.types[:, group] >= 0
    reach = MATCH_RADII * config.radius_px
    matching = match_points(found, lesson.centres[known], radius=(MATCH_SLICES, reach, reach))
    told = np.full(len(found), -1, dtype=np.int8)
    told[matching.predicted_index] = lesson.types[known][matching.truth_index, group] == 1
    return Typed(evidence.values, np.clip(logits[:, 1] - logits[:, 0], -8, 8), told)


def network_alone() -> MarkerSpec:
    """The network's word for it, as in the paper."""
    return MarkerSpec(weights=(0.0,) * len(FEATURES), bias=0.0, network_share=1.0)


def fit_marker(taught: Typed, held_out: Typed | None, *, has_network: bool) -> MarkerSpec:
    """Rule on the evidence from all typed nuclei; the mix is calibrated on held-out ones.

    Where too few of these have a type, the border goes where the scores of all nuclei, clicked or
    not, part into two groups: two negatives would call everything negative. Where there are no two
    groups, or the clicks contradict them, all typed nuclei calibrate it. Without examples of both
    types the rule is the evidence's overlap alone, uncalibrated.
    """
    everything = taught if held_out is None else _joined([taught, held_out])
    known = everything.known()
    share = 0.5 if has_network else 0.0
    n = len(known.told)
    try:
        rule = fit_learned(
            Evidence(np.arange(n), known.evidence, np.zeros((n, 1))), known.positive, strength=0.3
        )
    except InputError:
        weights = [0.0] * len(FEATURES)
        weights[FEATURES.index("best_overlap")] = 8.0
        return MarkerSpec(weights=tuple(weights), bias=-2.4, network_share=share)

    def mixed(typed: Typed) -> NDArray[np.float64]:
        by_rule = np.clip(typed.evidence @ np.asarray(rule.weights) + rule.bias, -8, 8)
        return np.asarray(share * typed.logit + (1 - share) * by_rule)

    spec = MarkerSpec(weights=rule.weights, bias=rule.bias, network_share=share)
    jury = everything if held_out is None else held_out
    if _can_judge(jury):
        judges = jury.known()
        slope, offset = platt(mixed(judges), judges.positive)
        return spec.model_copy(update={"slope": slope, "offset": offset})
    if (everything.told < 0).sum() >= ENOUGH_UNTOLD:
        groups = two_groups(mixed(everything), everything.told)
        if groups.separation >= APART and _agree(groups, mixed(known), known.positive):
            return spec.model_copy(update={"slope": groups.slope, "offset": groups.offset})
    slope, offset = platt(mixed(known), known.positive)
    if held_out is not None and slope > 1.0:
        # Nuclei that taught make it too sure of itself: the border between types may be theirs.
        slope, offset = 1.0, offset / slope
    return spec.model_copy(update={"slope": slope, "offset": offset})


def _can_judge(typed: Typed) -> bool:
    """Whether enough nuclei of both types are told to calibrate probabilities with."""
    n_positive, n_negative = int((typed.told == 1).sum()), int((typed.told == 0).sum())
    return min(n_positive, n_negative) >= ENOUGH_TYPED


def _agree(groups: Groups, score: NDArray[np.float64], positive: NDArray[np.bool_]) -> bool:
    """Whether the groups are the types: at most one click in five of either lies in the other."""
    right = (groups.slope * score + groups.offset > 0) == positive
    return bool(min(right[positive].mean(), right[~positive].mean()) >= 0.8)


def _joined(parts: Sequence[Typed]) -> Typed:
    return Typed(
        np.concatenate([part.evidence for part in parts]),
        np.concatenate([part.logit for part in parts]),
        np.concatenate([part.told for part in parts]),
    )
