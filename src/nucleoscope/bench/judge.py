"""From results on disk to the plain figures a record keeps, image by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.flow.evaluate import evaluate
from nucleoscope.io.images import image_stem, read_labels
from nucleoscope.metrics import (
    Evaluation,
    ImageResult,
    Scores,
    calibration_error,
    segmentation_scores,
)
from nucleoscope.metrics.detection import jsonable


def judge(found: Path, truth: Path, *, radius: str = "15px") -> dict[str, Any]:
    """Score the results in ``found`` against the points in ``truth``.

    Returns
    -------
    dict
        ``images``: per image the counts ``[tp, fp, fn]`` of nuclei and of each type under both
        matching rules, HoVer-Net's pair counts, the confusion of types over matched nuclei and
        the mean distance in z; then the figures of all images together.
    """
    scores = evaluate(found, truth, radius=radius)
    return {
        "radius": radius,
        "images": [image_figures(image) for image in scores.images],
        "calibration_error": jsonable(scores.calibration_error),
        "reliability": scores.reliability.to_dict(),
        "z_within_one_slice": jsonable(scores.z_accuracy),
        "balanced_accuracy": jsonable(scores.balanced_accuracy),
        "hovernet": scores.hovernet.to_dict(),
        **_headline(scores),
    }


def _headline(scores: Evaluation) -> dict[str, Any]:
    """Pooled F1 of detection and of each type, for people who read the record."""
    found = scores.rules["optimal"]
    return {
        "f1": jsonable(found.detection.pooled.f1),
        "type_f1": {kind: jsonable(s.pooled.f1) for kind, s in found.types.items()},
    }


def image_figures(image: ImageResult) -> dict[str, Any]:
    """One image's counts; everything else can be computed from them."""
    pairs = Counter(
        zip(image.pairs.true_type.tolist(), image.pairs.predicted_type.tolist(), strict=True)
    )
    dz = image.pairs.dz[np.isfinite(image.pairs.dz)]
    return {
        "image": image.name,
        **{
            rule: {
                "nuclei": _counts(found.detection),
                "types": {kind: _counts(scores) for kind, scores in found.types.items()},
            }
            for rule, found in image.rules.items()
        },
        "pair_counts": {kind: list(counts) for kind, counts in image.counts.items()},
        "confusion": [[true, found, n] for (true, found), n in sorted(pairs.items())],
        "z_error": float(dz.mean()) if len(dz) else None,
    }


def _counts(scores: Scores) -> list[int]:
    """True positives, false positives, false negatives."""
    return [int(scores.tp), int(scores.fp), int(scores.fn)]


def judge_types(
    true: NDArray[np.str_], chance: NDArray[np.float64], names: Sequence[str]
) -> dict[str, Any]:
    """Score types of nuclei whose places were given.

    Parameters
    ----------
    true
        ``(n,)``; nuclei without a type (``""``) are left out.
    chance
        ``(n, T)`` probability of every type.
    names
        Of the T types.

    Returns
    -------
    dict
        F1 weighted by how many nuclei truly are of each type, its plain mean, accuracy, F1 by
        type, confusion (rows: truth, in the order of ``names``), calibration error.
    """
    known = true != ""
    truth = np.array([list(names).index(t) for t in true[known].tolist()], dtype=np.int64)
    said = chance[known].argmax(axis=1)
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(table, (truth, said), 1)
    counts = table.sum(axis=1)
    f1 = 2 * np.diag(table) / np.maximum(table.sum(axis=0) + counts, 1)
    n = int(counts.sum())
    return {
        "n": n,
        "weighted_f1": float(f1 @ counts / n) if n else None,
        "macro_f1": float(f1[counts > 0].mean()) if n else None,
        "accuracy": float((truth == said).mean()) if n else None,
        "f1": {name: float(value) for name, value in zip(names, f1, strict=True)},
        "confusion": table.tolist(),
        "calibration_error": jsonable(
            calibration_error(chance[known].max(axis=1), truth == said) if n else float("nan")
        ),
    }


def judge_outlines(found: Path, truths: Sequence[Path]) -> dict[str, Any]:
    """Score instance maps: AJI, PQ, Dice and F1 at IoU 0.5 of each image.

    ``truths`` are the true maps, ``<stem>.labels.tif`` for the results in ``found/<stem>``.
    """
    images: list[dict[str, Any]] = []
    for path in truths:
        stem = image_stem(path).removesuffix(".labels")
        scores = segmentation_scores(
            read_labels(found / stem / "labels.ome.zarr"), read_labels(path)
        )
        images.append(
            {
                "image": stem,
                "aji": jsonable(scores.aji),
                "pq": jsonable(scores.panoptic.pq),
                "dice": jsonable(scores.dice),
                "f1_at_half": _counts(scores.f1_at[0.5]),
            }
        )
    known = [image["aji"] for image in images if image["aji"] is not None]
    return {"images": images, "aji": float(np.mean(known)) if known else None}
