"""The runs of the benchmarks of part A: get images and points, train as a user would, judge.

Training goes on from its checkpoint after an interruption; what is made for a run alone (reduced
points, simulated stacks, results) is made again in a temporary folder, the same from its seed.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.bench.frame import Place, Run
from nucleoscope.bench.judge import judge, judge_outlines, judge_types
from nucleoscope.data import Points
from nucleoscope.errors import InputError, ResourceError
from nucleoscope.flow.inputs import drawn_in
from nucleoscope.flow.lecl import CHECKPOINT, detect, train
from nucleoscope.io.images import image_stem, read_labels, read_volume
from nucleoscope.io.points import read_points, write_points
from nucleoscope.learn.infer import types_at
from nucleoscope.learn.model import Model, load_model, save_model
from nucleoscope.learn.recipes import Recipe, in_colour
from nucleoscope.learn.recipes import recipe as recipe_named
from nucleoscope.seeds import generator
from nucleoscope.simulator import simulate

#: Cohorts of the plaque stacks that judge; d1_train teaches.
COHORTS = ("d1_test", "d2_dev")
#: Figures of the same network with slices united as published instead of linked by overlap.
UNITED = "united"
#: The published way of bringing slices together for each of ours.
UNITES = {"linked": "united", "components": "components-united"}
#: Simulated stacks to learn from, and the conditions to be judged under.
SIMULATED = {"n": 6, "size": 384, "seed": 11}
JUDGED = {"n": 3, "size": 384, "seed": 12}
RATES = (0.0, 0.2, 0.4, 0.6, 0.8)
HARDER: dict[str, dict[str, float]] = {
    "dense": {"density": 0.16},
    "dim": {"snr": 4.0},
    "crossed": {"rho": 0.9},
    "all three": {"density": 0.16, "snr": 4.0, "rho": 0.9},
}
#: Every fifth image of DSB 2018 judges.
DSB_STRIDE = 5
#: Matching radii in H&E: SC-CNN's and HoVer-Net's.
HISTOLOGY_RADII = ("6px", "12px")


def images_of(data: Path, group: str) -> list[Path]:
    """The plaque stacks of a cohort, in order."""
    return sorted((data / "plaque").glob(f"{group}_*.ome.tif"))


def fit(
    run: Run,
    place: Place,
    images: Sequence[Path],
    *,
    points: Sequence[Path] | None = None,
    labels: Sequence[Path] | None = None,
) -> dict[str, Any]:
    """Train the run's recipe in ``place.folder / "model"``, or go on, or take what is finished.

    Parameters
    ----------
    run
        ``parameters`` names recipe, network, seed, minutes or steps, and changes of the recipe.
    images, points
        Files; points beside the images unless given.
    labels
        True instance maps, for recipes that learn from them.

    Returns
    -------
    dict
        Steps, images, points and figures of the training, and its minutes.
    """
    folder = place.folder / "model"
    begin, cpu = time.perf_counter(), time.process_time()
    is_kept = (folder / CHECKPOINT).is_file()
    if (folder / "model.json").is_file() and not is_kept:
        training = load_model(folder).config.training
    else:
        more: dict[str, Any] = {} if labels is None else {labels_argument(): list(labels)}
        settings = run.parameters
        if settings.get("changes"):
            more["recipe"] = _changed(settings, images[0])
        else:
            more |= {"recipe": settings["recipe"], "network": settings["network"]}
        training = train(
            list(images), folder, points=None if points is None else list(points),
            minutes=_minutes(settings), steps=settings["steps"], seed=settings["seed"],
            resume=is_kept, overwrite=True, quiet=place.quiet, **more,
        ).config.training  # fmt: skip
    return {
        **{key: value for key, value in training.items() if key != "history"},
        "minutes": round((time.perf_counter() - begin) / 60, 2),
        "cpu_minutes": round((time.process_time() - cpu) / 60, 2),
    }


def labels_argument() -> str:
    """The argument by which ``train`` takes instance maps, ``""`` while it has none."""
    known = signature(train).parameters
    return next((name for name in ("labels", "instances") if name in known), "")


def _minutes(settings: Mapping[str, Any]) -> float:
    """Longest training time; with a number of steps there is none."""
    return math.inf if settings["steps"] is not None else float(settings["minutes"])


def _changed(settings: Mapping[str, Any], image: Path) -> Recipe:
    """The recipe that ``train`` would take for such an image, with some of its settings changed."""
    chosen = recipe_named(settings["recipe"], network=settings["network"])
    if read_volume(image).is_rgb:
        chosen = in_colour(chosen)
    return replace(chosen, **settings["changes"])


def find(images: Sequence[Path], place: Place, output: Path) -> float:
    """Detect with the run's model; seconds per image.

    Raises
    ------
    ResourceError
        An image failed; says which and why.
    """
    begin = time.perf_counter()
    found = detect(list(images), place.folder / "model", output, quiet=True)
    failed = {} if isinstance(found, list) else found.failed
    if failed:
        name, why = next(iter(failed.items()))
        raise ResourceError(f"{name}: {why}")
    return round((time.perf_counter() - begin) / len(images), 3)


def plaque(run: Run, place: Place) -> dict[str, Any]:
    """Train on d1_train, with all its points or some, and judge both other cohorts.

    Published recipes that look at slices are judged a second time with the slices united as
    published, which loses nuclei whatever the network finds.
    """
    images = images_of(place.data, "d1_train")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temp:
        points = None
        labels = labels_of(images) if run.parameters["recipe"] == "full" else None
        kept = run.parameters.get("points")
        if kept is not None:
            images, points = reduced(images, kept, run.parameters["seed"], Path(temp))
        figures["train"] = fit(run, place, images, points=points, labels=labels)
        for group in COHORTS:
            output = Path(temp, group)
            seconds = find(images_of(place.data, group), place, output)
            figures[group] = judge(output, place.data / "plaque")
            figures[group]["seconds_per_image"] = seconds
        model = load_model(place.folder / "model")
        way = UNITES.get(model.config.decode)
        if way is not None and model.config.projection == "emip":
            figures[UNITED] = {}
            other = Place(place.data, Path(temp, "other"), place.quiet)
            united = model.config.model_copy(update={"decode": way})
            save_model(replace(model, config=united), other.folder / "model")
            for group in COHORTS:
                output = Path(temp, f"{group} united")
                find(images_of(place.data, group), other, output)
                figures[UNITED][group] = judge(output, place.data / "plaque")
    return figures


def labels_of(images: Sequence[Path]) -> list[Path]:
    """The instance map beside each image that has one."""
    beside = [
        image.with_name(f"{image_stem(image)}.labels{suffix}")
        for image in images
        for suffix in (".tif", ".ome.zarr")
    ]
    return [path for path in beside if path.exists()]


def reduced(
    images: Sequence[Path], kept: float | int, seed: int, folder: Path
) -> tuple[list[Path], list[Path]]:
    """Some of the images' points, written to ``folder``; images that keep none are left out.

    Parameters
    ----------
    images
        With their points beside them.
    kept
        A share below 1 of each image's points (at least one), or a number of points of all images
        together.
    seed
        Of the draw. A smaller draw is part of a larger one of the same seed.

    Returns
    -------
    images, points
        Those that keep points, and their files.

    Raises
    ------
    InputError
        There are fewer points than asked for.
    """
    beside = [image.with_name(f"{image_stem(image)}.points.csv") for image in images]
    all_points = [read_points(path) for path in beside]
    is_kept = choose([len(points) for points in all_points], kept, seed)
    taken, files = [], []
    for image, points, keep in zip(images, all_points, is_kept, strict=True):
        if keep.any():
            path = folder / f"{image_stem(image)}.points.csv"
            write_points(path, _rows(points, keep))
            taken.append(image)
            files.append(path)
    return taken, files


def choose(sizes: Sequence[int], kept: float | int, seed: int) -> list[NDArray[np.bool_]]:
    """Which of each image's points are kept; see `reduced`.

    Raises
    ------
    InputError
        There are fewer points than asked for.

    Examples
    --------
    >>> [int(k.sum()) for k in choose([10, 20], 0.3, seed=0)]
    [3, 6]
    >>> sum(int(k.sum()) for k in choose([10, 20], 7, seed=0))
    7
    """
    if kept < 1:
        ranks = [generator(seed, 31, i).permutation(n) for i, n in enumerate(sizes)]
        return [rank < max(1, round(kept * n)) for rank, n in zip(ranks, sizes, strict=True)]
    total = int(sum(sizes))
    if kept > total:
        raise InputError(f"{kept} points were asked for and there are {total}.")
    rank = generator(seed, 32).permutation(total)
    return np.split(rank < int(kept), np.cumsum(sizes)[:-1])


def _rows(points: Points, keep: NDArray[np.bool_]) -> Points:
    """Some rows of points."""
    assert points.type is not None and points.id is not None  # noqa: S101  set at birth
    return Points(
        points.z[keep], points.y[keep], points.x[keep], points.type[keep], points.id[keep],
        points.name,
    )  # fmt: skip


def conditions() -> dict[str, dict[str, float]]:
    """Settings of the simulated stacks to be judged under, by name.

    >>> list(conditions())[:2]
    ['rho 0', 'rho 0.2']
    """
    return {f"rho {rate:g}": {"rho": rate} for rate in RATES} | HARDER


def simulated(run: Run, place: Place) -> dict[str, Any]:
    """Train on simulated stacks and judge on others, under every condition."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temp:
        simulate(Path(temp, "train"), **run.parameters["stacks"])
        images = sorted(Path(temp, "train").glob("*.ome.tif"))
        labels = labels_of(images) if run.parameters["recipe"] == "full" else None
        figures["train"] = fit(run, place, images, labels=labels)
        for number, (name, settings) in enumerate(run.parameters["conditions"].items()):
            truth, output = Path(temp, f"truth{number}"), Path(temp, f"found{number}")
            simulate(truth, **run.parameters["judged"], **settings)
            find(sorted(truth.glob("*.ome.tif")), place, output)
            figures[name] = judge(output, truth)
    return figures


def histology(run: Run, place: Place) -> dict[str, Any]:
    """Train on the tiles outside a fold and judge those inside: found at both radii, and typed."""
    folder = place.data / "crc_histophenotypes"
    tiles = tiles_of(folder)
    inside = fold(len(tiles), run.parameters["fold"], run.parameters["folds"],
                  run.parameters["layout"])  # fmt: skip
    taught = [tile for tile, is_in in zip(tiles, inside, strict=True) if not is_in]
    judged = [tile for tile, is_in in zip(tiles, inside, strict=True) if is_in]
    figures: dict[str, Any] = {"train": fit(run, place, taught)}
    with tempfile.TemporaryDirectory() as temp:
        seconds = find(judged, place, Path(temp, "found"))
        for radius in HISTOLOGY_RADII:
            figures[radius] = judge(Path(temp, "found"), folder, radius=radius)
    figures["seconds_per_image"] = seconds
    figures["at_true_nuclei"] = types_of(load_model(place.folder / "model"), judged)
    return figures


def types_of(model: Model, images: Sequence[Path]) -> dict[str, Any]:
    """How well the nuclei of stained sections are typed by a model that is told where they are."""
    true, chance = [], []
    for path in images:
        volume = read_volume(path)
        points = read_points(path.with_name(f"{image_stem(path)}.points.csv"), image=volume.name)
        points = drawn_in(points, volume.shape)
        true.append(points.types)
        chance.append(types_at(model, volume, points.zyx()[:, 1:]))
    return judge_types(np.concatenate(true), np.concatenate(chance), model.config.types)


def tiles_of(folder: Path) -> list[Path]:
    """The H&E tiles in the order of their numbers (img2 before img10)."""
    return sorted(folder.glob("img*.png"), key=lambda p: int(p.stem.removeprefix("img")))


def fold(n: int, number: int, folds: int, layout: str) -> NDArray[np.bool_]:
    """Which of ``n`` tiles are in a fold: every ``folds``-th, or one contiguous block.

    >>> fold(6, 1, 2, "interleaved").tolist(), fold(6, 1, 2, "blocks").tolist()
    ([False, True, False, True, False, True], [False, False, False, True, True, True])
    """
    index = np.arange(n)
    which = index % folds if layout == "interleaved" else index * folds // n
    return np.asarray(which == number)


def dsb2018(run: Run, place: Place) -> dict[str, Any]:
    """Train on four of five images, from points or from instance maps; judge outlines."""
    images = sorted((place.data / "dsb2018_fluorescence").glob("*.png"))
    judged, taught = images[::DSB_STRIDE], [p for i, p in enumerate(images) if i % DSB_STRIDE]
    labels = [image.with_name(f"{image.stem}.labels.tif") for image in taught]
    with tempfile.TemporaryDirectory() as temp:
        points = [_centres(path, Path(temp)) for path in labels]
        is_full = run.parameters["recipe"] == "full"
        trained = fit(run, place, taught, points=points, labels=labels if is_full else None)
        seconds = find(judged, place, Path(temp, "found"))
        truths = [image.with_name(f"{image.stem}.labels.tif") for image in judged]
        figures = judge_outlines(Path(temp, "found"), truths)
    return {"train": trained, "seconds_per_image": seconds, **figures}


def _centres(labels: Path, folder: Path) -> Path:
    """One point per nucleus of an instance map, written as a file of clicks."""
    path = folder / f"{image_stem(labels).removesuffix('.labels')}.points.csv"
    write_points(path, centres(read_labels(labels).data[0]))
    return path


def centres(labels: NDArray[np.int32]) -> Points:
    """The pixel of each nucleus ``(Y, X)`` nearest to its centroid.

    >>> points = centres(np.array([[0, 4, 4], [0, 4, 0]], dtype=np.int32))
    >>> points.y.tolist(), points.x.tolist()
    ([0.0], [1.0])
    """
    y, x = np.nonzero(labels)
    ids, which, n = np.unique(labels[y, x], return_inverse=True, return_counts=True)
    mean = [np.bincount(which, weights=a, minlength=len(ids)) / n for a in (y, x)]
    away = (y - mean[0][which]) ** 2 + (x - mean[1][which]) ** 2
    order = np.lexsort((away, which))
    first = order[np.searchsorted(which[order], np.arange(len(ids)))]
    return Points(np.zeros(len(ids)), y[first].astype(np.float64), x[first].astype(np.float64))
