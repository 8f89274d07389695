import json

import numpy as np
import pytest

from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics import calibration_error, reliability


def error_by_loop(prob, correct, bins):
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i, p in enumerate(prob) if low <= p < high or (b == bins - 1 and p == high)]
        if inside:
            gap = abs(np.mean([prob[i] for i in inside]) - np.mean([correct[i] for i in inside]))
            total += len(inside) / len(prob) * gap
    return total


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_the_error_is_the_slow_loop(bins):
    rng = np.random.default_rng(bins)
    prob = np.append(rng.random(300), [0.0, 1.0])
    correct = rng.random(302) < 0.6
    assert np.isclose(
        calibration_error(prob, correct, bins=bins), error_by_loop(prob, correct, bins)
    )


def test_honest_probabilities_have_a_small_error_and_bold_ones_a_large_one():
    rng = np.random.default_rng(0)
    prob = rng.uniform(0.5, 1, 20_000)
    correct = rng.random(20_000) < prob
    assert calibration_error(prob, correct) < 0.02
    assert calibration_error(np.ones(20_000), correct) > 0.2


def test_unknown_probabilities_are_left_out():
    assert calibration_error([np.nan, 1.0], [False, True]) == 0.0
    assert np.isnan(calibration_error([np.nan], [True]))


def test_empty_bins_become_null_in_json():
    text = json.dumps(reliability([0.95], [True]).to_dict(), allow_nan=False)
    assert json.loads(text)["n"] == [0] * 9 + [1]
    assert json.loads(text)["accuracy"][0] is None


def test_impossible_calls_are_refused():
    with pytest.raises(CallError, match="bin"):
        reliability([0.5], [True], bins=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        reliability([1.5], [True])
    with pytest.raises(InputError, match="answers"):
        reliability([0.5], [True, False])
