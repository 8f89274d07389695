import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.data import Labels
from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics import (
    aji,
    aji_plus,
    dice,
    f1_at_iou,
    panoptic_quality,
    segmentation_scores,
)
from nucleoscope.metrics.segmentation import overlaps

seeds = st.integers(0, 10**6)


def maps(seed, shape=(7, 9), most=4):
    """A truth of random boxes and a disturbed copy of it."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        labels = np.zeros(shape, np.int32)
        for i in rng.permutation(most)[: rng.integers(0, most + 1)]:
            box = tuple(slice(a, a + rng.integers(1, 5)) for a in rng.integers(0, shape))
            labels[box] = 3 * i + 2
        found.append(labels)
    return found


def ious(p, t):
    """IoU of all pairs, pixel by pixel sets."""
    ps = [set(np.flatnonzero(p == i)) for i in np.unique(p[p > 0])]
    ts = [set(np.flatnonzero(t == i)) for i in np.unique(t[t > 0])]
    return (
        ps,
        ts,
        np.array([[len(a & b) / len(a | b) for b in ts] for a in ps]).reshape(len(ps), len(ts)),
    )


def jaccard(ps, ts, pairs):
    inter = sum(len(ps[i] & ts[j]) for i, j in pairs)
    union = sum(len(ps[i] | ts[j]) for i, j in pairs)
    union += sum(len(a) for i, a in enumerate(ps) if i not in {i for i, _ in pairs})
    union += sum(len(b) for j, b in enumerate(ts) if j not in {j for _, j in pairs})
    return inter / union


@settings(deadline=None, max_examples=80)
@given(seeds, st.sampled_from([(7, 9), (3, 5, 6)]))
def test_all_figures_are_the_slow_loops(seed, shape):
    p, t = maps(seed, shape)
    ps, ts, iou = ious(p, t)
    if not ps and not ts:
        assert np.isnan(aji(p, t)) and np.isnan(dice(p, t))
        return
    assert np.isclose(dice(p, t), 2 * ((p > 0) & (t > 0)).sum() / ((p > 0).sum() + (t > 0).sum()))
    takers = [(int(np.argmax(iou[:, j])), j) for j in range(len(ts)) if ps and iou[:, j].max() > 0]
    assert np.isclose(aji(p, t), jaccard(ps, ts, takers))
    hits = [(i, j) for i, j in np.argwhere(iou > 0.5)]
    quality = panoptic_quality(p, t)
    assert np.isclose(quality.dq, 2 * len(hits) / (len(ps) + len(ts)))
    assert np.isclose(quality.sq, np.mean([iou[h] for h in hits]) if hits else 0)
    assert np.isclose(quality.pq, quality.dq * quality.sq)


@settings(deadline=None, max_examples=80)
@given(seeds)
def test_aji_plus_and_f1_take_the_best_of_all_injections(seed):
    p, t = maps(seed)
    ps, ts, iou = ious(p, t)
    if not ps or not ts:
        return
    wide = iou if len(ps) <= len(ts) else iou.T
    orders = [list(enumerate(o)) for o in permutations(range(wide.shape[1]), wide.shape[0])]
    best = max(sum(wide[pair] for pair in order) for order in orders)
    for order in orders:
        if np.isclose(sum(wide[pair] for pair in order), best):
            pairs = [(i, j) for i, j in order if wide[i, j] > 0]
            pairs = pairs if len(ps) <= len(ts) else [(j, i) for i, j in pairs]
            if np.isclose(aji_plus(p, t), jaccard(ps, ts, pairs)):
                break
    else:
        raise AssertionError("AJI+ is not that of any best set of pairs")
    most = max(sum(wide[pair] >= 0.3 for pair in order) for order in orders)
    assert f1_at_iou(p, t, thresholds=[0.3])[0.3].tp == most


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_relabelling_changes_nothing(seed):
    p, t = maps(seed)
    other = np.random.default_rng(seed).permutation(50).astype(np.int32) + 1
    renamed = np.where(t > 0, other[t], 0)
    first, second = segmentation_scores(p, t), segmentation_scores(p, renamed)
    assert np.allclose(
        [first.dice, first.aji_plus, first.panoptic.pq],
        [second.dice, second.aji_plus, second.panoptic.pq],
        equal_nan=True,
    )


def test_a_map_equals_itself():
    _, t = maps(1)
    assert t.max() > 0
    scores = segmentation_scores(Labels(t), t[None])
    assert (scores.dice, scores.aji, scores.aji_plus, scores.panoptic.pq) == (1, 1, 1, 1)
    assert scores.f1_at[0.9].f1 == 1.0


def test_large_ids_cost_nothing():
    t = np.zeros((4, 4), np.int32)
    t[1:3] = 2**31 - 1
    assert overlaps(t, t).truth_ids.tolist() == [2**31 - 1]
    assert aji(t, t) == 1.0


def test_scores_fit_json():
    empty = np.zeros((2, 2), np.int32)
    text = json.dumps(segmentation_scores(empty, empty).to_dict(), allow_nan=False)
    assert json.loads(text)["aji"] is None


def test_impossible_maps_are_refused():
    with pytest.raises(InputError, match="shape"):
        dice(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(InputError, match="integers"):
        dice(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(InputError, match="negative"):
        dice(np.full((2, 2), -1), np.zeros((2, 2), int))
    with pytest.raises(CallError, match="threshold"):
        f1_at_iou([[1]], [[1]], thresholds=[0.0])
