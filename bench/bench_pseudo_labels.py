"""How good pseudo labels are: per-nucleus IoU with the truth, on the simulated plaques.

``OMP_NUM_THREADS=1 python bench/bench_pseudo_labels.py [--quick] [--data FOLDER]``

Clicks are those of ``*.points.csv``, truth is ``*.labels.tif``; only annotated nuclei count. The
ways: the published clustering (what is not background, in the Voronoi cells of the plane), its
nucleus cluster alone, the clustering with our settings (the nucleus cluster, in the Voronoi cells
in space), and the half-maximum that is the default. ``wrong nucleus`` and ``wrong background``
are shares of the voxels so labelled inside the outline. No constant is fitted to an image.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tifffile

from nucleoscope.data import Points, PseudoLabels, Region, Volume
from nucleoscope.supervision import (
    cluster_foreground,
    distance_map,
    median_radius,
    nearest_point,
    nearest_within,
    pseudo_labels,
    to_uint8,
    z_step_of,
)

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


class Plaque(NamedTuple):
    volume: Volume
    points: Points
    region: Region
    truth: np.ndarray


def read(folder: Path, name: str) -> Plaque:
    with tifffile.TiffFile(folder / f"{name}.ome.tif") as file:
        stack, text = file.asarray(), file.ome_metadata or ""
    spacing = tuple(
        float(re.search(f'PhysicalSize{axis}="([^"]*)"', text).group(1)) for axis in "ZYX"
    )
    table = pd.read_csv(folder / f"{name}.points.csv")
    outline = json.loads((folder / f"{name}.roi.geojson").read_text())
    ring = np.array(outline["features"][0]["geometry"]["coordinates"][0])[:, ::-1]
    labels = tifffile.imread(folder / f"{name}.labels.tif").astype(np.int64)
    index = np.zeros(labels.max() + 1, np.int64)
    index[table.id] = np.arange(1, len(table) + 1)
    return Plaque(
        Volume(np.ascontiguousarray(stack.swapaxes(0, 1)), ("LT", "DAPI"), spacing, name),
        Points(table.z, table.y, table.x, table.type.fillna(""), table.id, name),
        Region((ring,)),
        index[labels],
    )


def published_nucleus(plaque: Plaque) -> tuple[np.ndarray, np.ndarray]:
    """Of the published clustering only the nucleus cluster, the between cluster unlabelled."""
    volume, region = plaque.volume, plaque.region.mask(plaque.volume.shape[1:])
    clicks = plaque.points.zyx()
    distance = distance_map(volume.shape, clicks, z_step_of(volume), 20.0)
    bright = to_uint8(volume.channel("DAPI"), region, "paper")
    roles = cluster_foreground(bright, distance, clicks, setting="paper", region=region)
    cells = nearest_point(volume.shape[1:], clicks)
    return np.where(roles == 2, cells, 0), np.array([0, 255, 1])[roles]


def clustered(plaque: Plaque) -> tuple[np.ndarray, np.ndarray]:
    """Instances and foreground of the clustering with our settings."""
    volume, region = plaque.volume, plaque.region.mask(plaque.volume.shape[1:])
    clicks, z_step = plaque.points.zyx(), z_step_of(plaque.volume)
    radius = median_radius(volume.channel("DAPI"), clicks, z_step)
    distance = distance_map(volume.shape, clicks, z_step, 2 * radius)
    bright = to_uint8(volume.channel("DAPI"), region)
    roles = cluster_foreground(bright, distance, clicks, region=region, radius=radius)
    cells = nearest_within(volume.shape, clicks, z_step, 4 * radius)[1]
    return np.where(roles == 2, cells, 0), np.array([0, 255, 1])[roles]


def both(labels: PseudoLabels) -> tuple[np.ndarray, np.ndarray]:
    return labels.instances, labels.foreground


METHODS = {
    "k-means, paper": lambda p: both(
        pseudo_labels(p.volume, p.points, region=p.region, setting="paper")
    ),
    "k-means, paper, nucleus": published_nucleus,
    "k-means, our settings": clustered,
    "half maximum (default)": lambda p: both(pseudo_labels(p.volume, p.points, region=p.region)),
}


def overlap(found: np.ndarray, truth: np.ndarray, n: int) -> np.ndarray:
    """IoU of every annotated nucleus."""
    shared = np.bincount(truth[truth == found], minlength=n + 1)[1:]
    total = np.bincount(truth.ravel(), minlength=n + 1) + np.bincount(
        found.ravel(), minlength=n + 1
    )
    return shared / np.maximum(total[1:] - shared, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one stack of each cohort")
    default = Path(os.environ.get("NUCLEOSCOPE_DATA", DEFAULT))
    parser.add_argument("--data", type=Path, default=default)
    options = parser.parse_args()
    folder = options.data / "plaque"
    print(f"{'':24s} {'set':8s} {'nuclei':>6s} {'mean IoU':>9s} {'< 0.3':>7s} {'< 0.5':>7s}"
          f" {'wrong nucleus':>14s} {'wrong background':>17s}")  # fmt: skip
    for cohort in ("d1_test", "d2_dev"):
        names = sorted(path.name[:-11] for path in folder.glob(f"{cohort}_*.labels.tif"))
        plaques = [read(folder, name) for name in names[: 1 if options.quick else None]]
        for method, run in METHODS.items():
            scores, wrong = [], []
            for plaque in plaques:
                found, foreground = run(plaque)
                scores.append(overlap(found, plaque.truth, len(plaque.points)))
                inside = plaque.region.mask(plaque.volume.shape[1:])
                is_nucleus, said = plaque.truth[:, inside] > 0, foreground[:, inside]
                wrong.append([(~is_nucleus)[said == 1].mean(), is_nucleus[said == 0].mean()])
            all_ = np.concatenate(scores)
            nucleus, background = np.mean(wrong, axis=0)
            print(f"{method:24s} {cohort:8s} {len(all_):6d} {all_.mean():9.3f}"
                  f" {(all_ < 0.3).mean():7.3f} {(all_ < 0.5).mean():7.3f}"
                  f" {nucleus:14.3f} {background:17.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
