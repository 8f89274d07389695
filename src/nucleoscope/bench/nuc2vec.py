"""``nucleoscope bench nuc2vec``: what embeddings know of nuclei in H&E, side by side.

The nuclei are the clicked ones of the colorectal tiles; their outlines come from the clicks alone.
An encoder is trained on the tiles outside a fold, without labels, and judged on those inside.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.atlas.changes import CHANGES, change
from nucleoscope.atlas.features import nucleus_features
from nucleoscope.atlas.thumbnails import thumbnail_vectors
from nucleoscope.bench.frame import Benchmark, Budget, Place, Run
from nucleoscope.bench.nuc2vec_page import render
from nucleoscope.bench.trials import fold, tiles_of
from nucleoscope.data.crops import CropStore
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.slide import Slide
from nucleoscope.flow.certify import Certificate, certificate, joined
from nucleoscope.flow.clicked import outline_points
from nucleoscope.flow.crops import crop_nuclei
from nucleoscope.io.images import read_volume
from nucleoscope.io.points import read_points
from nucleoscope.learn.embed import embed
from nucleoscope.learn.encode import EncoderSettings, train_encoder, untrained
from nucleoscope.learn.encoder_model import (
    EncoderModel,
    load_encoder,
    save_encoder,
    shipped_encoders,
)
from nucleoscope.learn.encoder_recipes import ENCODER_RECIPES, encoder_recipe
from nucleoscope.seeds import generator

#: Micrometres per pixel of the tiles.
MPP = 0.55
FOLDS = 4
LAYOUTS = ("interleaved", "blocks")
LABELS = (100, 1000)
#: Nuclei that are changed to see what an embedding notices; fewer for the published encoder.
CHANGED = {"nuc2vec-paper": 100}
CHANGED_ELSE = 400
#: Values an embedding should know.
VALUES = {"area": "f_area_um2", "eccentricity": "f_eccentricity", "OD": "f_hematoxylin_mean_od"}
#: The published encoder is too slow for all nuclei on a CPU: it, and for comparison ours, is judged
#: on so many typed ones, the same for all.
SAMPLE = 1500
#: A step of the published recipe takes as long as at least so many of ours; with a budget of
#: steps it gets one for so many. Both records tell the CPU seconds.
STEPS_OF_OURS = 40
#: Embeddings that are not trained here.
PLAIN = ("random", "thumbnails", "imagenet", "features", "nuc2vec-small")


class Tissue(NamedTuple):
    """The nuclei of all tiles, row by row: crops, features, types, tiles."""

    crops: CropStore
    features: pd.DataFrame
    types: NDArray[np.str_]
    tiles: NDArray[np.str_]


def runs(budget: Budget) -> tuple[Run, ...]:
    """Every run, the most important first: one fold per seed, of both layouts."""
    return tuple(
        _run(what, layout, seed, budget)
        for seed in budget.seeds
        for layout in LAYOUTS
        for what in ("nuc2vec", "nuc2vec-paper", *PLAIN)
    )


def _run(what: str, layout: str, seed: int, budget: Budget) -> Run:
    is_trained = what in ENCODER_RECIPES
    number = seed % FOLDS
    steps = budget.steps
    own = ENCODER_RECIPES[what].steps if is_trained else None
    if steps is not None and what == "nuc2vec-paper":
        steps = max(2, round(steps / STEPS_OF_OURS))
    elif own is not None:
        steps = min(own, steps or own)
    parameters = {
        "what": what, "layout": layout, "fold": number, "folds": FOLDS, "seed": seed,
        "minutes": budget.minutes if is_trained and budget.steps is None else None,
        "steps": steps if is_trained else None,
        "settings": asdict(ENCODER_RECIPES[what]) if is_trained else None,
    }  # fmt: skip
    label = budget.label if is_trained else "untrained"
    return Run(
        f"crc.{what}-{layout}-{number + 1}of{FOLDS}.{label}.seed{seed}",
        parameters, judged, 2 + (budget.minutes if is_trained else 0),
        lacks_weights if what == "imagenet" else lacks,
    )  # fmt: skip


def lacks_weights(data: Path) -> str:
    """Frozen weights are a pickle, which is never opened here; a script makes these records."""
    return lacks(data) or "made by bench/bench_imagenet.py, which needs the weights' package"


def lacks(data: Path) -> str:
    """What keeps the runs from being done, ``""`` if nothing."""
    folder = data / "crc_histophenotypes"
    return "" if folder.is_dir() else f"{folder} is not there"


@cache
def tissue(folder: Path) -> Tissue:
    """Read every tile, outline its nuclei from their clicks, cut crops, measure features."""
    slides, nuclei, features = [], [], []
    for path in tiles_of(folder):
        image = read_volume(path)
        points = read_points(path.with_name(f"{path.stem}.points.csv"))
        one = outline_points(image, points)
        rgb = np.ascontiguousarray(image.data[:, 0].transpose(1, 2, 0))
        slides.append(Slide.from_array(rgb, mpp=MPP, name=path.stem))
        nuclei.append(Nuclei(one.table, one.outlines))
        assert one.labels is not None  # noqa: S101  made from a map
        measured = nucleus_features(rgb, one.labels.data[0], mpp=MPP)
        features.append(measured.reindex(one.table.frame["id"]).reset_index(drop=True))
    crops = crop_nuclei(slides, nuclei, quiet=True)
    frame = pd.concat([one.table.frame for one in nuclei], ignore_index=True)
    place = {key: i for i, key in enumerate(zip(frame["image"], frame["id"], strict=True))}
    names = np.array(crops.slides)[crops.slide]
    rows = np.array([place[key] for key in zip(names, crops.id.tolist(), strict=True)])
    return Tissue(
        crops,
        pd.concat(features, ignore_index=True).iloc[rows].reset_index(drop=True),
        frame["type"].to_numpy(dtype=np.str_)[rows],
        names,
    )


def judged(run: Run, place: Place) -> dict[str, Any]:
    """Make one embedding without the fold's tiles, and judge it on them."""
    settings = run.parameters
    all_of = tissue(place.data / "crc_histophenotypes")
    test = test_tiles(run, place.data)
    what, seed = settings["what"], settings["seed"]
    seen = take(all_of, sampled(all_of, seed)) if what == "nuc2vec-paper" else all_of
    cpu = time.process_time()
    vectors, model = _vectors(run, place, seen, test, all_of)
    figures = judged_vectors(run, vectors, seen, test)
    if model is not None:
        figures["invariance"] = noticed(model, seen, test, seed)
        figures["training"] = _training(model)
    if what == "nuc2vec":
        sample = sampled(all_of, seed)
        small = _certified({what: vectors[sample]}, take(all_of, sample), settings["layout"], test,
                           seed)  # fmt: skip
        figures["sample"] = _by_embedding(small.probes.drop(columns=["split", "seed"]))
    elif what == "nuc2vec-paper":
        figures["sample"] = {what: figures["embeddings"][what]}
    figures["cpu_seconds"] = round(time.process_time() - cpu, 1)
    return figures


def test_tiles(run: Run, data: Path) -> list[str]:
    """Names of the tiles that a run is judged on."""
    tiles = [path.stem for path in tiles_of(data / "crc_histophenotypes")]
    inside = fold(len(tiles), run.parameters["fold"], run.parameters["folds"],
                  run.parameters["layout"])  # fmt: skip
    return [tile for tile, is_in in zip(tiles, inside, strict=True) if is_in]


def judged_vectors(
    run: Run, vectors: NDArray[Any], seen: Tissue, test: Sequence[str]
) -> dict[str, Any]:
    """Figures of an embedding alone and, of all but the features, together with them."""
    what = run.parameters["what"]
    embeddings = {what: vectors}
    blocks: dict[str, tuple[int, int]] = {}
    if what != "features":
        measured = seen.features.to_numpy(dtype=np.float32)
        embeddings["with features"] = joined(vectors, measured)
        blocks["with features"] = (vectors.shape[1], measured.shape[1])
    found = _certified(
        embeddings, seen, run.parameters["layout"], test, run.parameters["seed"], blocks
    )
    return {
        "embeddings": _by_embedding(found.probes.drop(columns=["split", "seed"])),
        "structure": _by_embedding(found.structure),
        "sensitivity": found.sensitivity[["embedding", "value", "spearman"]].to_dict("records"),
        "invariance": {},
        "training": {},
        "dimensions": int(vectors.shape[1]),
        "nuclei": len(seen.types),
    }


def sampled(all_of: Tissue, seed: int) -> NDArray[np.int64]:
    """Rows of the typed nuclei that the published encoder is judged on."""
    typed = np.flatnonzero(all_of.types != "")
    return np.sort(generator(seed, 43).permutation(typed)[:SAMPLE])


def take(all_of: Tissue, rows: NDArray[np.int64]) -> Tissue:
    """The nuclei of these rows."""
    return Tissue(
        all_of.crops.take(rows), all_of.features.iloc[rows].reset_index(drop=True),
        all_of.types[rows], all_of.tiles[rows],
    )  # fmt: skip


def _certified(
    embeddings: Mapping[str, NDArray[Any]],
    seen: Tissue,
    layout: str,
    test: Sequence[str],
    seed: int,
    blocks: Mapping[str, Sequence[int]] | None = None,
) -> Certificate:
    # A sample may hold no nucleus of a small tile.
    there = sorted(set(test) & set(seen.tiles.tolist()))
    return certificate(
        embeddings, types=seen.types, slides=seen.tiles, splits={layout: there}, seeds=(seed,),
        labels=LABELS, values={name: seen.features[column] for name, column in VALUES.items()},
        blocks=blocks,
    )  # fmt: skip


def _by_embedding(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    rows = frame.set_index("embedding")
    return {str(name): {str(k): float(v) for k, v in row.items()} for name, row in rows.iterrows()}


def _training(model: EncoderModel) -> dict[str, Any]:
    figures = model.config.training
    return {k: v for k, v in figures.items() if isinstance(v, int | float | str)}


def _vectors(
    run: Run, place: Place, seen: Tissue, test: Sequence[str], all_of: Tissue
) -> tuple[NDArray[Any], EncoderModel | None]:
    """The embedding of the nuclei seen, and the encoder that made it."""
    what, seed = run.parameters["what"], run.parameters["seed"]
    if what == "thumbnails":
        return thumbnail_vectors(seen.crops), None
    if what == "features":
        return seen.features.to_numpy(dtype=np.float32), None
    if what == "random":
        taught = _outside(all_of, test)
        model = untrained(encoder_recipe("nuc2vec"), seed=seed, store=taught)
    elif what in shipped_encoders():
        model = load_encoder(what)
    else:
        model = _trained(run, place, all_of, test)
    return embed(model, seen.crops).astype(np.float32), model


def _outside(all_of: Tissue, test: Sequence[str]) -> CropStore:
    """The crops of the tiles that are not judged."""
    return all_of.crops.take(np.flatnonzero(~np.isin(all_of.tiles, list(test))))


def _trained(run: Run, place: Place, all_of: Tissue, test: Sequence[str]) -> EncoderModel:
    """An encoder trained on the nuclei of the other tiles; goes on where it was interrupted."""
    folder, settings = place.folder / "encoder", run.parameters
    if (folder / "model.json").is_file():
        return load_encoder(folder)
    seen = _outside(all_of, test)
    checkpoint = place.folder / "checkpoint.safetensors"
    limits = EncoderSettings(
        minutes=float("inf") if settings["steps"] is not None else settings["minutes"],
        seed=settings["seed"], checkpoint=checkpoint, resume=checkpoint.is_file(),
        steps=settings["steps"],
    )  # fmt: skip
    cpu = time.process_time()
    model = train_encoder(seen, encoder_recipe(settings["what"]), limits)
    model.config.training["cpu_seconds"] = round(time.process_time() - cpu, 1)
    save_encoder(model, folder, overwrite=True)
    return model


def noticed(
    model: EncoderModel, all_of: Tissue, test: Sequence[str], seed: int
) -> Mapping[str, float]:
    """Mean cosine between test nuclei before and after each change."""
    rows = np.flatnonzero(np.isin(all_of.tiles, list(test)))
    most = CHANGED.get(model.config.recipe, CHANGED_ELSE)
    rows = np.sort(generator(seed, 41).permutation(rows)[:most])
    crops = all_of.crops.take(rows)
    before = embed(model, crops).astype(np.float32)
    return {
        kind: float((before * embed(model, change(crops, kind, seed=seed))).sum(axis=1).mean())
        for kind in CHANGES
    }


NUC2VEC = Benchmark("nuc2vec", runs, render, "nuc2vec")
