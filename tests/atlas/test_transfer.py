"""Label transfer: rare types survive, doubt abstains, strangers are novel."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nucleoscope.atlas.transfer import Vote, transfer_types
from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics import calibration_error


def sphere(raw: np.ndarray) -> np.ndarray:
    return (raw / np.linalg.norm(raw, axis=1)[:, None]).astype(np.float32)


def typed(
    n: int, shares: tuple[float, ...], seed: int, spread: float = 0.35
) -> tuple[np.ndarray, np.ndarray]:
    """Types around fixed directions in 16 dimensions."""
    centres = np.random.default_rng(99).normal(size=(len(shares), 16))
    rng = np.random.default_rng(seed)
    code = rng.choice(len(shares), n, p=shares)
    return sphere(centres[code] + spread * rng.normal(size=(n, 16))), np.array(list("abcdef"))[code]


def test_a_type_of_one_in_a_thousand_survives() -> None:
    shares = (0.6, 0.399, 0.001)
    reference, names = typed(10_000, shares, 0)
    assert 4 < (names == "c").sum() < 20
    rng = np.random.default_rng(1)
    centres = np.random.default_rng(99).normal(size=(3, 16))
    rare = sphere(centres[2] + 0.35 * rng.normal(size=(80, 16)))
    found = transfer_types(rare, reference, names)
    assert (found["type_guess"] == "c").mean() > 0.9
    published = transfer_types(
        rare, reference, names, vote=Vote(k=1024, temperature=1e6, balance=0)
    )
    assert (published["type_guess"] == "c").mean() < 0.1
    common, truth = typed(500, shares, 2)
    guess = transfer_types(common, reference, names)["type_guess"].to_numpy()
    assert (guess == truth).mean() > 0.99  # and the common ones do not pay for it


def test_votes_are_those_of_a_slow_loop() -> None:
    reference, names = typed(300, (0.5, 0.4, 0.1), 0, spread=1.0)
    queries, _ = typed(15, (0.5, 0.4, 0.1), 1, spread=1.0)
    vote = Vote(k=9, balance=0.7)
    found = transfer_types(queries, reference, names, vote=vote)
    counts = {t: (names == t).sum() for t in "abc"}
    for i, query in enumerate(queries.astype(float)):
        cosine = reference.astype(float) @ query
        votes = dict.fromkeys("abc", 0.0)
        for j in np.argsort(-cosine)[:9]:
            votes[names[j]] += np.exp(cosine[j] / 0.07) / counts[names[j]] ** 0.7
        first, second = sorted(votes.values())[::-1][:2]
        total = sum(votes.values())
        assert found["type_margin"][i] == pytest.approx((first - second) / total, abs=1e-4)
        assert found["type_guess"][i] == max(votes, key=votes.get)


def test_between_two_types_it_abstains() -> None:
    reference = sphere(np.repeat(np.eye(2), 50, axis=0) + 1e-3)
    names = np.repeat(["a", "b"], 50)
    middle = sphere(np.ones((1, 2)))
    found = transfer_types(middle, reference, names, vote=Vote(k=100, reach=1.0)).iloc[0]
    assert found["is_abstained"] and found["type"] == "" and found["type_guess"] in "ab"
    assert found["type_margin"] < 0.01


def test_strangers_are_novel_and_members_are_not() -> None:
    reference, names = typed(2000, (0.5, 0.5), 0)
    members, _ = typed(1000, (0.5, 0.5), 1)
    strangers = sphere(np.random.default_rng(3).normal(size=(200, 16)))
    found = transfer_types(members, reference, names)
    assert found["is_novel"].mean() < 0.04
    assert (found["novelty"] > 1).equals(found["is_novel"])
    assert transfer_types(strangers, reference, names)["is_novel"].mean() > 0.95


def test_untyped_nuclei_do_not_vote() -> None:
    reference, names = typed(400, (0.5, 0.5), 0)
    doubled = np.concatenate([reference, reference])
    both = np.concatenate([names, np.full(400, "")])
    queries, _ = typed(30, (0.5, 0.5), 1)
    pd.testing.assert_frame_equal(
        transfer_types(queries, doubled, both), transfer_types(queries, reference, names)
    )


def test_one_type_and_one_nucleus_are_enough() -> None:
    found = transfer_types(np.eye(4)[:2], np.eye(4)[:1], ["a"])
    assert found["type"].tolist() == ["a", ""] and found["type_margin"].tolist() == [1, 1]
    assert len(transfer_types(np.zeros((0, 4)), np.eye(4), list("abcd"))) == 0


@pytest.mark.parametrize(
    "vote", [Vote(k=0), Vote(temperature=0), Vote(balance=2), Vote(min_margin=-1), Vote(reach=0)]
)
def test_impossible_votes_are_refused(vote: Vote) -> None:
    with pytest.raises(CallError, match="expected"):
        transfer_types(np.eye(2), np.eye(2), ["a", "b"], vote=vote)


def test_references_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="no nucleus of the reference"):
        transfer_types(np.eye(2), np.eye(2), ["", ""])
    with pytest.raises(InputError, match="types: 1 given for 2"):
        transfer_types(np.eye(2), np.eye(2), ["a"])
    with pytest.raises(InputError, match="one encoder"):
        transfer_types(np.eye(3), np.eye(2), ["a", "b"])


# ---------------------------------------------------------------- probabilities come true


def overlapping(
    n: int, seed: int, slide_shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two types that cannot be told apart for sure, on ten slides that each lean some way."""
    rng = np.random.default_rng(seed)
    code, slide = rng.integers(0, 2, n), rng.integers(0, 10, n)
    lean = slide_shift * np.random.default_rng(seed + 50).normal(size=(10, 2, 8))
    raw = rng.normal(size=(n, 8)) + lean[slide, code]
    raw[:, 0] += 1.2 * (2 * code - 1)
    return sphere(raw), np.array(["a", "b"])[code], slide.astype(str)


def test_probabilities_come_true_where_shares_do_not() -> None:
    reference, names, _ = overlapping(4000, 0)
    queries, truth, _ = overlapping(4000, 1)
    found = transfer_types(queries, reference, names, vote=Vote(k=5, temperature=0.02))
    right = (found["type_guess"] == truth).to_numpy()
    share = (1 + found["type_margin"]) / 2  # of two types
    assert calibration_error(share, right) > 0.08
    assert calibration_error(found["type_prob"], right) < 0.03


def test_nuclei_of_one_slide_do_not_vouch_for_each_other() -> None:
    reference, names, slides = overlapping(4000, 0, slide_shift=2.0)
    queries, truth, _ = overlapping(4000, 7, slide_shift=2.0)
    said = {}
    for label, given in (("slides", slides), ("none", None)):
        found = transfer_types(queries, reference, names, slides=given)
        said[label] = calibration_error(
            found["type_prob"], (found["type_guess"] == truth).to_numpy()
        )
    assert said["slides"] < 0.6 * said["none"]


def test_a_probability_is_larger_where_the_share_is_and_never_certain() -> None:
    reference, names, slides = overlapping(1000, 0)
    found = transfer_types(reference, reference, names, slides=slides).sort_values("type_margin")
    assert (found["type_prob"].diff().dropna() >= -1e-12).all()
    assert found["type_prob"].between(0, 1, inclusive="neither").all()


def test_the_same_seed_gives_the_same_probabilities() -> None:
    reference, names, slides = overlapping(500, 0)
    one, other = (
        transfer_types(reference[:50], reference, names, slides=slides, seed=4) for _ in range(2)
    )
    pd.testing.assert_frame_equal(one, other)
