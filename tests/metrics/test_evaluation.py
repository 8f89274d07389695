import json

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data import NucleusTable, Points, Region
from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics import evaluate_images, evaluate_tables, format_table
from nucleoscope.metrics.detection import scores_from_counts
from nucleoscope.metrics.evaluation import summarise


def table(zyx, types, **columns):
    z, y, x = np.asarray(zyx, float).reshape(-1, 3).T
    ids = np.arange(1, len(y) + 1)
    return NucleusTable(pd.DataFrame({"id": ids, "z": z, "y": y, "x": x, "type": types, **columns}))


def random_image(seed, n=60, wrong=0.2):
    rng = np.random.default_rng(seed)
    zyx = rng.uniform([0, 0, 0], [9, 400, 400], (n, 3))
    types = rng.choice(["negative", "positive"], n)
    said = np.where(rng.random(n) < wrong, rng.choice(["negative", "positive"], n), types)
    found = zyx + rng.normal(0, [0.4, 3, 3], zyx.shape)
    keep = rng.random(n) < 0.9
    predicted = table(found[keep], said[keep], type_prob=rng.uniform(0.5, 1, int(keep.sum())))
    return predicted, Points(*zyx.T, type=types)


@pytest.fixture(scope="module")
def results():
    return [evaluate_tables(*random_image(seed), name=f"image {seed}") for seed in range(4)]


def test_nuclei_outside_the_region_count_on_neither_side():
    square = Region(([[0, 0], [0, 10], [10, 10], [10, 0]],))
    predicted = table([[0, 5, 5], [0, 50, 50]], ["a", "a"])
    result = evaluate_tables(predicted, Points([0, 0], [5, 80], [6, 80], ["a", "a"]), region=square)
    assert result.rules["optimal"].detection == scores_from_counts(1, 0, 0)


def test_a_radius_of_three_numbers_matches_in_3d():
    predicted, truth = table([[5, 5, 5]], ["a"]), Points([0], [5], [5], ["a"])
    assert evaluate_tables(predicted, truth).rules["optimal"].detection.tp == 1
    found = evaluate_tables(predicted, truth, radius=(2, 15, 15))
    assert found.rules["optimal"].detection.tp == 0


def test_3d_matching_without_z_is_refused():
    flat = NucleusTable(pd.DataFrame({"id": [1], "y": [1.0], "x": [1.0]}))
    with pytest.raises(InputError, match="NaN"):
        evaluate_tables(flat, Points([0], [1], [1]), radius=(2, 15, 15))
    assert np.isnan(evaluate_images([evaluate_tables(flat, Points([0], [1], [1]))]).z_accuracy)


def test_two_images_in_one_table_are_refused():
    two = table([[0, 1, 1], [0, 2, 2]], ["a", "a"], image=["p", "q"])
    with pytest.raises(InputError, match="one image"):
        evaluate_tables(two, Points([0], [1], [1]))


def test_truth_may_be_a_table_and_equals_itself():
    predicted, _ = random_image(3)
    result = evaluate_images([evaluate_tables(predicted, predicted)])
    assert result.rules["greedy"].detection.pooled.f1 == 1.0
    assert result.hovernet.f_d == result.balanced_accuracy == result.z_accuracy == 1.0


def test_pooled_sums_counts_and_mean_averages_images(results):
    detection = evaluate_images(results).rules["optimal"].detection
    images = [r.rules["optimal"].detection for r in results]
    assert detection.pooled.tp == sum(s.tp for s in images)
    assert np.isclose(detection.mean["f1"], np.mean([s.f1 for s in images]))


def test_images_without_a_type_do_not_drag_its_mean_down():
    one = evaluate_tables(table([[0, 5, 5]], ["a"]), Points([0], [5], [5], ["a"]))
    other = evaluate_tables(table([[0, 5, 5]], ["b"]), Points([0], [5], [5], ["b"]))
    summary = evaluate_images([one, other]).rules["optimal"].types["a"]
    assert (summary.mean["f1"], summary.n_images) == (1.0, 1)


def test_an_empty_prediction_scores_zero():
    result = evaluate_tables(NucleusTable.empty(), Points([0], [5], [5], ["a"]))
    assert evaluate_images([result]).rules["optimal"].detection.pooled.f1 == 0.0
    nothing = evaluate_tables(NucleusTable.empty(), Points([], [], []))
    assert np.isnan(evaluate_images([nothing]).rules["optimal"].detection.pooled.f1)


def test_the_bootstrap_is_deterministic_and_holds_the_estimate(results):
    first, again = evaluate_images(results, seed=5), evaluate_images(results, seed=5)
    assert first.to_dict() == again.to_dict()
    other = evaluate_images(results, seed=6)
    assert first.rules["optimal"].types != other.rules["optimal"].types
    for summary in (first.rules["optimal"].detection, *first.rules["greedy"].types.values()):
        for figure in ("precision", "recall", "f1"):
            low, high = summary.mean_interval[figure]
            assert low <= summary.mean[figure] <= high


def test_the_bootstrap_is_the_slow_loop():
    scores = [scores_from_counts(*c) for c in [(5, 1, 2), (9, 0, 1), (3, 3, 3), (0, 0, 0)]]
    draws = np.random.default_rng(0).integers(4, size=(50, 4))
    summary = summarise(scores, draws, 0.9)
    pooled, mean = [], []
    for draw in draws:
        drawn = [scores[i] for i in draw]
        sums = [sum(s[k] for s in drawn) for k in (3, 4, 5)]
        pooled.append(scores_from_counts(*sums).f1)
        mean.append(np.mean([s.f1 for s in drawn if s.tp + s.fp + s.fn]))
    assert np.allclose(summary.pooled_interval["f1"], np.quantile(pooled, [0.05, 0.95]))
    assert np.allclose(summary.mean_interval["f1"], np.quantile(mean, [0.05, 0.95]))


def test_one_image_has_no_interval(results):
    evaluation = evaluate_images(results[:1])
    assert evaluation.rules["optimal"].detection.pooled_interval["f1"] is None


def test_everything_fits_json_and_markdown(results):
    evaluation = evaluate_images(results)
    back = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert back["rules"]["optimal"]["types"]["positive"]["pooled"]["f1"] > 0.5
    text = format_table(evaluation)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 * 3 * 2
    assert len({row.count("|") for row in rows}) == 1
    assert "greedy (LECL)" in text


def test_z_accuracy_is_the_share_within_one_slice():
    predicted = table([[0, 5, 5], [4, 99, 99]], ["a", "a"])
    result = evaluate_tables(predicted, Points([1, 1], [5, 99], [5, 99], ["a", "a"]))
    assert evaluate_images([result]).z_accuracy == 0.5


def test_impossible_sets_of_images_are_refused(results):
    with pytest.raises(CallError, match="no image"):
        evaluate_images([])
    with pytest.raises(CallError, match="level"):
        evaluate_images(results, level=1.0)
    other = evaluate_tables(*random_image(1), radius=5.0)
    with pytest.raises(CallError, match="radii"):
        evaluate_images([*results, other])
