"""Recipes: everything that distinguishes one way of training from another, frozen under a name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from nucleoscope.errors import CallError


@dataclass(frozen=True)
class Recipe:
    """One way from points to a model.

    Parameters
    ----------
    name
        What the user calls it.
    network
        ``light`` or ``hovernet``; None trains no network (``classical``).
    projection
        What the network is taught on: None = the stack itself, ``mip`` or ``emip`` = one plane.
    supervision
        ``default`` or ``paper`` pseudo labels.
    objective
        ``nucleus``: centres, offsets and whole nuclei as bags of slices. ``pixel``: NP, HV and NC
        of HoVer-Net, every pixel with its nucleus's type.
    typing
        ``nucleus``: pooled over the nucleus's own slices. ``any_slice``: positive where any slice
        is (the paper's rule).
    context
        Neighbouring slices the network sees on either side.
    steps
        Training steps unless the time ends first.
    batch, crop
        Crops per step and their side in pixels; a crop of a stack holds all its slices.
    learning_rate
        Peak of a warm-up and cosine schedule.
    contrast
        Weight of the supervised pixel contrast.
    """

    name: str
    network: Literal["light", "hovernet"] | None = "light"
    projection: Literal["mip", "emip"] | None = None
    supervision: Literal["default", "paper"] = "default"
    objective: Literal["nucleus", "pixel"] = "nucleus"
    typing: Literal["nucleus", "any_slice"] = "nucleus"
    context: int = 2
    steps: int = 1500
    batch: int = 4
    crop: int = 128
    learning_rate: float = 2e-3
    contrast: float = 0.1


_PAPER = Recipe(
    "lecl-paper",
    projection="emip",
    supervision="paper",
    objective="pixel",
    typing="any_slice",
    context=0,
    batch=8,
    crop=192,
    contrast=1.0,
)

RECIPES = {
    "lecl": Recipe("lecl"),
    "classical": Recipe("classical", network=None, steps=0),
    "lecl-paper": _PAPER,
    "emip": replace(_PAPER, name="emip", contrast=0.0),
    "mip": replace(_PAPER, name="mip", projection="mip", contrast=0.0),
}


def recipe(name: str, *, network: str | None = None) -> Recipe:
    """A recipe by name, optionally with another network.

    Raises
    ------
    CallError
        No such recipe or network; lists those there are.

    Examples
    --------
    >>> recipe("lecl").network
    'light'
    """
    if name not in RECIPES:
        raise CallError(f"no recipe {name!r}; there are {', '.join(RECIPES)}.")
    chosen = RECIPES[name]
    if network is None or chosen.network is None:
        return chosen
    if network == "light":
        return replace(chosen, network="light")
    if network == "hovernet":
        if chosen.objective != "pixel":
            raise CallError(f"recipe {name} finds 3D centres, which hovernet has no head for.")
        return replace(chosen, network="hovernet", crop=256, batch=2, learning_rate=1e-4)
    raise CallError(f"no network {network!r}; there are light and hovernet.")
