"""Small lessons, and one network trained for a few steps on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from nucleoscope.data.volume import Volume
from nucleoscope.flow.inputs import Example
from nucleoscope.flow.lessons import prepare
from nucleoscope.learn.feed import Lesson
from nucleoscope.learn.lecl import train_model
from nucleoscope.learn.model import Model, ModelConfig
from nucleoscope.learn.recipes import Recipe, recipe
from nucleoscope.learn.train import TrainSettings
from nucleoscope.simulator import PlaqueSettings, Scene, simulate_plaque

SCENE = PlaqueSettings(size=96, n_slices=4, roi=False, density=0.15, rho=0.2)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread: sums in the same order, and no quarrel with the neighbours."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    made = [simulate_plaque(SCENE, seed) for seed in (1, 2)]
    return [replace(s, volume=replace(s.volume, name=f"plaque_{i}")) for i, s in enumerate(made)]


@pytest.fixture(scope="session")
def small() -> Recipe:
    """The default recipe, cut down to a few steps of small crops."""
    return replace(recipe("lecl"), steps=6, batch=1, crop=64, context=1)


@pytest.fixture(scope="session")
def prepared(scenes: list[Scene], small: Recipe) -> tuple[ModelConfig, list[Lesson]]:
    return prepare([Example(s.volume, s.points, None, {}) for s in scenes], small)


@pytest.fixture(scope="session")
def lessons(prepared: tuple[ModelConfig, list[Lesson]]) -> list[Lesson]:
    return prepared[1]


@pytest.fixture(scope="session")
def config(prepared: tuple[ModelConfig, list[Lesson]]) -> ModelConfig:
    return prepared[0]


@pytest.fixture(scope="session")
def model(lessons: list[Lesson], config: ModelConfig, small: Recipe) -> Model:
    """A light model that has learnt a little."""
    more = replace(small, steps=24, learning_rate=4e-3)
    return train_model(lessons, config, more, TrainSettings(minutes=float("inf"), seed=0))


@pytest.fixture(scope="session")
def instant(lessons: list[Lesson], config: ModelConfig) -> Model:
    """A model without a network."""
    chosen = recipe("classical")
    plain = config.model_copy(update={"recipe": "classical"})
    return train_model(lessons, plain, chosen, TrainSettings())


@pytest.fixture
def stack(scenes: list[Scene]) -> Volume:
    return scenes[1].volume
