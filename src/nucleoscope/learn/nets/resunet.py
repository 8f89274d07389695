"""The network of Qu et al. 2019: a U-Net whose way down is ResNet-34.

References
----------
.. [1] Qu et al. 2019, Weakly supervised deep nuclei segmentation using points annotation in
   histopathology images, MIDL, section 2.2.
.. [2] He et al. 2016, Deep residual learning for image recognition, CVPR, table 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nucleoscope.learn.nets.base import Network

#: Widths at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution, and units per stage of ResNet-34.
WIDTHS = (64, 64, 128, 256, 512)
UNITS = (3, 4, 6, 3)
#: Share of feature maps dropped after every convolution of the way up.
DROPOUT = 0.1


class _Unit(nn.Module):
    """Basic residual unit: two 3 x 3 convolutions, and a 1 x 1 where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def _stage(n_in: int, n_out: int, n_units: int, stride: int) -> nn.Sequential:
    first = _Unit(n_in, n_out, stride)
    return nn.Sequential(first, *(_Unit(n_out, n_out, 1) for _ in range(n_units - 1)))


def _convolved(n_in: int, n_out: int) -> nn.Sequential:
    """Convolution, ReLU, normalisation, dropout: in this order, as published."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(n_out),
        nn.Dropout2d(DROPOUT),
    )  # fmt: skip


class _Up(nn.Module):
    """Twice the size by a transposed convolution, joined with the way down, convolved twice."""

    def __init__(self, n_in: int, n_skip: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(n_in, n_in // 2, 2, stride=2)
        self.body = nn.Sequential(
            _convolved(n_in // 2 + n_skip, n_skip), _convolved(n_skip, n_skip)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.body(torch.cat([self.up(x), skip], 1))
        return out


class ResUNet34(Network):
    """Background and types of every pixel, from a slice.

    Parameters
    ----------
    n_channels
        Image channels.
    n_types
        Types, background not counted; 0 for detection only.
    n_groups
        Independent decisions: one per marker.

    Notes
    -----
    Input ``(B, n_channels, Y, X)``; sides are made multiples of 32 by repeating the last rows and
    columns. Output at full size in float32: ``nc`` (B, n_groups * (1 + n_types), ...) logits, none
    without types; ``np`` (B, 2, ...) background and the sum of all types of the first group, or the
    network's own two outputs without types; ``hv`` zeros. 24.4 million weights for three channels
    and three outputs, the unused classifier of ResNet-34 not counted. Weights start at random
    (published: from ImageNet).

    Examples
    --------
    >>> with torch.device("meta"):
    ...     maps = ResUNet34(3, 2).eval()(torch.zeros(1, 3, 224, 224))
    >>> {name: tuple(m.shape[1:]) for name, m in maps.items()}
    {'np': (2, 224, 224), 'hv': (3, 224, 224), 'nc': (3, 224, 224)}
    """

    stride = 1
    margin = 0
    context = 0
    head_dim = 64
    #: Half the receptive field of the deepest stage and of the way up, in whole 32s.
    reach = 544

    def __init__(self, n_channels: int, n_types: int, *, n_groups: int = 1) -> None:
        super().__init__()
        self.n_types, self.n_groups = n_types, n_groups
        self.sums_types = n_types > 0
        self.stem = nn.Sequential(
            nn.Conv2d(n_channels, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.down = nn.ModuleList(
            _stage(WIDTHS[i], WIDTHS[i + 1], UNITS[i], 1 if i == 0 else 2) for i in range(4)
        )
        self.up = nn.ModuleList(_Up(WIDTHS[i + 1], WIDTHS[i]) for i in (3, 2, 1, 0))
        n_out = n_groups * (1 + n_types) if n_types else 2
        self.last = nn.ConvTranspose2d(WIDTHS[0], n_out, 2, stride=2)

    def forward(self, x: Tensor, embed: bool = False) -> dict[str, Tensor]:
        """Maps of a batch of slices, see the class; there is no embedding."""
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % 32, 0, -height % 32), mode="replicate")
        levels = [self.stem(x)]
        deep = self.pool(levels[0])
        for stage in self.down:
            deep = stage(deep)
            levels.append(deep)
        for up, skip in zip(self.up, levels[3::-1], strict=True):
            deep = up(deep, skip)
        logits = self.last(deep).float()[..., :height, :width]
        found = logits
        if self.n_types:
            first = logits[:, : 1 + self.n_types]
            found = torch.cat([first[:, :1], first[:, 1:].logsumexp(1, keepdim=True)], 1)
        types = logits if self.n_types else logits[:, :0]
        return {"np": found, "hv": logits.new_zeros(len(x), 3, height, width), "nc": types}
