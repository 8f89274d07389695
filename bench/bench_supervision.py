"""Supervision against its peers: G4a (EMIP), G4b (EDT), G4c (Voronoi), G4d (k-means), G4e (all).

``OMP_NUM_THREADS=1 python bench/bench_supervision.py [--quick] [--repeats N] [--only NAME...]``

One process, one thread; runs alternate between ours and the peers, and the fastest of each is
shown, wall and CPU seconds. ``peak`` is what numpy allocated at most during one further run
(tracemalloc), the result included. What must be equal is asserted on the very answers that are
timed. Compilation is kept out by one small warm-up and reported. Peers: scipy, scikit-learn, and
``edt`` of the ``bench`` extra.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import edt
import numpy as np
from scipy import ndimage
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from nucleoscope.data import Points, Volume
from nucleoscope.supervision import (
    distance_map,
    emip,
    nearest_point,
    nearest_within,
    pseudo_labels,
    slice_areas,
    weighted_kmeans,
    z_ranges,
)
from nucleoscope.supervision.clusters import _histogram, _look_up

Z_STEP = 3.0
LITERAL_CELLS = 3


class Scene(NamedTuple):
    """Clicks, channels ``(3, Z, Y, X)`` of which the last shows nuclei, foreground, cells."""

    voxel: np.ndarray
    stack: np.ndarray
    foreground: np.ndarray
    cells: np.ndarray


def make(shape: tuple[int, int, int], n: int) -> Scene:
    rng = np.random.default_rng(0)
    voxel = np.column_stack([rng.integers(0, size, n) for size in shape])
    distance = nearest_within(shape, voxel, Z_STEP, 12.0)[0]
    foreground = distance <= 9.0
    stack = rng.integers(0, 256, (3, *shape), dtype=np.uint8)
    stack[2] = rng.integers(10, 40, shape, dtype=np.uint8) + np.uint8(120) * foreground
    return Scene(voxel, stack, foreground, nearest_point(shape[1:], voxel))


class Timing(NamedTuple):
    wall: float
    cpu: float
    peak: float
    answer: Any


def race(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    """Run the calls in turn; the fastest wall and CPU of each, and the peak of one more run."""
    best = {name: [np.inf, np.inf] for name in calls}
    answers: dict[str, Any] = {}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            answers[name] = call()
            best[name][0] = min(best[name][0], time.perf_counter() - wall)
            best[name][1] = min(best[name][1], time.process_time() - cpu)
    out = {}
    for name, call in calls.items():
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        out[name] = Timing(*best[name], peak, answers[name])
    return out


def show(title: str, timings: dict[str, Timing], ours: str, note: str = "") -> None:
    print(f"\n{title}")
    print(f"  {'':38s} {'wall s':>9s} {'cpu s':>9s} {'peak MB':>9s} {'x wall':>8s} {'x cpu':>8s}")
    for name, t in timings.items():
        wall, cpu = t.wall / timings[ours].wall, t.cpu / timings[ours].cpu
        print(f"  {name:38s} {t.wall:9.4f} {t.cpu:9.4f} {t.peak:9.1f} {wall:8.2f} {cpu:8.2f}")
    if note:
        print(f"  {note}")


# G4a --------------------------------------------------------------------------------------------


def literal_emip(scene: Scene, j: int, out: np.ndarray) -> None:
    """One cell of the published loop: full-size arrays for every nucleus."""
    inside = scene.cells == j
    part = scene.foreground & inside
    present = part.any(axis=(1, 2))
    kept = np.where(present[:, None, None] & inside, scene.stack, 0)
    np.maximum(out, kept.max(axis=1), out=out)


def boxed_emip(scene: Scene) -> np.ndarray:
    """The same cell by cell within bounding boxes."""
    out = np.zeros((3, *scene.cells.shape), np.uint8)
    for j, box in enumerate(ndimage.find_objects(scene.cells), start=1):
        if box is None:
            continue
        inside = scene.cells[box] == j
        present = (scene.foreground[:, *box] & inside).any(axis=(1, 2))
        if present.any():
            best = scene.stack[:, :, *box][:, present].max(axis=1)
            np.copyto(out[:, *box], best, where=inside)
    return out


def our_emip(scene: Scene, ranges: np.ndarray | None = None) -> np.ndarray:
    if ranges is None:
        n = len(scene.voxel)
        areas = slice_areas(scene.foreground, scene.cells, n)
        ranges, _ = z_ranges(areas, scene.voxel[:, 0], setting="paper")
    return emip(scene.stack, scene.cells, ranges)


def bench_emip(scene: Scene, repeats: int) -> None:
    n = len(scene.voxel)
    areas = slice_areas(scene.foreground, scene.cells, n)
    ranges, _ = z_ranges(areas, scene.voxel[:, 0], setting="paper")
    timings = race(
        {
            "ours, foreground to EMIP": lambda: our_emip(scene),
            "ours, z ranges given": lambda: our_emip(scene, ranges),
            "loop over bounding boxes": lambda: boxed_emip(scene),
            "plain stack.max": lambda: scene.stack.max(axis=1),
        },
        repeats,
    )
    ours = timings["ours, foreground to EMIP"]
    assert np.array_equal(ours.answer, timings["loop over bounding boxes"].answer)
    assert np.array_equal(ours.answer, timings["ours, z ranges given"].answer)
    out = np.zeros_like(ours.answer)
    wall, cpu = time.perf_counter(), time.process_time()
    some = np.linspace(1, n, LITERAL_CELLS).astype(int)
    for j in some:
        literal_emip(scene, int(j), out)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    here = np.isin(scene.cells, some)
    assert np.array_equal(out[:, here], ours.answer[:, here])
    factor = n / LITERAL_CELLS
    timings["published loop (extrapolated)"] = Timing(wall * factor, cpu * factor, np.nan, None)
    show(
        f"G4a EMIP, 3 channels of {scene.foreground.shape}, {n} cells",
        timings,
        "ours, foreground to EMIP",
        f"all bit-identical; the published loop was run on {LITERAL_CELLS} cells and multiplied",
    )


# G4b, G4c ---------------------------------------------------------------------------------------


def bench_distance(scene: Scene, repeats: int) -> None:
    shape, voxel = scene.foreground.shape, scene.voxel
    empty = np.ones(shape, dtype=bool)
    empty[tuple(voxel.T)] = False
    timings = race(
        {
            "ours": lambda: distance_map(shape, voxel, Z_STEP),
            "ours, cut at 20 px": lambda: distance_map(shape, voxel, Z_STEP, 20.0),
            "edt": lambda: edt.edt(empty, anisotropy=(Z_STEP, 1.0, 1.0), parallel=1),
            "scipy": lambda: ndimage.distance_transform_edt(empty, sampling=(Z_STEP, 1.0, 1.0)),
        },
        repeats,
    )
    exact = timings["scipy"].answer
    worst = np.abs(timings["ours"].answer - exact).max()
    assert worst < 1e-4
    assert np.abs(timings["ours, cut at 20 px"].answer - np.minimum(exact, 20)).max() < 1e-4
    assert np.abs(timings["edt"].answer - exact).max() < 1e-3
    show(
        f"G4b distance to the nearest click, {shape}, slice step {Z_STEP:g} px",
        timings,
        "ours",
        f"largest difference to scipy {worst:.1e} px; the peak of edt is not seen by tracemalloc",
    )


def bench_voronoi(scene: Scene, repeats: int) -> None:
    shape, plane = scene.cells.shape, scene.voxel[:, 1:]
    names = np.zeros(shape, np.int32)
    names[tuple(plane[::-1].T)] = np.arange(len(plane), 0, -1)

    def peer() -> np.ndarray:
        index = ndimage.distance_transform_edt(
            names == 0, return_distances=False, return_indices=True
        )
        return names[tuple(index)]

    timings = race({"ours": lambda: nearest_point(shape, plane), "scipy indices": peer}, repeats)
    ours, theirs = timings["ours"].answer, timings["scipy indices"].answer
    grid = np.stack(np.indices(shape), axis=-1)
    square = [((grid - plane[cells - 1]) ** 2).sum(axis=-1) for cells in (ours, theirs)]
    assert np.array_equal(*square)
    different = ours != theirs
    assert (ours[different] < theirs[different]).all()
    show(
        f"G4c Voronoi cells, {shape}, {len(plane)} clicks",
        timings,
        "ours",
        f"equal in {100 * (1 - different.mean()):.2f} % of pixels; the rest are exact ties, "
        "where ours has the smaller index",
    )


# G4d, G4e ---------------------------------------------------------------------------------------


def bench_kmeans(scene: Scene, side: int, n_init: int, repeats: int) -> None:
    nuclei = np.ascontiguousarray(scene.stack[2, :, :side, :side])
    inside = scene.voxel[(scene.voxel[:, 1:] < side).all(axis=1)]
    distance = distance_map(nuclei.shape, inside, Z_STEP, 20.0)
    everywhere = np.ones(nuclei.shape[1:], dtype=bool)

    def ours() -> np.ndarray:
        counts, sums = np.zeros((256, 1024), np.int64), np.zeros(1024)
        _histogram(nuclei, distance, everywhere, 1023 / 20, counts, sums)
        level, at = np.nonzero(counts)
        rows = np.column_stack([level / 10, sums[at] / counts.sum(axis=0)[at]])
        fit = weighted_kmeans(rows, counts[level, at].astype(float), 3, n_init=n_init)
        table = np.zeros((256, 1024), np.uint8)
        table[level, at] = fit.labels
        out = np.empty(nuclei.shape, np.uint8)
        _look_up(nuclei, distance, everywhere, 1023 / 20, table, out)
        return out

    def peer(tol: float) -> np.ndarray:
        rows = np.column_stack([nuclei.ravel() / np.float32(10), distance.ravel()])
        return KMeans(3, n_init=n_init, random_state=0, tol=tol).fit(rows).labels_

    timings = race(
        {
            "ours": ours,
            "scikit-learn, converged as ours": lambda: peer(0.0),
            "scikit-learn, its default tolerance": lambda: peer(1e-4),
        },
        repeats,
    )
    mine, converged, early = (t.answer.ravel() for t in timings.values())
    agreement = adjusted_rand_score(mine, converged)
    assert agreement >= 0.999
    show(
        f"G4d k-means, k = 3, {nuclei.size:,} voxels, n_init = {n_init} for both",
        timings,
        "ours",
        f"adjusted Rand index {agreement:.5f} to the converged, "
        f"{adjusted_rand_score(mine, early):.5f} to the one that stops early",
    )


def bench_everything(scene: Scene, repeats: int) -> None:
    volume = Volume(scene.stack, ("A", "B", "DAPI"), (0.3 * Z_STEP, 0.3, 0.3))
    points = Points(*scene.voxel.T.astype(float))
    timings = race(
        {
            "pseudo_labels, default": lambda: pseudo_labels(volume, points),
            "pseudo_labels, paper": lambda: pseudo_labels(volume, points, setting="paper"),
        },
        repeats,
    )
    show(
        f"G4e clicks to cells, instances, foreground, z ranges, {scene.foreground.shape}",
        timings,
        "pseudo_labels, default",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="emip voronoi distance kmeans everything")
    options = parser.parse_args()
    start = time.perf_counter()
    small = make((3, 64, 64), 9)
    our_emip(small)
    distance_map(small.foreground.shape, small.voxel, Z_STEP)
    for setting in ("default", "paper"):
        volume = Volume(small.stack, ("A", "B", "DAPI"), (0.9, 0.3, 0.3))
        pseudo_labels(volume, Points(*small.voxel.T.astype(float)), setting=setting)
    print(f"warm-up, compilation or loading of kernels: {time.perf_counter() - start:.1f} s")
    scene = make((5, 512, 512), 190) if options.quick else make((13, 2048, 2048), 3000)
    slow = options.repeats if options.quick else 1
    parts = {
        "emip": lambda: bench_emip(scene, options.repeats),
        "voronoi": lambda: bench_voronoi(scene, options.repeats),
        "distance": lambda: bench_distance(scene, slow),
        "kmeans": lambda: bench_kmeans(scene, 256 if options.quick else 512, 3, slow),
        "everything": lambda: bench_everything(scene, options.repeats),
    }
    for name in options.only or parts:
        parts[name]()


if __name__ == "__main__":
    main()
