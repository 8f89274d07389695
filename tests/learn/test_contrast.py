"""Supervised pixel contrast against float64 loops, SupCon and a deque."""

from __future__ import annotations

import math
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn.contrast import (
    PIXEL,
    REGION,
    UNLABELLED,
    ContrastSettings,
    MemoryBank,
    PixelContrast,
    regions,
    sample_anchors,
    supervised_pixel_contrast,
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(*shape: int, seed: int = 0, dim: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(torch.randn(shape, generator=generator(seed), dtype=dtype), dim=dim)


def slow(anchors, anchor_labels, keys, key_labels, temperature, hard_fraction=None) -> float:
    found = []
    for v, c in zip(anchors.tolist(), anchor_labels.tolist(), strict=True):
        own, others = [], []
        for k, d in zip(keys.tolist(), key_labels.tolist(), strict=True):
            (own if c == d else others).append(sum(a * b for a, b in zip(v, k, strict=True)))
        if hard_fraction is not None:
            own = sorted(own)[: math.ceil(hard_fraction * len(own))]
            others = sorted(others, reverse=True)[: math.ceil(hard_fraction * len(others))]
        terms = []
        for p in own:
            ratio = 1.0 + sum(math.exp((q - p) / temperature) for q in others)
            terms.append(math.log(ratio))
        if terms:
            found.append(sum(terms) / len(terms))
    return sum(found) / len(found) if found else 0.0


# --- the loss -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_anchors=st.integers(0, 6),
    n_keys=st.integers(0, 12),
    n_classes=st.integers(1, 4),
    temperature=st.sampled_from([0.05, 0.07, 0.1, 1.0]),
    hard_fraction=st.sampled_from([None, 0.1, 0.5, 1.0]),
)
def test_equals_a_double_loop_in_float64(
    seed, n_anchors, n_keys, n_classes, temperature, hard_fraction
):
    g = generator(seed)
    vectors = unit(n_anchors + n_keys, 4, seed=seed)
    labels = torch.randint(n_classes, (len(vectors),), generator=g)
    pairs = (vectors[:n_anchors], labels[:n_anchors], vectors[n_anchors:], labels[n_anchors:])
    found = supervised_pixel_contrast(*pairs, temperature, hard_fraction=hard_fraction)
    expected = slow(*pairs, temperature, hard_fraction)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_equals_supcon_where_every_anchor_has_one_positive():
    losses = pytest.importorskip(
        "pytorch_metric_learning.losses", reason="pytorch-metric-learning is not installed"
    )
    anchors, keys = unit(5, 8, seed=1), unit(5, 8, seed=2)
    labels, key_labels = torch.arange(5), torch.tensor([3, 0, 4, 1, 2])
    theirs = losses.SupConLoss(temperature=0.1)(
        anchors, labels, ref_emb=keys, ref_labels=key_labels
    )
    ours = supervised_pixel_contrast(anchors, labels, keys, key_labels, 0.1)
    torch.testing.assert_close(ours, theirs)


def waves(n: int, d: int, phase: float) -> Tensor:
    """Unit vectors that need no generator."""
    i = torch.arange(n * d, dtype=torch.float64).reshape(n, d)
    return F.normalize(torch.sin(1.7 * i + phase) + 0.3 * torch.cos(0.31 * i * i), dim=1)


#: ``SupConLoss(temperature)(waves(5, 8, 0.2), arange(5), ref_emb=waves(5, 8, 1.1),
#: ref_labels=tensor([3, 0, 4, 1, 2]))`` of pytorch-metric-learning 2.9.0.
GOLDEN = {0.07: 18.69552369715079, 0.1: 13.163426779560458, 1.0: 2.29810243330389}


@pytest.mark.parametrize("temperature", sorted(GOLDEN))
def test_equals_the_golden_values_of_pytorch_metric_learning(temperature):
    found = supervised_pixel_contrast(
        waves(5, 8, 0.2), torch.arange(5), waves(5, 8, 1.1), torch.tensor([3, 0, 4, 1, 2]),
        temperature,
    )  # fmt: skip
    assert float(found) == pytest.approx(GOLDEN[temperature], rel=1e-12)


def test_order_of_anchors_and_keys_does_not_matter():
    anchors, keys = unit(6, 4, seed=1), unit(9, 4, seed=2)
    labels, key_labels = torch.arange(6) % 3, torch.arange(9) % 3
    a, k = torch.randperm(6, generator=generator(1)), torch.randperm(9, generator=generator(2))
    first = supervised_pixel_contrast(anchors, labels, keys, key_labels)
    second = supervised_pixel_contrast(anchors[a], labels[a], keys[k], key_labels[k])
    torch.testing.assert_close(first, second)


def test_pulling_classes_apart_lowers_the_loss():
    labels = torch.tensor([0, 0, 1, 1])
    together = F.normalize(torch.tensor([[1.0, 0.1], [1, 0.2], [1, 0.3], [1, 0.15]]), dim=1)
    apart = F.normalize(torch.tensor([[1.0, 0.1], [1, 0.0], [0.1, 1], [0, 1]]), dim=1)
    near, far = (supervised_pixel_contrast(v, labels, v, labels) for v in (together, apart))
    assert float(far) < 0.01 < float(near)


def test_one_step_down_the_gradient_lowers_the_loss():
    anchors, keys = unit(6, 4, seed=3).requires_grad_(True), unit(9, 4, seed=4)
    labels, key_labels = torch.arange(6) % 3, torch.arange(9) % 3
    before = supervised_pixel_contrast(anchors, labels, keys, key_labels)
    (slope,) = torch.autograd.grad(before, anchors)
    after = supervised_pixel_contrast(anchors - 1e-3 * slope, labels, keys, key_labels)
    assert after.item() < before.item()


@pytest.mark.parametrize("hard_fraction", [None, 0.5])
def test_gradient_is_right(hard_fraction):
    anchors, keys = unit(4, 3, seed=5).requires_grad_(True), unit(6, 3, seed=6)
    labels, key_labels = torch.arange(4) % 2, torch.arange(6) % 3

    def loss(v: Tensor) -> Tensor:
        return supervised_pixel_contrast(v, labels, keys, key_labels, hard_fraction=hard_fraction)

    assert torch.autograd.gradcheck(loss, (anchors,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [1e-4, 0.1, 1e3])
@pytest.mark.parametrize(
    ("n_anchors", "n_keys", "labels"),
    [(1, 1, "same"), (4, 6, "same"), (4, 6, "none"), (4, 6, "mixed"), (0, 6, "mixed"), (4, 0, "")],
)
@pytest.mark.parametrize("identical", [False, True])
def test_stays_finite_whatever_comes(dtype, temperature, n_anchors, n_keys, labels, identical):
    anchors, keys = unit(n_anchors, 8, seed=7), unit(n_keys, 8, seed=8)
    if identical:
        anchors, keys = torch.ones_like(anchors) / 8**0.5, torch.ones_like(keys) / 8**0.5
    own, others = torch.arange(n_anchors) % 2, torch.arange(n_keys) % 2
    if labels in ("same", "none"):
        own, others = own * 0, others * 0 + (labels == "none")
    anchors = anchors.to(dtype).requires_grad_(True)
    loss = supervised_pixel_contrast(anchors, own, keys.to(dtype), others, temperature)
    loss.backward()
    assert torch.isfinite(loss)
    assert anchors.grad is not None
    assert torch.isfinite(anchors.grad).all()
    if labels != "mixed" or not n_anchors:
        assert loss.item() == 0.0


def test_identical_vectors_cost_the_logarithm_of_one_plus_the_negatives():
    v = torch.ones(5, 4) / 2
    labels = torch.tensor([0, 0, 1, 1, 1])
    loss = supervised_pixel_contrast(v[:1], labels[:1], v, labels)
    assert float(loss) == pytest.approx(math.log(1 + 3), rel=1e-6)


def test_random_batches_never_give_nan():
    g = generator(11)
    for _ in range(1000):
        n, m = torch.randint(0, 6, (2,), generator=g).tolist()
        anchors, keys = (torch.randn(k, 3, generator=g).half() * 3 for k in (n, m))
        labels, key_labels = (torch.randint(-1, 2, (k,), generator=g) for k in (n, m))
        assert torch.isfinite(supervised_pixel_contrast(anchors, labels, keys, key_labels))


# --- anchors ------------------------------------------------------------------------------------


def scene(seed: int = 0, size: int = 12, n_classes: int = 3):
    g = generator(seed)
    labels = torch.randint(-1, n_classes, (2, size, size), generator=g)
    predicted = torch.randint(0, n_classes, (2, size, size), generator=g)
    return unit(2, 5, size, size, seed=seed, dtype=torch.float32), labels, predicted


def located(embedding: Tensor) -> Tensor:
    """An embedding that says where it comes from: image, row, column."""
    n, _, height, width = embedding.shape
    axes = [torch.arange(k, dtype=torch.float32) for k in (n, height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), 1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), per_class=st.integers(1, 12))
def test_anchors_are_distinct_labelled_pixels_of_their_class(seed, per_class):
    embedding, labels, predicted = scene(seed)
    rows, classes = sample_anchors(
        located(embedding), labels, predicted, per_class=per_class, generator=generator(seed)
    )
    where = [tuple(int(v) for v in row) for row in rows]
    assert len(set(where)) == len(where)
    assert [int(labels[at]) for at in where] == classes.tolist()
    assert UNLABELLED not in classes
    for b in (0, 1):
        for c in (0, 1, 2):
            hard = [predicted[at] != c for at in where if at[0] == b and labels[at] == c]
            there = (labels[b] == c) & (predicted[b] != c)
            easy = int((labels[b] == c).sum()) - int(there.sum())
            assert len(hard) == min(per_class, int((labels[b] == c).sum()))
            expected = min(int(there.sum()), max(per_class // 2, per_class - easy))
            assert sum(map(int, hard)) == expected


def test_half_of_the_anchors_are_misclassified_and_the_other_half_tops_up():
    labels = torch.ones(1, 10, 10, dtype=torch.int64)
    where = located(torch.zeros(1, 1, 10, 10))
    for n_wrong, expected in ((100, 8), (50, 4), (3, 3), (0, 0), (97, 5)):
        predicted = labels.clone()
        predicted.flatten()[:n_wrong] = 2
        rows, _ = sample_anchors(where, labels, predicted, per_class=8, generator=generator())
        assert len(rows) == 8
        assert sum(int(predicted[0, int(y), int(x)] == 2) for _, y, x in rows) == expected


def test_background_gives_anchors_and_unlabelled_pixels_do_not():
    labels = torch.full((1, 4, 4), UNLABELLED)
    embedding = unit(1, 3, 4, 4)
    rows, classes = sample_anchors(embedding, labels, labels, per_class=4, generator=generator())
    assert rows.shape == (0, 3)
    assert classes.shape == (0,)
    labels[0, 0] = 0
    _, classes = sample_anchors(embedding, labels, labels, per_class=9, generator=generator())
    assert classes.tolist() == [0, 0, 0, 0]


def test_the_cap_is_shared_by_images_and_classes():
    embedding, labels, predicted = scene(1)
    _, classes = sample_anchors(
        embedding, labels, predicted, per_class=50, generator=generator(), max_anchors=13
    )
    assert classes.bincount().tolist() == [4, 4, 4]


# --- regions and memory -------------------------------------------------------------------------


def test_a_region_is_the_mean_of_the_labelled_pixels_of_a_nucleus():
    embedding, labels, _ = scene(2)
    instances = torch.randint(0, 6, labels.shape, generator=generator(5))
    rows, classes = regions(embedding[0], labels[0], instances[0])
    expected = {}
    for y in range(12):
        for x in range(12):
            c = int(labels[0, y, x])
            if c != UNLABELLED:
                key = (int(instances[0, y, x]) if c else 0, c)
                expected.setdefault(key, []).append(embedding[0, :, y, x].double())
    assert classes.tolist() == [c for _, c in sorted(expected)]
    slow_rows = [F.normalize(sum(expected[key]), dim=0) for key in sorted(expected)]
    torch.testing.assert_close(rows.double(), torch.stack(slow_rows))


def test_background_is_one_region_and_every_nucleus_another():
    labels = torch.tensor([[0, 1, 1, 2, 2, 0, -1]])
    instances = torch.tensor([[0, 7, 7, 9, 9, 0, 4]])
    assert regions(unit(3, 1, 7), labels, instances)[1].tolist() == [0, 1, 2]
    assert regions(unit(3, 1, 7), labels * 0 - 1, instances)[0].shape == (0, 3)


writes = st.lists(
    st.tuples(st.sampled_from([PIXEL, REGION]), st.integers(0, 2), st.integers(0, 9)), max_size=14
)


@settings(max_examples=60, deadline=None)
@given(writes=writes, size=st.integers(1, 6))
def test_the_ring_behaves_as_a_bounded_deque(writes, size):
    bank = MemoryBank(3, 2, size=size)
    model = {(kind, c): deque(maxlen=size) for kind in (PIXEL, REGION) for c in range(3)}
    written = 0.0
    for kind, label, n in writes:
        rows = torch.arange(n, dtype=torch.float32)[:, None].expand(n, 2) + written
        written += n
        bank.enqueue(kind, label, rows)
        model[kind, label].extend(rows[:, 0].tolist())
        at = int(bank.written[kind, label]) % size
        if len(model[kind, label]) == size:
            ring = bank.rows[kind, label, :, 0].tolist()
            assert ring[at:] + ring[:at] == list(model[kind, label])
    rows, labels = bank.keys()
    expected = sorted((c, v) for (_, c), ring in model.items() for v in ring)
    assert sorted(zip(labels.tolist(), rows[:, 0].tolist(), strict=True)) == expected
    assert 0 not in bank.keys(background=False)[1]


def test_only_written_rows_are_keys_and_rows_that_overflowed_are_not_written():
    bank = MemoryBank(2, 3, size=5)
    assert bank.keys()[0].shape == (0, 3)
    rows = torch.ones(4, 3)
    rows[1, 0], rows[2, 2] = math.nan, math.inf
    bank.enqueue(REGION, 1, rows)
    keys, labels = bank.keys()
    assert torch.equal(keys, torch.ones(2, 3))
    assert labels.tolist() == [1, 1]


def test_an_update_remembers_pixels_and_regions_of_their_own_class():
    _, labels, _ = scene(3)
    instances = torch.randint(1, 4, labels.shape, generator=generator(1))
    embedding = F.one_hot(labels + 1, 4).permute(0, 3, 1, 2).float()
    bank = MemoryBank(3, 4, size=50)
    bank.update(embedding, labels, instances, generator=generator(), pixels=7)
    keys, classes = bank.keys()
    assert torch.equal(keys.argmax(1) - 1, classes)
    assert bank.written[PIXEL].tolist() == [14, 14, 14]
    assert bank.written[REGION].tolist() == [2, 6, 6]
    assert not keys.requires_grad


def test_the_memory_is_saved_with_a_checkpoint():
    bank, other = MemoryBank(2, 3, size=4), MemoryBank(2, 3, size=4)
    bank.enqueue(PIXEL, 1, torch.eye(3))
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.keys()[0], torch.eye(3))
    other.enqueue(PIXEL, 1, torch.zeros(2, 3))
    assert torch.equal(other.rows[PIXEL, 1, 0], torch.zeros(3))


# --- the term -----------------------------------------------------------------------------------


def run(contrast: PixelContrast, seed: int, steps: int = 3, dtype: torch.dtype = torch.float32):
    g, values = generator(seed), []
    for step in range(steps):
        embedding, labels, predicted = scene(step)
        embedding = embedding.to(dtype).requires_grad_(True)
        loss = contrast(embedding, labels, predicted, labels.clamp(min=0), generator=g)
        loss.backward()
        assert embedding.grad is not None
        assert torch.isfinite(embedding.grad).all()
        values.append(loss.item())
    return values


def test_the_same_generator_gives_the_same_losses():
    first, second = (run(PixelContrast(3, 5), seed=4) for _ in range(2))
    assert first == second
    assert first[0] == 0.0 < first[1]
    assert run(PixelContrast(3, 5), seed=5) != first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_stay_finite(dtype):
    assert all(map(math.isfinite, run(PixelContrast(3, 5), seed=4, dtype=dtype)))


def test_the_weight_rises_from_zero_and_the_published_one_jumps():
    ours, paper = PixelContrast(2, 3), PixelContrast(2, 3, ContrastSettings.paper())
    assert [ours.weight(t) for t in (0.0, 0.125, 0.25, 1.0)] == [0.0, 0.5, 1.0, 1.0]
    assert [paper.weight(t) for t in (0.0, 0.29, 0.3, 1.0)] == [0.0, 0.0, 1.0, 1.0]


def test_before_the_ramp_the_loss_is_zero_but_pixels_are_remembered():
    contrast = PixelContrast(3, 5)
    embedding, labels, predicted = scene(0)
    embedding.requires_grad_(True)
    loss = contrast(embedding, labels, predicted, generator=generator(), progress=0.0)
    assert loss.item() == 0.0
    assert loss.requires_grad
    assert len(contrast.bank.keys()[0]) > 0


def test_validation_remembers_nothing():
    contrast = PixelContrast(3, 5).eval()
    embedding, labels, predicted = scene(0)
    contrast(embedding, labels, predicted, generator=generator())
    assert len(contrast.bank.keys()[0]) == 0


def test_the_published_setting_leaves_background_out():
    contrast = PixelContrast(3, 5, ContrastSettings.paper())
    run(contrast, seed=1)
    assert contrast.bank.written[:, 0].tolist() == [0, 0]
    assert contrast.bank.written[REGION].tolist() == [0, 6, 6]
    assert contrast.bank.rows.shape == (2, 3, 5000, 5)


def test_labels_of_twice_the_size_are_read_at_the_nearest_pixel():
    embedding, labels, predicted = scene(0)
    large = [v.repeat_interleave(2, 1).repeat_interleave(2, 2) for v in (labels, predicted)]
    values = []
    for maps in ((labels, predicted), large):
        contrast, g = PixelContrast(3, 5), generator(1)
        contrast(embedding, *maps, generator=g)
        values.append(contrast(embedding, *maps, generator=g).item())
    assert values[0] == values[1] > 0


def test_an_embedding_of_every_second_pixel_meets_its_own_labels():
    _, labels, _ = scene(0)
    embedding = F.one_hot(labels + 1, 4).permute(0, 3, 1, 2).float()[..., 1::2, 1::2]
    contrast = PixelContrast(3, 4)
    contrast(embedding, labels, labels, generator=generator())
    keys, classes = contrast.bank.keys()
    assert torch.equal(keys.argmax(1) - 1, classes)


def test_training_with_the_term_separates_two_classes():
    g = generator(2)
    features = torch.randn(1, 8, 16, 16, generator=g)
    labels = (features[:, 0] > 0).long()
    head = torch.nn.Conv2d(8, 4, 1)
    torch.nn.init.orthogonal_(head.weight, generator=g)
    torch.nn.init.zeros_(head.bias)
    contrast = PixelContrast(2, 4)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    values = []
    for _ in range(60):
        embedding = F.normalize(head(features), dim=1)
        loss = contrast(embedding, labels, labels, generator=g)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[1]


def test_wrong_calls_are_named():
    v, labels = unit(2, 3), torch.tensor([0, 1])
    with pytest.raises(CallError, match="temperature 0"):
        supervised_pixel_contrast(v, labels, v, labels, 0)
    with pytest.raises(CallError, match="temperature nan"):
        supervised_pixel_contrast(v, labels, v, labels, math.nan)
    with pytest.raises(CallError, match="hard_fraction"):
        supervised_pixel_contrast(v, labels, v, labels, hard_fraction=0.0)
    with pytest.raises(InputError, match=r"\(A, D\)"):
        supervised_pixel_contrast(v, labels[:1], v, labels)
    with pytest.raises(InputError, match="crop the labels"):
        sample_anchors(
            unit(1, 3, 4, 4),
            torch.zeros(1, 5, 5),
            torch.zeros(1, 5, 5),
            per_class=1,
            generator=generator(),
        )
    with pytest.raises(CallError, match="at least one"):
        MemoryBank(2, 3, size=0)
    with pytest.raises(InputError, match="class 2"):
        MemoryBank(2, 3).enqueue(PIXEL, 2, v.float())
