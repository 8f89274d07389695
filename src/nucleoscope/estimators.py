"""scikit-learn style estimators: fit, predict, transform, clone.

>>> from sklearn.base import clone
>>> clone(LECLDetector(recipe="classical", marker=("LT",))).get_params()["recipe"]
'classical'
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from nucleoscope.data.crops import CropStore
from nucleoscope.data.points import Points
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume

if TYPE_CHECKING:
    from nucleoscope.learn.encoder_model import EncoderModel
    from nucleoscope.learn.model import Model
    from nucleoscope.learn.recipes import Recipe


class LECLDetector(BaseEstimator):  # type: ignore[misc]
    """Nuclei and their types from one click per nucleus.

    Parameters
    ----------
    recipe, network, nuclei, marker, minutes, steps, seed
        As of ``nucleoscope.train``.

    Attributes
    ----------
    model_ : Model
        After ``fit``; ``nucleoscope.learn.model.save_model`` writes it.

    Examples
    --------
    >>> detector = LECLDetector(recipe="classical", nuclei="DAPI", marker=("LT",))
    >>> detector.set_params(minutes=5.0).minutes
    5.0
    """

    def __init__(
        self,
        *,
        recipe: str | Recipe = "lecl",
        network: str | None = None,
        nuclei: str | int | None = None,
        marker: Sequence[str | int] = (),
        minutes: float = 30.0,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        self.recipe = recipe
        self.network = network
        self.nuclei = nuclei
        self.marker = marker
        self.minutes = minutes
        self.steps = steps
        self.seed = seed

    def fit(
        self,
        X: Sequence[Volume | str | Path],
        y: Sequence[Points | str | Path],
    ) -> LECLDetector:
        """Train on images ``X`` and the points ``y`` of each.

        Raises
        ------
        CallError, InputError
            As of ``nucleoscope.train``.
        """
        from nucleoscope.flow.lecl import train

        with tempfile.TemporaryDirectory() as folder:
            self.model_: Model = train(
                list(X), Path(folder) / "model", points=list(y), recipe=self.recipe,
                network=self.network, nuclei=self.nuclei, marker=tuple(self.marker),
                minutes=self.minutes, steps=self.steps, seed=self.seed, quiet=True,
            )  # fmt: skip
        return self

    def predict(self, X: Sequence[Volume | str | Path]) -> list[NucleusTable]:
        """The nuclei of every image, one table each.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before ``fit``.
        """
        from nucleoscope.flow.lecl import detect

        check_is_fitted(self, "model_")
        found = detect(list(X), self.model_)
        assert isinstance(found, list)  # noqa: S101  no output was given
        return [one.table for one in found]

    def score(
        self,
        X: Sequence[Volume | str | Path],
        y: Sequence[Points],
    ) -> float:
        """Detection F1 over all images, matched within 15 px."""
        from nucleoscope.metrics import evaluate_images, evaluate_tables

        results = [
            evaluate_tables(table, points, name=f"image {i}")
            for i, (table, points) in enumerate(zip(self.predict(X), y, strict=True))
        ]
        return float(evaluate_images(results).rules["optimal"].detection.pooled.f1)


class Nuc2Vec(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One vector per nucleus, learned without labels.

    Parameters
    ----------
    recipe, minutes, seed
        As of ``nucleoscope.train_encoder``.

    Attributes
    ----------
    model_ : EncoderModel
        After ``fit``.

    Examples
    --------
    >>> Nuc2Vec(minutes=1.0).get_params()
    {'minutes': 1.0, 'recipe': 'nuc2vec', 'seed': 0}
    """

    def __init__(self, *, recipe: str = "nuc2vec", minutes: float = 30.0, seed: int = 0) -> None:
        self.recipe = recipe
        self.minutes = minutes
        self.seed = seed

    def fit(self, X: CropStore, y: Any = None) -> Nuc2Vec:
        """Train an encoder on crops ``X``; ``y`` is not looked at.

        Raises
        ------
        InputError
            As of ``nucleoscope.learn.encode.train_encoder``.
        """
        from nucleoscope.learn.encode import EncoderSettings, train_encoder
        from nucleoscope.learn.encoder_recipes import encoder_recipe

        settings = EncoderSettings(minutes=self.minutes, seed=self.seed)
        self.model_: EncoderModel = train_encoder(X, encoder_recipe(self.recipe), settings)
        return self

    def transform(self, X: CropStore) -> NDArray[np.float32]:
        """Vectors ``(N, D)`` float32, rows of length 1, row by row with the crops."""
        from nucleoscope.learn.embed import embed

        check_is_fitted(self, "model_")
        return embed(self.model_, X).astype(np.float32)
