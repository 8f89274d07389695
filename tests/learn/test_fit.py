"""Working point, marker rules and calibration: planted answers are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from nucleoscope.data.maps import UNLABELLED, StackMaps
from nucleoscope.data.volume import Volume
from nucleoscope.learn.feed import Lesson
from nucleoscope.learn.fit import (
    THRESHOLDS,
    VALLEYS,
    Seen,
    Typed,
    detection_f1,
    f1,
    fit_marker,
    look,
    typed_detections,
    working_point,
)
from nucleoscope.learn.model import MarkerSpec, Model, ModelConfig
from nucleoscope.nuclei.markers import FEATURES, Evidence

CONFIG = ModelConfig(
    recipe="x", nuclei="DAPI", markers=("LT",), types=("negative", "positive"),
    radius_px=4.0, threshold=0.35, valley=0.9, slice_px=3.0,
)  # fmt: skip
SHAPE = (3, 60, 60)
TRUE = np.array([[1, y, x] for y in (10, 30, 50) for x in (10, 30, 50)], float)


def bump(maps: StackMaps, centre: NDArray[np.float64], height: float) -> None:
    z, y, x = np.indices(maps.centre.shape)
    r2 = (z - centre[0]) ** 2 / 0.6 + ((y - centre[1]) ** 2 + (x - centre[2]) ** 2) / 3
    np.maximum(maps.centre, (height * np.exp(-0.5 * r2)).astype(np.float32), out=maps.centre)
    maps.foreground[
        ((z - centre[0]) ** 2 * 9 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) < 16
    ] = 1


def seen(
    heights: list[float],
    false: list[float] | None = None,
    *,
    types: list[int] | None = None,
    outside: int = 0,
) -> Seen:
    """Nine true nuclei of given heights, false ones between them, the last few not taught."""
    maps = StackMaps.blank(SHAPE, 1, n_types=0)
    for centre, height in zip(TRUE, heights, strict=True):
        bump(maps, centre, height)
    for i, height in enumerate(false or []):
        bump(maps, np.array([1, 20, 10 + 10 * i]), height)
    volume = Volume(np.zeros((2, *SHAPE), np.uint8), ("LT", "DAPI"))
    labels = np.array(types if types is not None else [i % 2 for i in range(9)])[:, None]
    marked = np.zeros(SHAPE, np.uint8)
    for centre, kind in zip(TRUE.astype(int), labels[:, 0], strict=True):
        if kind == 1:
            marked[:, centre[1] - 4 : centre[1] + 5, centre[2] - 4 : centre[2] + 5] = 200
    volume = replace(volume, data=np.stack([marked, (maps.foreground * 180).astype(np.uint8)]))
    foreground = np.zeros(SHAPE, np.uint8)
    taught = np.ones(9, bool)
    if outside:
        taught[-outside:] = False
        foreground[:, 41:] = UNLABELLED
    lesson = Lesson(
        volume, np.zeros(SHAPE, np.int32), foreground, TRUE.copy(), labels.astype(np.int64), taught
    )
    return Seen(lesson, maps)


# ---------------------------------------------------------------- working point


def test_f1_of_counts() -> None:
    assert f1((3, 4, 5)) == pytest.approx(6 / 9)
    assert f1((0, 0, 0)) == 1.0
    assert f1((0, 5, 0)) == 0.0


def test_everything_found_and_nothing_else_is_one() -> None:
    assert detection_f1([seen([0.9] * 9)], CONFIG) == 1.0


def test_images_are_pooled_not_averaged() -> None:
    good, bad = seen([0.9] * 9), seen([0.1] * 9)
    assert detection_f1([good, bad], CONFIG) == pytest.approx(2 * 9 / (9 + 18))


def test_only_the_taught_part_of_an_image_counts() -> None:
    partial = seen([0.9] * 6 + [0.1] * 3, outside=3)
    assert detection_f1([partial], CONFIG) == 1.0
    assert detection_f1([seen([0.9] * 9, outside=3)], CONFIG) == 1.0


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.42), (0.32, 0.64), (0.5, 0.9)])
def test_the_threshold_between_true_and_false_is_chosen(low: float, high: float) -> None:
    one = seen([high] * 9, [low] * 5)
    # Peaks are smoothed a little before they are measured.
    chosen = working_point([one], CONFIG)
    assert detection_f1([one], chosen) == 1.0
    assert 0.7 * low < chosen.threshold < high
    assert chosen.valley in VALLEYS


def test_the_point_is_no_worse_than_any_other_by_more_than_smoothing_allows() -> None:
    rng = np.random.default_rng(0)
    one = seen(rng.uniform(0.3, 0.9, 9).tolist(), rng.uniform(0.1, 0.6, 5).tolist())
    scores = {
        (t, v): detection_f1([one], CONFIG.model_copy(update={"threshold": t, "valley": v}))
        for t in THRESHOLDS
        for v in VALLEYS
    }
    chosen = working_point([one], CONFIG)
    nearest = min(THRESHOLDS, key=lambda t: abs(t - chosen.threshold))
    assert scores[nearest, chosen.valley] >= max(scores.values()) - 0.12


def test_the_geometric_middle_of_equally_good_thresholds_is_taken() -> None:
    clear = seen([0.95] * 9, [0.2] * 5)
    chosen = working_point([clear], CONFIG)
    as_good = [
        t for t in THRESHOLDS
        if detection_f1([clear], CONFIG.model_copy(update={"threshold": t})) == 1.0
    ]  # fmt: skip
    assert chosen.threshold == pytest.approx(np.sqrt(as_good[0] * as_good[-1]))


def test_a_valley_that_is_hardly_better_does_not_replace_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def counts(_: object, config: object, thresholds: Sequence[float]) -> np.ndarray:
        right = {0.9: 200, 0.95: 199, 0.98: 190}.get(config.valley, 150)  # type: ignore[attr-defined]
        return np.tile([float(right), 200.0, 200.0], (len(thresholds), 1))

    monkeypatch.setattr("nucleoscope.learn.fit._counts", counts)
    one = seen([0.95] * 9)
    for usual, chosen in ((0.95, 0.95), (0.98, 0.95), (0.9, 0.9), (0.7, 0.9)):
        start = CONFIG.model_copy(update={"valley": usual})
        assert working_point([one], start).valley == chosen


def test_of_equal_valleys_the_configured_one_stays() -> None:
    start = CONFIG.model_copy(update={"valley": 0.8})
    assert working_point([seen([0.95] * 9)], start).valley == 0.8


def test_a_valley_that_keeps_long_nuclei_whole_is_chosen() -> None:
    one = seen([0.9] * 9)
    for centre in TRUE:  # a second top on every nucleus, with a shallow valley between
        bump(one.maps, np.add(centre, [0, 0, 4]), 0.85)
        bump(one.maps, np.add(centre, [0, 0, 2]), 0.72)
    strict = CONFIG.model_copy(update={"valley": 0.95})
    assert detection_f1([one], strict) < 1.0
    chosen = working_point([one], strict)
    assert detection_f1([one], chosen) == 1.0


def test_without_images_the_point_is_the_configured_one() -> None:
    chosen = working_point([], CONFIG)
    assert (chosen.threshold, chosen.valley) == (CONFIG.threshold, CONFIG.valley)


def test_looking_gives_the_models_maps(instant: Model, lessons: list[Lesson]) -> None:
    one, other = look(instant, lessons)
    assert one.lesson is lessons[0]
    assert one.maps.centre.shape == one.lesson.volume.shape
    assert not np.array_equal(one.maps.centre, other.maps.centre)


# ---------------------------------------------------------------- marker rules


def evidence_of(n: int, seed: int = 0) -> Typed:
    rng = np.random.default_rng(seed)
    values = rng.random((n, len(FEATURES)))
    positive = values[:, FEATURES.index("mean")] > 0.5
    logit = np.where(positive, 3.0, -3.0) + rng.normal(0, 1, n)
    return Typed(values, logit, positive.astype(np.int8))


def test_the_rule_tells_the_types_apart() -> None:
    taught, held_out = evidence_of(300), evidence_of(40, 1)
    for judge in (None, held_out):
        spec = fit_marker(taught, judge, has_network=False)
        assert spec.network_share == 0.0
        rows = Evidence(np.arange(40), held_out.evidence, np.zeros((40, 1)))
        odds = spec.slope * spec.rule().logit(rows) + spec.offset
        assert ((odds > 0) == held_out.positive).mean() > 0.85


def test_a_network_has_half_the_say() -> None:
    assert fit_marker(evidence_of(30), None, has_network=True).network_share == 0.5


@pytest.mark.parametrize("value", [True, False])
def test_one_type_alone_falls_back_on_the_overlap(value: bool) -> None:
    taught = replace(evidence_of(20), told=np.full(20, value, np.int8))
    spec = fit_marker(taught, None, has_network=True)
    assert (spec.slope, spec.offset) == (1.0, 0.0)
    rows = np.zeros((2, len(FEATURES)))
    rows[1, FEATURES.index("best_overlap")] = 1.0
    odds = spec.rule().logit(Evidence(np.arange(2), rows, np.zeros((2, 1))))
    assert odds[0] < 0 < odds[1]
    used = [f for f, w in zip(FEATURES, spec.weights, strict=True) if w]
    assert used == ["best_overlap"]


def test_no_typed_nucleus_at_all_falls_back_too() -> None:
    nothing = Typed(np.zeros((0, len(FEATURES))), np.zeros(0), np.zeros(0, np.int8))
    spec = fit_marker(nothing, None, has_network=False)
    assert (spec.slope, spec.offset, spec.bias) == (1.0, 0.0, -2.4)
    assert fit_marker(nothing, nothing, has_network=True).network_share == 0.5


def test_held_out_nuclei_judge_but_an_empty_jury_changes_nothing() -> None:
    nothing = Typed(np.zeros((0, len(FEATURES))), np.zeros(0), np.zeros(0, np.int8))
    spec = fit_marker(evidence_of(30), nothing, has_network=False)
    alone = fit_marker(evidence_of(30), None, has_network=False)
    assert spec.slope == 1.0
    assert spec.offset == pytest.approx(alone.offset / alone.slope)


def test_two_held_out_negatives_do_not_call_everything_negative() -> None:
    taught = evidence_of(30)
    jury = Typed(*(part[~taught.positive][:2] for part in (
        taught.evidence, taught.logit, taught.told)))  # fmt: skip
    spec = fit_marker(taught, jury, has_network=False)
    by_rule = taught.evidence @ np.array(spec.weights) + spec.bias
    called = spec.slope * by_rule + spec.offset > 0
    assert np.mean(called == taught.positive) > 0.9


def few_told(
    told: dict[bool, int], apart: float = 3.0, n: int = 400
) -> tuple[Typed, NDArray[np.bool_]]:
    """Nuclei of which only some are told, a quarter of them positive, and the truth."""
    rng = np.random.default_rng(2)
    positive = rng.random(n) < 0.25
    values = rng.normal(size=(n, len(FEATURES))) * 0.05
    values += positive[:, None] * apart * 0.05
    types = np.full(n, -1, np.int8)
    for kind, count in told.items():
        types[np.flatnonzero(positive == kind)[:count]] = kind
    return Typed(values, np.full(n, -6.0), types), positive


def called(spec: MarkerSpec, typed: Typed) -> NDArray[np.bool_]:
    by_rule = np.clip(typed.evidence @ np.array(spec.weights) + spec.bias, -8, 8)
    score = spec.network_share * typed.logit + (1 - spec.network_share) * by_rule
    return np.asarray(spec.slope * score + spec.offset > 0)


def test_two_positive_clicks_are_enough_where_nuclei_part_into_two_groups() -> None:
    typed, positive = few_told({True: 2, False: 8})
    spec = fit_marker(typed, None, has_network=True)
    assert np.mean(called(spec, typed) == positive) > 0.97
    # The clicks alone believe the network, which has seen two positives and calls all negative.
    by_clicks = fit_marker(typed.known(), typed.known(), has_network=True)
    assert np.mean(called(by_clicks, typed) == positive) < 0.9


def test_without_two_groups_the_clicks_alone_calibrate() -> None:
    typed, _ = few_told({True: 2, False: 8}, apart=0.4)
    spec = fit_marker(typed, None, has_network=True)
    alone = fit_marker(typed.known(), None, has_network=True)
    assert (spec.slope, spec.offset) == (alone.slope, alone.offset)


def test_groups_that_the_clicks_contradict_are_not_the_types() -> None:
    typed, positive = few_told({False: 8})
    # Two positives that lie among the negatives, as where another channel parts the nuclei.
    typed.told[np.flatnonzero(~positive)[20:22]] = 1
    typed.told[np.flatnonzero(positive)[:4]] = 0
    spec = fit_marker(typed, None, has_network=True)
    alone = fit_marker(typed.known(), None, has_network=True)
    assert (spec.slope, spec.offset) == (alone.slope, alone.offset)


def test_enough_held_out_clicks_are_asked_and_not_the_groups() -> None:
    taught, held_out = evidence_of(300), evidence_of(40, 1)
    more = replace(held_out, told=np.where(np.arange(40) < 30, held_out.told, -1).astype(np.int8))
    spec = fit_marker(taught, more, has_network=False)
    same = fit_marker(taught, more.known(), has_network=False)
    assert (spec.slope, spec.offset) == (same.slope, same.offset)


def test_detections_take_the_type_of_their_click() -> None:
    kinds = [0, 1, -1, 1, 0, 1, -1, 0, 1]
    one = seen([0.9] * 8 + [0.1], [0.9], types=kinds)
    all_found = typed_detections([one], CONFIG, 0)
    # Two are untyped and one was not found; the false one belongs to no click.
    assert len(all_found.told) == 9
    found = all_found.known()
    assert len(found.positive) == 6
    assert sorted(found.positive.tolist()) == sorted([False, True, True, False, True, False])
    mean = found.evidence[:, FEATURES.index("mean")]
    assert (mean[found.positive] > mean[~found.positive].max()).all()
    assert not found.logit.any()


def test_detections_of_several_images_are_joined() -> None:
    one = seen([0.9] * 9)
    assert len(typed_detections([one, one], CONFIG, 0).positive) == 18
