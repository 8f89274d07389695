"""Encoders: the contract each keeps, the published one's size, folding, and foreign modules."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from nucleoscope.errors import CallError, InputError, MissingExtraError
from nucleoscope.learn.nets.encoders import (
    ENCODERS,
    Encoder,
    ResNet,
    SmallEncoder,
    build_encoder,
    build_head,
    folded,
)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class Plain(nn.Module):
    """Somebody's own module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x).amax((2, 3))


class Branching(Plain):
    """One that cannot be traced."""

    def forward(self, x):
        return super().forward(x if x.mean() > 0 else -x)


@pytest.fixture(scope="module", params=[*sorted(ENCODERS), "module"])
def encoder(request) -> Encoder:
    torch.manual_seed(0)
    built = build_encoder(Plain() if request.param == "module" else request.param)
    with torch.no_grad():
        built.train()(crops(built, 8))
    return built.eval()


def crops(encoder: Encoder, n: int) -> torch.Tensor:
    """Random crops, with a disc for an outline where the encoder takes one."""
    images = torch.randn(n, 3, 32, 32)
    at = torch.arange(32.0) - 15.5
    disc = (torch.hypot(at[:, None], at[None]) < 7).float().expand(n, 1, 32, 32)
    return torch.cat([images, disc], 1)[:, : encoder.channels]


class TestEncoderContract:
    def test_it_gives_one_vector_of_its_width_per_crop(self, encoder) -> None:
        with torch.no_grad():
            out = encoder(crops(encoder, 3))
        assert out.shape == (3, encoder.width)
        assert out.dtype == torch.float32
        assert torch.isfinite(out).all()

    def test_a_crop_is_judged_alone(self, encoder) -> None:
        x = crops(encoder, 4)
        with torch.no_grad():
            assert torch.allclose(encoder(x)[2:3], encoder(x[2:3]), atol=1e-4)

    def test_it_can_learn(self, encoder) -> None:
        encoder.zero_grad()
        encoder(crops(encoder, 2)).square().sum().backward()
        assert all(p.grad is not None for p in encoder.parameters())
        encoder.zero_grad(set_to_none=True)

    def test_folding_changes_nothing_but_the_time(self, encoder) -> None:
        x = crops(encoder, 3)
        with torch.no_grad():
            before = encoder(x)
            fast = folded(encoder)
            assert torch.allclose(fast(x), before, atol=1e-4, rtol=1e-4)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())


def test_the_published_encoder_has_its_published_size() -> None:
    assert parameters(build_encoder("resnet34")) == 21_284_672
    assert parameters(build_head(512, 512, 128, has_norm=False)) == 512 * 513 + 128 * 513
    assert parameters(build_encoder("resnet18")) == 11_176_512


def test_residual_networks_are_named_as_torchvision_names_them() -> None:
    names = set(ResNet((2, 2, 2, 2)).state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight"} <= names
    assert "layer1.0.downsample.0.weight" not in names


def test_the_small_encoder_is_dense_and_narrow_as_cpus_like_it() -> None:
    convolutions = [m for m in SmallEncoder().modules() if isinstance(m, nn.Conv2d)]
    assert all(m.groups == 1 and m.out_channels % 16 == 0 for m in convolutions)
    assert parameters(SmallEncoder()) < 600_000


def test_a_nucleus_that_fills_the_crop_is_read_as_the_whole_crop() -> None:
    whole, outlined = build_encoder("layered").eval(), build_encoder("outlined").eval()
    outlined.body.load_state_dict(whole.body.state_dict())
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = whole(images)
        found = outlined(torch.cat([images, torch.ones(3, 1, 32, 32)], 1))
    assert torch.allclose(found[:, : whole.width], expected, rtol=0.01, atol=1e-3)
    assert (found[:, whole.width :] == 0).all()


def test_without_a_nucleus_there_is_nothing_to_read() -> None:
    outlined = build_encoder("outlined").eval()
    with torch.no_grad():
        found = outlined(torch.cat([torch.randn(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)], 1))
    assert (found == 0).all()


def test_the_outline_enters_no_convolution() -> None:
    assert {m.in_channels for m in build_encoder("outlined").modules() if isinstance(m, nn.Conv2d)
            } == {3, 16, 32, 64, 128}  # fmt: skip


@pytest.mark.parametrize("name", ["outlined", "layered"])
def test_after_balancing_columns_have_one_spread_and_parts_one_variance(name) -> None:
    torch.manual_seed(1)
    encoder = build_encoder(name).eval()
    seen = crops(encoder, 64)
    with torch.no_grad():
        before = encoder(seen)
        encoder.balance(before)
        after = encoder(seen)
        spread = after.std(0, correction=0)
        changing = before.std(0, correction=0) > 0.02 * before.std(0, correction=0).mean()
        width = torch.tensor([w**0.5 for w in encoder.parts for _ in range(w)])
        assert torch.allclose(
            (spread * width)[changing], torch.ones(int(changing.sum())), atol=0.02
        )
        # Once more changes nothing: it does not build upon itself.
        encoder.balance(after)
        assert torch.allclose(encoder(seen), after, rtol=1e-4, atol=1e-6)


def test_balancing_by_nuclei_that_are_all_alike_changes_nothing() -> None:
    encoder = build_encoder("layered").eval()
    encoder.balance(torch.ones(5, encoder.width))
    assert torch.equal(encoder.scale, torch.ones(encoder.width))
    encoder.balance(torch.ones(1, encoder.width) * 3)
    assert torch.equal(encoder.scale, torch.ones(encoder.width))


def test_folding_leaves_what_cannot_be_traced() -> None:
    module = Branching().train()
    assert folded(module) is module
    assert not module.training


def test_a_norm_after_a_shared_convolution_is_not_folded() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.norm.running_mean += 1

        def forward(self, x):
            y = self.conv(x)
            return (y + self.norm(y)).mean((2, 3))

    module, x = Shared().eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(folded(module)(x), module(x), atol=1e-6)


def test_unknown_encoders_are_listed() -> None:
    with pytest.raises(CallError, match="small, resnet18, resnet34, and timm:NAME"):
        build_encoder("vgg")


def test_a_missing_timm_is_one_sentence(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"timm:resnet10t needs an extra.*\[timm\]"):
        build_encoder("timm:resnet10t")


def test_timm_builds_without_weights_and_classifier(monkeypatch) -> None:
    class Fake:
        asked: tuple = ()

        @classmethod
        def create_model(cls, name, pretrained, num_classes):
            if name == "nothing":
                raise RuntimeError("Unknown model")
            cls.asked = (name, pretrained, num_classes)
            return Plain()

    monkeypatch.setitem(sys.modules, "timm", Fake)
    assert build_encoder("timm:tiny").width == 8
    assert Fake.asked == ("tiny", False, 0)
    with pytest.raises(CallError, match="timm has no network 'nothing'"):
        build_encoder("timm:nothing")


def test_a_module_that_is_no_encoder_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="does not take crops"):
        build_encoder(nn.Linear(5, 5))
    with pytest.raises(InputError, match="one vector each"):
        build_encoder(nn.Conv2d(3, 4, 1))


def test_trying_a_module_leaves_it_as_it_was() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()).train()
    assert build_encoder(module, size=8).width == 192
    assert module.training
    assert int(module[0].num_batches_tracked) == 0
