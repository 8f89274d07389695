"""Features of nuclei beside scikit-image and a loop per nucleus: CPU time, and equal values.

    python bench/bench_features.py [--quick]

One synthetic H&E-like image, one core, interleaved, median of three. ``regionprops_table`` computes
seven shape and intensity columns and we compute them among our 82; the loop computes the stain,
co-occurrence and gradient columns the way HistomicsTK goes about it: one crop and one
``graycomatrix`` per nucleus. Columns that both have are compared in the same run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402

MPP = 0.25
SHARED = {
    "f_area_um2": ("area", MPP**2),
    "f_perimeter_um": ("perimeter", MPP),
    "f_axis_major_um": ("axis_major_length", MPP),
    "f_axis_minor_um": ("axis_minor_length", MPP),
    "f_eccentricity": ("eccentricity", 1.0),
    "f_equivalent_diameter_um": ("equivalent_diameter_area", MPP),
}


def scene(side: int, seed: int = 0) -> tuple[Any, Any]:
    """Ellipses on a jittered grid, clumpy stain."""
    from scipy import ndimage
    from skimage.draw import ellipse

    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    image = rng.integers(170, 250, (side, side, 3)).astype(np.uint8)
    noise = ndimage.gaussian_filter(rng.normal(size=(side, side)), 1.5) * 160
    dark = np.clip(np.array([90, 60, 140])[None, None] + noise[..., None], 10, 240)
    number = 0
    for y in range(20, side - 20, 36):
        for x in range(20, side - 20, 36):
            number += 1
            shape = ellipse(
                y + rng.normal() * 2, x + rng.normal() * 2, *rng.uniform(8, 16, 2),
                shape=labels.shape, rotation=rng.uniform(0, 3),
            )  # fmt: skip
            labels[shape] = number
            image[shape] = dark[shape]
    return image, labels


def by_regionprops(image: Any, labels: Any) -> Any:
    from skimage.measure import regionprops_table

    names = ("label", *(name for name, _ in SHARED.values()), "solidity", "feret_diameter_max")
    return regionprops_table(labels, intensity_image=image, properties=(*names, "mean_intensity"))


def by_loop(image: Any, labels: Any) -> Any:
    """One nucleus after the other: stain, ring, co-occurrence, gradient."""
    from scipy import ndimage
    from skimage.feature import graycomatrix
    from skimage.morphology import dilation, disk

    from nucleoscope.atlas.features_frame import unmixing

    density = np.log10(255 / np.maximum(image.astype(float), 1))
    stain = np.maximum(density @ unmixing()[:2].T, 0)
    levels = np.minimum(stain[..., 0].astype(np.float32) / 0.05, 31).astype(np.uint8) + 1
    gradient = np.hypot(*np.gradient(stain[..., 0])) / MPP
    rows = []
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    for i, (ys, xs) in enumerate(ndimage.find_objects(labels), 1):
        box = np.s_[max(ys.start - 8, 0) : ys.stop + 8, max(xs.start - 8, 0) : xs.stop + 8]
        inside = labels[box] == i
        ring = dilation(inside, disk(8)) & (labels[box] == 0)
        own, around = stain[box][inside], stain[box][ring]
        patch = np.where(inside, levels[box], 0)
        counts = graycomatrix(patch, [1], angles, levels=33, symmetric=True)[1:, 1:, 0].sum(-1)
        p = counts / counts.sum()
        a, b = np.indices(p.shape)
        rows.append(
            (
                own[:, 0].mean(), own[:, 0].std(), *np.percentile(own, (10, 25, 50, 75, 90)),
                around.mean(), *np.percentile(around, (10, 50, 90)), (p * (a - b) ** 2).sum(),
                (p / (1 + (a - b) ** 2)).sum(), gradient[box][inside].mean(),
                gradient[box][inside].std(),
            )
        )  # fmt: skip
    return np.array(rows)


def cpu(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    side = 512 if parser.parse_args().quick else 1024
    from nucleoscope.atlas.features import nucleus_features

    image, labels = scene(side)
    nucleus_features(image[:64, :64], labels[:64, :64], mpp=MPP)  # compiled
    methods = {
        "ours, 82 columns": lambda: nucleus_features(image, labels, mpp=MPP),
        "regionprops_table, 9 columns": lambda: by_regionprops(image, labels),
        "loop, 15 columns": lambda: by_loop(image, labels),
    }
    spent: dict[str, list[float]] = {name: [] for name in methods}
    results = {}
    for _ in range(3):
        for name, method in methods.items():
            seconds, results[name] = cpu(method)
            spent[name].append(seconds)
    n, (ours, table, loop) = int(labels.max()), results.values()
    for column, (name, scale) in SHARED.items():
        assert np.allclose(ours[column], table[name] * scale, atol=1e-6), column
    for column, at in (
        ("f_hematoxylin_mean_od", 0), ("f_hematoxylin_sd_od", 1),
        ("f_gradient_mean_od_per_um", 13), ("f_gradient_sd_od_per_um", 14),
    ):  # fmt: skip
        assert np.allclose(ours[column], loop[:, at], atol=1e-4), column
    assert np.allclose(ours["f_glcm_contrast"], loop[:, 11], rtol=0.03)
    print(f"{n} nuclei in {side} x {side} px; shared columns are equal")
    first = statistics.median(spent["ours, 82 columns"])
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(f"{name:30s} {middle:8.3f} CPU s  {n / middle:9.0f} nuclei/s  {middle / first:6.1f}x")


if __name__ == "__main__":
    main()
