"""What ``bench lecl`` is held to, and whether the finished runs bear it out."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nucleoscope.bench import trials
from nucleoscope.bench.lecl_read import Results, detected, scored, single, weighted_f1
from nucleoscope.bench.page import Table

#: Recipes whose order on positive F1 is compared.
ORDERED = ("mip", "emip", "lecl-paper", "lecl")

Row = tuple[str, str, str, str]


def claims(results: Results) -> Table:
    """One row per claim: what is wanted, what was found (means over seeds), whether it holds."""
    rows = (*_plaque(results), *_points(results), *_order(results), *_others(results))
    return Table(
        ("claim", "wanted", "found", "verdict"),
        tuple(rows),
        "Means over the finished seeds; a verdict needs every run it is about with at least one "
        "seed, and says nothing about what another draw of images would give.",
    )


def verdict(value: float, least: float) -> str:
    """Whether a value reaches the least that is wanted.

    >>> verdict(0.5, 0.5), verdict(0.4, 0.5), verdict(float("nan"), 0.5)
    ('holds', 'does not hold', 'not measured yet')
    """
    if not math.isfinite(value):
        return "not measured yet"
    return "holds" if value >= least else "does not hold"


def _row(claim: str, value: float, least: float, *, signed: bool = False) -> Row:
    """A claim that a value is at least so large."""
    shape = "{:+.3f}" if signed else "{:.3f}"
    found = shape.format(value) if math.isfinite(value) else "-"
    return claim, f"at least {shape.format(least)}", found, verdict(value, least)


def _f1(results: Results, part: str, what: str, group: str, kind: str = "positive") -> float:
    """Mean over seeds of a pooled F1."""
    return scored(results.groups(part, what, group), kind).mean


def _plaque(results: Results) -> Iterator[Row]:
    """Recipes against each other, and the default against its goals."""
    d2 = {name: _f1(results, "plaque", name, "d2_dev") for name in ORDERED}
    yield _row("emip above mip, positive F1, d2_dev", d2["emip"] - d2["mip"], 0.0, signed=True)
    gain = d2["lecl"] - d2["lecl-paper"]
    yield _row("lecl above lecl-paper, positive F1, d2_dev", gain, 0.05, signed=True)
    long = _f1(results, "default", "lecl", "d2_dev")
    yield _row("lecl at its default minutes, positive F1, d2_dev", long, 0.95)
    found = _f1(results, "default", "lecl", "d2_dev", "")
    yield _row("lecl at its default minutes, detection F1, d2_dev", found, 0.98)
    error = single([g["calibration_error"] for g in results.groups("plaque", "lecl", "d2_dev")])
    text = f"{error.mean:.3f}" if math.isfinite(error.mean) else "-"
    claim = "expected calibration error of lecl's types, d2_dev"
    yield claim, "at most 0.050", text, verdict(-error.mean, -0.05)


def _points(results: Results) -> Iterator[Row]:
    """How much of its F1 the default keeps with some of the points."""
    for label, least in (("30%", 0.97), ("10%", 0.93)):
        for kind, name in (("positive", "positive F1"), ("", "detection F1")):
            whole = _f1(results, "plaque", "lecl", "d2_dev", kind)
            some = _f1(results, "points", label, "d2_dev", kind)
            yield _row(f"share of its {name} kept with {label} of the points, d2_dev",
                       some / whole if whole else math.nan, least)  # fmt: skip


def _order(results: Results) -> Iterator[Row]:
    """The order of recipes on harder stacks against that on d2_dev."""
    usual = ranked({name: _f1(results, "plaque", name, "d2_dev") for name in ORDERED})
    wanted = " > ".join(usual) or "that on d2_dev"
    for name in trials.HARDER:
        order = ranked({r: _f1(results, "simulator", r, name) for r in ORDERED})
        known = bool(usual and order)
        answer = "holds" if order == usual else "does not hold"
        yield (
            f"order of recipes on harder simulated stacks, {name}",
            wanted,
            " > ".join(order) or "-",
            answer if known else "not measured yet",
        )


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
    images = results.folds("lecl", "interleaved", "6px")
    yield _row("H&E detection F1 at 6 px, interleaved folds", detected(images).mean, 0.82)
    typed = single([weighted_f1(one) for one in images]).mean
    yield _row("H&E weighted type F1 over matched nuclei, interleaved folds", typed, 0.74)
    claim = "AJI from points over AJI from instance maps, DSB 2018"
    yield _row(claim, aji_share(results), 0.85)


def aji_share(results: Results) -> float:
    """Mean AJI from points over that from instance maps; NaN while either is unknown."""
    some, whole = (
        single([record["figures"]["aji"] for record in results.of("dsb2018", what)]).mean
        for what in ("lecl", "full")
    )
    return some / whole if whole else math.nan
