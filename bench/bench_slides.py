"""Tile reading: our reader beside tiffslide and OpenSlide, on one pyramidal JPEG TIFF.

    python bench/bench_slides.py [--quick]

Regions of 1024 x 1024 pixels, not aligned with the tiles, page cache warm, in one process, the
readers taking turns on every region; equality of all pixels is checked on the way. Megapixels per
second of wall time (ours decodes with two threads) and of CPU time. OpenSlide is measured where it
is installed (extra ``wsi``).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile

from nucleoscope.io.slides import read_slide

REGION = 1024


PIECE = 2048  # the picture repeats after so many pixels


def paint(seed: int = 0) -> np.ndarray:
    """Purple blobs on pink with grain, ``(2048, 2048, 3)`` uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:PIECE, :PIECE]
    dark = np.zeros((PIECE, PIECE), dtype=bool)
    places, radii = rng.uniform(0, PIECE, (2500, 2)), rng.uniform(8, 18, 2500)
    for (cy, cx), r in zip(places, radii, strict=True):
        part = (
            slice(max(0, int(cy) - 20), int(cy) + 21),
            slice(max(0, int(cx) - 20), int(cx) + 21),
        )
        dark[part] |= np.hypot(y[part] - cy, x[part] - cx) < r
    grain = rng.normal(0, 9, (PIECE, PIECE, 1))
    colour = np.array([232, 190, 215]) - dark[..., None] * np.array([120, 110, 60]) + grain
    return np.clip(colour, 0, 255).astype(np.uint8)


def tiles(piece: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Tiles of 256 pixels of the repeated piece, row by row, those at the borders too."""
    for y in range(0, size, 256):
        for x in range(0, size, 256):
            rows, columns = (np.arange(v, v + 256) % len(piece) for v in (y, x))
            yield np.ascontiguousarray(piece[rows[:, None], columns])


def write_slide(path: Path, size: int, mpp: float = 0.25) -> None:
    """A pyramidal JPEG TIFF of three levels, each a quarter of the one before."""
    piece = paint()
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for level in range(3):
            step = 4**level
            per_cm, side = 1e4 / (mpp * step), size // step
            tif.write(
                tiles(piece[::step, ::step], side), shape=(side, side, 3), dtype=np.uint8,
                tile=(256, 256), photometric="rgb", compression="jpeg",
                compressionargs={"level": 85}, resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER", subfiletype=int(level > 0), maxworkers=1,
            )  # fmt: skip


def readers(path: Path) -> dict[str, Callable[[int, int], np.ndarray]]:
    """``(y, x) -> (1024, 1024, 3)`` of each program that is there."""
    from tiffslide import TiffSlide

    ours, theirs = read_slide(path), TiffSlide(path)
    found: dict[str, Callable[[int, int], np.ndarray]] = {
        "nucleoscope": lambda y, x: ours.read((y, x, y + REGION, x + REGION)),
        "tiffslide": lambda y, x: theirs.read_region((x, y), 0, (REGION, REGION), as_array=True),
    }
    try:
        import openslide
    except ImportError:
        print("OpenSlide is not installed and is not measured.")
        return found
    slide = openslide.OpenSlide(path)
    found["openslide"] = lambda y, x: np.asarray(
        slide.read_region((x, y), 0, (REGION, REGION)).convert("RGB")
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the regions")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        size = 4096 if quick else 8192
        write_slide(path, size)
        found = readers(path)
        spent = {name: [0.0, 0.0] for name in found}
        places = [(y, x) for y in range(100, size - REGION, REGION)
                  for x in range(100, size - REGION, REGION)]  # fmt: skip
        for read in found.values():  # warm: page cache, imports
            for y, x in places[:4]:
                read(y, x)
        for y, x in places:
            pixels = {}
            for name, read in found.items():
                wall, cpu = time.perf_counter(), time.process_time()
                pixels[name] = read(y, x)
                spent[name][0] += time.perf_counter() - wall
                spent[name][1] += time.process_time() - cpu
            for name, other in pixels.items():
                assert np.array_equal(other, pixels["nucleoscope"]), name
        megapixels = len(places) * REGION * REGION / 1e6
        ours = spent["nucleoscope"]
        print(f"{len(places)} regions of {REGION} x {REGION}, pixels identical\n")
        print(
            f"{'reader':12s} {'MP/s wall':>10s} {'MP/s CPU':>10s} {'ours, wall':>11s} {'CPU':>6s}"
        )
        for name, (wall, cpu) in spent.items():
            print(
                f"{name:12s} {megapixels / wall:10.1f} {megapixels / cpu:10.1f} "
                f"{wall / ours[0]:10.1f}x {cpu / ours[1]:5.1f}x"
            )


if __name__ == "__main__":
    main()
