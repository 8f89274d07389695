"""Views per CPU second: ours beside lightly's SimCLRTransform and the same set in albumentations.

All look at the same uint8 crops of 64 px and make float32 views of the same side, in one process,
turn by turn. Peers need their packages (``pip install lightly albumentations``); one that cannot be
imported is named and left out. Checked in the same run: every contestant's views have the right
shape, are finite, and differ from view to view.

    OMP_NUM_THREADS=1 python bench/bench_views.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from nucleoscope.learn.paper_views import PaperViews, paper_views
from nucleoscope.learn.views import Slides, ViewSettings, draw_views, render_views, soft_edges

Make = Callable[[np.ndarray, int], np.ndarray]


def declare_operators() -> None:
    """Let a torchvision whose compiled part does not fit this torch be imported all the same."""
    import torch

    if hasattr(declare_operators, "kept"):
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declare_operators.kept = library  # type: ignore[attr-defined]


def ours(images: np.ndarray, size: int, view: int) -> Make:
    mask = np.zeros(images.shape[:3], np.uint8)
    y, x = np.indices((64, 64)) - 31.5
    mask[:, np.hypot(y, x) < 14] = 1
    settings, slides = ViewSettings(size=size), Slides.of(np.arange(len(images)) % 4)
    edges = soft_edges(mask, settings, radius=14.0)

    def make(rows: np.ndarray, step: int) -> np.ndarray:
        drawn = draw_views(settings, rows, slides, seed=0, step=step, view=view)
        return render_views(images, edges, rows, drawn, settings)

    return make


def published(images: np.ndarray) -> Make:
    mask, slides = np.zeros(images.shape[:3], np.uint8), Slides.of(np.arange(len(images)) % 4)

    def make(rows: np.ndarray, step: int) -> np.ndarray:
        return paper_views(images, mask, rows, PaperViews(), slides, radius=14.0, draw=(0, step, 1))

    return make


def lightly(images: np.ndarray, size: int) -> Make:
    declare_operators()
    import torch
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    torch.set_num_threads(1)
    transform = SimCLRTransform(input_size=size, gaussian_blur=0.3, rr_prob=0.5, vf_prob=0.5)

    def make(rows: np.ndarray, step: int) -> np.ndarray:
        # One call makes two views; both are counted.
        halves = [transform(Image.fromarray(images[row])) for row in rows[: len(rows) // 2]]
        return torch.stack([view for pair in halves for view in pair]).permute(0, 2, 3, 1).numpy()

    return make


def albumentations(images: np.ndarray, size: int) -> Make:
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    transform = A.Compose([
        A.Affine(scale=(0.9, 1.1), rotate=(-180, 180), translate_percent=0.02,
                 border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        A.Resize(size, size), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5),
        A.ColorJitter(0.1, 0.1, 0.1, 0.02, p=0.8), A.GaussianBlur((3, 3), p=0.3), A.Normalize(),
    ])  # fmt: skip

    def make(rows: np.ndarray, step: int) -> np.ndarray:
        return np.stack([transform(image=images[row])["image"] for row in rows])

    return make


def contestants(images: np.ndarray, size: int) -> dict[str, tuple[Make, int, int]]:
    """Name -> how to make views, how many per turn, their side; absent peers are named."""
    found: dict[str, tuple[Make, int, int]] = {
        "ours, query": (ours(images, size, 0), 256, size),
        "ours, key with swap": (ours(images, size, 1), 256, size),
    }
    for name, build in (("lightly SimCLR", lightly), ("albumentations", albumentations)):
        try:
            found[name] = (build(images, size), 32, size)
        except (ImportError, RuntimeError) as error:
            print(f"{name} cannot be run here: {error}")
    found["published set at 128 px"] = (published(images), 16, 128)
    return found


def check(name: str, views: np.ndarray, n: int, size: int) -> None:
    assert views.shape == (n, size, size, 3), (name, views.shape)
    assert np.isfinite(views).all(), name
    assert np.abs(views[0] - views[1]).max() > 0, name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    turns = 3 if parser.parse_args().quick else 12
    images = np.random.default_rng(0).integers(0, 256, (512, 64, 64, 3), dtype=np.uint8)
    for size in (32, 48):
        field = contestants(images, size)
        rates: dict[str, list[float]] = {name: [] for name in field}
        for turn in range(turns + 1):
            for name, (make, n, side) in field.items():
                start = time.process_time()
                views = make(np.arange(n), turn)
                spent = time.process_time() - start
                check(name, views, n, side)
                if turn:  # the first turn compiles and fills caches
                    rates[name].append(n / spent)
        print(f"\nviews of {size} px per CPU second, one thread, median of {turns} turns")
        middle = {name: statistics.median(values) for name, values in rates.items()}
        mean = 2 / sum(1 / middle[name] for name in ("ours, query", "ours, key with swap"))
        for name, rate in [*middle.items(), ("ours, query and key", mean)]:
            print(f"{name:28s}{rate:10.0f}{mean / rate:10.1f}x slower than ours")


if __name__ == "__main__":
    main()
