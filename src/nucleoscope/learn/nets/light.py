"""The light network: our default, made for two CPU cores.

One slice with its neighbours goes in (2.5D) and all heads share one decoder. On CPUs a dense 3x3
convolution at a quarter of the resolution or less runs near the arithmetic limit; depthwise and
grouped ones, and moving many channels at half resolution, cost far more than their arithmetic.
So most of the work is done at a quarter and below, ways join by sums, and half resolution, in
which the maps come out, is reached by a pixel shuffle and sees two convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nucleoscope.learn.nets.base import Network


def _linear(n_in: int, n_out: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    padding = (size - 1) // 2
    convolution = nn.Conv2d(n_in, n_out, size, stride=stride, padding=padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out))


def _conv(n_in: int, n_out: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return _linear(n_in, n_out, size, stride).append(nn.ReLU(inplace=True))


class _Block(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = _linear(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x)).add_(x).relu_()
        return out


class LightNet(Network):
    """Foreground (NP), offsets (HV), types (NC) and nucleus centres from a slice and neighbours.

    Parameters
    ----------
    n_channels
        Image channels per slice.
    n_types
        Types that exclude each other, background not counted; 0 for detection only.
    n_groups
        Independent decisions of ``n_types`` types each: one per marker.
    context
        Neighbouring slices on either side; 0 for 2D images.
    widths
        Channels at 1/2, 1/4, 1/8 and 1/16 of the resolution.
    head_dim
        Size of the embedding of the contrastive head.

    Notes
    -----
    Input ``(B, n_channels * (2 * context + 1), Y, X)`` float, Y and X multiples of 16. Output: a
    dict of maps at half resolution, ``np`` (B, 2, ...), ``hv`` (B, 3, ...; x, y and z offsets to
    the centre, in radii and slices), ``nc`` (B, n_groups * (1 + n_types), ...; per group the
    background first), ``centre`` (B, 1, ...), all logits or plain values in float32; with
    ``embed=True`` also ``embedding`` (B, head_dim, ...) at a quarter, unit norm.
    """

    stride = 2
    margin = 0
    #: How far a map's value can depend on the image, in pixels of the input beyond the 16 x 16
    #: cell it lies in; windows are cut along these cells.
    reach = 128

    def __init__(
        self,
        n_channels: int,
        n_types: int,
        *,
        n_groups: int = 1,
        context: int = 2,
        widths: Sequence[int] = (32, 64, 96, 128),
        head_dim: int = 32,
    ) -> None:
        super().__init__()
        self.context = context
        self.head_dim = head_dim
        w0, w1, w2, w3 = widths
        self.stem = _conv(n_channels * (2 * context + 1), w0, 4, 2)
        self.down1 = nn.Sequential(_conv(w0, w1, stride=2), _Block(w1))
        self.down2 = nn.Sequential(_conv(w1, w2, stride=2), _Block(w2), _Block(w2))
        self.down3 = nn.Sequential(_conv(w2, w3, stride=2), _Block(w3))
        # Thinned before they are enlarged, which is four times cheaper than after.
        self.thin3, self.thin2, self.thin1 = _linear(w3, w2), _linear(w2, w1), _linear(w1, 4 * w0)
        self.up2, self.up1, self.up0 = _Block(w2), _Block(w1), _conv(w0, w0)
        n_maps = 6 + (n_groups * (1 + n_types) if n_types else 0)
        self.heads = nn.Sequential(_conv(w0, w0), nn.Conv2d(w0, n_maps, 1))
        self.embed = nn.Sequential(
            nn.Conv2d(w0, 2 * w0, 1), nn.BatchNorm2d(2 * w0), nn.ReLU(inplace=True),
            nn.Conv2d(2 * w0, head_dim, 1),
        )  # fmt: skip

    def features(self, x: Tensor) -> Tensor:
        """The shared decoder's last features, ``(B, widths[0], Y / 2, X / 2)``."""
        x0 = self.stem(x)
        x1 = self.down1(x0)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        x2 = self.up2(_double(self.thin3(x3)).add_(x2).relu_())
        x1 = self.up1(_double(self.thin2(x2)).add_(x1).relu_())
        out: Tensor = self.up0(functional.pixel_shuffle(self.thin1(x1), 2).add_(x0).relu_())
        return out

    def forward(self, x: Tensor, embed: bool = False) -> dict[str, Tensor]:
        """Maps of a batch of slices, see the class."""
        features = self.features(x)
        maps = self.heads(features).float()
        out = {
            "np": maps[:, 0:2],
            "hv": maps[:, 2:5],
            "centre": maps[:, 5:6],
            "nc": maps[:, 6:],
        }
        if embed:
            # Every other pixel is plenty for contrast, at a quarter of the cost.
            coarse = features[..., 1::2, 1::2]
            out["embedding"] = functional.normalize(self.embed(coarse).float(), dim=1)
        return out


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def with_neighbours(volume: Tensor, context: int) -> Tensor:
    """Stack every slice with its neighbours: ``(C, Z, Y, X)`` to ``(Z, C (2 context + 1), Y, X)``.

    Beyond the first and last slice the end slice is repeated.

    >>> with_neighbours(torch.zeros(2, 5, 8, 8), 2).shape
    torch.Size([5, 10, 8, 8])
    """
    n = volume.shape[1]
    indices = torch.arange(n)[:, None] + torch.arange(-context, context + 1)[None]
    picked = volume[:, indices.clamp(0, n - 1)]  # (C, Z, 2k+1, Y, X)
    c, z, k, y, x = picked.shape
    return picked.permute(1, 0, 2, 3, 4).reshape(z, c * k, y, x)
