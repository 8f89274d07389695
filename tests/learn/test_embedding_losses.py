"""Losses of self-supervision against slow float64 loops, and the contract every row keeps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn.embedding_losses import (
    EMBEDDING_LOSSES,
    Queue,
    align_uniform,
    dcl,
    embedding_loss,
    infonce,
    vicreg,
)

NAMES = sorted(EMBEDDING_LOSSES)


def unit(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n, d, generator=draws, dtype=torch.float64), dim=1).to(
        dtype
    )


def dot(a, b) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


# --- slow float64 loops -------------------------------------------------------------------------


def slow_infonce(q, k, group, queue, temperature=0.07):
    total = 0.0
    for i in range(len(q)):
        positive = math.exp(dot(q[i], k[i]) / temperature)
        if queue is not None:
            others = [dot(q[i], n) for n in queue]
        else:
            others = [dot(q[i], k[j]) for j in range(len(q)) if j != i and group[i] == group[j]]
        total -= math.log(positive / (positive + sum(math.exp(o / temperature) for o in others)))
    return total / len(q)


def slow_dcl(q, k, group, queue, temperature=0.15):
    terms = []
    for i in range(len(q)):
        if queue is not None:
            others = [dot(q[i], n) for n in queue]
        else:
            rows = [j for j in range(len(q)) if j != i and group[i] == group[j]]
            others = [dot(q[i], q[j]) for j in rows] + [dot(q[i], k[j]) for j in rows]
        if others:
            apart = math.log(sum(math.exp(o / temperature) for o in others))
            terms.append(apart - dot(q[i], k[i]) / temperature)
    return sum(terms) / len(terms) if terms else 0.0


def slow_align_uniform(q, k, group, queue):
    def squared(a, b):
        return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))

    align = sum(squared(a, b) for a, b in zip(q, k, strict=True)) / len(q)
    pairs = [
        math.exp(-3 * squared(q[i], q[j]))
        for i in range(len(q))
        for j in range(i + 1, len(q))
        if group[i] == group[j]
    ]
    if queue is not None:
        pairs += [math.exp(-3 * squared(a, n)) for a in q for n in queue]
    return 3 * align + (math.log(sum(pairs) / len(pairs)) if pairs else 0.0)


def slow_vicreg(q, k, group, queue):
    n, d = q.shape
    loss = 25 * sum(float(x) ** 2 for x in (q - k).flatten()) / (n * d)
    if n < 2:
        return loss
    for view in (q, k):
        mean = [sum(float(view[i, c]) for i in range(n)) / n for c in range(d)]
        for c in range(d):
            spread = math.sqrt(
                sum((float(view[i, c]) - mean[c]) ** 2 for i in range(n)) / (n - 1) + 1e-4
            )
            loss += 25 * max(0.0, 1 - spread) / d / 2
            for e in range(d):
                if e != c:
                    cov = sum(
                        (float(view[i, c]) - mean[c]) * (float(view[i, e]) - mean[e])
                        for i in range(n)
                    )
                    loss += (cov / (n - 1)) ** 2 / d
    return loss


SLOW = {
    "infonce": slow_infonce,
    "dcl": slow_dcl,
    "align-uniform": slow_align_uniform,
    "vicreg": slow_vicreg,
}


@pytest.mark.parametrize("with_queue", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_equals_its_slow_loop(name, with_queue) -> None:
    q, k = unit(7, 5, 0), unit(7, 5, 1)
    group = torch.tensor([0, 0, 1, 1, 1, 2, 0])
    queue = unit(9, 5, 2) if with_queue else None
    fast = EMBEDDING_LOSSES[name](q, k, queue=queue, group=group)
    assert float(fast) == pytest.approx(SLOW[name](q, k, group, queue), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
class TestLossContract:
    def test_gradients_are_right(self, name) -> None:
        q, k = unit(4, 3, 0).requires_grad_(), unit(4, 3, 1).requires_grad_()
        assert torch.autograd.gradcheck(lambda a, b: EMBEDDING_LOSSES[name](a, b), (q, k))

    def test_one_nucleus_is_finite(self, name) -> None:
        q = unit(1, 4, 0).requires_grad_()
        loss = EMBEDDING_LOSSES[name](q, unit(1, 4, 1))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(q.grad).all()

    def test_no_nucleus_is_zero(self, name) -> None:
        assert float(EMBEDDING_LOSSES[name](torch.zeros(0, 4), torch.zeros(0, 4))) == 0.0

    def test_every_nucleus_alone_on_its_slide_is_finite(self, name) -> None:
        q = unit(5, 4, 0).requires_grad_()
        loss = EMBEDDING_LOSSES[name](q, unit(5, 4, 1), group=torch.arange(5))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(q.grad).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_finite_and_near(self, name, dtype) -> None:
        q, k = unit(6, 8, 0), unit(6, 8, 1)
        half = EMBEDDING_LOSSES[name](q.to(dtype), k.to(dtype))
        assert half.dtype == torch.float32
        assert float(half) == pytest.approx(float(EMBEDDING_LOSSES[name](q, k)), rel=0.05)

    def test_the_order_of_nuclei_does_not_matter(self, name) -> None:
        q, k = unit(6, 4, 0), unit(6, 4, 1)
        group = torch.tensor([0, 1, 0, 1, 1, 0])
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        one = EMBEDDING_LOSSES[name](q, k, group=group)
        other = EMBEDDING_LOSSES[name](q[order], k[order], group=group[order])
        assert float(one) == pytest.approx(float(other))

    def test_shapes_that_do_not_fit_are_refused(self, name) -> None:
        with pytest.raises(InputError, match="two views"):
            EMBEDDING_LOSSES[name](torch.zeros(3, 2), torch.zeros(2, 2))
        with pytest.raises(InputError, match="group"):
            EMBEDDING_LOSSES[name](torch.zeros(3, 2), torch.zeros(3, 2), group=torch.zeros(2))


@given(seed=st.integers(0, 1000), n=st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_nearer_views_of_a_nucleus_never_cost_more(seed, n) -> None:
    q, k = unit(n, 6, seed), unit(n, 6, seed + 1)
    nearer = functional.normalize(q + k, dim=1)
    # Only the key of the same nucleus moves, for losses whose other terms look at queries alone.
    assert float(align_uniform(q, nearer)) <= float(align_uniform(q, k)) + 1e-9
    queue = unit(5, 6, seed + 2)
    for loss in (infonce, dcl):
        assert float(loss(q, nearer, queue=queue)) <= float(loss(q, k, queue=queue)) + 1e-9


def test_the_weights_of_nuc2vec_are_three_to_one() -> None:
    q, k = unit(5, 4, 0), unit(5, 4, 1)
    align = (q - k).square().sum(1).mean()
    alone = align_uniform(q, k, uniform=0.0)
    assert float(alone) == pytest.approx(3 * float(align))


def test_another_slide_is_no_negative() -> None:
    q, k = unit(4, 4, 0), unit(4, 4, 1)
    group = torch.tensor([0, 0, 1, 1])
    for loss in (infonce, dcl):
        apart = (loss(q[:2], k[:2]) + loss(q[2:], k[2:])) / 2
        assert float(loss(q, k, group=group)) == pytest.approx(float(apart))


def test_vicreg_notices_constant_and_repeated_coordinates() -> None:
    constant = torch.ones(8, 3)
    assert float(vicreg(constant, constant)) == pytest.approx(25 * 0.99, rel=1e-3)
    repeated = (torch.randn(64, 1) * 3).repeat(1, 3)
    assert float(vicreg(repeated, repeated)) > 10


def test_the_queue_forgets_the_oldest_first() -> None:
    queue = Queue(5, 2, seed=0)
    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(5))
    for value in range(4):
        queue.push(torch.full((2, 2), float(value)))
    assert sorted(queue.keys[:, 0].tolist()) == [1.0, 2.0, 2.0, 3.0, 3.0]


def test_the_same_seed_starts_the_same_queue() -> None:
    assert torch.equal(Queue(6, 3, seed=4).keys, Queue(6, 3, seed=4).keys)
    assert not torch.equal(Queue(6, 3, seed=4).keys, Queue(6, 3, seed=5).keys)


def test_unknown_losses_and_temperatures_are_refused() -> None:
    with pytest.raises(CallError, match="align-uniform"):
        embedding_loss("triplet")
    for loss in (infonce, dcl):
        with pytest.raises(CallError, match="temperature"):
            loss(torch.eye(2), torch.eye(2), temperature=0.0)
