"""HoVer-Net maps to instances: G1a (speed), G1b (linear in area), G1d (seconds at 4096 x 4096).

``python bench/bench_decode.py [--quick] [--peer-python PATH] [--repeats N]``

Every row is one decoding with everything the peers' post-processing returns: instances, their
boxes, centroids, outlines, types and scores. Runs alternate between ours and the peers; wall and
CPU seconds are medians. Equality (DQ and SQ >= 0.999) is asserted on the very maps that are
timed. The peer tiatoolbox runs in its own interpreter (``--peer-python``, one with tiatoolbox
2.1 installed), which reads the maps from files and times itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from nucleoscope.data.maps import HoverMaps
from nucleoscope.nuclei import contours, decode, extents, hover_targets, instance_types

SIDES = (1024, 4096)
N_TYPES = 5

PEER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import cv2, numpy as np, torch
cv2.setNumThreads(1); torch.set_num_threads(1)
from tiatoolbox.models.architecture.hovernet import HoVerNet
import tiatoolbox
folder = sys.argv[1]
maps = [np.load(f"{folder}/{name}.npy") for name in ("np", "hv", "tp")]
model = HoVerNet(num_types=int(sys.argv[2]), mode="fast")
print(json.dumps({"version": tiatoolbox.__version__}), flush=True)
for line in sys.stdin:
    given = [m.copy() for m in maps]
    wall, cpu = time.perf_counter(), time.process_time()
    found = model.postproc(given)[0]["predictions"]
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    np.save(f"{folder}/peer.npy", np.asarray(found).astype(np.int32))
    print(json.dumps({"seconds": seconds}), flush=True)
"""


def tissue(side: int, seed: int) -> np.ndarray:
    """600 nuclei per Mpx on about 20 % of the plane, some touching."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), dtype=np.int32)
    nearest = np.full((side, side), np.inf, dtype=np.float32)
    for number in range(1, round(600 * side * side / 1e6) + 1):
        cy, cx = rng.uniform(0, side, 2)
        a, b, turn = rng.uniform(9, 15), rng.uniform(8, 12), rng.uniform(0, np.pi)
        box = np.s_[max(0, int(cy) - 16) : int(cy) + 17, max(0, int(cx) - 16) : int(cx) + 17]
        y, x = np.ogrid[box]
        y, x = y[: labels[box].shape[0]] - cy, x[:, : labels[box].shape[1]] - cx
        distance = ((y * np.cos(turn) + x * np.sin(turn)) / a) ** 2
        distance = distance + ((x * np.cos(turn) - y * np.sin(turn)) / b) ** 2
        wins = (distance < 1) & (distance < nearest[box])
        labels[box][wins], nearest[box][wins] = number, distance[wins]
    return labels


def maps_of(labels: np.ndarray, seed: int) -> HoverMaps:
    """What a good network would answer: offsets with noise, soft borders, one type each."""
    rng = np.random.default_rng(seed)
    hv = hover_targets(labels)
    hv += rng.normal(0, 0.03, hv.shape).astype(np.float32)
    foreground = (labels > 0) * np.float32(0.9) + np.float32(0.05)
    foreground += rng.normal(0, 0.03, labels.shape).astype(np.float32)
    foreground = ndimage.gaussian_filter(foreground, 1).clip(0, 1)
    kind = rng.integers(1, N_TYPES, labels.max() + 1)
    kind[0] = 0
    types = np.full((N_TYPES, *labels.shape), 0.05, dtype=np.float32)
    np.put_along_axis(types, kind[labels][None], np.float32(1 - 0.05 * (N_TYPES - 1)), axis=0)
    return HoverMaps(foreground, hv, types)


def ours(maps: HoverMaps) -> np.ndarray:
    """Instances, boxes, centroids, outlines, types, scores."""
    labels = decode(maps)
    extents(labels)
    contours(labels)
    instance_types(labels, maps, vote="majority")
    return labels


def literal_instances(maps: HoverMaps) -> np.ndarray:
    """The published steps on full frames with scipy and scikit-image."""

    def without_small(labels: np.ndarray) -> np.ndarray:
        labels[(np.bincount(labels.ravel()) < 10)[labels]] = 0
        return labels

    def normalised(a: np.ndarray) -> np.ndarray:
        return ((a - a.min()) / (a.max() - a.min())).astype(np.float32)

    def edge_of(plane: np.ndarray, axis: int) -> np.ndarray:
        even, odd = np.ones(1), np.array([-1.0, 1.0])
        for _ in range(20):
            even = np.convolve(even, [1, 1])
        for _ in range(19):
            odd = np.convolve(odd, [1, 1])
        found = normalised(plane).astype(np.float64)
        found = ndimage.correlate1d(found, odd, axis=axis, mode="mirror")
        return 1 - normalised(ndimage.correlate1d(found, even, axis=1 - axis, mode="mirror"))

    nucleus = without_small(ndimage.label(maps.foreground >= 0.5)[0]) > 0
    edge = np.maximum(edge_of(maps.hv[0], 1), edge_of(maps.hv[1], 0)) * nucleus
    energy = (1.0 - edge) * nucleus
    for axis in (0, 1):
        energy = ndimage.correlate1d(energy, [0.25, 0.5, 0.25], axis=axis, mode="mirror")
    marker = ndimage.binary_fill_holes(nucleus & ~(edge >= 0.4))
    element = np.zeros((5, 5), dtype=bool)
    element[1:4], element[[0, 4], 2] = True, True
    marker = ndimage.binary_dilation(
        ndimage.binary_erosion(marker, element, border_value=1), element
    )
    marker = without_small(ndimage.label(marker)[0])
    return watershed(-energy, markers=marker, mask=nucleus)


def literal(maps: HoverMaps) -> np.ndarray:
    """The published post-processing: a full-frame comparison for every instance."""
    labels = literal_instances(maps)
    kinds = maps.types.argmax(axis=0)
    for number in np.unique(labels)[1:]:
        inside = labels == number
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        crop = inside[box]
        np.argwhere(crop).mean(axis=0)
        np.argwhere(crop & ~ndimage.binary_erosion(crop))
        votes = np.bincount(kinds[box][crop], minlength=N_TYPES)
        int(votes[1:].argmax()), votes.max() / votes.sum()
    return labels


class Tiatoolbox:
    """``HoVerNet.postproc`` in a child process that holds the maps."""

    def __init__(self, python: Path, maps: HoverMaps, folder: Path) -> None:
        self.folder = folder
        np.save(folder / "np.npy", maps.foreground[..., None])
        np.save(folder / "hv.npy", np.ascontiguousarray(maps.hv.transpose(1, 2, 0)))
        np.save(folder / "tp.npy", maps.types.argmax(axis=0).astype(np.float32)[..., None])
        self.child = subprocess.Popen(
            [python, "-c", PEER, folder, str(N_TYPES)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.name = f"tiatoolbox {self._answer()['version']} postproc"

    def _answer(self) -> dict:
        for line in self.child.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"the peer ended with code {self.child.wait()}")

    def run(self) -> tuple[float, float, np.ndarray]:
        self.child.stdin.write("go\n")
        self.child.stdin.flush()
        wall, cpu = self._answer()["seconds"]
        return wall, cpu, np.load(self.folder / "peer.npy")

    def close(self) -> None:
        self.child.stdin.close()
        self.child.wait()


def timed(function, maps: HoverMaps) -> tuple[float, float, np.ndarray]:
    wall, cpu = time.perf_counter(), time.process_time()
    labels = function(maps)
    return time.perf_counter() - wall, time.process_time() - cpu, labels


def quality(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """DQ and SQ (Kirillov et al. 2019)."""
    key = a.astype(np.int64).ravel() * (int(b.max()) + 1) + b.ravel()
    key = key[(a.ravel() > 0) & (b.ravel() > 0)]
    pairs, shared = np.unique(key, return_counts=True)
    i, j = np.divmod(pairs, int(b.max()) + 1)
    area_a, area_b = np.bincount(a.ravel()), np.bincount(b.ravel())
    iou = shared / (area_a[i] + area_b[j] - shared)
    n = (area_a[1:] > 0).sum() + (area_b[1:] > 0).sum()
    return float(2 * (iou > 0.5).sum() / n), float(iou[iou > 0.5].mean())


def compare(side: int, repeats: int, peer_python: Path | None) -> float:
    """Print the rows of one size; our median wall seconds."""
    truth = tissue(side, seed=side)
    maps = maps_of(truth, seed=side)
    print(f"\n{side} x {side}: {np.unique(truth).size - 1} nuclei, "
          f"{(truth > 0).mean():.0%} foreground")  # fmt: skip
    runs = {"nucleoscope, decode only": lambda: timed(decode, maps),
            "nucleoscope, all": lambda: timed(ours, maps),
            "literal, full frame per instance": lambda: timed(literal, maps)}  # fmt: skip
    reference = ours(maps)  # also compiles
    with tempfile.TemporaryDirectory() as folder:
        peer, why = None, "no --peer-python given"
        if peer_python is not None:
            try:
                peer = Tiatoolbox(peer_python, maps, Path(folder))
                runs[peer.name] = peer.run
            except (OSError, RuntimeError) as error:
                why = str(error)
        seconds: dict[str, list] = {name: [] for name in runs}
        equal: dict[str, tuple[float, float]] = {}
        for _ in range(repeats):
            for name, run in runs.items():
                wall, cpu, labels = run()
                seconds[name].append((wall, cpu))
                equal[name] = quality(reference, labels)
        if peer is not None:
            peer.close()
    medians = {n: [statistics.median(t) for t in zip(*s, strict=True)] for n, s in seconds.items()}
    base_wall, base_cpu = medians["nucleoscope, all"]
    print(f"{'':36}{'n':>3}{'wall s':>10}{'cpu s':>10}{'wall':>8}{'cpu':>8}{'DQ':>8}{'SQ':>8}")
    for name, (wall, cpu) in medians.items():
        dq, sq = equal[name]
        print(f"{name:36}{repeats:>3}{wall:>10.3f}{cpu:>10.3f}{wall / base_wall:>7.1f}x"
              f"{cpu / base_cpu:>7.1f}x{dq:>8.4f}{sq:>8.4f}")  # fmt: skip
        assert min(dq, sq) >= 0.999, f"{name} gives other instances"
    if peer is None:
        print(f"{'tiatoolbox postproc':36}  skipped: {why}")
    return base_cpu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1024 x 1024 only")
    parser.add_argument("--peer-python", type=Path, help="interpreter that has tiatoolbox")
    parser.add_argument("--repeats", type=int, default=5, help="at 1024; once at 4096")
    options = parser.parse_args()
    spent = {}
    for side in SIDES[: 1 if options.quick else None]:
        repeats = options.repeats if side == SIDES[0] else 1
        spent[side] = compare(side, repeats, options.peer_python)
    if len(spent) == len(SIDES):
        print(
            f"\nG1b: 16 times the area costs {spent[SIDES[1]] / spent[SIDES[0]]:.1f} times the CPU"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
