"""HoVer-Net: shapes, parameters and cost derived by hand, gradients, freezing."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn.nets.hovernet import HoverNet, PaddedHoverNet


@pytest.fixture(scope="module")
def net() -> HoverNet:
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HoverNet(2, 3)


@functools.cache
def on_paper(**arguments) -> HoverNet:
    """The network without memory or arithmetic: shapes and counts only."""
    with torch.device("meta"):
        return HoverNet(**arguments)


def image(size: int, channels: int = 2, batch: int = 1) -> torch.Tensor:
    return torch.rand((batch, channels, size, size), generator=torch.Generator().manual_seed(1))


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "size", "out"), [("fast", 256, 164), ("original", 270, 80)])
def test_a_published_patch_gives_the_published_map(mode, size, out):
    net = on_paper(n_channels=3, n_types=5, mode=mode)
    maps = net(torch.zeros((2, 3, size, size), device="meta"), embed=True)
    found = {name: tuple(m.shape) for name, m in maps.items()}
    assert found == {
        "np": (2, 2, out, out),
        "hv": (2, 2, out, out),
        "nc": (2, 5, out, out),
        "embedding": (2, 256, out, out),
    }
    assert size - net.margin == out


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("fast", 256, {"d0": 256, "d1": 128, "d2": 64, "d3": 32, "u3": 46, "u2": 82, "u1": 164}),
        ("original", 270, {"d0": 264, "d1": 132, "d2": 66, "d3": 33, "u3": 30, "u2": 40, "u1": 80}),
    ],
)
def test_every_level_has_the_published_size_and_width(mode, size, expected):
    net, found = on_paper(mode=mode), {}

    def note(name):
        return lambda _module, _inputs, output: found.update({name: tuple(output.shape[1:3])})

    for name in ("d0", "d1", "d2", "d3", "bottleneck"):
        getattr(net.encoder, name).register_forward_hook(note(name))
    for name in ("u3", "u2", "u1"):
        getattr(net.decoders["hv"], name).register_forward_hook(note(name))
    net(torch.zeros((1, 3, size, size), device="meta"))
    width = {"d0": 256, "d1": 512, "d2": 1024, "d3": 2048, "u3": 512, "u2": 256, "u1": 64}
    assert found.pop("bottleneck") == (1024, expected["d3"])
    assert found == {name: (width[name], side) for name, side in expected.items()}


@pytest.mark.parametrize(
    ("mode", "sides"), [("fast", (96, 104, 512)), ("original", (198, 206, 542))]
)
def test_other_sizes_lose_the_same_margin(mode, sides):
    net = on_paper(mode=mode)
    for side in sides:
        maps = net(torch.zeros((1, 3, side, sides[0]), device="meta"))
        expected = (1, 3, side - net.margin, sides[0] - net.margin)
        assert tuple(maps["nc"].shape) == expected


def test_the_embedding_is_only_made_when_asked_for():
    maps = on_paper()(torch.zeros((1, 3, 96, 96), device="meta"))
    assert set(maps) == {"np", "hv", "nc"}


# --- parameters and cost, by hand ---------------------------------------------------------------


def stage(n_in: int, width: int, n_units: int) -> int:
    n_out, total = 4 * width, n_in * 4 * width + 2 * 4 * width  # shortcut, last norm
    for index in range(n_units):
        before = 2 * n_out if index else 0
        a = (n_out if index else n_in) * width + 2 * width
        total += before + a + 9 * width * width + 2 * width + width * n_out
    return total


def dense(n_in: int, n_units: int, kernel: int) -> int:
    total = 0
    for n in range(n_in, n_in + 32 * n_units, 32):
        total += 2 * n + n * 128 + 2 * 128 + kernel**2 * (128 // 4) * 32
    return total + 2 * (n_in + 32 * n_units)


def decoder(n_out: int, kernel: int) -> int:
    u3 = kernel**2 * 1024 * 256 + dense(256, 8, kernel) + 512 * 512
    u2 = kernel**2 * 512 * 128 + dense(128, 4, kernel) + 256 * 256
    return u3 + u2 + kernel**2 * 256 * 64 + 2 * 64 + 64 * n_out + n_out


def parameters(n_channels: int, n_types: int, kernel: int) -> int:
    encoder = 49 * n_channels * 64 + 2 * 64 + 2048 * 1024
    encoder += stage(64, 64, 3) + stage(256, 128, 4) + stage(512, 256, 6) + stage(1024, 512, 3)
    return encoder + 2 * decoder(2, kernel) + decoder(n_types, kernel)


@pytest.mark.parametrize(("mode", "kernel", "millions"), [("fast", 3, 37.6), ("original", 5, 54.7)])
def test_parameters_equal_the_count_by_hand_and_the_published_one(mode, kernel, millions):
    net = on_paper(n_types=5, mode=mode)
    total = sum(p.numel() for p in net.parameters())
    head = sum(p.numel() for p in net.head.parameters())
    assert total - head == parameters(3, 5, kernel)
    assert (total - head) / 1e6 == pytest.approx(millions, abs=0.05)
    assert head == 64 * 256 + 256 + 2 * 256 + 256 * 256 + 256


def test_a_fast_patch_costs_the_published_number_of_multiplications():
    net = on_paper(n_types=3)
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros((1, 3, 256, 256), device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(148.9, rel=0.01)


# --- arithmetic ---------------------------------------------------------------------------------


def test_embeddings_have_unit_length_and_maps_are_float32(net):
    with torch.no_grad():
        maps = net(image(96), embed=True)
    length = maps["embedding"].norm(dim=1)
    torch.testing.assert_close(length, torch.ones_like(length))
    assert {m.dtype for m in maps.values()} == {torch.float32}
    assert all(torch.isfinite(m).all() for m in maps.values())


def test_every_parameter_gets_a_gradient(net):
    net.train().zero_grad()
    maps = net(image(96, batch=2), embed=True)
    g = torch.Generator().manual_seed(2)
    weights = {k: torch.randn(m.shape, generator=g) for k, m in maps.items()}
    sum((maps[k] * weights[k]).sum() for k in maps).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        # A bias in front of a batch norm is the one thing it takes away again.
        if name != "head.0.bias":
            assert p.grad.abs().max() > 0, name
    net.zero_grad()


def test_a_shift_of_the_image_by_eight_pixels_shifts_the_maps(net):
    wide = image(136)
    net.eval()
    with torch.no_grad():
        a, b = net(wide[:, :, :128, :128])["hv"], net(wide[:, :, 8:, 8:])["hv"]
    # Inside, the padding of the encoder is out of sight of neither, so only nearly equal.
    inner = (a[:, :, 16:-8, 16:-8] - b[:, :, 8:-16, 8:-16]).abs().mean()
    other = (a[:, :, 16:-8, 16:-8] - b[:, :, 16:-8, 16:-8]).abs().mean()
    assert inner < 0.5 * other


def test_a_frozen_encoder_does_not_move_in_a_step_and_can_be_freed(net):
    frozen = ("encoder.d0.units", "encoder.d1", "encoder.d2", "encoder.d3")

    net.freeze_encoder().train()
    before = {k: v.clone() for k, v in net.state_dict().items() if "head" not in k}
    trainable = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trainable, lr=0.1)
    sum(m.square().mean() for m in net(image(96, batch=2)).values()).backward()
    optimiser.step()
    net.zero_grad()
    moved = {k: not torch.equal(net.state_dict()[k], v) for k, v in before.items()}
    assert not any(m for k, m in moved.items() if k.startswith(frozen))
    assert all(m for k, m in moved.items() if not k.startswith(frozen))
    net.freeze_encoder(False)
    assert all(p.requires_grad for p in net.parameters())
    assert all(m.training for m in net.modules())


def test_the_padded_network_freezes_what_it_holds():
    with torch.device("meta"):
        padded = PaddedHoverNet(2, 3)
    assert padded.freeze_encoder() is padded
    assert padded.train().inner.encoder_is_frozen
    assert not padded.inner.encoder.d1.training
    padded.freeze_encoder(False)
    assert all(p.requires_grad for p in padded.parameters())


def test_wrong_inputs_are_named():
    net = on_paper(n_channels=2)
    for shape in ((1, 3, 256, 256), (1, 2, 250, 256), (1, 2, 88, 88), (2, 256, 256)):
        with pytest.raises(InputError, match="patches of 256"):
            net(torch.zeros(shape, device="meta"))
    with pytest.raises(InputError, match="patches of 270"):
        on_paper(mode="original")(torch.zeros((1, 3, 256, 256), device="meta"))
    with pytest.raises(CallError, match="mode 'slow'"):
        on_paper(mode="slow")
    with pytest.raises(CallError, match="at least 1"):
        on_paper(n_types=0)
