"""Accuracy on stained sections, cross-validated: nuclei found, and typed, in tiles not taught.

The tiles are those of CRCHistoPhenotypes (Sirinukunwattana et al. 2016), 80 of them, with a point
and usually a type per nucleus; they are not part of the repository: set NUCLEOSCOPE_DATA or have
../shared/data. Two ways of dealing tiles into folds: ``interleaved`` (every fourth tile) and
``contiguous`` (a block of twenty: neighbouring numbers come from the same slides, so this is the
harder test). A fold is trained through the ordinary ``train`` of an RGB image, judged through
``detect``, and kept in ``bench/results/histology/``; a finished fold is not repeated, so the
command can be interrupted and given again.

    python bench/bench_histology.py --split interleaved contiguous --folds 4 --steps 3000
    python bench/bench_histology.py --quick

Reported per fold, then mean and spread:

- detection: precision, recall, F1, pairs of the optimal matching within 6 px;
- typing at the true nuclei: the model is told where the nuclei are and says their types;
- both together: F_d and F_c of HoVer-Net's evaluation, 6 px;
- calibration error of ``type_prob`` at the true nuclei.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import nucleoscope
from nucleoscope.data import Points, Volume
from nucleoscope.flow.inputs import drawn_in
from nucleoscope.flow.lecl import detect, train
from nucleoscope.io.images import read_volume
from nucleoscope.io.points import read_points
from nucleoscope.io.tables import read_table
from nucleoscope.learn.infer import types_at
from nucleoscope.learn.model import Model, load_model
from nucleoscope.metrics import calibration_error, hovernet_type_scores, match_points

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "histology"
SPLITS = ("interleaved", "contiguous")
RADIUS = 6.0


def tiles() -> list[Path]:
    """All tiles, by their number."""
    data = Path(os.environ.get("NUCLEOSCOPE_DATA", ROOT.parent / "shared" / "data"))
    found = (data / "crc_histophenotypes").glob("img*.png")
    files = sorted(found, key=lambda path: int(re.findall(r"\d+", path.stem)[0]))
    if not files:
        raise SystemExit(f"{data}/crc_histophenotypes is not there; set NUCLEOSCOPE_DATA.")
    return files


def in_fold(split: str, folds: int, fold: int, n: int) -> np.ndarray:
    """Which tiles a fold holds out."""
    rows = np.arange(n)
    return rows % folds == fold if split == "interleaved" else rows * folds // n == fold


def example(path: Path) -> tuple[Volume, Points]:
    volume = read_volume(path)
    points = read_points(path.with_suffix(".points.csv"), image=volume.name)
    return volume, drawn_in(points, volume.shape)


def type_figures(truth: np.ndarray, prob: np.ndarray, names: tuple[str, ...]) -> dict:
    """Accuracy, F1 by type, weighted and macro F1, confusion (rows: truth), calibration."""
    said = prob.argmax(axis=1)
    table = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(table, (truth, said), 1)
    both = table.sum(axis=0) + table.sum(axis=1)
    f1 = 2 * np.diag(table) / np.maximum(both, 1)
    counts = table.sum(axis=1)
    return {
        "n": int(counts.sum()),
        "accuracy": float((truth == said).mean()),
        "weighted_f1": float(f1 @ counts / counts.sum()),
        "macro_f1": float(f1[counts > 0].mean()),
        "f1": dict(zip(names, f1.round(4).tolist(), strict=True)),
        "confusion": table.tolist(),
        "calibration_error": calibration_error(prob.max(axis=1), truth == said),
    }


#: Tiles are laid below one another this far apart, so that one matching serves them all.
APART = 10_000.0


def judge(model: Model, folder: Path, held_out: list[Path], out: Path) -> dict:
    """Figures of a model on tiles it has not seen."""
    detect(held_out, folder, out, quiet=True)
    names = model.config.types
    found, said, places, true, prob = [], [], [], [], []
    for i, path in enumerate(held_out):
        volume, points = example(path)
        yx = points.zyx()[:, 1:]
        frame = read_table(out / path.stem / "nuclei.parquet").frame
        found.append(frame[["y", "x"]].to_numpy(dtype=float) + np.array([i * APART, 0.0]))
        said.append(frame["type"].to_numpy(dtype=str))
        places.append(yx + np.array([i * APART, 0.0]))
        true.append(points.types)
        prob.append(types_at(model, volume, yx))
    parts = (np.concatenate(part) for part in (found, said, places, true, prob))
    found, said, places, true, prob = parts
    matching = match_points(found, places, radius=RADIUS)
    hit = len(matching.truth_index)
    typed = true != ""
    # A detection of a nucleus that nobody typed is neither right nor wrong about its type.
    asked = np.ones(len(found), dtype=bool)
    asked[matching.predicted_index[~typed[matching.truth_index]]] = False
    of_typed = match_points(found[asked], places[typed], radius=RADIUS)
    truth = np.array([names.index(t) for t in true[typed]], dtype=int)
    return {
        "detection": {
            "precision": hit / max(1, len(found)), "recall": hit / max(1, len(places)),
            "f1": 2 * hit / max(1, len(found) + len(places)),
            "found": len(found), "true": len(places),
        },
        "types": type_figures(truth, prob[typed], names),
        "both": hovernet_type_scores(of_typed, said[asked], true[typed]).to_dict(),
    }  # fmt: skip


def run(split: str, fold: int, chosen: argparse.Namespace) -> dict:
    files = tiles()
    length = f"steps{chosen.steps}" if chosen.steps else f"{chosen.minutes:g}min"
    name = f"{chosen.recipe}-{split}-{fold}of{chosen.folds}-{length}-seed{chosen.seed}.json"
    path = RESULTS / name
    if path.is_file():
        return json.loads(path.read_text())
    out = in_fold(split, chosen.folds, fold, len(files))
    taught = [f for f, is_out in zip(files, out, strict=True) if not is_out]
    held_out = [f for f, is_out in zip(files, out, strict=True) if is_out]
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "model"
        begin, cpu = time.perf_counter(), time.process_time()
        model = train(
            taught, folder, recipe=chosen.recipe, seed=chosen.seed, steps=chosen.steps,
            minutes=chosen.minutes, quiet=True,
        )  # fmt: skip
        figures = {
            "version": nucleoscope.__version__, "split": split, "fold": fold,
            "tiles": [f.stem for f in held_out],
            "steps": model.config.training["steps"],
            "train_minutes": round((time.perf_counter() - begin) / 60, 2),
            "train_cpu_minutes": round((time.process_time() - cpu) / 60, 2),
            "threshold": model.config.threshold,
            "held_out_f1": model.config.training["detection_f1_held_out"],
        } | judge(load_model(folder), folder, held_out, Path(temp) / "found")  # fmt: skip
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def table(runs: list[dict]) -> str:
    """Mean and spread over the folds of each split."""
    rows = {
        "detection F1 at 6 px": lambda r: r["detection"]["f1"],
        "precision": lambda r: r["detection"]["precision"],
        "recall": lambda r: r["detection"]["recall"],
        "weighted F1 at true nuclei": lambda r: r["types"]["weighted_f1"],
        "macro F1": lambda r: r["types"]["macro_f1"],
        "accuracy": lambda r: r["types"]["accuracy"],
        "calibration error": lambda r: r["types"]["calibration_error"],
        "F_d": lambda r: r["both"]["f_d"],
    }
    lines = ["| split | figure | folds | mean | sd |", "|---|---|---|---|---|"]
    for split in SPLITS:
        mine = [r for r in runs if r["split"] == split]
        if not mine:
            continue
        types = {t: (lambda r, t=t: r["both"]["f_c"][t]) for t in mine[0]["both"]["f_c"]}
        for name, value in (rows | {f"F_c {t}": f for t, f in types.items()}).items():
            values = [value(r) for r in mine]
            sd = statistics.stdev(values) if len(values) > 1 else 0.0
            cells = " ".join(f"{v:.3f}" for v in values)
            lines.append(
                f"| {split} | {name} | {cells} | {statistics.mean(values):.3f} | {sd:.3f} |"
            )
        total = sum(np.array(r["types"]["confusion"]) for r in mine)
        lines.append(
            f"\n{split}: truth in rows, {', '.join(mine[0]['types']['f1'])}: {total.tolist()}\n"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--only", type=int, nargs="+", default=None, help="these folds alone")
    parser.add_argument("--recipe", default="lecl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--quick", action="store_true", help="one fold, no network")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.recipe, chosen.split, chosen.only = "classical", ["interleaved"], [0]
    runs = []
    for split in chosen.split:
        for fold in range(chosen.folds) if chosen.only is None else chosen.only:
            runs.append(run(split, fold, chosen))
            kept = {k: runs[-1][k] for k in ("split", "fold", "detection", "types")}
            print(json.dumps(kept), flush=True)
    print(table(runs))


if __name__ == "__main__":
    main()
