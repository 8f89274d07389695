"""Encoders: training views and embedded nuclei per CPU second, and what the embedding knows.

Speed, interleaved in one process: a training step of ``nuc2vec`` beside lightly's SimCLR transform
with ResNet-18 and NT-Xent on the same crops, and embedding with ours (32 px) beside ResNet-18
(64 px) and the published ResNet-34 (128 px), all in eager torch. Checked in the same run: vectors
are finite and, of our folded network, equal to those of the unfolded one.

With ``--tiles FOLDER`` (H&E tiles ``*.png`` with ``*.points.csv``) it also measures embedding from
image files, reading and cutting included, surroundings too, beside the published ResNet-34 on
crops of the same files. With ``--seconds S`` it then trains ``nuc2vec``, ``nuc2vec-paper`` and
lightly's SimCLR with ResNet-18 for equal CPU time, the last also for four times as long, and scores
them and the random start on test tiles. ``--seed`` is that of every training.

    OMP_NUM_THREADS=1 python bench/bench_encoder.py [--quick]
        [--tiles FOLDER] [--seconds S] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from nucleoscope.data.crops import CropStore
from nucleoscope.learn import encode
from nucleoscope.learn.embed import embed
from nucleoscope.learn.embedding_losses import infonce
from nucleoscope.learn.encode import EncoderSettings, train_encoder, untrained
from nucleoscope.learn.encoder_model import EncoderModel
from nucleoscope.learn.encoder_recipes import EncoderRecipe, encoder_recipe
from nucleoscope.learn.nets.encoders import build_encoder, build_head, folded

#: Views of lightly in one timed step.
PEER_VIEWS = 32
PUBLISHED, OURS = encoder_recipe("nuc2vec-paper"), encoder_recipe("nuc2vec")


def spent(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def random_store(n: int) -> CropStore:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    y, x = np.indices((64, 64)) - 31.5
    mask = np.broadcast_to(np.hypot(y, x) < 14, (n, 64, 64)).astype(np.uint8)
    return CropStore(
        images, images, mask, np.zeros(n, bool), np.arange(n) % 2, ("a", "b"), np.arange(n)
    )


# --- embedding ----------------------------------------------------------------------------------


def embedding_speed(turns: int) -> None:
    store = random_store(1024)
    ours = untrained(replace(OURS, context_weight=0.0))
    others = {
        "ResNet-18 at 64 px": ("resnet18", 64, 16),
        "ResNet-34 at 128 px": ("resnet34", 128, 8),
    }
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "nuc2vec at 32 px, from crops": (1024, lambda: embed(ours, store))
    }
    for name, (encoder, size, n) in others.items():
        net = build_encoder(encoder).eval().to(memory_format=torch.channels_last)
        x = torch.randn(n, 3, size, size).contiguous(memory_format=torch.channels_last)
        runs[name] = (n, lambda net=net, x=x: forward(net, x))
    x = torch.rand(32, ours.net.encoder.channels, 32, 32)
    plain = forward(ours.net.encoder, x)
    assert torch.allclose(forward(folded(ours.net.encoder), x), plain, atol=1e-4)
    report("nuclei embedded per CPU second", interleaved(runs, turns))


def forward(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        out = net(x)
    assert torch.isfinite(out).all()
    return out


def from_files(folder: Path, turns: int) -> None:
    """From files on disk to vectors: all of ours, and the published network on some nuclei."""
    from nucleoscope import embed as embed_files
    from nucleoscope.data.nuclei import Nuclei
    from nucleoscope.data.table import NucleusTable
    from nucleoscope.flow.crops import crop_nuclei
    from nucleoscope.io.images import read_volume
    from nucleoscope.io.tables import read_csv

    tiles = sorted(folder.glob("*.png"))[:8]
    frames = [read_csv(tile.with_suffix(".points.csv")).drop(columns="type") for tile in tiles]
    found, model = [Nuclei(NucleusTable(frame)) for frame in frames], untrained(OURS)
    total, few = sum(map(len, frames)), frames[0].iloc[:16]
    net = build_encoder("resnet34").eval().to(memory_format=torch.channels_last)

    def ours(is_fast: bool) -> None:
        atlas = embed_files(
            tiles, model, nuclei=found, mpp=0.55, features=False, fast=is_fast, quiet=True
        )
        assert len(atlas) == total and np.isfinite(atlas.embedding.astype(float)).all()

    def nuclei_only(is_fast: bool) -> None:
        store = crop_nuclei(tiles, found, mpp=0.55, quiet=True)
        assert np.isfinite(embed(model, store, is_fast=is_fast).astype(float)).all()

    def published(number: torch.dtype) -> None:
        image = np.pad(
            read_volume(tiles[0]).data[:, 0], ((0, 0), (32, 32), (32, 32)), mode="reflect"
        )
        at = few[["y", "x"]].to_numpy().round().astype(int)
        crops = np.stack([image[:, y : y + 64, x : x + 64] for y, x in at])
        x = functional.interpolate(torch.from_numpy(crops).float() / 255, size=(128, 128))
        forward(net.to(number), x.to(number).contiguous(memory_format=torch.channels_last))

    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "ResNet-34 at 128 px": (len(few), lambda: published(torch.float32)),
        "nuc2vec": (total, lambda: nuclei_only(False)),
        "nuc2vec in bfloat16": (total, lambda: nuclei_only(True)),
        "with surroundings, an atlas": (total, lambda: ours(False)),
        "the same in bfloat16": (total, lambda: ours(True)),
        "ResNet-34 at 128 px in bfloat16": (len(few), lambda: published(torch.bfloat16)),
    }
    report("nuclei per CPU second, image files read", interleaved(runs, turns))


# --- training -----------------------------------------------------------------------------------


def training_speed(turns: int) -> None:
    store = random_store(512)
    runs: dict[str, tuple[int, Callable[[], object]]] = {}
    for name, weight in (("nuc2vec", OURS.context_weight), ("nuc2vec, no context", 0.0)):
        runs[name] = (2 * OURS.batch, stepper(replace(OURS, context_weight=weight), store))
    try:
        for size in (32, 64):
            runs[f"lightly SimCLR, ResNet-18, {size} px"] = (PEER_VIEWS, Peer(store, size).step)
    except (ImportError, RuntimeError) as error:
        print(f"lightly cannot be run here: {error}")
    rates = interleaved(runs, turns)
    report("views per CPU second of training", rates)
    run = encode._prepare(store, OURS, EncoderSettings(), None)
    rows = np.arange(OURS.batch)
    views = spent(lambda: [encode._views(run, rows, 0, view) for view in (0, 1)])
    share = views / (2 * OURS.batch / rates["nuc2vec"])
    print(f"augmentation is {100 * share:.1f} % of a step of nuc2vec")


def stepper(recipe: EncoderRecipe, store: CropStore) -> Callable[[], object]:
    run = encode._prepare(store, recipe, EncoderSettings(), None)
    state = encode._start(run, None)
    return lambda: encode._step(state, run, 0.5)


class Peer:
    """lightly's ``SimCLRTransform``, ResNet-18 with its usual stem, NT-Xent, AdamW."""

    def __init__(self, store: CropStore, size: int, seed: int = 0) -> None:
        from bench_views import lightly

        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  the transform draws from the global generators
        self.images, self.size = store.morphology, size
        self.make, self.rng = lightly(store.morphology, size), np.random.default_rng(seed)
        self.encoder = build_encoder("resnet18")
        self.net = torch.nn.Sequential(self.encoder, build_head(512, 512, 128, has_norm=True))
        self.net.to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=1e-3, fused=True)

    def step(self, n_views: int = PEER_VIEWS) -> None:
        # The transform makes two views of each of the first half of the rows.
        self.net.train()
        rows = self.rng.choice(len(self.images), n_views, replace=False)
        views = torch.from_numpy(self.make(rows, 0)).permute(0, 3, 1, 2)
        out = functional.normalize(self.net(views), dim=1)
        loss = infonce(out[::2], out[1::2])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def train(self, seconds: float) -> int:
        """Steps made in about this much CPU time."""
        start, steps = time.process_time(), 0
        while time.process_time() - start < seconds:
            self.step(256)
            steps += 1
        return steps

    def embed(self, store: CropStore) -> np.ndarray:
        """Vectors of length 1 of crops that are only made smaller and normalised."""
        self.net.eval()
        mean, spread = (
            torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        found = []
        for start in range(0, len(store), 256):
            crops = np.asarray(store.morphology[start : start + 256])
            x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
            x = functional.interpolate(x, size=(self.size, self.size), mode="area")
            found.append(functional.normalize(forward(self.encoder, (x - mean) / spread), dim=1))
        return torch.cat(found).numpy()


def interleaved(runs: dict[str, tuple[int, Callable[[], object]]], turns: int) -> dict[str, float]:
    """Median units per CPU second, turn by turn, the first turn not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns + 1):
        for name, (_, run) in runs.items():
            seconds[name].append(spent(run))
    return {name: n / statistics.median(seconds[name][1:]) for name, (n, _) in runs.items()}


def report(title: str, rates: dict[str, float]) -> None:
    first = next(iter(rates.values()))
    print(f"\n{title}, one thread")
    for name, rate in rates.items():
        print(f"{name:36s}{rate:10.1f}{rate / first:10.2f}x")


# --- accuracy -----------------------------------------------------------------------------------


def accuracy(folder: Path, seconds: float, quick: bool, seed: int) -> None:
    """Nuclei of every fifth tile are the test; neighbours and strengths fixed beforehand.

    The test nuclei are seen in training, without their types, by every contestant.
    """
    from nucleoscope.data.nuclei import Nuclei
    from nucleoscope.data.table import NucleusTable
    from nucleoscope.flow.crops import crop_nuclei
    from nucleoscope.io.tables import read_csv

    images = sorted(folder.glob("*.png"))[: 10 if quick else None]
    found, types = [], []
    for image in images:
        frame = read_csv(image.with_suffix(".points.csv"))
        types.append(frame["type"].fillna("").astype(str).to_numpy())
        found.append(Nuclei(NucleusTable(frame.drop(columns="type"))))
    store = crop_nuclei(images, found, mpp=0.55, quiet=True)
    place = [
        dict(zip(f.table.frame["id"], t, strict=True)) for f, t in zip(found, types, strict=True)
    ]
    kind = np.array([place[s][i] for s, i in zip(store.slide, store.id, strict=True)])
    known = np.flatnonzero(kind != "")
    typed, kind = store.take(known), kind[known]
    print(f"\n{len(store)} nuclei of {len(images)} tiles, {len(known)} typed; {seconds:.0f} CPU s")
    test = typed.slide % 5 == 2
    start = time.process_time()
    models = {"random start": untrained(OURS)}
    for recipe in (OURS, PUBLISHED):
        models[recipe.name] = for_cpu_seconds(store, recipe, seconds, seed)
    for name, model in models.items():
        vectors = embed(model, typed).astype(np.float32)
        say(name, model.config.training.get("steps", 0), probes(vectors, kind, test))
    print(f"{time.process_time() - start:.0f} CPU s for these")
    try:
        other, steps = Peer(store, OURS.views.size, seed), 0
    except (ImportError, RuntimeError) as error:
        print(f"lightly cannot be run here: {error}")
        return
    for more, times in ((1, "equal time"), (3, "4x the time")):
        steps += other.train(more * seconds)
        say(f"lightly, ResNet-18, {times}", steps, probes(other.embed(typed), kind, test))


def say(name: str, steps: int, score: tuple[float, float]) -> None:
    print(f"{name:32s} steps {steps:5d}  kNN {score[0]:.3f}  linear {score[1]:.3f} (weighted F1)")


def for_cpu_seconds(
    store: CropStore, recipe: EncoderRecipe, seconds: float, seed: int
) -> EncoderModel:
    """Train for about this much CPU time, by the measured time of a step."""
    run = encode._prepare(store, recipe, EncoderSettings(seed=seed), None)
    state = encode._start(run, None)
    encode._step(state, run, 0.0)
    one = spent(lambda: encode._step(state, run, 0.0))
    steps = max(2, round(seconds / one))
    settings = EncoderSettings(minutes=float("inf"), steps=steps, seed=seed)
    return train_encoder(store, recipe, settings)


def probes(x: np.ndarray, kind: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Weighted F1 of 20 nearest neighbours and of logistic regression (C = 0.02)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    names, y = np.unique(kind, return_inverse=True)
    similar = x[test] @ x[~test].T
    near = np.argpartition(-similar, 20, axis=1)[:, :20]
    weight = np.exp(np.take_along_axis(similar, near, 1) / 0.07)
    votes = np.stack([(weight * (y[~test][near] == c)).sum(1) for c in range(len(names))], 1)
    z = (x - x[~test].mean(0)) / (x[~test].std(0) + 1e-6)
    fitted = LogisticRegression(C=0.02, max_iter=200).fit(z[~test], y[~test])
    return tuple(
        float(f1_score(y[test], found, average="weighted"))
        for found in (votes.argmax(1), fitted.predict(z[test]))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tiles", type=Path)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    turns = 2 if given.quick else 5
    embedding_speed(turns)
    if given.tiles is not None:
        from_files(given.tiles, turns)
    training_speed(turns)
    if given.tiles is not None and given.seconds is not None:
        accuracy(given.tiles, given.seconds, given.quick, given.seed)


if __name__ == "__main__":
    main()
