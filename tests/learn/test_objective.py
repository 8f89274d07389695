"""The loss of a step: whole nuclei typed as bags of slices, silent where nothing is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from nucleoscope.learn.feed import Batch, Feed, FeedSettings, Lesson
from nucleoscope.learn.losses import LossSettings
from nucleoscope.learn.nets import build_network
from nucleoscope.learn.objective import (
    MIN_BAG,
    Objective,
    QuObjective,
    Weights,
    centre_loss,
    pixel_classes,
    pool_types,
)

#: Entropy is of what is unlabelled; without it nothing at all is said there.
NO_ENTROPY = LossSettings(entropy=0.0, type_entropy=0.0)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_pool(logits: Tensor, instances: Tensor, n: int) -> Tensor:
    """Mean per section; over sections log-sum-exp by area for two types, else the mean by area."""
    n_slices, groups, channels, _, _ = logits.shape
    n_types = channels - 1
    out = torch.zeros(n, groups, n_types, dtype=torch.float64)
    for i in range(1, n):
        areas = [int((instances[s] == i).sum()) for s in range(n_slices)]
        if not sum(areas):
            continue
        for g in range(groups):
            means = {
                s: logits[s, g, 1:, instances[s] == i].double().mean(dim=1)
                for s in range(n_slices)
                if areas[s]
            }
            if n_types != 2:
                out[i, g] = sum(areas[s] * m for s, m in means.items()) / sum(areas)
                continue
            weights = {s: areas[s] / max(areas) for s in means}
            odds = {s: float(m[1] - m[0]) for s, m in means.items()}
            top = sum(weights[s] * np.exp(odds[s]) for s in means)
            out[i, g, 1] = np.log(top / sum(weights.values()))
    return out


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), n_types=st.integers(1, 4), groups=st.integers(1, 2),
    n_slices=st.integers(1, 4),
)  # fmt: skip
def test_pooling_equals_a_slow_loop(seed: int, n_types: int, groups: int, n_slices: int) -> None:
    g = draws(seed)
    logits = 3 * torch.randn(n_slices, groups, 1 + n_types, 6, 7, generator=g)
    instances = torch.randint(0, 5, (n_slices, 6, 7), generator=g)
    found = pool_types(logits, instances, 6)
    present = torch.bincount(instances.flatten(), minlength=6) > 0
    present[0] = False
    expected = slow_pool(logits, instances, 6)
    assert torch.allclose(found[present].double(), expected[present], atol=1e-4)
    assert torch.isfinite(found[1:][present[1:]]).all()


def test_the_bag_of_one_slice_is_its_mean() -> None:
    logits = torch.randn(1, 1, 3, 5, 5, generator=draws())
    instances = torch.zeros(1, 5, 5, dtype=torch.long)
    instances[0, 1:4, 1:4] = 1
    bag = pool_types(logits, instances, 2)[1, 0]
    mean = logits[0, 0, 1:, 1:4, 1:4].mean(dim=(1, 2))
    assert float(bag[1] - bag[0]) == pytest.approx(float(mean[1] - mean[0]), abs=1e-5)


def stacked(odds: list[float], areas: list[int]) -> float:
    """The bag's odds of one nucleus with given odds and areas per slice."""
    logits = torch.zeros(len(odds), 1, 3, 1, 20)
    instances = torch.zeros(len(odds), 1, 20, dtype=torch.long)
    for s, (value, area) in enumerate(zip(odds, areas, strict=True)):
        logits[s, 0, 2], instances[s, 0, :area] = value, 1
    bag = pool_types(logits, instances, 2)[1, 0]
    return float(bag[1] - bag[0])


def test_one_clear_slice_makes_the_nucleus_positive() -> None:
    assert stacked([-4, 6, -4], [10, 10, 10]) > 4
    assert stacked([-4, -4, -4], [10, 10, 10]) == pytest.approx(-4, abs=1e-4)


def test_a_sliver_says_less_than_a_full_section() -> None:
    assert stacked([-4, 6], [20, 1]) < stacked([-4, 6], [20, 20]) - 1


def test_slices_where_the_nucleus_is_not_say_nothing() -> None:
    assert stacked([5, 50, -50], [10, 0, 0]) == pytest.approx(5, abs=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_slices_does_not_matter(seed: int) -> None:
    g = draws(seed)
    logits = torch.randn(4, 1, 3, 6, 6, generator=g)
    instances = torch.randint(0, 4, (4, 6, 6), generator=g)
    order = torch.randperm(4, generator=g)
    one, other = pool_types(logits, instances, 4), pool_types(logits[order], instances[order], 4)
    assert torch.allclose(one[1:], other[1:], atol=1e-4)


def test_extreme_logits_stay_finite_with_finite_gradients() -> None:
    for value in (1e4, -1e4):
        logits = torch.full((2, 1, 3, 4, 4), value, requires_grad=True)
        instances = torch.ones(2, 4, 4, dtype=torch.long)
        bag = pool_types(logits, instances, 3)
        assert torch.isfinite(bag).all()
        bag[1].sum().backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


# ---------------------------------------------------------------- the whole


def batch_of(lessons: list[Lesson], *, step: int = 0) -> Batch:
    chosen = FeedSettings(crop=64, batch=2, stride=2, context=1, radius=6.0)
    return Feed(lessons, chosen, seed=1).batch(step)


def blank(batch: Batch, n_groups: int = 1, n_types: int = 2) -> dict[str, Tensor]:
    """Maps of the network's shapes, leaves of the graph."""
    n, h, w = batch.instances.shape
    g = draws(7)

    def leaf(channels: int) -> Tensor:
        return torch.randn(n, channels, h, w, generator=g).requires_grad_()

    return {"np": leaf(2), "hv": leaf(3), "centre": leaf(1), "nc": leaf(n_groups * (1 + n_types))}


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def test_every_head_and_the_body_get_a_gradient(lessons: list[Lesson]) -> None:
    network = build_network("light", 2, 2, 1, 1)
    objective = Objective(2, 1, network.head_dim)
    batch = batch_of(lessons)
    for step in range(2):  # the contrast needs a bank first
        maps = network(batch.image, embed=True)
        terms = objective(maps, batch, progress=0.9, generator=draws(step))
    assert set(terms) == {"foreground", "offsets", "centre", "types", "pixel_types", "contrast"}
    assert all(torch.isfinite(t) for t in terms.values())
    total(terms).backward()  # type: ignore[no-untyped-call]
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before a normalisation never matters.
    assert silent in ([], ["embed.0.bias"])
    rows = network.heads[1].weight.grad
    assert rows is not None
    assert (rows.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_weights_scale_their_terms(lessons: list[Lesson]) -> None:
    batch = batch_of(lessons)
    maps = blank(batch)
    plain = Objective(2, 1, 8, weights=Weights(1, 1, 1, 1, 0))
    heavy = Objective(2, 1, 8, weights=Weights(2, 3, 4, 5, 0))
    one = plain(maps, batch, progress=0.0, generator=draws())
    other = heavy(maps, batch, progress=0.0, generator=draws())
    for name, factor in (("centre", 2), ("offsets", 3), ("types", 4), ("pixel_types", 5)):
        expected = factor * float(one[name].detach())
        assert float(other[name].detach()) == pytest.approx(expected, rel=1e-5), name


def test_detection_only_has_no_type_terms(lessons: list[Lesson]) -> None:
    batch = batch_of(lessons)
    objective = Objective(0, 1, 8)
    assert not objective.wants_embedding
    terms = objective(blank(batch), batch, progress=1.0, generator=draws())
    assert set(terms) == {"foreground", "offsets", "centre"}


def test_a_network_without_centres_is_asked_for_none(lessons: list[Lesson]) -> None:
    batch = batch_of(lessons)
    maps = blank(batch)
    del maps["centre"]
    assert "centre" not in Objective(2, 1, 8)(maps, batch, progress=0.0, generator=draws())


def test_unknown_types_teach_nothing(lessons: list[Lesson]) -> None:
    batch = batch_of(lessons)
    batch = replace(batch, types=torch.full_like(batch.types, -1))
    maps = blank(batch)
    objective = Objective(2, 1, 8, losses=NO_ENTROPY)
    terms = objective(maps, batch, progress=0.0, generator=draws())
    assert float(terms["types"].detach()) == 0
    total(terms).backward()  # type: ignore[no-untyped-call]
    grad = maps["nc"].grad
    assert grad is not None
    inside = batch.instances > 0
    assert inside.any()
    assert not grad.permute(0, 2, 3, 1)[inside].any()
    assert torch.isfinite(grad).all()


def test_one_of_two_markers_can_be_unknown(lessons: list[Lesson]) -> None:
    batch = batch_of(lessons)
    types = torch.cat([batch.types, torch.full_like(batch.types, -1)], dim=1)
    maps = blank(batch, n_groups=2)
    objective = Objective(2, 2, 8, losses=NO_ENTROPY)
    terms = objective(maps, replace(batch, types=types), progress=0.0, generator=draws())
    total(terms).backward()  # type: ignore[no-untyped-call]
    grad = maps["nc"].grad
    assert grad is not None
    inside = (batch.instances > 0).nonzero().tolist()
    assert any(grad[n, :3, y, x].any() for n, y, x in inside)
    assert not any(grad[n, 3:, y, x].any() for n, y, x in inside)


def test_a_nucleus_of_few_voxels_is_not_asked_for_its_type(lessons: list[Lesson]) -> None:
    batch = batch_of(lessons)
    few = torch.zeros_like(batch.instances)
    few[0].view(-1)[: MIN_BAG - 1] = 1
    few_batch = replace(batch, instances=few, types=torch.tensor([[-1], [1]]))
    objective = Objective(2, 1, 8)
    terms = objective(blank(batch), few_batch, progress=0.0, generator=draws())
    assert float(terms["types"].detach()) == 0
    few[0].view(-1)[MIN_BAG - 1] = 1
    terms = objective(blank(batch), few_batch, progress=0.0, generator=draws())
    assert float(terms["types"].detach()) > 0


@pytest.mark.parametrize("case", ["no nuclei", "one type", "nothing labelled"])
def test_degenerate_batches_are_finite(lessons: list[Lesson], case: str) -> None:
    batch = batch_of(lessons)
    if case == "no nuclei":
        batch = replace(
            batch, instances=torch.zeros_like(batch.instances), types=batch.types[:1],
            foreground=torch.zeros_like(batch.foreground), centre=torch.zeros_like(batch.centre),
        )  # fmt: skip
    elif case == "one type":
        types = torch.ones_like(batch.types)
        types[0] = -1
        batch = replace(batch, types=types)
    else:
        batch = replace(batch, foreground=torch.full_like(batch.foreground, 255),
                        centre=torch.zeros_like(batch.centre))  # fmt: skip
    network = build_network("light", 2, 2, 1, 1)
    objective = Objective(2, 1, network.head_dim)
    for step in range(2):
        maps = network(batch.image, embed=True)
        terms = objective(maps, batch, progress=0.9, generator=draws(step))
    assert all(torch.isfinite(t) for t in terms.values()), terms
    total(terms).backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_the_contrast_can_be_turned_off(lessons: list[Lesson]) -> None:
    assert not Objective(2, 1, 8, weights=Weights(contrast=0.0)).wants_embedding
    assert Objective(2, 1, 8).wants_embedding


def test_the_same_draws_give_the_same_loss(lessons: list[Lesson]) -> None:
    batch = batch_of(lessons)
    network = build_network("light", 2, 2, 1, 1).eval()
    values = []
    for _ in range(2):
        objective = Objective(2, 1, network.head_dim)
        with torch.no_grad():
            maps = network(batch.image, embed=True)
        values.append(float(total(objective(maps, batch, progress=0.9, generator=draws(3)))))
    assert values[0] == values[1]


# ---------------------------------------------------------------- pixels


def test_pixel_classes_follow_the_nucleus_and_say_where_nothing_is_known() -> None:
    instances = torch.tensor([[[0, 0, 1, 2, 3]]])
    foreground = torch.tensor([[[0, 255, 1, 1, 1]]], dtype=torch.uint8)
    batch = Batch(
        torch.zeros(1, 1, 1, 5), instances, foreground, torch.zeros(1, 1, 5),
        torch.zeros(1, 3, 1, 5), torch.tensor([[-1], [0], [1], [-1]]), torch.zeros(1).long(),
        torch.zeros_like(instances),
    )  # fmt: skip
    classes, known = pixel_classes(batch, foreground != 255, 0)
    assert classes.tolist() == [[[0, 0, 1, 2, 0]]]
    assert known.tolist() == [[[True, False, True, True, False]]]


def test_the_centre_loss_equals_a_slow_loop() -> None:
    g = draws()
    logits = torch.randn(2, 5, 6, generator=g, dtype=torch.float64)
    target = torch.rand(2, 5, 6, generator=g, dtype=torch.float64) ** 4
    labelled = torch.rand(2, 5, 6, generator=g) > 0.5
    terms = []
    for i in np.ndindex(2, 5, 6):
        p, t = float(torch.sigmoid(logits[i])), float(target[i])
        if labelled[i] or t > 0.05:
            terms.append(-(4.0 * t * np.log(p) + (1 - t) * np.log(1 - p)))
    assert float(centre_loss(logits, target, labelled)) == pytest.approx(np.mean(terms))


def test_the_centre_loss_reads_unlabelled_pixels_near_centres_only() -> None:
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    target = torch.tensor([[[1.0, 0.01, 0.0]]])
    centre_loss(logits, target, torch.zeros(1, 1, 3, dtype=torch.bool)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[[True, False, False]]]


def test_the_centre_loss_of_nothing_is_nought() -> None:
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert float(centre_loss(torch.ones(1, 2, 2), torch.zeros(1, 2, 2), nothing)) == 0


def test_the_type_term_is_the_cross_entropy_of_the_bags(lessons: list[Lesson]) -> None:
    batch = batch_of(lessons)
    maps = blank(batch)
    objective = Objective(2, 1, 8, weights=Weights(types=1.0))
    terms = objective(maps, batch, progress=0.0, generator=draws())
    pooled = slow_pool(maps["nc"].detach()[:, None], batch.instances, len(batch.types))
    size = torch.bincount(batch.instances.flatten(), minlength=len(batch.types))
    asked = (size >= MIN_BAG) & (batch.types[:, 0] >= 0)
    assert asked.any()
    expected = functional.cross_entropy(pooled[asked, 0], batch.types[asked, 0])
    assert float(terms["types"].detach()) == pytest.approx(float(expected), abs=1e-4)


# ---------------------------------------------------------------- Qu


def qu_batch(types: list[int]) -> Batch:
    """One slice: two nuclei by cluster, their disks by Voronoi, a wall, some of it unlabelled."""
    instances = torch.tensor([[[0, 1, 1, 0, 2, 2, 0, 0]]])
    foreground = torch.tensor([[[0, 1, 1, 255, 1, 1, 0, 255]]], dtype=torch.uint8)
    voronoi = torch.tensor([[[0, 1, 0, -1, 0, 2, 0, 0]]])
    return Batch(
        torch.rand(1, 2, 1, 8, generator=draws(1)), instances, foreground, torch.zeros(1, 1, 8),
        torch.zeros(1, 3, 1, 8), torch.tensor([[-1], *([t] for t in types)]),
        torch.zeros(1).long(), voronoi,
    )  # fmt: skip


def mean_surprise(logits: Tensor, wanted: dict[int, int]) -> float:
    """Mean cross-entropy at some pixels of one row, slowly."""
    row = logits.detach()[0, :, 0].double().log_softmax(0)
    return -sum(float(row[k, x]) for x, k in wanted.items()) / len(wanted)


def test_qu_learns_from_cluster_and_voronoi_labels() -> None:
    batch = qu_batch([0, 1])
    maps = blank(batch)
    terms = QuObjective(2, 1)(maps, batch, progress=0.5, generator=draws())
    assert set(terms) == {"cluster", "voronoi", "cluster_types", "voronoi_types"}
    expected = {
        "cluster": (maps["np"], {0: 0, 1: 1, 2: 1, 4: 1, 5: 1, 6: 0}),
        "voronoi": (maps["np"], {1: 1, 3: 0, 5: 1}),
        "cluster_types": (maps["nc"], {0: 0, 1: 1, 2: 1, 4: 2, 5: 2, 6: 0}),
        "voronoi_types": (maps["nc"], {1: 1, 3: 0, 5: 2}),
    }
    for name, (logits, wanted) in expected.items():
        assert float(terms[name].detach()) == pytest.approx(mean_surprise(logits, wanted)), name


def test_a_network_that_sums_its_types_is_taught_foreground_by_untyped_nuclei_only() -> None:
    batch = qu_batch([0, -1])
    maps = blank(batch)
    terms = QuObjective(2, 1, sums_types=True)(maps, batch, progress=0.5, generator=draws())
    assert float(terms["cluster"].detach()) == pytest.approx(
        mean_surprise(maps["np"], {4: 1, 5: 1})
    )
    assert float(terms["voronoi"].detach()) == pytest.approx(mean_surprise(maps["np"], {5: 1}))
    # An unknown type says nothing of types.
    assert float(terms["cluster_types"].detach()) == pytest.approx(
        mean_surprise(maps["nc"], {0: 0, 1: 1, 2: 1, 6: 0})
    )


def test_the_crf_comes_with_its_weight_and_pulls_at_the_foreground() -> None:
    batch = qu_batch([0, 1])
    maps = blank(batch)
    objective = QuObjective(2, 1)
    terms = objective(maps, batch, progress=0.9, generator=draws(), crf=5e-4)
    twice = objective(maps, batch, progress=0.9, generator=draws(), crf=1e-3)
    assert float(terms["crf"].detach()) > 0
    assert float(twice["crf"].detach()) == pytest.approx(2 * float(terms["crf"].detach()))
    terms["crf"].backward()  # type: ignore[no-untyped-call]
    assert maps["np"].grad is not None
    assert maps["np"].grad.any()


def test_qu_without_types_or_voronoi_labels_is_finite() -> None:
    batch = replace(qu_batch([-1, -1]), voronoi=torch.zeros(1, 1, 8, dtype=torch.int64))
    for n_types in (0, 2):
        terms = QuObjective(n_types, 1)(
            blank(batch), batch, progress=0.5, generator=draws(), crf=5e-4
        )
        assert all(torch.isfinite(t) for t in terms.values())
        assert ("cluster_types" in terms) == (n_types > 0)


def test_the_crf_reads_the_image_at_the_maps_resolution() -> None:
    batch = qu_batch([0, 1])
    wide = batch.image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    maps = blank(batch)
    coarse = QuObjective(2, 1, stride=2)
    fine = replace(batch, image=wide)
    same = replace(batch, image=wide + 1e-7)
    one, other = (
        float(coarse(maps, b, progress=0.9, generator=draws(), crf=1.0)["crf"].detach())
        for b in (fine, same)
    )
    assert one == pytest.approx(other, rel=1e-3)
    assert one > 0
