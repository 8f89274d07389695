"""Crops of 100,000 nuclei from a slide of 20,000 x 20,000 pixels, beside one read per nucleus.

    python bench/bench_crops.py [--quick]

The slide is a synthetic pyramidal JPEG TIFF at 0.25 um per pixel, the nuclei are polygons of 24
vertices at random places. Ours: both fields and the mask of every nucleus, packed on disk. The peer
is the usual way: one ``read_region`` of tiffslide per nucleus and field, no masks, in memory, on
a sample; its morphology pixels must be ours. Wall and CPU seconds, peak resident memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from bench_slides import write_slide

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.flow.crops import crop_nuclei


def scatter(n: int, size: int, seed: int = 0) -> Nuclei:
    """Round polygons at random places, some at the border."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, size - 1, (n, 2))
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([np.sin(turn), np.cos(turn)], axis=1)
    radius = rng.uniform(8, 18, (n, 1, 1))
    vertices = (centre[:, None] + radius * ring).reshape(-1, 2)
    frame = pd.DataFrame({"id": np.arange(1, n + 1), "y": centre[:, 0], "x": centre[:, 1]})
    return Nuclei(NucleusTable(frame), Outlines(vertices, np.arange(n + 1) * 24))


def peer(path: Path, yx: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Morphology crops, wall and CPU seconds of one read per nucleus and field."""
    from tiffslide import TiffSlide

    slide = TiffSlide(path)
    corners = np.rint(yx + 0.5 - 32).astype(int)
    wide = np.rint(yx + 0.5 - 128).astype(int)
    wall, cpu = time.perf_counter(), time.process_time()
    crops = np.empty((len(yx), 64, 64, 3), np.uint8)
    for i, ((y, x), (top, left)) in enumerate(zip(corners, wide, strict=True)):
        crops[i] = slide.read_region((int(x), int(y)), 0, (64, 64), as_array=True)
        slide.read_region((int(left), int(top)), 1, (64, 64), as_array=True)
    return crops, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5,000 nuclei, 4,096 pixels")
    quick = parser.parse_args().quick
    n, size, sample = (5_000, 4_096, 200) if quick else (100_000, 20_000, 1_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        write_slide(path, size)
        nuclei = scatter(n, size)
        crop_nuclei(path, nuclei.take(np.arange(20)), quiet=True)  # kernels, imports
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        wall, cpu = time.perf_counter(), time.process_time()
        store = crop_nuclei(path, nuclei, Path(folder) / "crops.zarr", quiet=True)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        stored = sum(f.stat().st_size for f in Path(folder, "crops.zarr").rglob("*") if f.is_file())
        rows = store.table_rows(nuclei.table)
        inside = np.flatnonzero(~store.border)
        chosen = np.sort(np.random.default_rng(1).choice(inside, sample, replace=False))
        yx = nuclei.table.frame[["y", "x"]].to_numpy()[rows[chosen]]
        crops, peer_wall, peer_cpu = peer(path, yx)
        assert np.array_equal(crops, store.take(chosen).morphology)
    print(
        f"{n:,} nuclei, slide {size:,} x {size:,}; pixels of {sample} morphology crops identical\n"
    )
    print(f"{'':24s} {'wall s':>8s} {'CPU s':>8s} {'nuclei per CPU s':>17s}")
    print(f"{'nucleoscope':24s} {wall:8.1f} {cpu:8.1f} {n / cpu:17,.0f}")
    print(f"{f'one read each ({sample})':24s} {peer_wall:8.1f} {peer_cpu:8.1f} "
          f"{sample / peer_cpu:17,.0f}")  # fmt: skip
    print(f"\nratio per nucleus: wall {peer_wall / sample * n / wall:.1f}x, "
          f"CPU {peer_cpu / sample * n / cpu:.1f}x")  # fmt: skip
    print(
        f"peak memory {peak:.0f} MB ({before:.0f} MB before), {stored / n / 1000:.1f} kB a nucleus"
    )


if __name__ == "__main__":
    main()
