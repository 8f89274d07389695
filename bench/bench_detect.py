"""A whole ``nucleoscope detect``: start, reading, network, 3D nuclei, types, files (one process).

A 12 x 2048 x 2048 stack of two channels is made of simulated stacks side by side and written as
OME-TIFF; the command line runs on it in a process of its own, whose wall time, CPU time and peak
memory the operating system reports. There is no peer here; ``bench_network.py`` and
``bench_decode.py`` compare the parts with theirs.

Then one plane of 1000 x 1000 pixels, in this process and in memory (G2b): windows, network and
instances alone, without types and measurements, in float32 and where the CPU has it in bfloat16.

    python bench/bench_detect.py --model MODEL      (default: a light network trained for 60 steps)
    python bench/bench_detect.py --quick            (512 x 512)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from nucleoscope.data.volume import Volume
from nucleoscope.io.tables import read_table
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.learn import infer
from nucleoscope.learn.model import load_model
from nucleoscope.simulator import PlaqueSettings, simulate_plaque, write_scene


def big_stack(side: int) -> Volume:
    """Simulated stacks of 512 pixels, side by side."""
    settings = PlaqueSettings(size=512, n_slices=12, roi=False)
    scenes = [simulate_plaque(settings, seed) for seed in range(min(4, (side // 512) ** 2))]
    n = side // 512
    rows = [
        np.concatenate([scenes[(i * n + j) % len(scenes)].volume.data for j in range(n)], axis=3)
        for i in range(n)
    ]
    return replace(scenes[0].volume, data=np.concatenate(rows, axis=2), name="big")


def small_model(folder: Path) -> Path:
    for seed in range(2):
        scene = simulate_plaque(PlaqueSettings(size=256, n_slices=12, roi=False), 100 + seed)
        named = replace(scene, volume=replace(scene.volume, name=f"teach_{seed}"))
        write_scene(named, folder / "teach")
    images = sorted((folder / "teach").glob("*.ome.tif"))
    command = [sys.executable, "-m", "nucleoscope.cli", "train", *map(str, images)]
    subprocess.run([*command, "-o", str(folder / "model"), "--steps", "60", "--quiet"], check=True)
    return folder / "model"


def one_plane(folder: Path) -> None:
    """Print wall and CPU seconds of 1000 x 1000 pixels, the best of five."""
    model = load_model(folder)
    scene = simulate_plaque(PlaqueSettings(size=1000, n_slices=1, roi=False), 0)
    print("\n1000 x 1000, one slice, windows + network + instances (G2b)")
    print("| arithmetic | threads | wall s | CPU s | nuclei |\n|---|---|---|---|---|")
    for arithmetic in ("float32", "bfloat16") if infer.has_amx() else ("float32",):
        with mock.patch.object(infer, "has_amx", lambda a=arithmetic: a == "bfloat16"):
            turns = []
            for _ in range(6):  # the first also loads kernels
                wall, cpu = time.perf_counter(), time.process_time()
                maps = infer.maps_of(model, scene.volume)
                labels, _ = infer.find_nuclei(maps, model.config, scene.volume.shape)
                turns.append((time.perf_counter() - wall, time.process_time() - cpu))
        wall, cpu = (min(column) for column in zip(*turns[1:], strict=True))
        n = len(np.unique(labels)) - 1
        print(f"| {arithmetic} | {torch.get_num_threads()} | {wall:.2f} | {cpu:.2f} | {n} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    chosen = parser.parse_args()
    side = 512 if chosen.quick else 2048
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        model = chosen.model or small_model(folder)
        # The stack has the model's voxels: an image of another scale is resampled first, and then
        # its cost is that of the voxels it has afterwards.
        stack = replace(big_stack(side), spacing=load_model(model).config.spacing)
        write_ome_tiff(folder / "big.ome.tif", stack)
        print(f"{stack.shape} x {len(stack.channels)} channels, {os.cpu_count()} cores")
        print("| run | wall s | CPU s | peak memory GB | nuclei |\n|---|---|---|---|---|")
        for run in range(chosen.repeats):
            out = folder / f"out{run}"
            command = [
                sys.executable, "-m", "nucleoscope.cli", "detect", str(folder / "big.ome.tif"),
                "-m", str(model), "-o", str(out), "--quiet",
            ]  # fmt: skip
            begin = time.perf_counter()
            process = subprocess.Popen(command)
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - begin
            assert status == 0, "detect failed"
            cpu = usage.ru_utime + usage.ru_stime
            nuclei = len(read_table(out / "big"))
            memory = usage.ru_maxrss / 2**20
            print(f"| {run + 1} | {wall:.1f} | {cpu:.1f} | {memory:.2f} | {nuclei} |", flush=True)
        one_plane(model)


if __name__ == "__main__":
    main()
