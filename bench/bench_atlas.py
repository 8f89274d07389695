"""Subtypes, index and map of a large atlas: wall time, CPU time and peak memory of one run.

    python bench/bench_atlas.py [--quick] [--nuclei 1000000] [--landmarks 100000] [--threads 1]
                                [--dimensions 448]

The embeddings are synthetic (kinds within families, as many numbers as `nuc2vec` gives, half
precision). Everything
happens in a temporary folder, through the verb ``subtypes`` on an ATLAS folder, reading and writing
included. ``--quick`` takes 30,000 nuclei.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nuclei", type=int, default=1_000_000)
    parser.add_argument("--landmarks", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dimensions", type=int, default=448)
    found = parser.parse_args()
    if found.quick:
        found.nuclei, found.landmarks = 30_000, 5_000
    return found


def embeddings(n: int, width: int, seed: int = 0) -> Any:
    """``(n, width)`` float16: 60 kinds in 12 families, spread in 24 directions, some noise."""
    import numpy as np

    from nucleoscope.data.atlas import unit_rows

    rng = np.random.default_rng(seed)
    family = rng.normal(size=(12, width))
    kind = family[rng.integers(0, 12, 60)] + 0.7 * rng.normal(size=(60, width))
    mix = rng.normal(size=(24, width)) / 24**0.5
    out = np.empty((n, width), np.float16)
    for start in range(0, n, 50_000):
        m = min(50_000, n - start)
        raw = kind[rng.integers(0, 60, m)] + 0.8 * rng.normal(size=(m, 24)) @ mix
        out[start : start + m] = unit_rows(raw + 0.3 * rng.normal(size=(m, width)))
    return out


def peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(module: Any, names: tuple[str, ...]) -> None:
    """Print wall, CPU and peak memory of each call of these functions of a module."""

    def wrap(name: str) -> None:
        function = getattr(module, name)

        def call(*args: Any, **keywords: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            result = function(*args, **keywords)
            report(name, wall, cpu)
            return result

        setattr(module, name, call)

    for name in names:
        wrap(name)


def report(name: str, wall: float, cpu: float) -> None:
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{name:16s} wall {wall:8.1f} s   CPU {cpu:8.1f} s   peak {peak_mb():7.0f} MB", flush=True
    )


def main() -> None:
    options = arguments()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    import numpy as np
    import pandas as pd

    from nucleoscope.data.atlas import Atlas
    from nucleoscope.data.table import NucleusTable
    from nucleoscope.flow import atlas as flow
    from nucleoscope.io.atlas import write_atlas

    n = options.nuclei
    rng = np.random.default_rng(1)
    table = NucleusTable(
        pd.DataFrame(
            {"id": np.arange(n), "image": rng.integers(0, 20, n).astype(str),
             "y": rng.random(n) * 1e5, "x": rng.random(n) * 1e5}
        )
    )  # fmt: skip
    features = pd.DataFrame({"f_area_um2": 30 + 5 * rng.normal(size=n)})
    print(f"{n:,} nuclei of {options.dimensions} numbers, {options.threads} thread(s)", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "atlas"
        write_atlas(folder, Atlas(table, embeddings(n, options.dimensions), features=features))
        del table, features
        timed(flow, ("read_atlas", "find_subtypes", "fit_map", "_levels", "_save"))
        wall, cpu = time.perf_counter(), time.process_time()
        found = flow.subtypes(folder, n_landmarks=options.landmarks)
        report("subtypes, all", wall, cpu)
        wall, cpu = time.perf_counter(), time.process_time()
        flow.search(found.atlas if n < 300_000 else folder, nucleus=0)
        report("search, one", wall, cpu)
    for level in found.report["levels"]:
        print(f"level {level['level']}: {level['found']} subtypes, ARI {level['ari']:.3f}")
    print(found.report["figures"])


if __name__ == "__main__":
    main()
