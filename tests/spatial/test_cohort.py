"""Patients, not nuclei, are what groups are compared by."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from nucleoscope.errors import InputError
from nucleoscope.spatial import compare_groups
from nucleoscope.spatial.cohort import hedges


def table(values, **more) -> pd.DataFrame:
    return pd.DataFrame({"image": [f"i{n}" for n in range(len(values))], "z": values, **more})


def groups_of(*sizes: int) -> dict[str, str]:
    labels = np.repeat(list("xyw"[: len(sizes)]), sizes)
    return {f"i{n}": label for n, label in enumerate(labels)}


def test_p_visits_every_split_of_few_patients():
    values = np.random.default_rng(0).normal(size=9)
    gap = abs(values[5:].mean() - values[:5].mean())
    every = [
        abs(values[list(s)].mean() - np.delete(values, list(s)).mean())
        for s in combinations(range(9), 4)
    ]
    found = compare_groups(table(values), "z", groups_of(5, 4))
    assert found["p"][0] == pytest.approx(np.mean(np.array(every) >= gap - 1e-12))
    assert found["method"][0] == "all splits"
    assert found["difference"][0] == pytest.approx(values[5:].mean() - values[:5].mean())


@pytest.mark.parametrize("sizes", [(12, 12), (6, 6, 6)])
def test_p_is_uniform_without_a_difference(sizes):
    rng = np.random.default_rng(1)
    p = [
        compare_groups(
            table(rng.normal(size=sum(sizes))), "z", groups_of(*sizes), permutations=39, seed=s
        )["p"][0]
        for s in range(100)
    ]
    assert min(p) >= 1 / 40
    assert kstest(p, "uniform").pvalue > 0.005


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sizes", [(12, 12), (6, 6, 6), (8, 8)])
def test_p_is_uniform_over_a_thousand_cohorts(sizes):
    rng = np.random.default_rng(2)
    p = [
        compare_groups(
            table(rng.normal(size=sum(sizes))), "z", groups_of(*sizes), permutations=199, seed=s
        )["p"][0]
        for s in range(1000)
    ]
    assert kstest(p, "uniform").pvalue > 0.01


def test_a_difference_is_found_with_its_size():
    rng = np.random.default_rng(3)
    values = rng.normal(size=40) + np.repeat([0.0, 2.0], 20)
    found = compare_groups(table(values), "z", groups_of(20, 20)).iloc[0]
    assert found["p"] < 0.001
    assert found["effect_low"] < 2 < found["effect_high"]
    three = compare_groups(
        table(np.concatenate([values, rng.normal(5, 1, 20)])), "z", groups_of(20, 20, 20)
    ).iloc[0]
    assert three["p"] < 0.001
    assert 0.5 < three["effect"] <= 1


def test_the_interval_of_hedges_g_covers():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1000):
        _, low, high = hedges(rng.normal(size=15), rng.normal(0.8, 1, 15))
        hits += low <= 0.8 <= high
    assert 0.93 < hits / 1000 < 0.97


def test_images_of_a_patient_are_averaged_and_never_counted_twice():
    values = np.random.default_rng(5).normal(size=8)
    doubled = pd.DataFrame({"image": [f"{n}{s}" for n in range(8) for s in "ab"]})
    doubled["z"] = np.repeat(values, 2) + np.tile([-1.0, 1.0], 8)
    patients = {image: image[0] for image in doubled["image"]}
    groups = {str(n): "x" if n < 4 else "y" for n in range(8)}
    found = compare_groups(doubled, "z", groups, patients=patients).iloc[0]
    once = compare_groups(table(values), "z", groups_of(4, 4)).iloc[0]
    assert found["n_x"] == 4
    assert found["p"] == once["p"]
    assert found["effect"] == pytest.approx(once["effect"])


def test_each_pair_of_types_is_its_own_comparison_with_a_false_discovery_value():
    rng = np.random.default_rng(6)
    parts = [
        table(rng.normal(size=16) + np.repeat([0, s], 8), type_a=name)
        for name, s in (("t", 4), ("u", 0))
    ]
    found = compare_groups(pd.concat(parts), "z", groups_of(8, 8), by=("type_a",))
    assert found["type_a"].tolist() == ["t", "u"]
    assert found["p"][0] < 0.01
    assert (found["q"] >= found["p"]).all()


def test_too_few_patients_have_no_p_and_gaps_are_left_out():
    values = np.array([1.0, 2.0, np.nan, 3.0])
    found = compare_groups(table(values), "z", groups_of(2, 2)).iloc[0]
    assert np.isnan(found["p"])
    assert found["n_y"] == 1


def test_what_would_pool_nuclei_or_leave_someone_out_is_refused():
    with pytest.raises(InputError, match="more than one z"):
        compare_groups(pd.DataFrame({"image": ["a", "a"], "z": [1.0, 2.0]}), "z", {"a": "x"})
    with pytest.raises(InputError, match="'i1' has no group"):
        compare_groups(table([1.0, 2.0]), "z", {"i0": "x"})
    with pytest.raises(InputError, match="'i0' has no patient"):
        compare_groups(table([1.0]), "z", {}, patients={})
    with pytest.raises(InputError, match="two groups"):
        compare_groups(table([1.0, 2.0]), "z", groups_of(2))
    with pytest.raises(InputError, match="no column 'q'"):
        compare_groups(table([1.0]), "q", {"i0": "x"})
