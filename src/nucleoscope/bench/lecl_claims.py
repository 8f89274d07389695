"""What ``bench lecl`` is held to, and whether the finished runs bear it out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import combinations

from nucleoscope.bench import trials
from nucleoscope.bench.lecl_read import Results, detected, images_in, scored, single
from nucleoscope.view.page import Table

#: Recipes whose order on positive F1 is compared.
ORDERED = ("mip", "emip", "lecl-paper", "lecl")

Row = tuple[str, str, str, str, str]


def claims(results: Results) -> Table:
    """One row per claim: wanted, found (mean over seeds), how many seeds, whether it holds."""
    rows = (*_plaque(results), *_points(results), *_order(results), *_others(results))
    return Table(
        ("claim", "wanted", "found", "seeds", "verdict"),
        tuple(rows),
        "Means over the finished seeds, the fewest of the runs compared. A verdict is about these "
        "images and says nothing about what others would give. Recipes are told apart where their "
        "means differ by more than twice the standard error of the difference over seeds.",
    )


def verdict(value: float, least: float) -> str:
    """Whether a value reaches the least that is wanted.

    >>> verdict(0.5, 0.5), verdict(0.4, 0.5), verdict(float("nan"), 0.5)
    ('holds', 'does not hold', 'not measured yet')
    """
    if not math.isfinite(value):
        return "not measured yet"
    return "holds" if value >= least else "does not hold"


def _row(claim: str, value: float, least: float, seeds: int, *, is_change: bool = False) -> Row:
    """A claim that a value is at least so large."""
    shape = "{:+.3f}" if is_change else "{:.3f}"
    found = shape.format(value) if math.isfinite(value) else "-"
    if value < least and found == shape.format(least):  # short of it by less than is shown
        found = shape.replace("3f", "4f").format(value)
    return claim, f"at least {shape.format(least)}", found, str(seeds), verdict(value, least)


def _f1(results: Results, part: str, what: str, group: str, kind: str = "positive") -> float:
    """Mean over seeds of a pooled F1."""
    return scored(results.groups(part, what, group), kind).mean


def _plaque(results: Results) -> Iterator[Row]:
    """Recipes against each other, and the default against its goals."""
    for better, worse, least in (
        ("emip", "mip", 0.001), ("emip+united", "mip", 0.001),
        ("lecl", "lecl-paper", 0.05), ("lecl", "lecl-paper+united", 0.05),
    ):  # fmt: skip
        gain = _f1(results, "plaque", better, "d2_dev") - _f1(results, "plaque", worse, "d2_dev")
        seeds = min(len(results.groups("plaque", one, "d2_dev")) for one in (better, worse))
        claim = f"{better} above {worse}, positive F1, d2_dev".replace("+", ", ")
        yield _row(claim, gain, least, seeds, is_change=True)
    seeds = results.n_seeds(("default", "lecl"))
    for kind, name, least in (("positive", "positive F1", 0.95), ("", "detection F1", 0.98)):
        value = _f1(results, "default", "lecl", "d2_dev", kind)
        yield _row(f"lecl at its default minutes, {name}, d2_dev", value, least, seeds)
    for part, name in (("plaque", "equal"), ("default", "default")):
        groups = results.groups(part, "lecl", "d2_dev")
        error = single([group["calibration_error"] for group in groups]).mean
        yield (
            f"expected calibration error of lecl's types at {name} minutes, d2_dev",
            "at most 0.050",
            f"{error:.3f}" if math.isfinite(error) else "-",
            str(len(groups)),
            verdict(-error, -0.05),
        )


def _points(results: Results) -> Iterator[Row]:
    """How much of its F1 the default keeps with some of the points."""
    for label, least in (("30%", 0.97), ("10%", 0.93)):
        seeds = results.n_seeds(("plaque", "lecl"), ("points", label))
        for kind, name in (("positive", "positive F1"), ("", "detection F1")):
            whole = _f1(results, "plaque", "lecl", "d2_dev", kind)
            some = _f1(results, "points", label, "d2_dev", kind)
            claim = f"share of its {name} kept with {label} of the points, d2_dev"
            yield _row(claim, some / whole if whole else math.nan, least, seeds)


def _order(results: Results) -> Iterator[Row]:
    """The order of recipes on harder stacks against that on d2_dev.

    Only recipes that d2_dev tells apart have an order to keep.
    """
    usual = {name: _seeds(results, "plaque", name, "d2_dev") for name in ORDERED}
    first = ranked({name: _mean(values) for name, values in usual.items()})
    pairs = [
        (better, worse)
        for better, worse in combinations(first, 2)
        if told_apart(usual[better], usual[worse])
    ]
    for condition in trials.HARDER:
        found = {name: _seeds(results, "simulator", name, condition) for name in ORDERED}
        # Seeds are finished in their order; means over unlike seeds would not compare.
        n = min(len(values) for values in found.values())
        means = {name: _mean(values[:n]) for name, values in found.items()}
        order = ranked(means)
        answer = "holds" if all(means[a] > means[b] for a, b in pairs) else "does not hold"
        yield (
            f"order on harder simulated stacks, {condition}, of recipes told apart on d2_dev",
            ", ".join(f"{a} > {b}" for a, b in pairs) or "that on d2_dev",
            " > ".join(order) or "-",
            str(n),
            answer if pairs and order else "not measured yet",
        )


def _seeds(results: Results, part: str, what: str, group: str) -> list[float]:
    """Positive F1 of every finished seed."""
    return [scored([one], "positive").mean for one in results.groups(part, what, group)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def told_apart(better: Sequence[float], worse: Sequence[float]) -> bool:
    """Whether means differ by more than twice the standard error of their difference.

    >>> told_apart([0.9, 0.92], [0.7, 0.72]), told_apart([0.9, 0.7], [0.8, 0.6])
    (True, False)
    """
    if min(len(better), len(worse)) < 2:
        return False
    error = math.sqrt(sum(statistics.variance(one) / len(one) for one in (better, worse)))
    return _mean(better) - _mean(worse) > 2 * error


def ranked(values: dict[str, float]) -> list[str]:
    """Names from the best to the worst; none when a value is unknown.

    >>> ranked({"a": 0.1, "b": 0.3}), ranked({"a": 0.1, "b": float("nan")})
    (['b', 'a'], [])
    """
    if not all(math.isfinite(v) for v in values.values()):
        return []
    return sorted(values, key=lambda name: (-values[name], name))


def _others(results: Results) -> Iterator[Row]:
    """H&E and outlines."""
    folds = results.folds("histology", "lecl", "interleaved")
    typed = single([fold["at_true_nuclei"]["weighted_f1"] for fold in folds]).mean
    for name, value, least in (
        ("detection F1 at 6 px", detected(images_in(folds, "6px")).mean, 0.82),
        ("weighted type F1 at the true nuclei", typed, 0.74),
    ):
        yield _row(f"H&E {name}, interleaved folds", value, least, len(folds))
    seeds = results.n_seeds(("dsb2018", "lecl"), ("dsb2018", "full"))
    claim = "AJI from points over AJI from instance maps, DSB 2018"
    yield _row(claim, aji_share(results), 0.85, seeds)


def aji_share(results: Results) -> float:
    """Mean AJI from points over that from instance maps; NaN while either is unknown."""
    some, whole = (
        single([record["figures"]["aji"] for record in results.of("dsb2018", what)]).mean
        for what in ("lecl", "full")
    )
    return some / whole if whole else math.nan
