"""The light network: shapes, reach, and the same answer fused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nucleoscope.data.volume import Volume
from nucleoscope.learn import infer
from nucleoscope.learn.infer import fused
from nucleoscope.learn.nets import LightNet, build_network, with_neighbours
from nucleoscope.learn.normalise import levels, normalise


def made(*args: int, seed: int = 0) -> LightNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network("light", *args)
    assert isinstance(network, LightNet)
    return network


def settled(network: LightNet) -> LightNet:
    """With running statistics that are not the defaults."""
    g = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.2 * torch.randn(module.num_features, generator=g)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=g)
    return network.eval()


@pytest.mark.parametrize("context", [0, 1, 2])
@pytest.mark.parametrize(("n_types", "n_groups"), [(0, 1), (2, 1), (2, 3), (5, 1)])
def test_maps_have_the_declared_shapes(context: int, n_types: int, n_groups: int) -> None:
    network = made(2, n_types, n_groups, context).eval()
    image = torch.zeros(3, 2 * (2 * context + 1), 32, 48)
    with torch.no_grad():
        maps = network(image, embed=True)
    embedding = maps.pop("embedding")
    n_nc = n_groups * (1 + n_types) if n_types else 0
    assert {k: tuple(v.shape) for k, v in maps.items()} == {
        "np": (3, 2, 16, 24),
        "hv": (3, 3, 16, 24),
        "centre": (3, 1, 16, 24),
        "nc": (3, n_nc, 16, 24),
    }
    assert all(v.dtype == torch.float32 for v in (*maps.values(), embedding))
    assert embedding.shape == (3, network.head_dim, 8, 12)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(3, 8, 12), atol=1e-4)


def test_the_embedding_is_made_only_when_asked_for() -> None:
    network = made(1, 2, 1, 0).eval()
    with torch.no_grad():
        assert "embedding" not in network(torch.zeros(1, 1, 16, 16))


def test_the_smallest_image_goes_through() -> None:
    network = made(1, 2, 1, 0).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, 16, 16))["np"].shape == (1, 2, 8, 8)


def open_wide(network: LightNet) -> LightNet:
    """Every weight and bias positive: no ReLU hides what a map depends on."""
    with torch.no_grad():
        for value in network.parameters():
            value.abs_().clamp_(min=1e-3)
    return network.double().eval()


def test_no_map_sees_farther_beyond_its_cell_than_the_reach() -> None:
    network = open_wide(made(1, 2, 1, 0))
    side = 2 * network.reach + 48
    cell = side // 2 - side // 2 % 16
    low, high = [], []
    for row in range(cell // 2, cell // 2 + 8):
        image = torch.rand(1, 1, side, 32, generator=torch.Generator().manual_seed(0)).double()
        image.requires_grad_()
        sum(m[0, :, row].sum() for m in network(image).values()).backward()
        assert image.grad is not None
        y = np.flatnonzero(image.grad[0, 0].sum(1).numpy())
        assert 0 < y[0] < y[-1] < side - 1  # the image's own end is not what bounds it
        low.append(cell - y[0])
        high.append(y[-1] + 1 - (cell + 16))
    assert network.reach - 16 < max(*low, *high) <= network.reach


def test_shifting_by_sixteen_shifts_the_maps() -> None:
    network = settled(made(1, 2, 1, 0))
    image = torch.rand(1, 1, 400, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = network(image)["centre"], network(image[:, :, 16:])["centre"]
    inner = slice(network.reach // 2, -network.reach // 2 or None)
    assert torch.allclose(one[:, :, 8:][:, :, inner], other[:, :, inner], atol=1e-4)


@pytest.mark.parametrize("context", [0, 2])
def test_the_fused_copy_equals_the_network(context: int) -> None:
    network = settled(made(2, 2, 1, context))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    copy = fused(network)
    image = torch.rand(2, 2 * (2 * context + 1), 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, quick = network(image, embed=True), copy(image, embed=True)
    for name in plain:
        scale = max(1.0, float(plain[name].abs().max()))
        assert float((plain[name] - quick[name]).abs().max()) <= 1e-4 * scale, name
    assert not any(isinstance(m, nn.BatchNorm2d) for m in copy.modules())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_fusing_a_network_in_training_leaves_it_in_training() -> None:
    network = made(1, 0, 1, 0).train()
    copy = fused(network)
    assert network.training
    assert not copy.training
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(copy(image)["np"], copy(image)["np"])


@pytest.mark.parametrize("context", [0, 1, 2])
@pytest.mark.parametrize("n_slices", [1, 2, 5])
def test_neighbours_are_channel_by_channel_and_ends_repeat(context: int, n_slices: int) -> None:
    volume = torch.arange(2 * n_slices).float().reshape(2, n_slices, 1, 1).expand(-1, -1, 3, 4)
    rows = with_neighbours(volume, context)
    assert rows.shape == (n_slices, 2 * (2 * context + 1), 3, 4)
    for z in range(n_slices):
        expected = [
            c * n_slices + min(max(z + k, 0), n_slices - 1)
            for c in range(2)
            for k in range(-context, context + 1)
        ]
        assert rows[z, :, 0, 0].tolist() == expected


@pytest.mark.parametrize("context", [0, 1, 2])
def test_inference_builds_the_same_rows_as_training(
    monkeypatch: pytest.MonkeyPatch, context: int
) -> None:
    data = np.random.default_rng(0).integers(0, 255, (2, 4, 32, 48)).astype(np.uint8)
    volume = Volume(data, ("LT", "DAPI"))
    seen: list[torch.Tensor] = []
    run = infer.run_network

    def spy(network: LightNet, image: torch.Tensor) -> dict[str, np.ndarray]:
        seen.append(image.clone())
        return run(network, image)

    monkeypatch.setattr(infer, "run_network", spy)
    infer.predict(made(2, 2, 1, context).eval(), volume, radius=5.0)
    scaled = torch.from_numpy(normalise(data, levels(volume)))
    assert torch.equal(torch.cat(seen), with_neighbours(scaled, context))


def test_the_same_seed_builds_the_same_network() -> None:
    one, other = made(2, 2, 1, 1, seed=5), made(2, 2, 1, 1, seed=5)
    third = made(2, 2, 1, 1, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(third.parameters()))
