"""The map: everyone has a place, near those who look alike, the same each time."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

from nucleoscope.atlas.map2d import fit_map, landmarks, principal_components
from nucleoscope.errors import CallError, InputError, MissingExtraError


def kinds(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 4, n)
    raw = 2 * rng.normal(size=(4, 10))[code] + 0.3 * rng.normal(size=(n, 10))
    return (raw / np.linalg.norm(raw, axis=1)[:, None]).astype(np.float16), code


def test_the_map_of_components_is_pca_when_everyone_is_a_landmark() -> None:
    vectors, _ = kinds(200)
    frame = fit_map(vectors, method="pca").frame
    centred = vectors.astype(float) - vectors.astype(float).mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    for i, column in enumerate(("map_x", "map_y")):
        assert abs(np.corrcoef(frame[column], u[:, i] * s[i])[0, 1]) > 0.999


def test_others_lie_among_their_nearest_landmarks() -> None:
    vectors, code = kinds(600)
    made = fit_map(vectors, method="pca", n_landmarks=100)
    assert "fitted on 100 of 600" in made.note
    xy = made.frame.to_numpy()
    centres = np.stack([xy[code == c].mean(0) for c in range(4)])
    guess = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(1)
    assert (guess == code).mean() > 0.95


def test_every_group_has_landmarks() -> None:
    groups = np.array(["common"] * 9900 + ["rare"] * 100)
    rows = landmarks(10_000, 500, groups=groups, seed=1)
    assert len(rows) == 500 == len(set(rows))
    assert (groups[rows] == "rare").sum() >= 50
    assert len(landmarks(10_000, 500)) == 500


def test_signs_of_components_are_fixed() -> None:
    points = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    assert np.allclose(
        principal_components(points, 3), principal_components(points[::-1], 3)[::-1], atol=1e-4
    )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_nuclei_have_a_map(n: int) -> None:
    assert np.isfinite(fit_map(np.eye(5)[:n]).frame.to_numpy()).all()


def test_without_umap_the_note_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    vectors, _ = kinds(60)
    assert "nucleoscope[atlas]" in fit_map(vectors).note
    with pytest.raises(MissingExtraError, match=r"nucleoscope\[atlas\]"):
        fit_map(vectors, method="umap")


def test_calls_that_cannot_be_are_refused() -> None:
    with pytest.raises(CallError, match="expected auto"):
        fit_map(np.eye(3), method="tsne")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no nucleus"):
        fit_map(np.zeros((0, 3)))
    with pytest.raises(InputError, match="groups"):
        fit_map(np.eye(30), groups=["a"], n_landmarks=5)


@pytest.mark.slow
def test_umap_keeps_kinds_together_and_repeats() -> None:
    pytest.importorskip("umap")
    vectors, code = kinds(400)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (fit_map(vectors, method="umap", n_landmarks=300) for _ in range(2))
    assert one.frame.equals(other.frame)
    xy = one.frame.to_numpy()
    centres = np.stack([xy[code == c].mean(0) for c in range(4)])
    assert (np.linalg.norm(xy[:, None] - centres, axis=2).argmin(1) == code).mean() > 0.95
