"""What every network says of itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A module whose ``forward(image, embed=False)`` gives the maps of a slice by name.

    ``stride`` is image pixels per map pixel, ``margin`` pixels lost on every side, ``reach`` how
    far a map's value can depend on the image, ``context`` the neighbouring slices it sees,
    ``head_dim`` the size of the embedding.
    """

    stride: int
    margin: int
    reach: int
    context: int
    head_dim: int
    #: Whether ``np`` is no map of its own but the sum of the types in ``nc``.
    sums_types: bool = False

    def freeze_encoder(self, frozen: bool = True) -> Network:
        """Keep the encoder's weights as they are, or free them; here there is none to keep."""
        return self

    def forward(self, x: Tensor, embed: bool = False) -> dict[str, Tensor]:
        """Maps of a batch of slices."""
        raise NotImplementedError


def channels_last(module: Network) -> Network:
    """The module with the memory order in which CPUs convolve fastest."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module
