"""HoVer-Net with the contrastive head of LECL: the published network, as reference and peer.

About 5.5 million multiplications per pixel of output: use it to reproduce the paper or where a
GPU is at hand; the light network is the default.

References
----------
.. [1] Graham et al. 2019, HoVer-Net: simultaneous segmentation and classification of nuclei in
   multi-tissue histology images, Medical Image Analysis 58, figure 3.
.. [2] Moradinasab et al. 2023, Label-efficient contrastive learning-based model for nuclei
   detection and classification in 3D cardiovascular immunofluorescent images, figure 2.
.. [3] He et al. 2016, Identity mappings in deep residual networks, ECCV.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn.nets.base import Network

Mode = Literal["fast", "original"]


@dataclass(frozen=True)
class _Geometry:
    """What distinguishes the two modes.

    ``kernel`` of the decoder's convolutions; ``stem_pad`` keeps the size through the stem;
    an image of side n gives maps of side ``n - margin`` and ``n - stem_loss`` is a multiple of 8.
    """

    kernel: int
    stem_pad: int
    stem_loss: int
    margin: int
    smallest: int


_GEOMETRY = MappingProxyType(
    {
        "fast": _Geometry(kernel=3, stem_pad=3, stem_loss=0, margin=92, smallest=96),
        "original": _Geometry(kernel=5, stem_pad=0, stem_loss=6, margin=190, smallest=198),
    }
)


class _ResidualUnit(nn.Module):
    """1x1, 3x3, 1x1; normalised before every convolution, except before a stage's very first."""

    def __init__(self, n_in: int, width: int, n_out: int, *, stride: int, first: bool) -> None:
        super().__init__()
        self.stride = stride
        self.before = nn.Identity() if first else _norm(n_in)
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.norm1 = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, bias=False)
        self.norm2 = _norm(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm1(self.conv1(self.before(x)))
        out: Tensor = self.conv3(self.norm2(self.conv2(_same_pad(inner, 3, self.stride))))
        return out


class _Stage(nn.Module):
    """Residual units of one resolution, normalised at the end."""

    def __init__(self, n_in: int, width: int, n_units: int, *, stride: int) -> None:
        super().__init__()
        n_out = 4 * width
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
        self.units = nn.ModuleList(
            _ResidualUnit(
                n_out if index else n_in,
                width,
                n_out,
                stride=1 if index else stride,
                first=index == 0,
            )
            for index in range(n_units)
        )
        self.after = _norm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        total = self.shortcut(x)
        for index, unit in enumerate(self.units):
            total = total + unit(total if index else x)
        out: Tensor = self.after(total)
        return out


class _Encoder(nn.Module):
    """Pre-activation ResNet-50 [3]_ without max-pooling; features at 1, 1/2, 1/4 and 1/8."""

    def __init__(self, n_channels: int, stem_pad: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(n_channels, 64, 7, padding=stem_pad, bias=False)
        self.norm = _norm(64)
        self.d0 = _Stage(64, 64, 3, stride=1)
        self.d1 = _Stage(256, 128, 4, stride=2)
        self.d2 = _Stage(512, 256, 6, stride=2)
        self.d3 = _Stage(1024, 512, 3, stride=2)
        self.bottleneck = nn.Conv2d(2048, 1024, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        d0 = self.d0(self.norm(self.stem(x)))
        d1 = self.d1(d0)
        d2 = self.d2(d1)
        return d0, d1, d2, self.bottleneck(self.d3(d2))

    def frozen_parts(self) -> list[nn.Module]:
        """What phase 1 leaves alone: the stages below full resolution and all residual units."""
        return [self.d0.units, self.d1, self.d2, self.d3]


class _DenseUnit(nn.Module):
    """1x1 to 128, then k x k to 32 in four groups, without padding."""

    def __init__(self, n_in: int, kernel: int) -> None:
        super().__init__()
        self.norm1 = _norm(n_in)
        self.conv1 = nn.Conv2d(n_in, 128, 1, bias=False)
        self.norm2 = _norm(128)
        self.conv2 = nn.Conv2d(128, 32, kernel, groups=4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return torch.cat([_crop(x, new), new], 1)


def _dense(n_in: int, n_units: int, kernel: int) -> nn.Sequential:
    units = [_DenseUnit(n_in + 32 * index, kernel) for index in range(n_units)]
    return nn.Sequential(*units, _norm(n_in + 32 * n_units))


class _Decoder(nn.Module):
    """From 1/8 back to full resolution; ``features`` are the 64 maps the outputs are read from."""

    def __init__(self, n_out: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.u3 = nn.Sequential(
            nn.Conv2d(1024, 256, kernel, bias=False),
            _dense(256, 8, kernel),
            nn.Conv2d(512, 512, 1, bias=False),
        )
        self.u2 = nn.Sequential(
            nn.Conv2d(512, 128, kernel, bias=False),
            _dense(128, 4, kernel),
            nn.Conv2d(256, 256, 1, bias=False),
        )
        self.u1 = nn.Conv2d(256, 64, kernel, padding=kernel // 2, bias=False)
        self.u0 = nn.Sequential(_norm(64), nn.Conv2d(64, n_out, 1))

    def features(self, d0: Tensor, d1: Tensor, d2: Tensor, d3: Tensor) -> Tensor:
        """``u1``: ``(B, 64, n - margin, n - margin)``."""
        u3 = self.u3(_join(d3, d2))
        u2 = self.u2(_join(u3, d1))
        out: Tensor = self.u1(_join(u2, d0))
        return out


class HoverNet(nn.Module):
    """Foreground (NP), offsets (HV) and types (NC), one decoder each, and an embedding of NC.

    Parameters
    ----------
    n_channels
        Image channels.
    n_types
        Outputs of NC, background included.
    mode
        ``"fast"``: 3 x 3 decoder, 256 px in and 164 px out. ``"original"``: 5 x 5, 270 in, 80 out.
    head_dim
        Size of the embedding of the contrastive head, which inference does not compute.

    Raises
    ------
    CallError
        An unknown mode, or no channel or type.

    Notes
    -----
    Any side n works that is a multiple of 8 (fast, from 96) or 6 more than one (original, from
    198); the output is 92 or 190 px smaller because the decoder does not pad. Cost at 256 px,
    fast, 3 types: 149 billion multiplications. Initial weights (Kaiming) come from torch's default
    generator as for any torch module; fork and seed it around the construction.

    Examples
    --------
    >>> with torch.device("meta"):
    ...     maps = HoverNet(2, 3)(torch.zeros(1, 2, 256, 256), embed=True)
    >>> {name: tuple(m.shape[1:]) for name, m in maps.items()}
    {'np': (2, 164, 164), 'hv': (2, 164, 164), 'nc': (3, 164, 164), 'embedding': (256, 164, 164)}
    """

    def __init__(
        self, n_channels: int = 3, n_types: int = 3, mode: Mode = "fast", head_dim: int = 256
    ) -> None:
        super().__init__()
        if mode not in _GEOMETRY:
            raise CallError(f"HoverNet: found mode {mode!r}, expected 'fast' or 'original'.")
        if min(n_channels, n_types, head_dim) < 1:
            raise CallError(
                f"HoverNet: found {n_channels} channels, {n_types} types and head_dim {head_dim}, "
                "expected at least 1 of each; give positive numbers."
            )
        self.mode: Mode = mode
        self.n_channels = n_channels
        kernel = _GEOMETRY[mode].kernel
        self.encoder = _Encoder(n_channels, _GEOMETRY[mode].stem_pad)
        self.decoders = nn.ModuleDict(
            {"np": _Decoder(2, kernel), "hv": _Decoder(2, kernel), "nc": _Decoder(n_types, kernel)}
        )
        self.head = nn.Sequential(
            nn.Conv2d(64, 256, 1),
            nn.BatchNorm2d(256),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, head_dim, 1),
        )
        self.encoder_is_frozen = False
        self.apply(_initialise)

    @property
    def margin(self) -> int:
        """How many pixels the maps are smaller than the image, on both sides together."""
        return _GEOMETRY[self.mode].margin

    def forward(self, x: Tensor, embed: bool = False) -> dict[str, Tensor]:
        """Maps of the middle of a patch.

        Parameters
        ----------
        x
            ``(B, n_channels, n, m)`` float in [0, 1].
        embed
            Also return the embedding.

        Returns
        -------
        dict of Tensor
            Float32, ``(B, ., n - margin, m - margin)``: ``np`` 2 logits, ``hv`` horizontal and
            vertical offset, ``nc`` n_types logits and, where asked for, ``embedding`` with
            head_dim values of unit length.

        Raises
        ------
        InputError
            The channels or the sides do not fit.
        """
        self._check(x)
        levels = self.encoder(x)
        out: dict[str, Tensor] = {}
        for name, decoder in self.decoders.items():
            features = decoder.features(*levels)  # type: ignore[operator]
            out[name] = decoder.u0(features).float()  # type: ignore[operator]
        if embed:
            out["embedding"] = F.normalize(self.head(features).float(), dim=1)
        return out

    def freeze_encoder(self, frozen: bool = True) -> HoverNet:
        """Keep the residual units and the stages d1 to d3 as they are (phase 1), or free them.

        Their weights get no gradient and their batch statistics no update; the stem, the first
        shortcut and the bottleneck stay trainable, as published.
        """
        self.encoder_is_frozen = frozen
        for part in self.encoder.frozen_parts():
            part.requires_grad_(not frozen)
        return self.train(self.training)

    def train(self, mode: bool = True) -> HoverNet:
        """As for any module, but a frozen encoder keeps its batch statistics."""
        super().train(mode)
        if self.encoder_is_frozen:
            for part in self.encoder.frozen_parts():
                part.eval()
        return self

    def _check(self, x: Tensor) -> None:
        rule = _GEOMETRY[self.mode]
        sides = tuple(x.shape[2:])
        fit = x.ndim == 4 and x.shape[1] == self.n_channels
        if not fit or any(n < rule.smallest or (n - rule.stem_loss) % 8 for n in sides):
            usual = "256" if self.mode == "fast" else "270"
            raise InputError(
                f"HoverNet ({self.mode}): found an input {tuple(x.shape)}, expected (B, "
                f"{self.n_channels}, n, m) with sides {rule.stem_loss} more than a multiple of 8 "
                f"and at least {rule.smallest}; cut patches of {usual} px."
            )


def _norm(width: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _same_pad(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad so that the output has ``ceil(n / stride)``; an odd pixel goes to the far side."""
    down, across = (max(kernel - (n % stride or stride), 0) for n in x.shape[2:])
    return F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))


def _crop(x: Tensor, like: Tensor) -> Tensor:
    """The middle of ``x`` in the size of ``like``."""
    height, width = like.shape[2:]
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]


def _join(low: Tensor, skip: Tensor) -> Tensor:
    doubled = F.interpolate(low, scale_factor=2.0, mode="nearest")
    return doubled + _crop(skip, doubled)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class PaddedHoverNet(Network):
    """HoVer-Net, fast mode, for whole slices: maps have the size of the image.

    In training a patch of 256 gives maps of its inner 164, as published. In use the image is
    mirrored at its borders instead, so that nuclei there are found too.
    """

    stride = 1
    margin = 46
    context = 0
    head_dim = 256
    reach = 192

    def __init__(self, n_channels: int, n_classes: int) -> None:
        super().__init__()
        self.inner = HoverNet(n_channels, n_classes, "fast", self.head_dim)

    def freeze_encoder(self, frozen: bool = True) -> PaddedHoverNet:
        """As ``HoverNet.freeze_encoder``."""
        self.inner.freeze_encoder(frozen)
        return self

    def forward(self, x: Tensor, embed: bool = False) -> dict[str, Tensor]:
        """Maps of a batch; ``x`` is ``(B, C, Y, X)`` with sides that are multiples of 8."""
        if self.training:
            maps = self.inner(x, embed)
        else:
            height, width = x.shape[2:]
            # The network loses 92 pixels and wants multiples of 8: 96 are added, 4 cut again.
            maps = self.inner(F.pad(x, (46, 50, 46, 50), mode="replicate"), embed)
            maps = {name: value[..., :height, :width] for name, value in maps.items()}
        out = {name: value.float() for name, value in maps.items()}
        out["hv"] = torch.cat([out["hv"], torch.zeros_like(out["hv"][:, :1])], 1)
        return out
