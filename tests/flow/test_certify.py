from __future__ import annotations

import numpy as np
import pytest

from nucleoscope.errors import CallError
from nucleoscope.flow.certify import certificate, joined


def world(n: int = 480) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    types = rng.integers(0, 3, n)
    x = rng.normal(size=(n, 8))
    x[np.arange(n), types] += 3
    slides = np.array([f"s{i % 8}" for i in range(n)])
    return x, np.array(["a", "b", "c"])[types], slides


def test_a_good_embedding_is_told_from_noise() -> None:
    x, types, slides = world()
    noise = np.random.default_rng(1).normal(size=x.shape)
    found = certificate({"good": x, "noise": noise}, types=types, slides=slides, labels=(50,))
    table = found.summary().set_index("embedding")
    for figure in ("knn_f1", "linear_f1", "linear_f1_50", "ari", "retrieval"):
        assert table.loc["good", figure] > table.loc["noise", figure] + 0.2, figure
    assert len(found.probes) == 2 * 3
    assert (table["knn_f1_sd"] >= 0).all()
    assert (found.n_nuclei, found.n_typed, found.n_slides) == (480, 480, 8)


def test_named_splits_are_the_ones_judged() -> None:
    x, types, slides = world()
    folds = {"fold 1": ["s0", "s1"], "fold 2": ["s2", "s3"]}
    found = certificate(
        {"good": x}, types=types, slides=slides, splits=folds, seeds=(0,), labels=()
    )
    assert found.probes["split"].tolist() == ["fold 1", "fold 2"]


def test_changes_and_values_are_reported() -> None:
    x, types, slides = world()
    found = certificate(
        {"good": x}, types=types, slides=slides, seeds=(0,), labels=(),
        values={"area": x[:, 0] ** 3, "nothing": np.random.default_rng(2).normal(size=len(x))},
        changed={"good": {"none": x, "turned": np.roll(x, 1, axis=1)}},
    )  # fmt: skip
    cosine = found.invariance.set_index("change")["cosine"]
    assert cosine["none"] == pytest.approx(1.0)
    assert cosine["turned"] < 0.6
    known = found.sensitivity.set_index("value")["spearman"]
    assert known["area"] > 0.95
    assert abs(known["nothing"]) < 0.4


def test_a_second_run_gives_the_same_certificate() -> None:
    x, types, slides = world(200)
    one, two = (
        certificate({"x": x}, types=types, slides=slides, seeds=(0,), labels=(20,))
        for _ in range(2)
    )
    assert one.summary().equals(two.summary())


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CallError, match="one for each nucleus"):
        certificate({"x": np.zeros((3, 2))}, types=["a"] * 4, slides=["s"] * 4)


def test_joined_blocks_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    both = joined(rng.normal(size=(300, 6)) * 50, rng.normal(size=(300, 2)))
    assert both.shape == (300, 8)
    assert both[:, :6].var(axis=0).sum() == pytest.approx(both[:, 6:].var(axis=0).sum(), rel=0.01)
