"""The training loop: bounded by steps or minutes, watched on held-out images, resumable exactly."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nucleoscope.errors import CallError, InputError
from nucleoscope.io import guard
from nucleoscope.learn.contrast import ContrastSettings
from nucleoscope.learn.feed import Feed, FeedSettings, Lesson
from nucleoscope.learn.fit import detection_f1, look, working_point
from nucleoscope.learn.infer import has_amx
from nucleoscope.learn.losses import LossSettings
from nucleoscope.learn.model import Model, ModelConfig, NetworkSpec, load_state, read_tensors
from nucleoscope.learn.nets import Network, build_network, channels_last
from nucleoscope.learn.objective import Objective, QuObjective, Weights
from nucleoscope.learn.partial import ROUNDS, RULED_OUT, judged, relearnt
from nucleoscope.learn.recipes import Recipe
from nucleoscope.nuclei.peaks import find_peaks

#: How often the held-out images are looked at, as a share of the training.
CHECKS = 8


@dataclass(frozen=True)
class TrainSettings:
    """What bounds and steers a run.

    Parameters
    ----------
    minutes
        Longest time; the learning rate falls to its end by then. ``inf`` leaves it to the steps,
        and only then is a run bit-for-bit the same again.
    seed
        Of the weights and of every draw.
    checkpoint
        File to keep the state in, written every check and at the end; None for none.
    resume
        Go on from that file.
    device
        ``cpu`` or ``cuda``.
    """

    minutes: float = 30.0
    seed: int = 0
    checkpoint: Path | None = None
    resume: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise CallError(f"training takes more than 0 minutes; found {self.minutes:g}.")


@dataclass
class Progress:
    """What a bar can show after a step."""

    step: int
    fraction: float
    seconds_left: float
    loss: float
    held_out_f1: float | None


Report = Callable[[Progress], None]


@dataclass
class _State:
    """All that changes while training."""

    network: Network
    average: dict[str, Tensor]
    objective: Objective | QuObjective
    optimiser: torch.optim.Optimizer
    is_given: bool = False
    step: int = 0
    seconds: float = 0.0
    checks: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    #: Per round of questions and image annotated in part: sure and doubtful places.
    answers: list[list[Answer]] = field(default_factory=list)


#: Sure and doubtful places of one image, as lists of z, y, x.
Answer = tuple[list[list[float]], list[list[float]]]


def train_network(
    lessons: Sequence[Lesson],
    held_out: Sequence[Lesson],
    config: ModelConfig,
    recipe: Recipe,
    settings: TrainSettings,
    *,
    start: Model | None = None,
    report: Report | None = None,
) -> tuple[Model, list[dict[str, float]]]:
    """Train the network that ``config`` describes.

    Parameters
    ----------
    lessons
        Images that teach.
    held_out
        Images that are only looked at, for the F1 in the progress; may be empty.
    config
        With a ``network``.
    recipe
        Steps, batch, crop and learning rate.
    start
        A model of the same network to go on from; a recipe's first phase may keep its encoder.

    Returns
    -------
    model
        With averaged weights, in evaluation mode.
    history
        Mean of every loss term and the held-out F1, per check.

    Raises
    ------
    InputError
        The loss is not finite, or a checkpoint belongs to another run.
    """
    if config.network is None:
        raise InputError("this recipe has no network to train.")
    state = _start(config, recipe, settings, start)
    if settings.resume and settings.checkpoint is not None and settings.checkpoint.exists():
        _restore(state, settings.checkpoint, _fingerprint(config, recipe, settings))
    feed = _feed(lessons, state, config, recipe, settings)
    clock, before = time.monotonic(), state.seconds
    terms: list[dict[str, float]] = []
    f1: float | None = state.history[-1].get("held_out_f1") if state.history else None
    while (fraction := _fraction(state, recipe, settings)) < 1.0:
        terms.append(_step(state, feed, recipe, settings, fraction))
        state.seconds = before + time.monotonic() - clock
        fraction = _fraction(state, recipe, settings)
        if _is_time_to_ask(state, lessons, fraction):
            asked = Model(config, _averaged(state, config))
            is_last = len(state.answers) + 1 == len(ROUNDS)
            state.answers.append(_ask(asked, lessons, is_last=is_last))
            feed = _feed(lessons, state, config, recipe, settings)
            state.seconds = before + time.monotonic() - clock
        if fraction * CHECKS >= state.checks + 1 or fraction >= 1.0:
            f1 = _check(state, config, held_out, terms)
            terms = []
            if settings.checkpoint is not None:
                _save(state, settings.checkpoint, _fingerprint(config, recipe, settings))
            state.seconds = before + time.monotonic() - clock
        if report is not None:
            loss = sum(terms[-1].values()) if terms else state.history[-1]["loss"]
            left = state.seconds * max(0.0, 1 - fraction) / max(fraction, 1e-6)
            report(Progress(state.step, min(fraction, 1.0), left, loss, f1))
    return Model(config, _averaged(state, config)), state.history


def _start(
    config: ModelConfig, recipe: Recipe, settings: TrainSettings, given: Model | None
) -> _State:
    spec = config.network
    assert spec is not None  # noqa: S101  asked by the caller
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = channels_last(build_network(**spec.model_dump()).to(settings.device))
    if given is not None:
        _take(network, given, config)
    objective = objective_for(recipe, spec, network)
    kind = torch.optim.AdamW if recipe.decoupled else torch.optim.Adam
    optimiser = kind(
        network.parameters(), lr=recipe.learning_rate, betas=recipe.betas,
        weight_decay=recipe.weight_decay,
    )  # fmt: skip
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    is_given = given is not None
    return _State(network, average, objective.to(settings.device), optimiser, is_given)


def _take(network: Network, given: Model, config: ModelConfig) -> None:
    """Start from a model's weights.

    Raises
    ------
    CallError
        That model's network has another shape.
    """
    if given.network is None or given.config.network != config.network:
        raise CallError(
            f"the model to start from has network {given.config.network}, this training needs "
            f"{config.network}; start from a model of the same network, channels and types."
        )
    network.load_state_dict(given.network.state_dict())


def objective_for(recipe: Recipe, spec: NetworkSpec, network: Network) -> Objective | QuObjective:
    """What a recipe minimises, for a network."""
    if recipe.objective == "qu":
        return QuObjective(
            spec.n_types, spec.n_groups, stride=network.stride, sums_types=network.sums_types
        )
    losses = {
        "default": LossSettings(),
        "paper": LossSettings.paper(spec.n_types, defects=False),
        "hovernet": LossSettings.hovernet(spec.n_types),
    }[recipe.losses]
    contrast = ContrastSettings.paper() if recipe.contrast_setting == "paper" else None
    return Objective(
        spec.n_types, spec.n_groups, network.head_dim, weights=weights_for(recipe), losses=losses,
        contrast=contrast,
    )  # fmt: skip


def weights_for(recipe: Recipe) -> Weights:
    """Weights of the terms: whole nuclei, or the three branches of HoVer-Net by the pixel."""
    if recipe.objective == "nucleus":
        return Weights(contrast=recipe.contrast)
    return Weights(centre=0.0, offsets=1.0, types=0.0, pixel_types=1.0, contrast=recipe.contrast)


def _feed(
    lessons: Sequence[Lesson],
    state: _State,
    config: ModelConfig,
    recipe: Recipe,
    settings: TrainSettings,
) -> Feed:
    """A feed of the lessons as the last round of questions left them."""
    if state.answers:
        answers = iter(state.answers[-1])
        lessons = [
            lesson if lesson.partial is None else relearnt(lesson, *map(_places, next(answers)))
            for lesson in lessons
        ]
    return Feed(lessons, _feed_settings(config, recipe, state.network), settings.seed)


def _places(rows: list[list[float]]) -> NDArray[np.float64]:
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _is_time_to_ask(state: _State, lessons: Sequence[Lesson], fraction: float) -> bool:
    """Whether the next round of questions is due."""
    n = len(state.answers)
    is_due = n < len(ROUNDS) and ROUNDS[n] <= fraction < 1.0
    return is_due and any(lesson.partial is not None for lesson in lessons)


def _ask(model: Model, lessons: Sequence[Lesson], *, is_last: bool) -> list[Answer]:
    """What the network makes of the nuclei that were not clicked, image by image."""
    answers: list[Answer] = []
    seen = look(model, [lesson for lesson in lessons if lesson.partial is not None])
    usual = working_point(seen, model.config)
    point = usual.model_copy(update={"threshold": RULED_OUT * usual.threshold})
    for one in seen:
        stride = one.maps.stride
        peaks = find_peaks(one.maps.centre, point.peak_settings(stride))
        places = peaks.zyx * [1, stride, stride] + [0, (stride - 1) / 2, (stride - 1) / 2]
        limit = np.array(one.lesson.volume.shape) - 1
        assert one.lesson.partial is not None  # noqa: S101  just asked
        sure, doubtful = judged(
            one.lesson.partial, places.clip(0, limit), peaks.score, usual.threshold,
            is_last=is_last,
        )  # fmt: skip
        answers.append((sure.tolist(), doubtful.tolist()))
    return answers


def _feed_settings(config: ModelConfig, recipe: Recipe, network: Network) -> FeedSettings:
    return FeedSettings(
        recipe.crop,
        recipe.batch,
        network.stride,
        network.context,
        config.radius_px,
        network.margin,
        recipe.objective != "nucleus",
    )


def _fraction(state: _State, recipe: Recipe, settings: TrainSettings) -> float:
    """Share of the training done: by steps or by time, whichever is further."""
    return max(state.step / max(1, recipe.steps), state.seconds / (60 * settings.minutes))


def _step(
    state: _State, feed: Feed, recipe: Recipe, settings: TrainSettings, fraction: float
) -> dict[str, float]:
    """One step; the loss terms by name."""
    phase, done = recipe.phase(fraction)
    batch = feed.batch(state.step, phase.batch)
    batch = type(batch)(**{k: v.to(settings.device) for k, v in vars(batch).items()})
    draws = torch.Generator().manual_seed(settings.seed * 1_000_003 + state.step)
    for group in state.optimiser.param_groups:
        group["lr"] = recipe.rate(state.step, fraction)
    if state.is_given:
        state.network.freeze_encoder(phase.frozen)
    state.network.train()
    kind = torch.device(settings.device).type
    use_half = kind == "cuda" or has_amx()
    image = batch.image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=use_half):
        maps = state.network(image, embed=state.objective.wants_embedding)
    # The published contrast starts anew in every phase.
    progress = done if recipe.contrast_setting == "paper" else fraction
    terms = state.objective(maps, batch, progress=progress, generator=draws, crf=phase.crf)
    loss = torch.stack(list(terms.values())).sum()
    if not torch.isfinite(loss):
        raise InputError(
            f"the loss is not finite at step {state.step + 1}; an image may hold extreme values. "
            "The last checkpoint is kept."
        )
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.optimiser.step()
    state.step += 1
    _average(state)
    return {name: float(value.detach()) for name, value in terms.items()}


@torch.no_grad()
def _average(state: _State) -> None:
    """Exponential moving average of the weights, over about the last 500 steps."""
    keep = min(0.998, (1 + state.step) / (10 + state.step))
    for name, value in state.network.state_dict().items():
        if value.dtype.is_floating_point:
            state.average[name].lerp_(value, 1 - keep)
        else:
            state.average[name].copy_(value)


def _averaged(state: _State, config: ModelConfig) -> Network:
    """A network with the averaged weights, for use."""
    spec = config.network
    assert spec is not None  # noqa: S101  asked by the caller
    with torch.random.fork_rng(devices=[]):
        network = build_network(**spec.model_dump())
    network.load_state_dict({k: v.cpu() for k, v in state.average.items()})
    return network.eval()


def _check(
    state: _State,
    config: ModelConfig,
    held_out: Sequence[Lesson],
    terms: Sequence[dict[str, float]],
) -> float | None:
    """Note the mean losses since the last check and the F1 on held-out images."""
    state.checks += 1
    means = {name: sum(t[name] for t in terms) / len(terms) for name in terms[0]}
    entry = {"step": float(state.step), "loss": sum(means.values()), **means}
    f1 = None
    if held_out:
        f1 = detection_f1(look(Model(config, _averaged(state, config)), held_out), config)
        entry["held_out_f1"] = f1
    state.history.append(entry)
    return f1


def _fingerprint(config: ModelConfig, recipe: Recipe, settings: TrainSettings) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from."""
    return {
        "recipe": json_of(recipe),
        "network": config.network.model_dump() if config.network else None,
        "channels": list(config.channels),
        "types": list(config.types),
        "seed": settings.seed,
    }


def json_of(recipe: Recipe) -> Any:
    """A recipe as JSON gives it back."""
    import json

    return guard.parse_json(json.dumps(asdict(recipe)).encode(), where="the recipe")


def _save(state: _State, path: Path, fingerprint: dict[str, Any]) -> None:
    """One file, replaced as a whole: tensors, and the rest as JSON in its header."""
    import json

    from safetensors.torch import save

    tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.items()}
    tensors |= {f"objective.{k}": v for k, v in state.objective.state_dict().items()}
    for index, slots in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in slots.items()}
    facts = {
        "step": state.step,
        "seconds": state.seconds,
        "checks": state.checks,
        "history": state.history,
        "answers": state.answers,
        "run": fingerprint,
    }
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    data = save(tensors, metadata={"nucleoscope": json.dumps(facts)})
    guard.write_bytes(path, data, overwrite=True)


def _restore(state: _State, path: Path, fingerprint: dict[str, Any]) -> None:
    tensors = read_tensors(path)
    with guard.reading(path):
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = guard.parse_json(raw[8 : 8 + length], where=str(path))
        facts = guard.parse_json(header["__metadata__"]["nucleoscope"], where=str(path))
    if facts.get("run") != fingerprint:
        raise InputError(
            f"{path}: this checkpoint is of a run with another recipe, network, channels or seed; "
            "give the same call again, or train into another folder."
        )
    load_state(state.network, _part(tensors, "network."), path)
    load_state(state.objective, _part(tensors, "objective."), path)
    here = {k: v.device for k, v in state.average.items()}
    state.average = {k: v.to(here[k]) for k, v in _part(tensors, "average.").items()}
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimiser.").items():
        index, key = name.split(".", 1)
        slots.setdefault(int(index), {})[key] = value
    groups = state.optimiser.state_dict()["param_groups"]
    state.optimiser.load_state_dict({"state": slots, "param_groups": groups})
    state.step, state.seconds = facts["step"], facts["seconds"]
    state.checks, state.history = facts["checks"], facts["history"]
    state.answers = [[(sure, doubtful) for sure, doubtful in one] for one in facts["answers"]]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
