"""Lessons in, a finished model out: network, working point, marker rules, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.points import Points
from nucleoscope.errors import InputError
from nucleoscope.learn.feed import Lesson
from nucleoscope.learn.fit import (
    Seen,
    detection_f1,
    fit_marker,
    fit_placement,
    fit_sieve,
    look,
    network_alone,
    sieve_scenes,
    typed_detections,
    typing_scenes,
    working_point,
)
from nucleoscope.learn.model import Model, ModelConfig, NetworkSpec
from nucleoscope.learn.partial import clicked_share
from nucleoscope.learn.recipes import Recipe
from nucleoscope.learn.train import Report, TrainSettings, train_network
from nucleoscope.learn.typing import fit_typer
from nucleoscope.seeds import generator

#: With fewer images than this none is held out.
MIN_IMAGES_TO_HOLD_OUT = 4
HELD_OUT_SHARE = 0.15
#: Stained sections are looked at in so many mirror images.
COLOUR_VIEWS = 4
#: With fewer clicks than these in the held-out images the working point is chosen on all.
ENOUGH = 200


def type_table(points: Points, markers: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Types of points as numbers, ``(n, G)``, -1 where unknown.

    With one marker a type is ``positive`` or ``negative`` (or the marker's name); with several it
    is the positive markers' names joined by ``+``, or ``negative``. Or it is digits, as in the
    sheets of LECL: 1 for the nucleus and one more for each marker it has, 2 for the first marker
    named, 3 for the second (``1``, ``12``, ``13``, ``123``). Without markers it is one of the
    classes.

    Raises
    ------
    InputError
        A type that is none of these; names the row.

    Examples
    --------
    >>> points = Points([0, 0], [1, 2], [3, 4], type=["positive", ""])
    >>> type_table(points, ["LT"], []).tolist()
    [[1], [-1]]
    >>> points = Points([0, 0, 0], [1, 2, 3], [3, 4, 5], type=["13", "LT+GFP", "negative"])
    >>> type_table(points, ["LT", "GFP"], []).tolist()
    [[0, 1], [1, 1], [0, 0]]
    """
    if not markers:
        numbers = {name: i for i, name in enumerate(classes)} | {"": -1}
        return np.array([[numbers.get(t, -1)] for t in points.types], dtype=np.int64).reshape(-1, 1)
    table = np.full((len(points), len(markers)), -1, dtype=np.int64)
    for row, text in enumerate(points.types.tolist()):
        if text == "":
            continue
        named = _named(text, markers)
        if named is None:
            allowed = "positive, negative" if len(markers) == 1 else "negative"
            raise InputError(
                f"{points.name}: row {row + 1} has type {text!r}; expected {allowed} or "
                f"{' + '.join(markers)}, or digits from 1 to {len(markers) + 1} that begin with 1."
            )
        table[row] = [int(i in named) for i in range(len(markers))]
    return table


def _named(text: str, markers: Sequence[str]) -> set[int] | None:
    """Numbers of the markers that a type names; None where it names anything else."""
    if text == "negative":
        return set()
    if text == "positive" and len(markers) == 1:
        return {0}
    known = [m.casefold() for m in markers]
    parts = {part.strip().casefold() for part in text.split("+")}
    if parts <= set(known):
        return {i for i, m in enumerate(known) if m in parts}
    digits = {int(d) - 2 for d in text[1:]} if text[:1] == "1" and text.isdecimal() else None
    return digits if digits is not None and digits <= set(range(len(markers))) else None


def split(lessons: Sequence[Lesson], seed: int) -> tuple[list[Lesson], list[Lesson]]:
    """Images that teach and images held out; with fewer than four all of them teach."""
    if len(lessons) < MIN_IMAGES_TO_HOLD_OUT:
        return list(lessons), []
    n_out = max(1, round(HELD_OUT_SHARE * len(lessons)))
    order = generator(seed, 7_919).permutation(len(lessons))
    out = set(order[:n_out].tolist())
    return (
        [lesson for i, lesson in enumerate(lessons) if i not in out],
        [lesson for i, lesson in enumerate(lessons) if i in out],
    )


def train_model(
    lessons: Sequence[Lesson],
    config: ModelConfig,
    recipe: Recipe,
    settings: TrainSettings,
    *,
    start: Model | None = None,
    report: Report | None = None,
) -> Model:
    """Train, choose the working point, fit the marker rules.

    Parameters
    ----------
    lessons
        One per image, channels in the order of ``config.channels``.
    config
        Channels, types, scale and radius; thresholds are starting values.
    recipe, settings
        What to train and for how long.
    start
        A model of the same network to go on from.

    Returns
    -------
    Model
        Its ``config.training`` holds the figures and the history.

    Raises
    ------
    InputError
        No image, or nothing in them teaches.
    """
    if not lessons or not any(lesson.is_taught.any() for lesson in lessons):
        raise InputError("there is nothing to learn from: no point lies in any image's region.")
    taught, held_out = split(lessons, settings.seed)
    history: list[dict[str, float]] = []
    if recipe.network is not None:
        spec = NetworkSpec(
            name=recipe.network,
            n_channels=len(config.channels),
            n_types=len(config.types),
            n_groups=max(1, len(config.markers)),
            context=recipe.context if max(x.volume.shape[0] for x in lessons) > 1 else 0,
        )
        config = config.model_copy(update={"network": spec})
        model, history = train_network(
            taught, held_out, config, recipe, settings, start=start, report=report
        )
    else:
        model = Model(config)
    return _finished(model, taught, held_out, history, settings)


def _n_clicks(lesson: Lesson) -> int:
    """Clicks inside the region."""
    return int(lesson.is_taught.sum() if lesson.partial is None else len(lesson.partial.clicks))


def _annotated(lessons: Sequence[Lesson]) -> float:
    """Estimated share of the nuclei that were clicked; 1 where images count as complete."""
    shares = [1.0 if lesson.partial is None else lesson.partial.share for lesson in lessons]
    return round(clicked_share(shares, [_n_clicks(lesson) for lesson in lessons]), 3)


def _finished(
    model: Model,
    taught: Sequence[Lesson],
    held_out: Sequence[Lesson],
    history: list[dict[str, float]],
    settings: TrainSettings,
) -> Model:
    """Working point and marker rules, on the images that did not teach the network if any."""
    if _has_peaks_in_colour(model.config) and model.network is not None:
        model = replace(model, config=model.config.model_copy(update={"views": COLOUR_VIEWS}))
    seen, judges = look(model, taught), look(model, held_out)
    has_network = model.network is not None
    # Without a network nothing was fitted yet, so every image may judge; and few clicks judge
    # badly, so where images were annotated in part the others help.
    few = sum(_n_clicks(one.lesson) for one in judges) < ENOUGH and _annotated(taught) < 1
    alone = has_network and judges and not few
    config = working_point(judges if alone else seen + judges, model.config)
    rules = [
        network_alone()
        if config.typing == "any_slice"
        else fit_marker(
            typed_detections(seen, config, group),
            typed_detections(judges, config, group) if judges else None,
            has_network=has_network,
        )
        for group in range(len(config.markers))
    ]
    training: dict[str, Any] = {
        "seed": settings.seed,
        "images": len(taught),
        "images_held_out": len(held_out),
        "points": sum(_n_clicks(lesson) for lesson in [*taught, *held_out]),
        "annotated_share": _annotated([*taught, *held_out]),
        "steps": int(history[-1]["step"]) if history else 0,
        "detection_f1": round(detection_f1(seen, config), 4),
        "detection_f1_held_out": round(detection_f1(judges, config), 4) if judges else None,
        "history": history,
    }
    config = config.model_copy(update={"marker_rules": tuple(rules), "training": training})
    model = replace(model, config=config)
    return _in_colour(model, seen, judges) if _has_peaks_in_colour(config) else model


def _has_peaks_in_colour(config: ModelConfig) -> bool:
    return config.is_rgb and config.decode == "peaks"


def _in_colour(model: Model, seen: Sequence[Seen], judges: Sequence[Seen]) -> Model:
    """The model with its typer, and with its sieve where there are images to judge the network."""
    config = model.config
    placement = fit_placement(judges if model.network is not None and judges else seen, config)
    typer, sieve, threshold = None, None, None
    if len(config.types) > 1:
        scenes = typing_scenes(seen, config, judges=model.network is None)
        scenes += typing_scenes(judges, config, judges=True)
        typer = fit_typer(scenes, len(config.types))
    if model.network is not None and judges:
        scenes = sieve_scenes(seen, config, judges=False)
        scenes += sieve_scenes(judges, config, judges=True)
        n_nuclei = sum(int(one.lesson.is_taught.sum()) for one in judges)
        sieve, threshold = fit_sieve(scenes, n_nuclei)
    update = {
        "has_typer": typer is not None, "sieve_threshold": threshold, "placement": placement,
    }  # fmt: skip
    return replace(model, config=config.model_copy(update=update), typer=typer, sieve=sieve)
