"""Training: bounded, watched, and resumed to the very bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn import train as training
from nucleoscope.learn.feed import Lesson
from nucleoscope.learn.model import Model, ModelConfig, NetworkSpec
from nucleoscope.learn.recipes import Recipe
from nucleoscope.learn.train import CHECKS, Progress, TrainSettings, train_network

FOREVER = float("inf")
History = list[dict[str, float]]


class Killed(Exception):
    """Stands for a process that dies."""


@pytest.fixture(scope="module")
def described(config: ModelConfig) -> ModelConfig:
    spec = NetworkSpec(name="light", n_channels=2, n_types=2, n_groups=1, context=1)
    return config.model_copy(update={"network": spec})


@pytest.fixture(scope="module")
def tiny(small: Recipe) -> Recipe:
    return replace(small, steps=8, crop=48, contrast=0.1)


def killer(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    return report


def weights(model: Model) -> dict[str, torch.Tensor]:
    assert model.network is not None
    return model.network.state_dict()


def same(one: Model, other: Model) -> bool:
    a, b = weights(one), weights(other)
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def straight(lessons: list[Lesson], described: ModelConfig, tiny: Recipe) -> tuple[Model, History]:
    return train_network(lessons, [], described, tiny, TrainSettings(minutes=FOREVER, seed=3))


@pytest.mark.parametrize("step", [1, 6])
def test_a_killed_and_resumed_run_ends_bit_equal(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe,
    straight: tuple[Model, History], tmp_path: Path, step: int,
) -> None:  # fmt: skip
    settings = TrainSettings(minutes=FOREVER, seed=3, checkpoint=tmp_path / "c.safetensors")
    with pytest.raises(Killed):
        train_network(lessons, [], described, tiny, settings, report=killer(step))
    assert settings.checkpoint is not None
    assert settings.checkpoint.is_file()
    steps: list[int] = []
    model, history = train_network(
        lessons, [], described, tiny, replace(settings, resume=True),
        report=lambda p: steps.append(p.step),
    )  # fmt: skip
    assert same(model, straight[0])
    assert history == straight[1]
    assert steps == list(range(step + 1, 9))


def test_a_run_killed_twice_ends_bit_equal(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe,
    straight: tuple[Model, History], tmp_path: Path,
) -> None:  # fmt: skip
    settings = TrainSettings(
        minutes=FOREVER, seed=3, checkpoint=tmp_path / "c.safetensors", resume=True
    )
    for step in (2, 4):
        with pytest.raises(Killed):
            train_network(lessons, [], described, tiny, settings, report=killer(step))
    model, history = train_network(lessons, [], described, tiny, settings)
    assert same(model, straight[0])
    assert history == straight[1]


def test_a_kill_between_two_checkpoints_goes_on_from_the_former(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe, tmp_path: Path
) -> None:
    long = replace(tiny, steps=16)  # a check every second step
    plain, history = train_network(
        lessons, [], described, long, TrainSettings(minutes=FOREVER, seed=3)
    )
    settings = TrainSettings(minutes=FOREVER, seed=3, checkpoint=tmp_path / "c.safetensors")
    with pytest.raises(Killed):
        train_network(lessons, [], described, long, settings, report=killer(5))
    steps: list[int] = []
    model, resumed = train_network(
        lessons, [], described, long, replace(settings, resume=True),
        report=lambda p: steps.append(p.step),
    )  # fmt: skip
    assert steps[0] == 5
    assert same(model, plain)
    assert resumed == history
    assert [entry["step"] for entry in history] == [2.0 * (i + 1) for i in range(CHECKS)]


def test_resuming_a_finished_run_trains_no_more(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe,
    straight: tuple[Model, History], tmp_path: Path,
) -> None:  # fmt: skip
    settings = TrainSettings(minutes=FOREVER, seed=3, checkpoint=tmp_path / "c.safetensors")
    train_network(lessons, [], described, tiny, settings)
    steps: list[int] = []
    model, _ = train_network(
        lessons, [], described, tiny, replace(settings, resume=True),
        report=lambda p: steps.append(p.step),
    )  # fmt: skip
    assert steps == []
    assert same(model, straight[0])


def test_resuming_without_a_checkpoint_starts(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe,
    straight: tuple[Model, History], tmp_path: Path,
) -> None:  # fmt: skip
    settings = TrainSettings(
        minutes=FOREVER, seed=3, checkpoint=tmp_path / "c.safetensors", resume=True
    )
    assert same(train_network(lessons, [], described, tiny, settings)[0], straight[0])


def test_another_seed_trains_another_network(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe, straight: tuple[Model, History]
) -> None:
    short = replace(tiny, steps=1)
    other = train_network(lessons, [], described, short, TrainSettings(minutes=FOREVER, seed=4))[0]
    assert not same(other, straight[0])


def test_training_leaves_the_global_generators_alone(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe
) -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train_network(lessons, [], described, replace(tiny, steps=1), TrainSettings(minutes=FOREVER))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.fixture(scope="module")
def kept(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
) -> TrainSettings:  # fmt: skip
    """Settings of a run that stopped after one step."""
    path = tmp_path_factory.mktemp("kept") / "c.safetensors"
    settings = TrainSettings(minutes=FOREVER, seed=3, checkpoint=path)
    with pytest.raises(Killed):
        train_network(lessons, [], described, tiny, settings, report=killer(1))
    return replace(settings, resume=True)


@pytest.mark.parametrize("what", ["seed", "recipe", "steps", "types", "context"])
def test_a_checkpoint_of_another_run_is_refused(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe, kept: TrainSettings, what: str
) -> None:
    settings, recipe, config = kept, tiny, described
    assert config.network is not None
    if what == "seed":
        settings = replace(settings, seed=4)
    elif what == "recipe":
        recipe = replace(recipe, learning_rate=1e-3)
    elif what == "steps":
        recipe = replace(recipe, steps=9)
    elif what == "types":
        config = config.model_copy(update={"types": ("no", "yes")})
    else:
        spec = config.network.model_copy(update={"context": 2})
        config = config.model_copy(update={"network": spec})
    assert kept.checkpoint is not None
    before = kept.checkpoint.read_bytes()
    with pytest.raises(InputError, match="another recipe, network, channels or seed"):
        train_network(lessons, [], config, recipe, settings)
    assert kept.checkpoint.read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "pickle", "model", "no facts"])
def test_a_damaged_checkpoint_is_one_sentence(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe, kept: TrainSettings,
    tmp_path: Path, damage: str,
) -> None:  # fmt: skip
    from safetensors.torch import save

    assert kept.checkpoint is not None
    data = kept.checkpoint.read_bytes()
    path = tmp_path / "c.safetensors"
    path.write_bytes(
        {
            "cut": data[:-100],
            "pickle": b"\x80\x04" + data,
            "model": save({"a": torch.zeros(1)}),
            "no facts": save({"a": torch.zeros(1)}, metadata={"nucleoscope": "{}"}),
        }[damage]
    )
    from nucleoscope.testing import refusal

    error = refusal(
        lambda: train_network(lessons, [], described, tiny, replace(kept, checkpoint=path))
    )
    assert error is not None
    assert "c.safetensors" in str(error)


def test_the_checkpoint_carries_the_history_and_every_state(kept: TrainSettings) -> None:
    assert kept.checkpoint is not None
    with safe_open(kept.checkpoint, "pt") as file:
        names = set(file.keys())
        facts = json.loads(file.metadata()["nucleoscope"])
    assert facts["step"] == 1
    assert facts["checks"] == len(facts["history"]) == 1
    assert {n.split(".")[0] for n in names} == {"network", "average", "objective", "optimiser"}
    assert any(n.startswith("objective.contrast.bank") for n in names)


# ---------------------------------------------------------------- bounds


def test_the_minutes_bound_a_run(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe
) -> None:
    endless = replace(tiny, steps=10**9)
    settings = TrainSettings(minutes=0.5 / 60)
    reports: list[Progress] = []
    _, history = train_network(lessons, [], described, endless, settings, report=reports.append)
    assert 1 <= reports[-1].step < 1000
    assert reports[-1].fraction == 1.0
    assert reports[-1].seconds_left == 0.0
    assert history[-1]["step"] == reports[-1].step


@pytest.mark.parametrize("minutes", [0.0, -3.0, float("nan")])
def test_no_time_at_all_is_refused(minutes: float) -> None:
    with pytest.raises(CallError, match="more than 0 minutes"):
        TrainSettings(minutes=minutes)


def test_a_recipe_without_a_network_cannot_be_trained(
    lessons: list[Lesson], config: ModelConfig, tiny: Recipe
) -> None:
    with pytest.raises(InputError, match="no network to train"):
        train_network(lessons, [], config, tiny, TrainSettings())


# ---------------------------------------------------------------- what is told


def test_the_history_holds_every_term_and_their_sum(straight: tuple[Model, History]) -> None:
    history = straight[1]
    assert len(history) == CHECKS
    for entry in history:
        terms = {k: v for k, v in entry.items() if k not in ("step", "loss")}
        assert {"foreground", "offsets", "centre", "types", "pixel_types"} <= set(terms)
        assert entry["loss"] == pytest.approx(sum(terms.values()))
        assert all(np.isfinite(v) for v in entry.values())


def test_held_out_images_are_scored_at_every_check(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe
) -> None:
    seen: list[float | None] = []
    _, history = train_network(
        lessons[:1], lessons[1:], described, replace(tiny, steps=2),
        TrainSettings(minutes=FOREVER), report=lambda p: seen.append(p.held_out_f1),
    )  # fmt: skip
    assert all(0 <= entry["held_out_f1"] <= 1 for entry in history)
    assert seen[-1] == history[-1]["held_out_f1"]


def test_looking_at_held_out_images_teaches_nothing(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe
) -> None:
    short, settings = replace(tiny, steps=2), TrainSettings(minutes=FOREVER)
    plain, _ = train_network(lessons[:1], [], described, short, settings)
    watched, _ = train_network(lessons[:1], lessons[1:], described, short, settings)
    assert same(plain, watched)


def test_the_loss_falls(lessons: list[Lesson], described: ModelConfig, tiny: Recipe) -> None:
    more = replace(tiny, steps=20, contrast=0.0, learning_rate=6e-3)
    _, history = train_network(lessons[:1], [], described, more, TrainSettings(minutes=FOREVER))
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_a_loss_that_is_not_finite_stops_with_one_sentence(
    lessons: list[Lesson], described: ModelConfig, tiny: Recipe, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real = training.Objective.forward

    def poisoned(self: training.Objective, *args: object, **options: object) -> object:
        terms = real(self, *args, **options)  # type: ignore[arg-type]
        if poisoned.calls == 2:  # type: ignore[attr-defined]
            terms["centre"] = terms["centre"] * float("nan")
        poisoned.calls += 1  # type: ignore[attr-defined]
        return terms

    poisoned.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(training.Objective, "forward", poisoned)
    path = tmp_path / "c.safetensors"
    settings = TrainSettings(minutes=FOREVER, checkpoint=path)
    with pytest.raises(InputError, match="not finite at step 3"):
        train_network(lessons, [], described, tiny, settings)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["nucleoscope"])["step"] == 2


def test_the_model_is_the_average_ready_for_use(straight: tuple[Model, History]) -> None:
    network = straight[0].network
    assert network is not None
    assert not network.training
    assert all(p.device.type == "cpu" for p in network.parameters())
