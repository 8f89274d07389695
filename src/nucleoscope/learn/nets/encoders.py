"""Encoders: a crop of one nucleus in, one vector out; by name, or any torch module.

``outlined`` is our default for CPUs: dense 3x3 convolutions with widths that are multiples of 16,
at 32 px, read at three depths over the nucleus and over the rim around it. ``layered`` reads the
same network over the whole crop, ``small`` only at its end. ``resnet34`` is the published encoder
(He et al. 2016 in torchvision's layout, random start).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nucleoscope.errors import CallError, InputError, MissingExtraError

#: Prefix of encoders that the package timm builds.
TIMM = "timm:"


class Encoder(nn.Module):
    """What every encoder says of itself: ``width`` is the length of its vector.

    An encoder whose vector has parts, one after the other, names their widths in ``parts`` and
    multiplies its columns by ``scale`` (a buffer, ones until ``balance`` sets it).

    ``forward`` takes ``(B, channels, Y, X)`` float and gives ``(B, width)``. Of four channels the
    last is the share of each pixel that is the nucleus, 0 to 1.
    """

    width: int
    channels: int = 3
    parts: tuple[int, ...] = ()
    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Vectors of a batch of crops."""
        raise NotImplementedError

    def _read_in_parts(self, parts: tuple[int, ...]) -> None:
        self.parts, self.width = parts, sum(parts)
        self.register_buffer("scale", torch.ones(self.width))

    @torch.no_grad()
    def balance(self, vectors: Tensor) -> Tensor:
        """Set ``scale`` so that no column and no part outweighs the others.

        A column is divided by its spread and by the root of its part's width, so that all parts
        have the same variance: the fine layers, which tell stain and texture, are narrow and
        would be outvoted by the wide deep ones.

        Parameters
        ----------
        vectors
            ``(N, width)`` of typical nuclei, made with the present ``scale``.

        Returns
        -------
        The same with the new scale; as they are where there are no parts.

        Examples
        --------
        >>> encoder = build_encoder("layered")
        >>> _ = encoder.balance(torch.tensor([[1.0], [3.0]]).expand(2, 224))
        >>> [round(1 / float(encoder.scale[i]) ** 2) for i in (0, 32, 96)]
        [32, 64, 128]
        """
        if not self.parts or len(vectors) < 2:
            return vectors
        vectors = vectors / self.scale
        spread = vectors.std(0, correction=0)
        # A column that never changes says nothing; dividing by nearly nothing would make it loud.
        floor = 0.01 * spread.mean()
        weight = torch.tensor([w**0.5 for w in self.parts for _ in range(w)])
        scale = 1.0 / (spread.clamp_min(floor) * weight) if floor > 0 else torch.ones_like(spread)
        self.scale.copy_(scale)
        return vectors * scale


def _conv(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """Two 3x3 convolutions added to what came in (He et al. 2016, figure 5 left)."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(kept + self.bn2(self.conv2(inner)))


class SmallEncoder(Encoder):
    """Our default: a plain stem, then three halvings with a convolution each and one residual.

    Parameters
    ----------
    widths
        Channels at full, half, quarter and eighth resolution.

    Notes
    -----
    The vector is the mean over the last map, so it has ``widths[-1]`` numbers.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.width = w3
        self.body = nn.Sequential(
            _conv(3, w0, 2), _conv(w0, w1), _conv(w1, w2, 2), _Residual(w2, w2),
            _conv(w2, w3, 2), _Residual(w3, w3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Vectors of a batch of crops."""
        return cast(Tensor, self.body(x)).mean((2, 3))


class LayeredEncoder(Encoder):
    """The body of ``small``, read at half, quarter and eighth resolution.

    Fine layers know stain and texture before any training, which a mean over the last map alone
    has lost.

    Parameters
    ----------
    widths
        As of ``SmallEncoder``; the vector has the last three of them one after the other.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self._read_in_parts(widths[1:])
        self.body = SmallEncoder(widths).body

    def forward(self, x: Tensor) -> Tensor:
        """Vectors of a batch of crops."""
        parts = []
        for number, layer in enumerate(self.body):
            x = layer(x)
            if number in _READ:
                parts.append(x.mean((2, 3)))
        return torch.cat(parts, 1) * self.scale


class OutlinedEncoder(Encoder):
    """The body of ``small``, read at three depths over the nucleus and over its rim.

    The outline never enters a convolution: it says where to take means, so that telling nuclei
    apart by their outline alone cannot be learnt. The rim reaches 2 um, as far as the handcrafted
    features take for cytoplasm; what lies beyond is left to the surroundings.

    Parameters
    ----------
    widths
        As of ``SmallEncoder``; the vector has the last three of them for the nucleus, then for
        the rim.

    Notes
    -----
    At 32 px for 16 um. A part without any pixel, such as the rim of a nucleus that fills the
    crop, is zero.
    """

    channels = 4

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self._read_in_parts(2 * widths[1:])
        self.body = SmallEncoder(widths).body

    def forward(self, x: Tensor) -> Tensor:
        """Vectors of a batch of crops with their outlines."""
        share, y = x[:, 3], x[:, :3]
        nucleus, rim = [], []
        for number, layer in enumerate(self.body):
            y = layer(y)
            if number in _READ:
                stride, reach = _READ[number]
                inside = functional.avg_pool2d(share, stride)
                grown = functional.max_pool2d(inside, 2 * reach + 1, stride=1, padding=reach)
                weights = torch.stack([inside, grown - inside], 3).flatten(1, 2)
                means = _means_over(y, weights)
                nucleus.append(means[:, :, 0])
                rim.append(means[:, :, 1])
        return torch.cat(nucleus + rim, 1) * self.scale


#: Layers of the body that are read: how many pixels of the crop one of theirs stands for, and how
#: many of theirs the rim is wide.
_READ = {1: (2, 2), 3: (4, 1), 5: (8, 1)}


def _means_over(maps: Tensor, weights: Tensor) -> Tensor:
    """Means of ``(B, C, Y, X)`` by each of ``(B, YX, K)`` weights, ``(B, C, K)``.

    Near zero where there is hardly any weight.
    """
    total = weights.sum(1, keepdim=True) + 0.05
    return torch.bmm(maps.flatten(2), weights) / total


class ResNet(Encoder):
    """ResNet of basic blocks, named and laid out as torchvision's, without the last layer.

    Parameters
    ----------
    blocks
        Basic blocks of each of the four stages: (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) is 34.

    Notes
    -----
    Weights start as torchvision's do: Kaiming normal over fan-out, batch norm at one and zero.
    """

    width = 512

    def __init__(self, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(64, 64, blocks[0], 1)
        self.layer2 = self._stage(64, 128, blocks[1], 2)
        self.layer3 = self._stage(128, 256, blocks[2], 2)
        self.layer4 = self._stage(256, 512, blocks[3], 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(n_in: int, n_out: int, n: int, stride: int) -> nn.Sequential:
        first = _Residual(n_in, n_out, stride)
        return nn.Sequential(first, *(_Residual(n_out, n_out) for _ in range(n - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Vectors of a batch of crops."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))


class _Wrapped(Encoder):
    """A caller's module with its measured width."""

    def __init__(self, module: nn.Module, width: int) -> None:
        super().__init__()
        self.module = module
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.module(x))


#: Name -> builder. A new encoder is a row here and has to pass the contract of the tests.
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "outlined": OutlinedEncoder,
    "layered": LayeredEncoder,
    "small": SmallEncoder,
    "resnet18": lambda: ResNet((2, 2, 2, 2)),
    "resnet34": lambda: ResNet((3, 4, 6, 3)),
}


def build_encoder(encoder: str | nn.Module, *, size: int = 32) -> Encoder:
    """A fresh encoder by name, or a caller's own module.

    Parameters
    ----------
    encoder
        A row of ``ENCODERS``, ``timm:NAME``, or a module from ``(B, 3, size, size)`` float to
        ``(B, D)``.
    size
        Side of the crops it will see; a module is tried on two of them.

    Raises
    ------
    CallError
        No such encoder.
    InputError
        The module does not give one finite vector per crop.
    MissingExtraError
        ``timm:`` without the package timm.

    Examples
    --------
    >>> build_encoder("small").width
    128
    """
    if isinstance(encoder, Encoder):
        return encoder
    if isinstance(encoder, nn.Module):
        return _Wrapped(encoder, _width_of(encoder, size, type(encoder).__name__))
    if encoder.startswith(TIMM):
        module = _from_timm(encoder.removeprefix(TIMM))
        return _Wrapped(module, _width_of(module, size, encoder))
    if encoder not in ENCODERS:
        raise CallError(f"no encoder {encoder!r}; there are {', '.join(ENCODERS)}, and timm:NAME.")
    return ENCODERS[encoder]()


def _from_timm(name: str) -> nn.Module:
    """A network of timm with a random start and no classifier."""
    try:
        import timm  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtraError(f"the encoder {TIMM}{name}", "timm") from error
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CallError(f"timm has no network {name!r} ({error}).") from None
    return module


def _width_of(module: nn.Module, size: int, name: str) -> int:
    """Length of a module's vector, tried in evaluation mode and left as it was.

    Raises
    ------
    InputError
        It does not take such crops, or gives something else than one finite vector each.
    """
    was_training = module.training
    try:
        with torch.no_grad():
            out = module.eval()(torch.zeros(2, 3, size, size))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        detail = " ".join(str(error).split())[:120]
        raise InputError(
            f"encoder {name}: it does not take crops (2, 3, {size}, {size}): {detail}."
        ) from None
    finally:
        module.train(was_training)
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"encoder {name}: two crops give (2, D), one vector each; found {found}.")
    return int(out.shape[1])


def build_head(n_in: int, hidden: int, n_out: int, *, has_norm: bool) -> nn.Sequential:
    """The contrastive head: linear, (batch norm,) ReLU, linear.

    >>> [tuple(p.shape) for p in build_head(512, 512, 128, has_norm=False).parameters()]
    [(512, 512), (512,), (128, 512), (128,)]
    """
    norm = [nn.BatchNorm1d(hidden)] if has_norm else []
    return nn.Sequential(
        nn.Linear(n_in, hidden, bias=not has_norm), *norm, nn.ReLU(inplace=True),
        nn.Linear(hidden, n_out),
    )  # fmt: skip


def folded(module: nn.Module) -> nn.Module:
    """The module in evaluation mode with every batch norm folded into the convolution before it.

    A module that cannot be traced comes back as it is, only in evaluation mode.

    Examples
    --------
    >>> fast = folded(build_encoder("small"))
    >>> any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    False
    """
    module = module.eval()
    try:
        traced = fx.symbolic_trace(module)
    except (fx.proxy.TraceError, TypeError, RuntimeError, NotImplementedError):
        return module
    parts = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm = parts.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        conv = parts.get(str(before.target)) if before.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or len(before.users) > 1:
            continue
        fused = fuse_conv_bn_eval(conv, norm)
        owner, _, name = str(before.target).rpartition(".")
        setattr(traced.get_submodule(owner), name, fused)
        parts[str(before.target)] = fused
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.eval()
