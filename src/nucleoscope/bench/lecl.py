"""``nucleoscope bench lecl``: every recipe on the same images with the same network and minutes.

The structure is that of Tables 1 and 2 of Moradinasab et al. 2023, with seeds and intervals, and
with curves the paper does not have: markers at other z, number of points, reliability, harder
stacks, outlines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Any

from nucleoscope.bench import trials
from nucleoscope.bench.frame import Benchmark, Budget, Place, Run
from nucleoscope.bench.lecl_claims import ORDERED
from nucleoscope.bench.lecl_page import render
from nucleoscope.flow.lecl import train
from nucleoscope.learn.recipes import RECIPES

NETWORK = "light"
#: Table 1, in the order of the paper's, with the two that are not in it.
TABLE_1 = ("lecl", "lecl-paper", "emip", "mip", "qu", "classical", "full")
#: Points kept: a share of each image's, or a number of all images' together.
POINTS: Mapping[str, float | int] = {"30%": 0.3, "10%": 0.1, "300": 300, "100": 100, "30": 30,
                                     "10": 10}  # fmt: skip
#: H&E: tiles are dealt into so many folds, and every fold has a seed of its own.
FOLDS = 4
#: H&E: the default recipe and the same with contrast.
CONTRAST: Mapping[str, dict[str, float]] = {"without": {}, "with": {"contrast": 0.1}}

_CONTRAST = {"contrast": 0.1}
#: The default recipe, the same with contrast, and that with one of its choices taken back to the
#: published one: contrast was left out last, because of this table. The default is trained again
#: beside them: a machine makes more steps in four minutes on one day than on another.
ABLATIONS: Mapping[str, dict[str, Any]] = {
    "lecl": {},
    "contrast": _CONTRAST,
    "one-slice": {**_CONTRAST, "context": 0},
    "any-slice": {**_CONTRAST, "typing": "any_slice"},
    "emip": {**_CONTRAST, "projection": "emip", "context": 0},
    "paper-labels": {**_CONTRAST, "supervision": "paper"},
}

Figures = Callable[[Run, Place], dict[str, Any]]


def runs(budget: Budget) -> tuple[Run, ...]:
    """Every run, the most important first.

    The tables have every seed, H&E every fold; simulated stacks have every seed of the recipes
    whose order is compared, the others and the curve over the number of points the first.
    """
    first = budget.seeds[0]
    groups = [
        _table_1(budget, seed) + _points(budget, seed, ("30%", "10%")) for seed in budget.seeds
    ]
    groups += [_default(seed) for seed in budget.seeds]
    groups += [_histology("interleaved"), _histology("blocks")]
    groups += [_contrast(budget, seed) + _dsb(budget, seed) for seed in budget.seeds]
    groups += [_ablations(budget, seed) for seed in budget.seeds]
    groups += [
        _simulated(budget, seed, TABLE_1 if seed == first else ORDERED) for seed in budget.seeds
    ]
    groups += [
        _points(budget, first, ("300", "100", "30", "10")),
    ]
    return tuple(run for group in groups for run in group)


def _run(
    part: str,
    what: str,
    seed: int,
    budget: Budget,
    figures: Figures,
    *,
    overhead: float,
    **more: Any,
) -> Run:
    """A run, its parameters with the recipe's settings of today, and what it lacks."""
    name = more.pop("recipe", what)
    has_network = name not in RECIPES or RECIPES[name].network is not None
    parameters = {
        "part": part, "what": what, "recipe": name, "seed": seed,
        "network": NETWORK if has_network else None,
        "minutes": None if budget.steps is not None else budget.minutes, "steps": budget.steps,
        "settings": asdict(RECIPES[name]) if name in RECIPES else None, **more,
    }  # fmt: skip
    # A step of the light network takes about a second on one core.
    training = budget.minutes if budget.steps is None else budget.steps / 60
    return Run(
        f"{part}.{what.replace('%', 'pct')}.{budget.label}.seed{seed}",
        parameters,
        figures,
        overhead + (training if has_network else 0.5),
        lambda data: lacks(data, part, name),
    )


def lacks(data: Path, part: str, recipe: str) -> str:
    """What keeps a recipe from being run on a part's data, ``""`` if nothing."""
    if recipe not in RECIPES:
        return f"there is no recipe {recipe} yet"
    folders = {
        "histology": "crc_histophenotypes", "contrast": "crc_histophenotypes",
        "dsb2018": "dsb2018_fluorescence",
    }  # fmt: skip
    if part != "simulator":
        folder = data / folders.get(part, "plaque")
        if not folder.is_dir():
            return f"{folder} is not there"
    if recipe == "full":
        if part == "plaque" and not trials.labels_of(trials.images_of(data, "d1_train")):
            return "d1_train has points only, no instance maps to learn from"
        if not trials.labels_argument():
            return "train takes no instance maps yet"
    return ""


def _table_1(budget: Budget, seed: int) -> list[Run]:
    """Every recipe on the plaque stacks."""
    return [_run("plaque", name, seed, budget, trials.plaque, overhead=1.5) for name in TABLE_1]


def _default(seed: int) -> list[Run]:
    """The default recipe for as long as ``train`` trains by default."""
    minutes = float(signature(train).parameters["minutes"].default)
    longer = Budget((seed,), minutes)
    return [_run("default", "lecl", seed, longer, trials.plaque, overhead=1.5)]


def _points(budget: Budget, seed: int, kept: Sequence[str]) -> list[Run]:
    """The default recipe with some of the points."""
    return [
        _run("points", label, seed, budget, trials.plaque, overhead=1.5, recipe="lecl",
             points=POINTS[label])
        for label in kept
    ]  # fmt: skip


def _ablations(budget: Budget, seed: int) -> list[Run]:
    """The default recipe, and without one of its parts, on the plaque stacks."""
    return [
        _run("ablation", what, seed, budget, trials.plaque, overhead=1.5, recipe="lecl",
             changes=dict(changes))
        for what, changes in ABLATIONS.items()
    ]  # fmt: skip


def _simulated(budget: Budget, seed: int, names: Sequence[str]) -> list[Run]:
    """Recipes on simulated stacks, judged under easier and harder conditions."""
    return [
        _run("simulator", name, seed, budget, trials.simulated, overhead=4,
             stacks=trials.SIMULATED, judged=trials.JUDGED, conditions=trials.conditions())
        for name in names
    ]  # fmt: skip


def _histology(layout: str) -> list[Run]:
    """H&E by the default recipe for as long as it trains by default, every fold."""
    minutes = float(signature(train).parameters["minutes"].default)
    return [
        _fold("histology", layout, number, Budget((number,), minutes)) for number in range(FOLDS)
    ]


def _contrast(budget: Budget, seed: int) -> list[Run]:
    """H&E with and without contrast, one fold."""
    return [
        _fold(
            "contrast", "interleaved", seed % FOLDS, replace(budget, seeds=(seed,)), what, changes
        )
        for what, changes in CONTRAST.items()
    ]


def _fold(
    part: str,
    layout: str,
    number: int,
    budget: Budget,
    what: str = "lecl",
    changes: Mapping[str, float] | None = None,
) -> Run:
    """Training on the tiles outside a fold, of a seed and for as long as the budget says."""
    return _run(
        part, f"{what}-{layout}-{number + 1}of{FOLDS}", budget.seeds[0], budget, trials.histology,
        overhead=2, recipe="lecl", changes=dict(changes or {}), variant=what, layout=layout,
        fold=number, folds=FOLDS,
    )  # fmt: skip


def _dsb(budget: Budget, seed: int) -> list[Run]:
    """Outlines from points against outlines from instance maps."""
    return [
        _run("dsb2018", name, seed, budget, trials.dsb2018, overhead=1.5)
        for name in ("lecl", "full")
    ]


LECL = Benchmark("lecl", runs, render, "results")
