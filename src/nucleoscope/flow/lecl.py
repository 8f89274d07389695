"""Part A from files to files: train, detect, project, evaluate."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nucleoscope import __version__
from nucleoscope.data.labels import Labels
from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, NucleoscopeError
from nucleoscope.flow.inputs import (
    REGION_SUFFIXES,
    Example,
    Image,
    Reading,
    as_images,
    name_of,
    one_per_image,
    open_example,
    open_image,
    open_labelled,
    region_for,
)
from nucleoscope.flow.lessons import prepare
from nucleoscope.flow.progress import bar
from nucleoscope.flow.run import Run, hash_of
from nucleoscope.flow.scale import run_all, shard
from nucleoscope.io import guard
from nucleoscope.io.images import find_beside
from nucleoscope.io.omezarr import write_labels
from nucleoscope.io.tables import write_table
from nucleoscope.learn.infer import Detection
from nucleoscope.learn.infer import detect as detect_volume
from nucleoscope.learn.lecl import train_model
from nucleoscope.learn.model import Model, ModelConfig, load_model, save_model
from nucleoscope.learn.recipes import Recipe, in_colour
from nucleoscope.learn.recipes import recipe as recipe_named
from nucleoscope.learn.train import Progress, TrainSettings
from nucleoscope.nuclei.markers import LEARNED, MarkerRule, rule_named
from nucleoscope.units import Spacing

#: One slice step in pixels when the scale is unknown (the published constant).
UNKNOWN_Z_STEP = 11.0
CHECKPOINT = "checkpoint.safetensors"
IMAGE_MANIFEST = "image.json"
#: There while its results are being written, so that what an interrupted run left is known as ours.
UNFINISHED = "image.unfinished"


def train(
    images: Sequence[Image] | Image,
    output: str | Path,
    *,
    points: Sequence[str | Path | Points] | str | Path | Points | None = None,
    roi: Sequence[str | Path] | str | Path | None = None,
    labels: Sequence[str | Path | Labels] | str | Path | Labels | None = None,
    recipe: str | Recipe = "lecl",
    network: str | None = None,
    start: str | Path | Model | None = None,
    nuclei: str | int | None = None,
    marker: Sequence[str | int] = (),
    partial: bool | None = None,
    minutes: float = 30.0,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    axes: str | None = None,
    spacing: Spacing | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    quiet: bool = False,
) -> Model:
    """Train a model from one click per nucleus.

    Parameters
    ----------
    images
        Files or volumes. Beside ``plaque.ome.tif``, ``plaque.points.csv`` and
        ``plaque.roi.geojson`` are found by name.
    output
        The model's folder.
    points, roi
        One per image, where they are not beside it.
    labels
        Instance maps for the recipe ``full``, one per image where ``plaque.labels.tif`` is not
        beside it; types are then those of the points inside the nuclei, if there are points.
    recipe
        ``lecl`` (default), ``classical`` (no network, seconds), or another of
        ``nucleoscope.learn.recipes.RECIPES``; or one of your own, such as
        ``replace(RECIPES["lecl"], context=1)``, which is taken as it is for colour images too.
    network
        ``light``, ``hovernet`` or ``resunet``; None takes the recipe's own.
    start
        A model, or its folder, to go on from instead of from random weights.
    nuclei, marker
        Channels by name or number; may be left out where only one choice is possible. A colour
        image needs neither. With several markers a point's type joins those it has by ``+``
        (``LT+GFP``), or is digits as in the sheets of LECL (``13``: the second marker named).
    partial
        Whether only some of the nuclei were clicked: the others are then not taught as
        background. None finds out by itself in fluorescence (``annotated_share`` of the figures
        is the estimated share of clicked nuclei) and takes colour images as complete.
    minutes
        Longest training time.
    steps
        Training steps instead of the recipe's; with ``minutes=inf`` a run is exactly repeatable.
    resume
        Go on from the checkpoint in ``output``.
    axes, spacing
        For files that do not say, such as ``"ZCYX"`` and ``(1.0, 0.3, 0.3)`` um.

    Returns
    -------
    Model
        Also written to ``output``.

    Raises
    ------
    CallError
        A channel, recipe or file list is impossible.
    InputError
        An image or its points cannot be used; says which and why.
    """
    chosen = recipe_named(recipe, network=network)
    if steps is not None:
        chosen = replace(chosen, steps=steps)
    folder = Path(output)
    _check_checkpoint(folder, resume=resume, overwrite=overwrite)
    _check_output(folder, resume=resume, overwrite=overwrite)
    examples = _examples(as_images(images), points, roi, labels, chosen, Reading(axes, spacing))
    said: dict[str, Any] = {"recipe": chosen.name, "seed": seed, "minutes": _finite(minutes)}
    if isinstance(recipe, Recipe):
        said["settings"] = asdict(chosen)
    elif examples[0].volume.is_rgb:
        chosen = in_colour(chosen, steps=steps)
    given = load_model(start) if isinstance(start, (str, Path)) else start
    run = Run("train", said)
    run.inputs = [_hashed(example.files) for example in examples]
    config, lessons = prepare(
        examples, chosen, nuclei=nuclei, marker=marker, partial=partial, quiet=quiet
    )
    settings = TrainSettings(
        minutes=minutes, seed=seed, checkpoint=folder / CHECKPOINT, resume=resume, device=device
    )
    folder.mkdir(parents=True, exist_ok=True)
    guard.sweep_stale_temps(folder)
    with bar("training", quiet=quiet) as tell:
        model = train_model(
            lessons, config, chosen, settings, start=given,
            report=lambda p: tell(p.fraction, _note(p)),
        )  # fmt: skip
    save_model(model, folder, overwrite=True)
    run.figures = {k: v for k, v in model.config.training.items() if k != "history"}
    run.finish(folder, history=model.config.training.get("history", []))
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return model


def _examples(
    images: Sequence[Image],
    points: Sequence[str | Path | Points] | str | Path | Points | None,
    roi: Sequence[str | Path] | str | Path | None,
    labels: Sequence[str | Path | Labels] | str | Path | Labels | None,
    chosen: Recipe,
    reading: Reading,
) -> list[Example]:
    """Images with the clicks, or the instance maps, that the recipe learns from."""
    clicks = one_per_image(points, images, "points")
    outlines = one_per_image(roi, images, "roi")
    if chosen.supervision == "labels":
        maps = one_per_image(labels, images, "labels")
        return [
            open_labelled(image, instances, click, outline, reading)
            for image, instances, click, outline in zip(images, maps, clicks, outlines, strict=True)
        ]
    if labels is not None:
        raise CallError(
            f"recipe {chosen.name} learns from points; instance maps are for recipe full."
        )
    return [
        open_example(image, click, outline, reading)
        for image, click, outline in zip(images, clicks, outlines, strict=True)
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _note(progress: Progress) -> str:
    f1 = "" if progress.held_out_f1 is None else f"  held-out F1 {progress.held_out_f1:.3f}"
    return f"step {progress.step}  loss {progress.loss:.3f}{f1}"


def _check_checkpoint(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to resume in a folder whose files are not those of an unfinished training."""
    if not resume or overwrite or not folder.is_dir():
        return
    if any(folder.iterdir()) and not (folder / CHECKPOINT).is_file():
        raise CallError(
            f"{folder}: it holds no checkpoint to go on from; give another folder, or --overwrite."
        )


def _check_output(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds something already, unless told."""
    if folder.exists() and not folder.is_dir():
        raise CallError(f"{folder}: it is a file; give a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (resume or overwrite):
        raise CallError(
            f"{folder}: it is not empty; give another folder, --resume to go on, or --overwrite."
        )


def _hashed(files: dict[str, str]) -> dict[str, Any]:
    """Files of an input with the hash of each."""
    return {**files, "sha256": {k: hash_of(Path(v)) for k, v in files.items()}}


@dataclass(frozen=True)
class Found:
    """Outcome of ``detect``: the folder, nuclei per image, what failed and why, the exit code."""

    folder: Path
    counts: dict[str, int]
    failed: dict[str, str]
    exit_code: int = 0


@dataclass(frozen=True)
class _Looking:
    """How images are read and looked at; the arguments of ``detect`` of the same names."""

    reading: Reading
    device: str
    nuclei_only: bool
    nucleus_radius: float | None
    nuclei: str | int | None
    marker: tuple[str | int, ...]
    rule: str | MarkerRule | None = None


@dataclass(frozen=True)
class _Task:
    """One image to detect in; picklable, so that it can go to another process."""

    image: Image
    roi: str | Path | None
    model: Path
    folder: Path
    resume: bool
    overwrite: bool
    how: _Looking


def detect(
    images: Sequence[Image] | Image,
    model: str | Path | Model,
    output: str | Path | None = None,
    *,
    roi: Sequence[str | Path] | str | Path | None = None,
    jobs: int = 1,
    cluster: str | None = None,
    shard_of: str | None = None,
    resume: bool = False,
    nuclei_only: bool = False,
    nucleus_radius: float | None = None,
    nuclei: str | int | None = None,
    marker: Sequence[str | int] = (),
    rule: str | MarkerRule | None = None,
    axes: str | None = None,
    spacing: Spacing | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    quiet: bool = False,
) -> Found | list[Detection]:
    """Find every nucleus in new images and say which carry the markers.

    Parameters
    ----------
    images
        Files or volumes.
    model
        A model folder, or a ``Model``.
    output
        Results folder; None (for volumes in memory) returns the detections instead.
    roi
        One region per image, where it is not beside it; only nuclei inside are reported.
    jobs
        Images at a time, each in a process of its own.
    cluster
        Address of a Dask scheduler (extra ``cluster``).
    shard_of
        ``"K/N"``: do part K of N, for job arrays; the parts share ``output``.
    resume
        Keep images whose results are complete and unchanged.
    nuclei_only
        Look at the nuclear channel only: for images without the model's markers.
    nucleus_radius
        Typical nucleus radius in um, where it differs from the training images'.
    nuclei, marker
        Channels of these images, where they are called otherwise than in the training images;
        markers in the model's order.
    rule
        When a nucleus counts as positive: None for what the model has learnt; ``any_slice`` for
        the marker's overlap in any slice, ``fraction`` for the marked share of the nucleus,
        ``ring`` for the nucleus against its surroundings, each with a threshold if need be
        (``ring:0.4``); ``learned`` for the learnt rule without the network; or a ``MarkerRule``.

    Returns
    -------
    Found, or list of Detection without ``output``.

    Raises
    ------
    CallError
        Impossible call.
    InputError
        The model cannot be read. An image that cannot be read is named in ``Found.failed``.
    """
    many = as_images(images)
    outlines = one_per_image(roi, many, "roi")
    how = _Looking(
        Reading(axes, spacing), device, nuclei_only, nucleus_radius, nuclei, tuple(marker), rule
    )
    if isinstance(rule, str) and rule != LEARNED:
        rule_named(rule)  # an unknown one is refused before any image is read
    if output is None:
        loaded = model if isinstance(model, Model) else load_model(model)
        return [
            _detect_one(loaded, image, outline, how)[0]
            for image, outline in zip(many, outlines, strict=True)
        ]
    folder = Path(output)
    _check_output(folder, resume=resume or shard_of is not None, overwrite=overwrite)
    if isinstance(model, Model):
        raise CallError("to write results give the model's folder, so that they can name it.")
    load_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    guard.sweep_stale_temps(folder)
    tasks = [
        _Task(image, outline, Path(model), folder, resume, overwrite, how)
        for image, outline in zip(many, outlines, strict=True)
    ]
    tasks = shard(tasks, shard_of)
    run = Run("detect", {"model": str(model), "model_sha256": hash_of(Path(model, "model.json"))})
    entries: dict[int, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    exit_code = 0
    with bar("detecting", quiet=quiet) as tell:
        single = len(tasks) == 1 and cluster is None
        work = partial(_detect_to_files, tell=tell) if single else _detect_to_files
        for done, (i, entry, why) in enumerate(run_all(work, tasks, jobs=jobs, cluster=cluster)):
            if entry is not None:
                entries[i] = entry
            elif why is not None:
                failed[name_of(tasks[i].image)] = why.text
                # Of a single image the kind of failure counts; of several, that some failed.
                exit_code = why.exit_code if len(tasks) == 1 else 1
            tell((done + 1) / len(tasks), name_of(tasks[i].image))
    if failed and not entries and shard_of is None:
        # Nothing was written: leave no folder that looks like a result.
        with contextlib.suppress(OSError):
            folder.rmdir()
        return Found(folder, {}, failed, exit_code)
    run.inputs = [entries[i] for i in sorted(entries)]
    counts = {entry["name"]: int(entry["nuclei"]) for entry in run.inputs}
    run.figures = {"nuclei": sum(counts.values()), "images": len(counts), "failed": failed}
    _finish(run, folder, shard_of)
    return Found(folder, counts, failed, exit_code)


def _finish(run: Run, folder: Path, shard_of: str | None) -> None:
    """Write the manifest; of shards, the last one joins them all."""
    if shard_of is None:
        run.finish(folder)
        return
    k, n = (int(part) for part in shard_of.split("/"))
    run.finish(folder, f"run.{k}-of-{n}.json", shard=shard_of)
    parts = [folder / f"run.{i}-of-{n}.json" for i in range(1, n + 1)]
    if all(part.is_file() for part in parts):
        for part in parts:
            if part.name != f"run.{k}-of-{n}.json":
                other = guard.read_json(part)
                run.inputs += other["inputs"]
                run.figures["failed"] |= other["figures"]["failed"]
        run.inputs.sort(key=lambda entry: str(entry["name"]))
        run.figures["images"] = len(run.inputs)
        run.figures["nuclei"] = sum(int(entry["nuclei"]) for entry in run.inputs)
        run.finish(folder, shards=n)


def _detect_to_files(task: _Task, tell: Any = None) -> dict[str, Any]:
    """Detect in one image and write its folder; ``image.json`` comes last."""
    name = name_of(task.image)
    place = task.folder / name
    stamp = _stamp(task)
    if task.resume:
        kept = _still_good(place, stamp)
        if kept is not None:
            return kept
    if not task.overwrite:
        _refuse_foreign(place)
    report = None if tell is None else (lambda done, n: tell(0.9 * done / n, name))
    found, files, notes = _detect_one(
        load_model(task.model), task.image, task.roi, task.how, report
    )
    place.mkdir(parents=True, exist_ok=True)
    guard.write_text(place / UNFINISHED, "nucleoscope detect is writing here\n", overwrite=True)
    (place / IMAGE_MANIFEST).unlink(missing_ok=True)
    write_table(found.table, place, overwrite=True)
    write_labels(place / "labels.ome.zarr", found.labels, table=found.table, overwrite=True)
    entry = {
        "name": name, **files, "stamp": stamp, "nuclei": len(found.table), "notes": notes,
        "outputs": {
            file: hash_of(place / file)
            for file in ("nuclei.parquet", "nuclei.csv", "labels.ome.zarr")
        },
    }  # fmt: skip
    guard.write_json(place / IMAGE_MANIFEST, entry, overwrite=True)
    (place / UNFINISHED).unlink(missing_ok=True)
    return entry


def _refuse_foreign(place: Path) -> None:
    """Refuse to replace a table in a folder where no ``detect`` was at work.

    Raises
    ------
    CallError
        Names it.
    """
    signs = (IMAGE_MANIFEST, UNFINISHED, "nuclei.parquet", "labels.ome.zarr")
    table = place / "nuclei.csv"
    if table.exists() and not any((place / sign).exists() for sign in signs):
        raise CallError(
            f"{table}: it is not of an earlier detect; give another folder, or --overwrite to "
            "replace it."
        )


def _stamp(task: _Task) -> dict[str, Any]:
    """What a result depends on: resume keeps it only while this is the same."""
    weights = task.model / "weights.safetensors"
    roi = task.roi
    if roi is None and not isinstance(task.image, Volume):
        roi = find_beside(task.image, REGION_SUFFIXES)
    return {
        "version": __version__,
        "image": _image_hash(task.image),
        "model": hash_of(task.model / "model.json"),
        "weights": hash_of(weights) if weights.is_file() else "",
        "roi": "" if roi is None else hash_of(Path(roi)),
        "how": repr(task.how),
    }


def _image_hash(image: Image) -> str:
    """Hash of a file, or of a volume's pixels with what is said of them."""
    if not isinstance(image, Volume):
        return hash_of(Path(image))
    told = repr((image.data.shape, str(image.data.dtype), image.channels, image.spacing))
    return hashlib.sha256(told.encode() + np.ascontiguousarray(image.data).tobytes()).hexdigest()


def _still_good(place: Path, stamp: dict[str, Any]) -> dict[str, Any] | None:
    """The entry of a finished image whose inputs and outputs are unchanged, else None."""
    manifest = place / IMAGE_MANIFEST
    if not manifest.is_file():
        return None
    try:
        entry: dict[str, Any] = guard.read_json(manifest)
    except NucleoscopeError:  # damaged: done again
        return None
    if not isinstance(entry, dict) or entry.get("stamp") != stamp:
        return None
    same = all(
        (place / file).exists() and hash_of(place / file) == digest
        for file, digest in entry.get("outputs", {}).items()
    )
    return entry if same and entry.get("outputs") else None


def _detect_one(
    model: Model, image: Image, roi: str | Path | None, how: _Looking, progress: Any = None
) -> tuple[Detection, dict[str, str], list[str]]:
    """Detect in one image; with the files it used and what its reader noted."""
    volume = open_image(image, how.reading)
    region, roi_file = region_for(image, roi, volume)
    found = detect_volume(
        model, _renamed(volume, model.config, how.nuclei, how.marker), region=region,
        device=how.device, nuclei_only=how.nuclei_only, nucleus_radius_um=how.nucleus_radius,
        rule=how.rule, progress=progress,
    )  # fmt: skip
    files = {} if isinstance(image, Volume) else {"path": str(image)}
    if roi_file:
        files["roi"] = roi_file
    return found, files, list(volume.notes)


def _renamed(
    volume: Volume, config: ModelConfig, nuclei: str | int | None, marker: Sequence[str | int]
) -> Volume:
    """The volume with the channels named by the user called as the model calls them."""
    if marker and len(marker) != len(config.markers):
        raise CallError(
            f"{len(marker)} markers named, but the model has {len(config.markers)}: "
            f"{', '.join(config.markers)}."
        )
    roles = dict(zip(config.markers, marker, strict=False))
    if nuclei is not None and config.nuclei is not None:
        roles[config.nuclei] = nuclei
    if not roles:
        return volume
    named = {volume.channel_index(channel): role for role, channel in roles.items()}
    if len(named) != len(roles):
        raise CallError("one channel cannot be two of the model's channels.")
    # A channel that already has a role's name makes room for the one that was named.
    names = [
        named.get(i, f"{name} (unused)" if name in roles else name)
        for i, name in enumerate(volume.channels)
    ]
    return replace(volume, channels=tuple(names))
