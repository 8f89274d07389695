"""The estimators keep scikit-learn's promises and do what the functions do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import nucleoscope
from nucleoscope.data.crops import CropStore
from nucleoscope.estimators import LECLDetector, Nuc2Vec
from nucleoscope.simulator import simulate


@pytest.mark.parametrize("made", [LECLDetector(marker=("LT",), seed=3), Nuc2Vec(minutes=2.0)])
def test_an_estimator_is_cloned_and_set_by_name(made: LECLDetector | Nuc2Vec) -> None:
    other = clone(made)
    assert other is not made
    assert other.get_params() == made.get_params()
    assert other.set_params(seed=9).seed == 9
    assert made.seed != 9


def test_nothing_is_predicted_before_the_fit() -> None:
    with pytest.raises(NotFittedError):
        LECLDetector().predict([])
    with pytest.raises(NotFittedError):
        Nuc2Vec().transform(None)  # type: ignore[arg-type]


def test_the_detector_learns_from_points_and_finds_nuclei() -> None:
    scenes = simulate(kind="plaque", n=3, size=192, seed=5)
    volumes, points = [s.volume for s in scenes], [s.points for s in scenes]
    detector = LECLDetector(recipe="classical", nuclei="DAPI", marker=("LT",))
    assert detector.fit(volumes[:2], points[:2]) is detector
    (table,) = detector.predict(volumes[2:])
    assert isinstance(table, nucleoscope.NucleusTable)
    assert detector.score(volumes[2:], points[2:]) > 0.7


def test_nuc2vec_makes_rows_of_length_one() -> None:
    rng = np.random.default_rng(0)
    n = 40
    pictures = rng.integers(0, 255, (n, 64, 64, 3)).astype(np.uint8)
    store = CropStore(
        pictures, pictures, np.zeros((n, 64, 64), np.uint8), np.zeros(n, bool),
        np.zeros(n, np.int32), ("a",), np.arange(n),
    )  # fmt: skip
    vectors = Nuc2Vec(minutes=0.02).fit_transform(store)
    assert vectors.shape[0] == n
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=0.01)
