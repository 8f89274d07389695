"""Accuracy of part A on the plaque stacks: train on d1_train, judge d1_test and d2_dev.

The data is not part of the repository; set NUCLEOSCOPE_DATA or have ../shared/data. Every run's
figures are kept in ``bench/results/plaque/`` and a finished run is not repeated, so the command
can be interrupted and given again. Working point, marker rule and calibration come from d1_train
alone.

    python bench/bench_plaque.py --seeds 0 1 2 --steps 500
    python bench/bench_plaque.py --recipe classical --seeds 0
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import nucleoscope
from nucleoscope.flow.evaluate import evaluate
from nucleoscope.flow.lecl import detect, train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "plaque"
SETS = ("d1_test", "d2_dev")


def data_folder() -> Path:
    folder = Path(os.environ.get("NUCLEOSCOPE_DATA", ROOT.parent / "shared" / "data")) / "plaque"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not there; set NUCLEOSCOPE_DATA to the folder of images.")
    return folder


def run(recipe: str, seed: int, steps: int | None, minutes: float, keep: Path | None) -> dict:
    data = data_folder()
    name = f"{recipe}-seed{seed}" + ("" if steps is None else f"-steps{steps}") + ".json"
    path = RESULTS / name
    if path.is_file():
        return json.loads(path.read_text())
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        begin = time.perf_counter()
        model = train(
            sorted(data.glob("d1_train_*.ome.tif")), folder / "model", recipe=recipe, seed=seed,
            steps=steps, minutes=minutes,
        )  # fmt: skip
        figures = {
            "version": nucleoscope.__version__, "recipe": recipe, "seed": seed,
            "train_minutes": round((time.perf_counter() - begin) / 60, 2),
            "steps": model.config.training["steps"],
            "held_out_f1": model.config.training["detection_f1_held_out"],
        }  # fmt: skip
        for group in SETS:
            images = sorted(data.glob(f"{group}_*.ome.tif"))
            begin = time.perf_counter()
            detect(images, folder / "model", folder / group)
            figures[f"{group}_seconds_per_stack"] = (time.perf_counter() - begin) / len(images)
            scores = evaluate(folder / group, data).to_dict()
            optimal = scores["rules"]["optimal"]
            figures[group] = {
                "detection": optimal["detection"]["pooled"],
                "positive": optimal["types"]["positive"]["pooled"],
                "positive_mean": optimal["types"]["positive"]["mean"],
                "detection_greedy": scores["rules"]["greedy"]["detection"]["pooled"],
                "z_within_one_slice": scores["z_accuracy"],
                "calibration_error": scores["calibration_error"],
            }
        if keep is not None:
            (folder / "model").rename(keep)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def table(runs: list[dict]) -> str:
    lines = ["| set | figure | " + " | ".join(f"seed {r['seed']}" for r in runs) + " | mean | sd |"]
    lines.append("|---" * (len(runs) + 4) + "|")
    for group in SETS:
        rows = {
            "detection F1": [r[group]["detection"]["f1"] for r in runs],
            "positive F1": [r[group]["positive"]["f1"] for r in runs],
            "z within 1 slice": [r[group]["z_within_one_slice"] for r in runs],
            "calibration error": [r[group]["calibration_error"] for r in runs],
        }
        for what, values in rows.items():
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells = " | ".join(f"{v:.3f}" for v in values)
            mean = statistics.mean(values)
            lines.append(f"| {group} | {what} | {cells} | {mean:.3f} | {spread:.3f} |")
    lines.append(f"\nTraining: {[r['train_minutes'] for r in runs]} min, {runs[0]['steps']} steps.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="lecl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--keep", type=Path, default=None, help="where to leave the last model")
    parser.add_argument("--quick", action="store_true", help="the classical recipe, one seed")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.recipe, chosen.seeds, chosen.steps = "classical", [0], None
    runs = []
    for seed in chosen.seeds:
        keep = chosen.keep if seed == chosen.seeds[-1] else None
        runs.append(run(chosen.recipe, seed, chosen.steps, chosen.minutes, keep))
        print(json.dumps(runs[-1]), flush=True)
    print(table(runs))


if __name__ == "__main__":
    main()
