"""Part B from files to files: train an encoder on nuclei, and embed nuclei into an atlas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.atlas import Atlas
from nucleoscope.data.crops import CropStore
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.slide import Slide
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.crops import Found, Image, crop_nuclei, open_nuclei, open_slides
from nucleoscope.flow.progress import bar
from nucleoscope.flow.run import Run, hash_of
from nucleoscope.io import guard
from nucleoscope.io.atlas import MANIFEST, write_atlas
from nucleoscope.learn.embed import embed as embed_crops
from nucleoscope.learn.embed import embed_context
from nucleoscope.learn.encode import EncoderProgress, EncoderSettings
from nucleoscope.learn.encode import train_encoder as train_on_crops
from nucleoscope.learn.encoder_model import EncoderModel, load_encoder, save_encoder
from nucleoscope.learn.encoder_recipes import encoder_recipe
from nucleoscope.seeds import generator

CHECKPOINT = "checkpoint.safetensors"
CROPS = "crops.zarr"


def train_encoder(
    images: Image | Sequence[Image] | CropStore,
    output: str | Path | None = None,
    *,
    nuclei: Found | Sequence[Found] | None = None,
    recipe: str = "nuc2vec",
    encoder: str | None = None,
    loss: str | None = None,
    minutes: float = 30.0,
    steps: int | None = None,
    most: int = 60_000,
    mpp: float | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> EncoderModel:
    """Train an encoder of nuclei without labels.

    Parameters
    ----------
    images
        Slides: files, arrays ``(Y, X, 3)`` uint8, or ``Slide``; or crops that are cut already.
    output
        The model's folder; None only returns it.
    nuclei
        For each slide a file (outlines, an instance map, centroids) or ``Nuclei``.
    recipe
        ``nuc2vec`` (default) or ``nuc2vec-paper``.
    encoder, loss
        Instead of the recipe's: a row of ``ENCODERS`` or ``timm:NAME``; a row of
        ``EMBEDDING_LOSSES``.
    minutes
        Longest training time, cutting the crops not counted.
    steps
        Training steps instead of the recipe's own length; with ``minutes=inf`` a run is exactly
        repeatable.
    most
        Nuclei to learn from; of more, so many are drawn.
    mpp
        Micrometres per pixel, where the files do not say.
    resume
        Go on from the checkpoint in ``output``.

    Returns
    -------
    EncoderModel
        Also written to ``output``.

    Raises
    ------
    CallError
        An impossible recipe, encoder, loss or folder; no nuclei.
    InputError
        Slides or nuclei that cannot be used, or a training that collapsed.
    """
    chosen = encoder_recipe(recipe, encoder=encoder, loss=loss)
    folder = None if output is None else Path(output)
    _check_folder(folder, resume=resume, overwrite=overwrite)
    told = {"recipe": recipe, "encoder": chosen.encoder, "loss": chosen.loss, "seed": seed}
    run = Run("train-encoder", {**told, "minutes": minutes if math.isfinite(minutes) else None})
    run.inputs = _inputs(images, nuclei)
    store = _crops_to_learn(images, nuclei, mpp=mpp, most=most, seed=seed, quiet=quiet)
    settings = EncoderSettings(
        minutes, seed, most, None if folder is None else folder / CHECKPOINT, resume, steps
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        guard.sweep_stale_temps(folder)
    with bar("training", quiet=quiet) as tell:
        model = train_on_crops(store, chosen, settings, report=lambda p: tell(p.fraction, _note(p)))
    if folder is not None:
        save_encoder(model, folder, overwrite=True)
        run.figures = {k: v for k, v in model.config.training.items() if k != "history"}
        run.finish(folder, history=model.config.training["history"])
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return model


def embed(
    images: Image | Sequence[Image] | CropStore,
    model: str | Path | EncoderModel,
    output: str | Path | None = None,
    *,
    nuclei: Found | Sequence[Found] | NucleusTable | None = None,
    mpp: float | None = None,
    features: bool = True,
    batch: int = 256,
    fast: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Atlas:
    """Give every nucleus of one or several slides its vector, and make an atlas of them.

    Parameters
    ----------
    images
        Slides: files, arrays ``(Y, X, 3)`` uint8, or ``Slide``; or crops that are cut already.
    model
        An encoder's folder, an encoder, or the name of one that comes with the package:
        ``nuc2vec-small``.
    output
        ATLAS folder to write: ``nuclei.parquet``, ``embedding.zarr``, ``context.zarr`` where the
        encoder looks at surroundings, ``crops.zarr``, ``run.json``; None keeps all in memory.
    nuclei
        For each slide a file or ``Nuclei``; for crops their table.
    mpp
        Micrometres per pixel, where the files do not say.
    features
        Also measure the interpretable features ``f_*`` of nuclei whose outline is known.
    batch
        Crops at a time.
    fast
        Compute in bfloat16: about half the time on processors with AMX, nearly the same vectors.

    Returns
    -------
    Atlas
        One row per nucleus, slide by slide in the order of their files.

    Raises
    ------
    CallError
        No nuclei, or the folder holds an atlas already and ``overwrite`` is False.
    InputError
        A slide, nuclei or the model cannot be used.
    """
    folder = None if output is None else Path(output)
    _check_folder(folder, resume=False, overwrite=overwrite)
    encoder = model if isinstance(model, EncoderModel) else load_encoder(model)
    run = Run("embed", {"recipe": encoder.config.recipe, "model": _named(model)})
    run.inputs = _inputs(images, nuclei)
    store, table = _crops_to_embed(images, nuclei, folder, mpp=mpp, quiet=quiet)
    rows = store.table_rows(table)
    if len(table) != len(store):
        raise InputError(f"{len(store)} crops for a table of {len(table)} nuclei; cut them anew.")
    with bar("embedding", quiet=quiet) as tell:
        found = embed_crops(
            encoder, store, batch=batch, is_fast=fast,
            report=lambda f: tell(0.6 * f, f"{len(store):,} nuclei"),
        )  # fmt: skip
        around = embed_context(
            encoder, store, batch=batch, is_fast=fast,
            report=lambda f: tell(0.6 + 0.3 * f, "surroundings"),
        )  # fmt: skip
        measured = _features(store) if features else None
    order = np.argsort(rows, kind="stable")
    atlas = Atlas(
        table,
        found[order],
        context=None if around is None else around[order],
        features=None if measured is None else measured.iloc[order].reset_index(drop=True),
    )
    if folder is not None:
        run.figures = {"nuclei": len(atlas), "slides": len(store.slides)}
        write_atlas(folder, atlas, manifest=run.manifest(), overwrite=overwrite)
    return atlas


def _note(progress: EncoderProgress) -> str:
    rank = "" if progress.health is None else f"  effective rank {progress.health.rank:.0f}"
    return f"step {progress.step}  loss {progress.loss:.3f}{rank}"


def _named(model: str | Path | EncoderModel) -> str | None:
    return None if isinstance(model, EncoderModel) else str(model)


def _check_folder(folder: Path | None, *, resume: bool, overwrite: bool) -> None:
    """Refuse a file, a folder with something in it unless told, and a resume without checkpoint.

    Raises
    ------
    CallError
        Says which.
    """
    if folder is None:
        if resume:
            raise CallError("to resume, name the folder that holds the checkpoint.")
        return
    if folder.exists() and not folder.is_dir():
        raise CallError(f"{folder}: it is a file; give a folder.")
    is_filled = folder.is_dir() and any(folder.iterdir())
    if is_filled and resume and not overwrite and not (folder / CHECKPOINT).is_file():
        raise CallError(
            f"{folder}: it holds no checkpoint to go on from; give another folder, or --overwrite."
        )
    if is_filled and not (resume or overwrite):
        raise CallError(
            f"{folder}: it is not empty; give another folder or --overwrite (of an interrupted "
            "training --resume goes on)."
        )


def _inputs(images: Any, nuclei: Any) -> list[dict[str, Any]]:
    """Names and hashes of what was given as files."""
    both = []
    for role, given in (("image", images), ("nuclei", nuclei)):
        many = given if isinstance(given, list | tuple) else [given]
        both.append([{role: str(one)} for one in many if isinstance(one, str | Path)])
    entries = [*both[0], *both[1]]
    for entry in entries:
        (path,) = entry.values()
        if Path(path).exists():
            entry["sha256"] = hash_of(Path(path))
    return entries


def _needed(nuclei: Any) -> Any:
    """The nuclei, which must be given.

    Raises
    ------
    CallError
        They were not.
    """
    if nuclei is None:
        raise CallError("which nuclei? Give one file of nuclei for each slide with --nuclei.")
    return nuclei


def _crops_to_learn(
    images: Any, nuclei: Any, *, mpp: float | None, most: int, seed: int, quiet: bool
) -> CropStore:
    """Crops in memory; of more than ``most`` nuclei only those drawn are ever cut."""
    if isinstance(images, CropStore):
        return images
    slides = open_slides(images, mpp=mpp)
    found = open_nuclei(_needed(nuclei), slides)
    total = sum(map(len, found))
    if total > most:
        drawn = np.sort(generator(seed, 1).choice(total, most, replace=False))
        starts = np.cumsum([0, *map(len, found)])
        found = [
            one.take(drawn[(drawn >= low) & (drawn < high)] - low)
            for one, low, high in zip(found, starts[:-1], starts[1:], strict=True)
        ]
    return crop_nuclei(slides, found, quiet=quiet)


def _crops_to_embed(
    images: Any, nuclei: Any, folder: Path | None, *, mpp: float | None, quiet: bool
) -> tuple[CropStore, NucleusTable]:
    """Crops, on disk where there is a folder, and the table of all slides."""
    if isinstance(images, CropStore):
        if not isinstance(nuclei, NucleusTable):
            raise CallError("crops that are cut already come with their NucleusTable as nuclei.")
        return images, nuclei
    slides = open_slides(images, mpp=mpp)
    found = open_nuclei(_needed(nuclei), slides)
    if not sum(map(len, found)):
        raise InputError("there is no nucleus in any slide, so there is nothing to embed.")
    place = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        guard.sweep_stale_temps(folder)
        # While its parts are replaced the folder is no finished atlas.
        (folder / MANIFEST).unlink(missing_ok=True)
        place = folder / CROPS
    store = crop_nuclei(slides, found, place, overwrite=True, quiet=quiet)
    return store, _joined(slides, found)


def _joined(slides: Sequence[Slide], found: Sequence[Nuclei]) -> NucleusTable:
    """One table of all slides, with the slide's name and places in um."""
    frames = []
    for slide, nuclei in zip(slides, found, strict=True):
        frame = nuclei.table.frame.copy()
        frame["image"] = slide.name
        frame["y_um"] = frame["y"] * slide.known_mpp()
        frame["x_um"] = frame["x"] * slide.known_mpp()
        frames.append(frame)
    filled = [frame for frame in frames if len(frame)]
    return NucleusTable(pd.concat(filled or frames[:1], ignore_index=True))


def _features(store: CropStore) -> pd.DataFrame | None:
    """Interpretable features in the store's order; None where no outline is known."""
    from nucleoscope.atlas.features import crop_features

    parts, is_known = [], False
    for _, block in store.blocks():
        parts.append(crop_features(block.morphology, block.mask))
        is_known |= bool(block.mask.any())
    if not is_known:
        return None
    frame = pd.concat(parts, ignore_index=True)
    empty: NDArray[np.bool_] = frame.isna().all(axis=0).to_numpy()
    return frame.loc[:, ~empty]
