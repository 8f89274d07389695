"""ResUNet-34: the published shapes and weights, and what a slice may depend on."""

from __future__ import annotations

import pytest
import torch

from nucleoscope.errors import CallError
from nucleoscope.learn.nets import build_network
from nucleoscope.learn.nets.resunet import UNITS, WIDTHS, ResUNet34


def by_hand(n_channels: int, n_out: int) -> int:
    """Weights counted from the published table, without the classifier."""
    total = 64 * n_channels * 49 + 128
    for i, n_units in enumerate(UNITS):
        n_in, n = WIDTHS[i], WIDTHS[i + 1]
        for unit in range(n_units):
            first = n_in if unit == 0 else n
            total += 9 * first * n + 2 * n + 9 * n * n + 2 * n
            if unit == 0 and i > 0:
                total += n_in * n + 2 * n
    for i in (4, 3, 2, 1):
        n_in, n = WIDTHS[i], WIDTHS[i - 1]
        total += n_in * (n_in // 2) * 4 + n_in // 2
        total += 9 * (n_in // 2 + n) * n + n + 2 * n + 9 * n * n + n + 2 * n
    return total + WIDTHS[0] * n_out * 4 + n_out


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_weights_are_as_many_as_published() -> None:
    with torch.device("meta"):
        network = ResUNet34(3, 2)
    assert count(network) == by_hand(3, 3) == 24_399_907
    encoder = count(network.stem) + count(network.down)
    assert encoder == 21_797_672 - 513_000  # ResNet-34 without its classifier


@pytest.mark.parametrize(("n_types", "n_groups"), [(2, 1), (2, 3), (4, 1), (0, 1)])
def test_maps_have_the_size_of_the_image(n_types: int, n_groups: int) -> None:
    with torch.device("meta"):
        network = build_network("resunet", 2, n_types, n_groups, 0).eval()
        maps = network(torch.zeros(2, 2, 112, 80))
    assert maps["np"].shape == (2, 2, 112, 80)
    assert maps["hv"].shape == (2, 3, 112, 80)
    assert maps["nc"].shape == (2, n_groups * (1 + n_types) if n_types else 0, 112, 80)


def test_levels_have_the_published_size_and_width() -> None:
    sizes = []
    network = ResUNet34(3, 2).eval()
    for part in (network.stem, *network.down, *network.up):
        part.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    down = [(64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    assert sizes == [*down, *down[3::-1]]


@pytest.fixture(scope="module")
def small() -> ResUNet34:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResUNet34(2, 2).eval()


def test_nucleus_is_the_sum_of_the_types(small: ResUNet34) -> None:
    with torch.no_grad():
        maps = small(torch.rand(1, 2, 32, 32))
    share = maps["nc"].softmax(1)
    torch.testing.assert_close(maps["np"].softmax(1)[:, 1], share[:, 1:].sum(1))
    assert small.sums_types
    assert not build_network("resunet", 2, 0, 1, 0).sums_types


def test_sides_that_are_no_multiple_of_32_are_filled_up_at_the_end(small: ResUNet34) -> None:
    image = torch.rand(1, 2, 48, 40)
    filled = torch.nn.functional.pad(image, (0, 24, 0, 16), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(small(image)["nc"], small(filled)["nc"][..., :48, :40])


def test_nothing_beyond_the_reach_matters() -> None:
    # The widest way: down through every 3 x 3 at its stride, and up again.
    radius, jump = 3, 2  # the stem
    radius, jump = radius + jump, 2 * jump  # the pooling
    for i, n_units in enumerate(UNITS):
        for unit in range(n_units):
            stride = 2 if unit == 0 and i > 0 else 1
            radius, jump = radius + jump, jump * stride
            radius += jump
    for level in (16, 8, 4, 2):
        radius += 2 * level
    assert radius + 32 <= ResUNet34.reach
    assert ResUNet34.reach % 32 == 0


def test_it_has_no_neighbouring_slices() -> None:
    with pytest.raises(CallError, match="one slice at a time"):
        build_network("resunet", 2, 2, 1, 1)
