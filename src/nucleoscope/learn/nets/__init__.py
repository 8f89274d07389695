"""Networks by name; a new one is a builder here with ``stride``, ``margin`` and ``context``."""

from __future__ import annotations

from collections.abc import Callable

from nucleoscope.errors import CallError
from nucleoscope.learn.nets.base import Network, channels_last
from nucleoscope.learn.nets.hovernet import PaddedHoverNet
from nucleoscope.learn.nets.light import LightNet, with_neighbours
from nucleoscope.learn.nets.resunet import ResUNet34

__all__ = [
    "NETWORKS",
    "LightNet",
    "Network",
    "PaddedHoverNet",
    "ResUNet34",
    "build_network",
    "channels_last",
    "with_neighbours",
]


def _light(n_channels: int, n_types: int, n_groups: int, context: int) -> Network:
    return LightNet(n_channels, n_types, n_groups=n_groups, context=context)


def _hovernet(n_channels: int, n_types: int, n_groups: int, context: int) -> Network:
    if context:
        raise CallError("hovernet sees one slice at a time; it has no context.")
    return PaddedHoverNet(n_channels, max(1, n_groups * (1 + n_types)))


def _resunet(n_channels: int, n_types: int, n_groups: int, context: int) -> Network:
    if context:
        raise CallError("resunet sees one slice at a time; it has no context.")
    return ResUNet34(n_channels, n_types, n_groups=n_groups)


#: Name -> builder of (image channels, types, groups, context).
NETWORKS: dict[str, Callable[[int, int, int, int], Network]] = {
    "light": _light,
    "hovernet": _hovernet,
    "resunet": _resunet,
}


def build_network(
    name: str, n_channels: int, n_types: int, n_groups: int = 1, context: int = 2
) -> Network:
    """A fresh network.

    Raises
    ------
    CallError
        No such network.
    """
    if name not in NETWORKS:
        raise CallError(f"no network {name!r}; there are {', '.join(NETWORKS)}.")
    return NETWORKS[name](n_channels, n_types, n_groups, context)
