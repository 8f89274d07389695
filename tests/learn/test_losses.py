"""Masked losses against slow float64 loops, and the contract every row of ``LOSSES`` keeps."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn import losses
from nucleoscope.learn.contract import LossContract
from nucleoscope.learn.losses import LOSSES, LossSettings

PAPER = LossSettings.paper()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- slow float64 loops -------------------------------------------------------------------------


def probabilities(logits: Tensor, b: int, y: int, x: int, floor: float = 0.0) -> list[float]:
    row = [float(v) for v in logits[b, :, y, x].double()]
    top = max(row)
    exps = [math.exp(v - top) for v in row]
    p = [e / sum(exps) for e in exps]
    return [min(max(v, floor), 1 - floor) for v in p]


def pixels(shape: tuple[int, ...]):
    return [(b, y, x) for b in range(shape[0]) for y in range(shape[-2]) for x in range(shape[-1])]


def slow_cross_entropy(logits, target, labelled, weights=None, floor=0.0):
    total = mass = 0.0
    for b, y, x in pixels(logits.shape):
        if labelled[b, y, x]:
            k = int(target[b, y, x])
            w = 1.0 if weights is None else float(weights[k])
            total -= w * math.log(probabilities(logits, b, y, x, floor)[k])
            mass += w
    return total / mass if mass else 0.0


def slow_dice(logits, target, labelled):
    loss = 0.0
    for k in range(logits.shape[1]):
        both = either = 0.0
        for b, y, x in pixels(logits.shape):
            if labelled[b, y, x]:
                p, t = probabilities(logits, b, y, x)[k], float(target[b, y, x] == k)
                both, either = both + p * t, either + p + t
        loss += 1 - (2 * both + 1e-3) / (either + 1e-3)
    return loss


def slow_entropy(logits, where, floor=0.0):
    found = [
        -sum(p * math.log(p) for p in probabilities(logits, *at, floor))
        for at in pixels(logits.shape)
        if where[at]
    ]
    return sum(found) / len(found) if found else 0.0


def slow_hv_mse(predicted, target, labelled):
    found = [
        float(predicted[b, c, y, x] - target[b, c, y, x]) ** 2
        for b, y, x in pixels(predicted.shape)
        if labelled[b, y, x]
        for c in (0, 1)
    ]
    return sum(found) / len(found) if found else 0.0


def slow_hv_gradient(predicted, target, foreground, labelled):
    height, width = predicted.shape[-2:]

    def slope(maps, b, c, y, x):
        total = 0.0
        for v in range(-2, 3):
            for h in range(-2, 3):
                if (v or h) and 0 <= y + v < height and 0 <= x + h < width:
                    total += (h, v)[c] / (h * h + v * v) * float(maps[b, c, y + v, x + h])
        return total

    found = []
    for b, y, x in pixels(predicted.shape):
        window = labelled[b, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        if foreground[b, y, x] and bool(window.all()):
            found += [
                (slope(predicted, b, c, y, x) - slope(target, b, c, y, x)) ** 2 for c in (0, 1)
            ]
    return sum(found) / len(found) if found else 0.0


def slow_weights(target, labelled, n_classes):
    counts = [int(((target == k) & labelled).sum()) for k in range(n_classes)]
    inverse = [1 / n if n else 0.0 for n in counts]
    weights = [v / (sum(inverse) or 1.0) for v in inverse]
    return [max(weights[0], 0.05), *weights[1:]]


def slow_np(logits, target, labelled):
    loss = slow_cross_entropy(logits, target, labelled) + slow_dice(logits, target, labelled)
    return loss + 0.5 * slow_entropy(logits, ~labelled)


def slow_hv(predicted, target, foreground, labelled):
    slope = slow_hv_gradient(predicted, target, foreground, labelled)
    return slow_hv_mse(predicted, target, labelled) + slope


def slow_nc(logits, target, labelled):
    weights = slow_weights(target, labelled, logits.shape[1])
    loss = slow_cross_entropy(logits, target, labelled, weights)
    return loss + slow_dice(logits, target, labelled) + 0.5 * slow_entropy(logits, ~labelled)


def slow_contrast(anchors, anchor_labels, keys, key_labels, temperature=0.1):
    found = []
    for v, c in zip(anchors.double(), anchor_labels, strict=True):
        scores = [float(v @ k) / temperature for k in keys.double()]
        own = [s for s, k in zip(scores, key_labels, strict=True) if k == c]
        others = [s for s, k in zip(scores, key_labels, strict=True) if k != c]
        terms = []
        for p in own:
            top = max([p, *others])
            total = math.exp(p - top) + sum(math.exp(q - top) for q in others)
            terms.append(math.log(total) + top - p)
        if terms:
            found.append(sum(terms) / len(terms))
    return sum(found) / len(found) if found else 0.0


def slow_crf(probability, image):
    total = 0.0
    n_batch, height, width = probability.shape
    for b in range(n_batch):
        p, light = probability[b].double(), image[b].double()
        for y, x in itertools.product(range(height), range(width)):
            for v in range(y % 3, height, 3):
                for u in range(x % 3, width, 3):
                    if max(abs(v - y), abs(u - x)) <= 15 and (v, u) != (y, x):
                        apart = ((v - y) ** 2 + (u - x) ** 2) / 200
                        unlike = float((light[:, v, u] - light[:, y, x]).square().sum())
                        weight = math.exp(-apart - unlike / (2 * (10 / 255) ** 2))
                        total += 9 * weight * float(p[y, x] * (1 - p[v, u]))
    return total / probability.numel()


# --- the contract -------------------------------------------------------------------------------


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(name: str, n_classes: int, size: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Targets and labelled pixels; unlabelled targets hold an impossible class."""
    g = generator(seed)
    batch, side = (1, 1) if name == "one sample" else (2, size)
    target = torch.randint(n_classes, (batch, side, side), generator=g)
    labelled = torch.rand(target.shape, generator=g) < 0.8
    if name == "one class":
        target.fill_(1)
    if name == "no positives":
        target.fill_(0)
    if name in ("all labelled", "one sample"):
        labelled.fill_(True)
    if name == "nothing labelled":
        labelled.fill_(False)
    target[~labelled] = 255
    return target, labelled


def class_inputs(n_classes: int) -> Callable[[str], tuple[Tensor, tuple[Any, ...]]]:
    def make(name: str) -> tuple[Tensor, tuple[Any, ...]]:
        target, labelled = scene(name, n_classes)
        shape = (target.shape[0], n_classes, *target.shape[1:])
        return torch.randn(shape, generator=generator(1), dtype=torch.float64) * 2, (
            target,
            labelled,
        )

    return make


def entropy_inputs(name: str) -> tuple[Tensor, tuple[Any, ...]]:
    logits, (_, labelled) = class_inputs(3)(name)
    return logits, (labelled,)


def hv_inputs(name: str, *, foreground: bool = True) -> tuple[Tensor, tuple[Any, ...]]:
    nuclei, labelled = scene(name, 2)
    if name == "mixed":
        labelled = torch.ones_like(labelled)
        labelled[0, 1, 4] = False
    shape = (nuclei.shape[0], 2, *nuclei.shape[1:])
    predicted = torch.randn(shape, generator=generator(2), dtype=torch.float64)
    target = torch.rand(shape, generator=generator(3), dtype=torch.float64) * 2 - 1
    return predicted, (target, (nuclei == 1) & labelled, labelled)


def hv_mse_inputs(name: str) -> tuple[Tensor, tuple[Any, ...]]:
    predicted, (target, _, labelled) = hv_inputs(name)
    return predicted, (target, labelled)


def contrast_inputs(name: str) -> tuple[Tensor, tuple[Any, ...]]:
    n_anchors, n_keys = {"one sample": (1, 1), "nothing labelled": (4, 0)}.get(name, (7, 11))
    g = generator(4)
    vectors = torch.randn((n_anchors + n_keys, 5), generator=g, dtype=torch.float64)
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    labels = torch.randint(3, (n_anchors + n_keys,), generator=g)
    if name in ("one class", "one sample"):
        labels.fill_(2)
    if name == "no positives":
        labels[:n_anchors] = 3
    rest = (labels[:n_anchors], vectors[n_anchors:], labels[n_anchors:])
    return vectors[:n_anchors].clone(), rest


def crf_inputs(name: str) -> tuple[Tensor, tuple[Any, ...]]:
    size = {"one sample": 1, "nothing labelled": 4}.get(name, 7)
    probability = torch.rand((2, size, size), generator=generator(5), dtype=torch.float64)
    if name == "one class":
        probability = torch.ones_like(probability)
    if name == "no positives":
        probability = torch.zeros_like(probability)
    image = 0.05 * torch.rand((2, 2, size, size), generator=generator(6), dtype=torch.float64)
    return probability, (image,)


@dataclass(frozen=True)
class Case:
    inputs: Callable[[str], tuple[Tensor, tuple[Any, ...]]]
    slow: Callable[..., float]


CASES = {
    "cross_entropy": Case(class_inputs(3), slow_cross_entropy),
    "dice": Case(class_inputs(3), slow_dice),
    "entropy": Case(entropy_inputs, slow_entropy),
    "hv_mse": Case(hv_mse_inputs, slow_hv_mse),
    "hv_gradient": Case(hv_inputs, slow_hv_gradient),
    "np": Case(class_inputs(2), slow_np),
    "hv": Case(hv_inputs, slow_hv),
    "nc": Case(class_inputs(3), slow_nc),
    "supervised_pixel_contrast": Case(contrast_inputs, slow_contrast),
    "dense_crf": Case(crf_inputs, slow_crf),
}


def test_every_loss_has_a_contract_case():
    assert set(CASES) == set(LOSSES)


def contract(name: str) -> LossContract:
    """The contract of one row of the table."""

    class Case(LossContract):
        loss = staticmethod(LOSSES[name])
        slow = staticmethod(CASES[name].slow)
        inputs = staticmethod(CASES[name].inputs)
        is_zero_without_labels = name not in ("np", "nc", "dense_crf")

    return Case()


CLAUSES = [clause for clause in dir(LossContract) if clause.startswith("test_")]


@pytest.mark.parametrize("clause", CLAUSES)
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_keeps_the_contract(name, clause):
    getattr(contract(name), clause)()


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (lambda p, *_: p.sum() * 0 + 1.0, "the loop says"),
        (lambda p, t, w: losses.cross_entropy(p.detach(), t, w), "gradient|grad"),
        (lambda p, t, w: losses.cross_entropy(p, t, w).log(), "loop says|finite"),
    ],
    ids=["constant", "detached", "not finite"],
)
def test_the_contract_catches_a_wrong_loss(wrong, what):
    class Case(LossContract):
        loss = staticmethod(wrong)
        slow = staticmethod(slow_cross_entropy)
        inputs = staticmethod(class_inputs(3))

    said = []
    for clause in CLAUSES:
        try:
            getattr(Case(), clause)()
        except (AssertionError, RuntimeError) as error:
            said.append(str(error))
    assert any(re.search(what, sentence) for sentence in said), said


# --- laws ---------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n_classes=st.integers(2, 5))
def test_unlabelled_pixels_never_change_a_supervised_loss(seed, n_classes):
    target, labelled = scene("mixed", n_classes, seed=seed)
    g = generator(seed)
    shape = (2, n_classes, 6, 6)
    first = torch.randn(shape, generator=g)
    second = torch.where(labelled.unsqueeze(1), first, torch.randn(shape, generator=g) * 50)
    other = torch.where(labelled, target, -7)
    for loss in (losses.cross_entropy, losses.dice):
        assert torch.equal(loss(first, target, labelled), loss(second, other, labelled))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_unlabelled_pixels_never_change_an_offset_loss(seed):
    g = generator(seed)
    labelled = torch.rand((2, 9, 9), generator=g) < 0.95
    foreground = torch.rand((2, 9, 9), generator=g) < 0.7
    first, target, junk = torch.randn((3, 2, 2, 9, 9), generator=g)
    second = torch.where(labelled.unsqueeze(1), first, junk)
    other = torch.where(labelled.unsqueeze(1), target, 9 * junk)
    a = losses.hv_loss(first, target, foreground, labelled)
    assert torch.equal(a, losses.hv_loss(second, other, foreground, labelled))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), shape=st.sampled_from([(5,), (3, 4), (2, 3, 4), ()]))
def test_cross_entropy_takes_any_number_of_axes_and_equals_torch(seed, shape):
    g = generator(seed)
    logits = torch.randn((3, 4, *shape), generator=g)
    target = torch.randint(4, (3, *shape), generator=g)
    weights = torch.rand(4, generator=g) + 0.1
    found = losses.cross_entropy(logits, target, class_weights=weights)
    expected = torch.nn.functional.cross_entropy(logits, target, weight=weights)
    torch.testing.assert_close(found, expected)


def test_a_perfect_answer_costs_nothing():
    target = torch.tensor([[[0, 1], [2, 0]]])
    logits = torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2) * 100.0
    everywhere = torch.ones_like(target, dtype=torch.bool)
    assert float(losses.nc_loss(logits, target, everywhere)) == pytest.approx(0, abs=1e-6)


def test_more_right_is_less_loss():
    target, labelled = scene("all labelled", 2)
    right = torch.nn.functional.one_hot(target, 2).permute(0, 3, 1, 2).float()
    values = [float(losses.np_loss(s * right, target, labelled)) for s in (-1, 0, 1, 2)]
    assert values == sorted(values, reverse=True)


def test_entropy_is_ln_k_when_undecided_and_zero_when_sure():
    where = torch.ones((1, 3), dtype=torch.bool)
    assert float(losses.entropy(torch.zeros(1, 4, 3), where)) == pytest.approx(math.log(4))
    sure = torch.tensor([1e4, 0.0, 0.0]).view(1, 3, 1).expand(1, 3, 3)
    assert float(losses.entropy(sure, where)) == 0.0


def test_gradient_term_sees_a_ramp_and_not_an_offset_inside():
    x = torch.arange(11.0).expand(1, 1, 11, 11)
    ramp = torch.cat([x, x.transpose(2, 3)], 1)
    centre = torch.zeros((1, 11, 11), dtype=torch.bool)
    centre[0, 3:8, 3:8] = True
    offset = losses.hv_gradient(ramp + 3.0, ramp, centre)
    assert float(offset) == pytest.approx(0, abs=1e-8)
    # Slope 1 seen through the kernel: the sum of h^2 / (h^2 + v^2) over 24 neighbours is 12.
    assert float(losses.hv_gradient(ramp, 0 * ramp, centre)) == pytest.approx(144.0, rel=1e-5)


def test_gradient_term_tells_the_horizontal_map_from_the_vertical():
    x = torch.arange(11.0).expand(1, 1, 11, 11)
    swapped = torch.cat([x.transpose(2, 3), x], 1)
    centre = torch.zeros((1, 11, 11), dtype=torch.bool)
    centre[0, 5, 5] = True
    assert float(losses.hv_gradient(swapped, 0 * swapped, centre)) == pytest.approx(0, abs=1e-8)


def test_a_third_map_counts_in_the_error_and_not_in_the_slopes():
    predicted, (target, foreground, labelled) = hv_inputs("all labelled")
    third = torch.ones_like(target[:, :1])
    deep, flat = torch.cat([predicted, third], 1), torch.cat([target, 0 * third], 1)
    slope = losses.hv_gradient(predicted, target, foreground, labelled)
    assert torch.equal(losses.hv_gradient(deep, flat, foreground, labelled), slope)
    expected = (2 * losses.hv_mse(predicted, target) + 1.0) / 3
    torch.testing.assert_close(losses.hv_mse(deep, flat), expected)


# --- settings -----------------------------------------------------------------------------------


def test_class_weights_are_inverse_frequencies_with_a_floor_for_background():
    target = torch.tensor([0] * 900 + [1] * 80 + [2] * 20 + [77] * 5)
    labelled = target != 77
    found = losses.inverse_frequency(target, 4, labelled)
    expected = [0.05, (1 / 80) / (1 / 900 + 1 / 80 + 1 / 20), 0.0, 0.0]
    expected[2] = (1 / 20) / (1 / 900 + 1 / 80 + 1 / 20)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_paper_setting_counts_unlabelled_pixels_as_background_in_types():
    logits, (target, labelled) = class_inputs(3)("mixed")
    background = torch.where(labelled, target, 0)
    everywhere = torch.ones_like(labelled)
    expected = slow_cross_entropy(
        logits, background, everywhere, PAPER.type_weights, floor=1e-7
    ) + slow_dice(logits, background, everywhere)
    assert float(losses.nc_loss(logits, target, labelled, PAPER)) == pytest.approx(expected)


def test_paper_setting_masks_cross_entropy_but_not_dice_in_foreground():
    logits, (target, labelled) = class_inputs(2)("mixed")
    background = torch.where(labelled, target, 0)
    expected = slow_cross_entropy(logits, target, labelled, floor=1e-7)
    expected += slow_dice(logits, background, torch.ones_like(labelled))
    expected += 0.5 * slow_entropy(logits, ~labelled, floor=1e-7)
    assert float(losses.np_loss(logits, target, labelled, PAPER)) == pytest.approx(expected)


def test_without_the_defects_dice_reads_labelled_pixels_only():
    sound = LossSettings.paper(defects=False)
    logits, (target, labelled) = class_inputs(3)("mixed")
    background = torch.where(labelled, target, 0)
    expected = slow_cross_entropy(
        logits, background, torch.ones_like(labelled), PAPER.type_weights, floor=1e-7
    ) + slow_dice(logits, target, labelled)
    assert float(losses.nc_loss(logits, target, labelled, sound)) == pytest.approx(expected)


@pytest.mark.parametrize("n_types", [1, 2, 4])
def test_published_class_weights_exist_for_any_number_of_types(n_types):
    weights = LossSettings.paper(n_types).type_weights
    assert len(weights) == 1 + n_types
    assert weights[0] == 0.0005
    assert sum(weights) == pytest.approx(1.0)


def test_hovernets_own_setting_has_no_entropy_and_equal_classes():
    chosen = LossSettings.hovernet(3)
    assert (chosen.entropy, chosen.type_entropy, chosen.hv_gradient) == (0, 0, 1)
    assert chosen.type_weights == (1, 1, 1, 1)


def test_paper_setting_counts_every_pixel_in_offsets():
    predicted, (target, foreground, labelled) = hv_inputs("mixed")
    expected = slow_hv(predicted, target, foreground, torch.ones_like(labelled))
    found = losses.hv_loss(predicted, target, foreground, labelled, PAPER)
    assert float(found) == pytest.approx(expected)


def test_probability_floor_bounds_the_cross_entropy():
    logits = torch.tensor([[[-1e4], [1e4]]])
    target = torch.tensor([[0]])
    found = losses.cross_entropy(logits, target, probability_floor=1e-7)
    assert float(found) == pytest.approx(-math.log(1e-7), rel=1e-4)


def test_wrong_shapes_and_classes_are_named():
    logits, target = torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(InputError, match="crop the target"):
        losses.cross_entropy(logits, target[:, :3])
    with pytest.raises(InputError, match=r"torch\.bool"):
        losses.dice(logits, target, target)
    with pytest.raises(InputError, match="classes 0 to 2"):
        losses.dice(logits, torch.tensor([[0, 1, 2, 0]]))
    with pytest.raises(CallError, match="each of the 2 classes"):
        losses.nc_loss(logits, target, target == 0, PAPER)
    with pytest.raises(InputError, match="C >= 2"):
        losses.hv_mse(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
