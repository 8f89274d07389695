"""Train the encoder that comes with the package, ``nuc2vec-small``, from data that may be shipped.

Stained tiles of the 2018 Data Science Bowl (BBBC038, CC0) with their outlines, and simulated H&E.
The tiles do not say their scale: where the median nucleus covers more than 600 pixels they are
taken for 40x (0.25 um per pixel), the others for 20x (0.5). The simulated scenes are 0.25.

    OMP_NUM_THREADS=1 python bench/train_nuc2vec_small.py --data DIR [--output DIR] [--steps N]
        [--results bench/results/nuc2vec] [--card-only]

``--card-only`` writes the card again, with the figures of ``nucleoscope bench nuc2vec``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from nucleoscope import train_encoder
from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.slide import Slide
from nucleoscope.data.table import NucleusTable
from nucleoscope.flow.crops import crop_nuclei
from nucleoscope.io import guard
from nucleoscope.io.images import read_labels, read_volume
from nucleoscope.learn.encoder_model import SHIPPED, load_encoder, save_encoder
from nucleoscope.nuclei.outline import outlines_of
from nucleoscope.simulator import simulate

NAME = "nuc2vec-small"
SEED = 0
#: Median area in pixels above which a tile is taken for 40x.
LARGE = 600
SCENES = {"n": 12, "size": 768, "seed": 101}
MPP_40X, MPP_20X = 0.25, 0.5


def real(folder: Path) -> list[tuple[Slide, Nuclei]]:
    """The stained tiles with the scale they are taken for."""
    found = []
    for path in sorted((folder / "dsb2018_stained").glob("*.labels.tif")):
        labels = read_labels(path)
        image = read_volume(path.with_name(path.name.replace(".labels.tif", ".png")))
        rgb = np.ascontiguousarray(image.data[:3, 0].transpose(1, 2, 0))
        areas = np.bincount(labels.data.ravel())[1:]
        mpp = MPP_40X if np.median(areas[areas > 0]) > LARGE else MPP_20X
        found.append(
            (Slide.from_array(rgb, mpp=mpp, name=image.name), nuclei_of(labels, image.name))
        )
    return found


def simulated() -> list[tuple[Slide, Nuclei]]:
    found = []
    for scene in simulate(kind="histology", **SCENES):
        rgb = np.ascontiguousarray(scene.volume.data[:, 0].transpose(1, 2, 0))
        name = scene.volume.name
        found.append((Slide.from_array(rgb, mpp=MPP_40X, name=name), nuclei_of(scene.labels, name)))
    return found


def nuclei_of(labels: Labels, name: str) -> Nuclei:
    """One row per nucleus of an instance map, at its centroid."""
    import pandas as pd

    _, y, x = np.nonzero(labels.data)
    ids, which = np.unique(labels.data[0][y, x], return_inverse=True)
    n = np.bincount(which)
    outlines, _ = outlines_of(labels, ids)
    table = pd.DataFrame(
        {
            "id": ids.astype(np.int64),
            "image": name,
            "y": np.bincount(which, weights=y) / n,
            "x": np.bincount(which, weights=x) / n,
        }
    )
    return Nuclei(NucleusTable(table), outlines)


def notes(results: Path, nuclei: int) -> str:
    """What the card says of data, licence and figures."""
    lines = [
        "",
        f"Give its name as the model: `nucleoscope embed IMAGE --nuclei FILE -m {NAME} -o ATLAS`.",
        "",
        "## Data and licence",
        "",
        f"{nuclei:,} nuclei of the 75 stained tiles of the 2018 Data Science Bowl (BBBC038, CC0) "
        "and of simulated H&E. Made by `python bench/train_nuc2vec_small.py`, seed "
        f"{SEED}; the weights are under the licence of nucleoscope.",
        "",
        "## Figures",
        "",
    ]
    rows = judged(results)
    if not rows:
        return "\n".join([*lines, "Not judged yet.", ""])
    return "\n".join(
        [
            *lines,
            "On H&E tiles that it never saw (CRCHistoPhenotypes, four types, weighted F1, mean of "
            "the folds of `nucleoscope bench nuc2vec`):",
            "",
            "| tiles | folds | kNN | linear | linear, with features |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def judged(results: Path) -> list[str]:
    """A row of the card for each layout that was judged."""
    rows = []
    for layout in ("interleaved", "blocks"):
        paths = sorted(results.glob(f"crc.{NAME}-{layout}-*.json"))
        found = [guard.read_json(path)["figures"]["embeddings"] for path in paths]
        if found:
            mean = [
                np.mean([figures[row][name] for figures in found])
                for row, name in (
                    (NAME, "knn_f1"), (NAME, "linear_f1"), ("with features", "linear_f1"),
                )
            ]  # fmt: skip
            cells = " | ".join(f"{value:.3f}" for value in mean)
            rows.append(f"| {layout} | {len(found)} | {cells} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=SHIPPED / NAME)
    parser.add_argument("--steps", type=int, help="instead of the recipe's own")
    parser.add_argument("--results", type=Path, default=Path("bench/results/nuc2vec"))
    parser.add_argument("--card-only", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.card_only:
        model = load_encoder(given.output)
    else:
        slides, nuclei = zip(*real(given.data), *simulated(), strict=True)
        crops = crop_nuclei(list(slides), list(nuclei), quiet=True)
        model = train_encoder(crops, minutes=math.inf, steps=given.steps, seed=SEED, quiet=True)
    figures = {k: v for k, v in model.config.training.items() if k != "history"}
    save_encoder(model, given.output, overwrite=True, is_half=True,
                 notes=notes(given.results, figures["nuclei"]))  # fmt: skip
    print(figures)


if __name__ == "__main__":
    main()
