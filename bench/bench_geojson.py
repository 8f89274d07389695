"""How long, and in how much memory, a slide's nuclei become GeoJSON and come back.

``python bench/bench_geojson.py`` writes 1,000,000 nuclei of 20 vertices; ``--quick`` 50,000;
``--simplify 0.5`` as ``convert`` does on request. Memory is the largest resident size above that
before the step (Linux; elsewhere 0 is shown). What was read is compared with what was written.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.io.export.geojson import write_geojson
from nucleoscope.io.nuclei import read_nuclei

N, QUICK, VERTICES = 1_000_000, 50_000, 20


def nuclei(n: int) -> Nuclei:
    """Wavy rings on a grid, each at a place that is no whole pixel."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n)))
    yx = np.stack(divmod(np.arange(n), side), axis=1) * 24.0 + rng.uniform(12, 15, (n, 2))
    angle = np.arange(VERTICES) * 2 * np.pi / VERTICES
    radius = rng.uniform(6, 9, (n, 1)) * (1 + 0.1 * np.sin(3 * angle))
    ring = radius[..., None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    vertices = (yx[:, None] + ring).reshape(-1, 2)
    frame = pd.DataFrame(
        {"id": np.arange(1, n + 1), "image": "slide", "y": yx[:, 0], "x": yx[:, 1],
         "type": rng.choice(["epithelial", "inflammatory", "stromal"], n),
         "area_um2": rng.uniform(20, 90, n), "score": rng.uniform(0, 1, n)}
    )  # fmt: skip
    return Nuclei(NucleusTable(frame), Outlines(vertices, np.arange(n + 1) * VERTICES))


def _status(key: str) -> int:
    """A line of this process's status in bytes, or 0 where the system has none."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(key))


def measured(step: Callable[[], Any]) -> tuple[Any, float, float, float]:
    """What a step returns, its seconds by the clock and of CPU, and its largest memory in MB."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # or what is free already would hide what is needed
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before, clock, cpu = _status("VmRSS"), time.perf_counter(), time.process_time()
    result = step()
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    return result, clock, cpu, (_status("VmHWM") - before) / 1e6


def check(before: Nuclei, after: Nuclei) -> float:
    """Largest distance of a vertex from where it was, in pixels."""
    assert before.outlines is not None
    assert after.outlines is not None
    assert len(before) == len(after)
    assert (before.table.frame["type"].to_numpy() == after.table.frame["type"].to_numpy()).all()
    return float(np.abs(before.outlines.vertices - after.outlines.vertices).max())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--simplify", type=float, default=0.0)
    arguments = parser.parse_args(argv)
    n = QUICK if arguments.quick else N
    print(f"{'step':12}{'nuclei':>10}{'s':>9}{'CPU s':>9}{'MB more':>10}{'file MB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        made = nuclei(n)
        write_geojson(Path(folder) / "warm.geojson", made.take(np.arange(10)))
        path = Path(folder) / "slide.geojson"
        _, *facts = measured(lambda: write_geojson(path, made, tolerance=arguments.simplify))
        size = path.stat().st_size / 1e6
        print(f"{'write':12}{n:>10,}{facts[0]:>9.1f}{facts[1]:>9.1f}{facts[2]:>10.0f}{size:>10.0f}")
        found, *facts = measured(lambda: read_nuclei(path))
        print(f"{'read':12}{n:>10,}{facts[0]:>9.1f}{facts[1]:>9.1f}{facts[2]:>10.0f}{size:>10.0f}")
        if not arguments.simplify:
            print(f"largest change of a vertex: {check(made, found):.4f} px")


if __name__ == "__main__":
    main()
