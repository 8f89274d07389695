"""How long, and in how much memory, a slide's nuclei become GeoJSON and come back.

``python bench/bench_geojson.py`` writes 1,000,000 nuclei of 20 vertices; ``--quick`` 50,000;
``--simplify 0.5`` as ``convert`` does on request. Memory is the largest resident size above that
before the step (Linux; elsewhere 0 is shown). What was read is compared with what was written.
Where geopandas is installed (GDAL through pyogrio) it writes and reads the same nuclei in the same
run, and what it reads of our file is compared with what we read; it checks less of what it reads
and makes one Python object of each polygon.
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


def line(step: str, n: int, facts: list[float], size: float) -> None:
    """One line of the table."""
    clock, cpu, memory = facts
    print(f"{step:16}{n:>10,}{clock:>9.1f}{cpu:>9.1f}{memory:>10.0f}{size:>10.0f}")


def beside_geopandas(path: Path, made: Nuclei, found: Nuclei) -> None:
    """The same by geopandas, where it is installed, and whether it reads the same of our file."""
    try:
        import geopandas
        import shapely
    except ImportError:
        print("geopandas is not installed here, so it is not measured.")
        return
    from nucleoscope.io.export.geojson import polygons

    assert made.outlines is not None
    assert found.outlines is not None
    frame, *facts = measured(lambda: geopandas.read_file(path, engine="pyogrio"))
    line("read, geopandas", len(frame), facts, path.stat().st_size / 1e6)
    whole = shapely.get_coordinates(frame.geometry.array).reshape(len(frame), VERTICES + 1, 2)
    ours = found.outlines.vertices.reshape(len(frame), VERTICES, 2)
    change = float(np.abs(whole[:, :-1, ::-1] - 0.5 - ours).max())
    print(f"largest difference of a vertex between the two: {change:.4f} px")
    del frame, whole
    table = made.table.frame
    other = path.with_name("other.geojson")

    def write() -> None:
        shapes = geopandas.GeoDataFrame(table, geometry=polygons(made.outlines))
        shapes.to_file(other, driver="GeoJSON", engine="pyogrio")

    _, *facts = measured(write)
    line("write, geopandas", len(table), facts, other.stat().st_size / 1e6)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--simplify", type=float, default=0.0)
    arguments = parser.parse_args(argv)
    n = QUICK if arguments.quick else N
    print(f"{'step':16}{'nuclei':>10}{'s':>9}{'CPU s':>9}{'MB more':>10}{'file MB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        made = nuclei(n)
        few, path = Path(folder) / "warm.geojson", Path(folder) / "slide.geojson"
        write_geojson(few, made.take(np.arange(10)))
        read_nuclei(few)
        _, *facts = measured(lambda: write_geojson(path, made, tolerance=arguments.simplify))
        size = path.stat().st_size / 1e6
        line("write", n, facts, size)
        found, *facts = measured(lambda: read_nuclei(path))
        line("read", n, facts, size)
        if not arguments.simplify:
            print(f"largest change of a vertex: {check(made, found):.4f} px")
            beside_geopandas(path, made, found)


if __name__ == "__main__":
    main()
