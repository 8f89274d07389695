"""A small story in files: images with truth, an instant model, a network trained for a moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from nucleoscope.flow.lecl import detect, train
from nucleoscope.simulator import simulate

SETTINGS = {"n_slices": 4, "density": 0.15, "roi": False}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three simulated stacks with their points."""
    folder = tmp_path_factory.mktemp("images")
    simulate(folder, n=3, size=96, seed=5, **SETTINGS)
    return folder


@pytest.fixture(scope="session")
def stacks(images: Path) -> list[Path]:
    return sorted(images.glob("*.ome.tif"))


@pytest.fixture(scope="session")
def instant(stacks: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the classical recipe."""
    folder = tmp_path_factory.mktemp("models") / "instant"
    train(stacks[:2], folder, recipe="classical", quiet=True)
    return folder


@pytest.fixture(scope="session")
def light(stacks: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the default recipe after two steps."""
    folder = tmp_path_factory.mktemp("models") / "light"
    train(stacks[:1], folder, steps=2, minutes=float("inf"), quiet=True)
    return folder


@pytest.fixture(scope="session")
def finished(stacks: list[Path], instant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What detect leaves behind for two images; read only."""
    folder = tmp_path_factory.mktemp("results") / "out"
    detect(stacks[:2], instant, folder, quiet=True)
    return folder


@pytest.fixture
def own(images: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the first image and what lies beside it, under another name if asked."""

    def copy(name: str = "mine", *, points: bool = True) -> Path:
        for suffix in ("ome.tif", *(["points.csv"] if points else [])):
            shutil.copy(images / f"plaque_01.{suffix}", tmp_path / f"{name}.{suffix}")
        return tmp_path / f"{name}.ome.tif"

    return copy
