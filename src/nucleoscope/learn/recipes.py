"""Recipes: everything that distinguishes one way of training from another, frozen under a name.

A published recipe has two forms. With the light network it differs from the others in what the
paper says matters (image, labels, losses, phases), and is trained as fast and as long as they
are, so that recipes can be compared at equal cost. With its published network it is also trained
as published (``PUBLISHED``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from nucleoscope.errors import CallError
from nucleoscope.nuclei.slices import Way


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    Parameters
    ----------
    share
        Of the whole training.
    frozen
        The encoder stays as it was given. It only applies to weights that were given: an encoder
        of random numbers is not kept.
    batch
        Crops per step instead of the recipe's.
    rate
        Times the learning rate.
    crf
        Weight of the dense-CRF term.
    """

    share: float = 1.0
    frozen: bool = False
    batch: int | None = None
    rate: float = 1.0
    crf: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One way from points to a model.

    Parameters
    ----------
    name
        What the user calls it.
    network
        ``light``, ``hovernet`` or ``resunet``; None trains no network (``classical``).
    projection
        What the network is taught on: None = the stack itself, ``mip`` or ``emip`` = one plane.
        A colour image is one plane already.
    supervision
        ``default`` or ``paper`` pseudo labels; ``labels`` takes instance maps.
    objective
        ``nucleus``: centres, offsets and whole nuclei as bags of slices. ``pixel``: NP, HV and NC
        of HoVer-Net, every pixel with its nucleus's type. ``qu``: every pixel's class by the
        cluster and the Voronoi label, without offsets.
    losses
        ``default``; ``paper`` as LECL's code has them, without its defects; ``hovernet`` for
        labels of which nothing is unknown.
    typing
        ``nucleus``: pooled over the nucleus's own slices. ``any_slice``: positive where any slice
        is (the paper's rule).
    decode
        ``peaks`` of the centre map in 3D; ``linked``: HoVer-Net's way slice by slice, slices linked
        by overlap; ``components`` of the foreground slice by slice, linked; either ``united`` as
        published instead, which fuses neighbours (``nuclei.slices``).
    context
        Neighbouring slices the network sees on either side.
    steps
        Training steps unless the time ends first.
    batch, crop
        Crops per step and their side in pixels; a crop of a stack holds all its slices.
    learning_rate
        Peak of the schedule.
    schedule
        ``cosine`` after a warm-up; ``steps``: a tenth after every quarter of a phase; ``constant``.
    betas, weight_decay, decoupled
        Of Adam; ``decoupled`` decay is AdamW.
    contrast
        Weight of the supervised pixel contrast.
    contrast_setting
        ``default``: whole nuclei and background remembered, 16 views, a ramp over the first
        quarter. ``paper``: ``ContrastSettings.paper()``.
    phases
        One after the other.
    """

    name: str
    network: Literal["light", "hovernet", "resunet"] | None = "light"
    projection: Literal["mip", "emip"] | None = None
    supervision: Literal["default", "paper", "labels"] = "default"
    objective: Literal["nucleus", "pixel", "qu"] = "nucleus"
    losses: Literal["default", "paper", "hovernet"] = "default"
    typing: Literal["nucleus", "any_slice"] = "nucleus"
    decode: Literal["peaks", Way] = "peaks"
    context: int = 2
    steps: int = 2500
    batch: int = 4
    crop: int = 128
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-3
    decoupled: bool = True
    contrast: float = 0.0
    contrast_setting: Literal["default", "paper"] = "default"
    phases: tuple[Phase, ...] = (Phase(),)

    def phase(self, fraction: float) -> tuple[Phase, float]:
        """The phase after a share of the training, and the share of that phase that is done.

        >>> Recipe("x", phases=(Phase(0.25, batch=8), Phase(0.75))).phase(0.625)[1]
        0.5
        """
        start = 0.0
        for phase in self.phases[:-1]:
            if fraction < start + phase.share:
                return phase, (fraction - start) / phase.share
            start += phase.share
        last = self.phases[-1]
        return last, min(1.0, (fraction - start) / last.share)

    def rate(self, step: int, fraction: float) -> float:
        """Learning rate of a step after a share of the training."""
        phase, done = self.phase(fraction)
        if self.schedule == "cosine":
            return phase.rate * cosine(step, fraction, self.learning_rate)
        falls = int(4 * min(done, 0.999)) if self.schedule == "steps" else 0
        return float(phase.rate * self.learning_rate * 0.1**falls)


#: Steps over which the learning rate rises.
WARM_UP = 30


def cosine(step: int, fraction: float, peak: float) -> float:
    """Linear warm-up, then half a cosine to a hundredth."""
    half = 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    return peak * min(1.0, (step + 1) / WARM_UP) * (0.99 * half + 0.01)


_PAPER = Recipe(
    "lecl-paper",
    projection="emip",
    supervision="paper",
    objective="pixel",
    losses="paper",
    typing="any_slice",
    decode="linked",
    context=0,
    batch=8,
    crop=192,
    contrast=1.0,
    contrast_setting="paper",
    phases=(Phase(0.5, frozen=True), Phase(0.5)),
)

RECIPES = {
    "lecl": Recipe("lecl"),
    # Costs a fifth of the steps and gains nothing on our stacks (docs/decisions/0012).
    "lecl-contrast": Recipe("lecl-contrast", contrast=0.1),
    "classical": Recipe("classical", network=None, steps=0),
    "lecl-paper": _PAPER,
    "emip": replace(_PAPER, name="emip", contrast=0.0),
    "mip": replace(_PAPER, name="mip", projection="mip", contrast=0.0),
    # Qu et al. 2019: 60 epochs, then 10 with the CRF term (the cosine is at its end by then).
    "qu": replace(
        _PAPER, name="qu", objective="qu", decode="components", contrast=0.0,
        phases=(Phase(6 / 7), Phase(1 / 7, crf=5e-4)),
    ),
    "full": Recipe(
        "full", supervision="labels", objective="pixel", losses="hovernet", decode="linked",
        context=0,
    ),
}  # fmt: skip

#: How each published network was trained. LECL: 100 epochs of 370 patches with the encoder
#: frozen, 8 at a time, then 100 of everything, 3 at a time, so 3 / 11 of the steps are of the
#: first phase; Adam 1e-4, a tenth every 25 epochs. Qu: 224 px, 8 at a time, Adam (0.9, 0.99), and
#: a tenth of the rate for the last 10 of 70 epochs.
PUBLISHED: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "hovernet": {
            "crop": 256, "batch": 8, "steps": 16_958, "learning_rate": 1e-4, "schedule": "steps",
            "weight_decay": 0.0, "decoupled": False,
            "phases": (Phase(3 / 11, frozen=True), Phase(8 / 11, batch=3)),
        },
        "resunet": {
            "crop": 224, "batch": 8, "steps": 3_238, "learning_rate": 1e-4,
            "schedule": "constant", "betas": (0.9, 0.99), "weight_decay": 1e-4,
            "decoupled": False,
            "phases": (Phase(6 / 7), Phase(1 / 7, rate=0.1, crf=5e-4)),
        },
    }
)  # fmt: skip


def in_colour(chosen: Recipe, *, steps: int | None = None) -> Recipe:
    """The recipe for stained sections: larger crops, as types show in the surroundings, for longer.

    Published recipes stay as published.

    >>> in_colour(recipe("lecl")).crop
    192
    """
    if chosen.objective != "nucleus" or chosen.network is None:
        return chosen
    return replace(chosen, crop=192, steps=3000 if steps is None else steps)


def recipe(name: str | Recipe, *, network: str | None = None) -> Recipe:
    """A recipe by name, optionally with another network; one of one's own stays as it is.

    Raises
    ------
    CallError
        No such recipe or network, or the recipe cannot use it; lists those there are. A recipe of
        one's own and a network as well.

    Examples
    --------
    >>> recipe("lecl").network
    'light'
    >>> recipe("qu", network="resunet").crop
    224
    """
    wanted: str | None
    if isinstance(name, Recipe):
        chosen, wanted = name, name.network
        if network is not None:
            raise CallError(f"recipe {name.name} says its network itself; leave network out.")
    else:
        if name not in RECIPES:
            raise CallError(f"no recipe {name!r}; there are {', '.join(RECIPES)}.")
        chosen, wanted = RECIPES[name], network
    if wanted in (None, "light") or chosen.network is None:
        return chosen
    if wanted not in PUBLISHED:
        raise CallError(f"no network {wanted!r}; there are light and {', '.join(PUBLISHED)}.")
    if chosen.objective == "nucleus":
        raise CallError(f"recipe {chosen.name} finds 3D centres, which {wanted} has no head for.")
    if wanted == "resunet" and chosen.objective != "qu":
        raise CallError(f"recipe {chosen.name} teaches offsets, which resunet has no head for.")
    if isinstance(name, Recipe):
        return chosen
    changes = dict(PUBLISHED["resunet" if chosen.objective == "qu" else wanted])
    changes["crop"] = PUBLISHED[wanted]["crop"]
    return replace(chosen, network=wanted, **changes)  # type: ignore[arg-type]
