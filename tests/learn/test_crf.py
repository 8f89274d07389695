"""The dense CRF as a loss: pairs that look alike should agree."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn.crf import _half_grid, _pair, dense_crf


def full_sum(p: torch.Tensor, image: torch.Tensor, s: float, t: float) -> float:
    """Over all pairs of a small image, without a grid and without an end."""
    _, n_y, n_x = p.shape
    total = 0.0
    for y in range(n_y):
        for x in range(n_x):
            v, u = torch.meshgrid(torch.arange(n_y), torch.arange(n_x), indexing="ij")
            far = (v - y) ** 2 + (u - x) ** 2
            unlike = (image[0] - image[0, :, y, x, None, None]).square().sum(0)
            weight = torch.exp(-far / (2 * s * s) - unlike / (2 * t * t))
            weight[y, x] = 0
            total += float(p[0, y, x] * (weight * (1 - p[0])).sum())
    return total / p.numel()


def test_the_grid_comes_close_to_all_pairs_of_a_smooth_image() -> None:
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    p = torch.sigmoid((x - 24 + 3 * torch.sin(y / 5)) / 2)[None]
    image = (0.02 * torch.sin(x / 9))[None, None]
    found = float(dense_crf(p, image, sigma_xy=6.0))
    # Offsets beyond one and a half spreads are left out: less, but the most of it.
    assert 0.3 < found / full_sum(p, image, 6.0, 10 / 255) < 1.1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mirrored_or_turned_images_cost_the_same(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    p, image = torch.rand(1, 12, 9, generator=g), 0.1 * torch.rand(1, 2, 12, 9, generator=g)
    straight = dense_crf(p, image, sigma_xy=4.0)
    for turn in (lambda t: t.flip(-1), lambda t: t.flip(-2), lambda t: t.transpose(-1, -2)):
        torch.testing.assert_close(dense_crf(turn(p), turn(image), sigma_xy=4.0), straight)


def test_a_border_on_an_edge_of_the_image_costs_less_than_beside_it() -> None:
    image = torch.zeros(1, 1, 24, 24)
    image[..., 12:] = 0.5
    on, beside = torch.zeros(1, 24, 24), torch.zeros(1, 24, 24)
    on[..., 12:], beside[..., 9:] = 1.0, 1.0
    assert float(dense_crf(on, image)) < 0.2 * float(dense_crf(beside, image))


def test_no_gradient_flows_into_the_image() -> None:
    image = torch.rand(1, 1, 8, 8, requires_grad=True)
    p = torch.rand(1, 8, 8, requires_grad=True)
    dense_crf(p, image).backward()
    assert image.grad is None
    assert p.grad is not None


def test_one_pixel_is_no_pair() -> None:
    assert float(dense_crf(torch.full((1, 1, 1), 0.5), torch.zeros(1, 1, 1, 1))) == 0.0


@pytest.mark.parametrize("step", [1, 3])
def test_of_two_opposite_offsets_one_is_taken(step: int) -> None:
    grid = _half_grid(step, 3.0 * step)
    assert len(grid) == len(set(grid)) == (7 * 7 - 1) // 2
    assert not set(grid) & {(-dy, -dx) for dy, dx in grid}


@pytest.mark.parametrize(("dy", "dx"), [(0, 2), (2, 0), (1, -2), (3, 1)])
def test_a_pair_is_a_pixel_and_its_neighbour(dy: int, dx: int) -> None:
    place = torch.arange(30).reshape(5, 6)
    one, other = _pair(place, dy, dx)
    assert one.numel() == (5 - dy) * (6 - abs(dx))
    assert ((other - one) == dy * 6 + dx).all()


def test_wrong_calls_are_named() -> None:
    p, image = torch.zeros(1, 4, 4), torch.zeros(1, 1, 4, 4)
    with pytest.raises(CallError, match="positive numbers"):
        dense_crf(p, image, sigma_xy=0.0)
    with pytest.raises(CallError, match="positive numbers"):
        dense_crf(p, image, sigma_image=math.nan)
    with pytest.raises(InputError, match="crop the image"):
        dense_crf(p, image[..., :3])
