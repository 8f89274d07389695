from __future__ import annotations

import numpy as np

from nucleoscope.atlas.thumbnails import thumbnail_vectors
from nucleoscope.data.crops import CropStore


def store(pictures: np.ndarray) -> CropStore:
    n = len(pictures)
    return CropStore(
        pictures, pictures, pictures[..., 0], np.zeros(n, bool), np.zeros(n, np.int32), ("a",),
        np.arange(n),
    )  # fmt: skip


def pictures(n: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3)).astype(np.uint8)


def test_all_components_keep_the_distances_between_thumbnails() -> None:
    many = pictures()
    vectors = thumbnail_vectors(store(many), dimensions=192)
    small = many[:, 8:56, 8:56].reshape(80, 8, 6, 8, 6, 3).mean(axis=(2, 4)).reshape(80, -1) / 255
    for i, j in [(0, 1), (3, 70), (79, 5)]:
        here = np.linalg.norm(vectors[i] - vectors[j])
        assert np.isclose(here, np.linalg.norm(small[i] - small[j]), rtol=1e-3)


def test_columns_fall_in_variance_and_do_not_correlate() -> None:
    vectors = thumbnail_vectors(store(pictures()), dimensions=20)
    variance = vectors.var(axis=0)
    assert (np.diff(variance) < 1e-6).all()
    correlation = np.corrcoef(vectors.T)
    assert np.abs(correlation - np.eye(20)).max() < 1e-3


def test_what_lies_outside_the_centre_does_not_matter() -> None:
    many = pictures(10)
    other = many.copy()
    other[:, :8] = 0
    assert np.allclose(thumbnail_vectors(store(many)), thumbnail_vectors(store(other)), atol=1e-5)


def test_no_nuclei_give_no_rows() -> None:
    assert thumbnail_vectors(store(pictures(0))).shape == (0, 50)
