"""Train an encoder without labels.

Training is bounded by epochs or minutes, whichever ends first, watched for collapse, kept in one
checkpoint file and resumed exactly: every batch and every view is a function of the seed and the
step alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nucleoscope.data.crops import CONTEXT_MPP, MORPHOLOGY_MPP, CropStore
from nucleoscope.errors import CallError, InputError
from nucleoscope.io import guard
from nucleoscope.learn.collapse import Health, check_health, health
from nucleoscope.learn.embed import channels, context_views, shares_of, stacked
from nucleoscope.learn.embedding_losses import UNSCALED, Queue, embedding_loss, infonce
from nucleoscope.learn.encoder_model import (
    OWN,
    EncoderConfig,
    EncoderModel,
    EncoderNet,
    build_net,
)
from nucleoscope.learn.encoder_recipes import EncoderRecipe
from nucleoscope.learn.model import load_state, read_tensors
from nucleoscope.learn.nets.encoders import build_encoder
from nucleoscope.learn.paper_views import PaperViews, paper_views
from nucleoscope.learn.settle import settle
from nucleoscope.learn.view_kernels import I64
from nucleoscope.learn.views import (
    Slides,
    ViewSettings,
    draw_views,
    render_outlines,
    render_views,
    soft_edges,
    typical_radius,
)
from nucleoscope.seeds import generator

#: Steps over which the learning rate rises.
WARM_UP = 20
#: How often a run looks for collapse and keeps its state.
CHECKS = 20
#: Vectors a check looks at.
SEEN = 512
#: The published schedule: a tenth of the learning rate from each of these shares of the training.
TENTHS = (0.6, 0.8)
#: The encoder of the surroundings.
CONTEXT_ENCODER = "layered"
#: Radius of the disc that context views blank out, in radii of a typical nucleus.
HOLE_RADII = 1.5


@dataclass(frozen=True)
class EncoderSettings:
    """What bounds and steers a run.

    Parameters
    ----------
    minutes
        Longest time; ``inf`` leaves it to the recipe's length, and only then is a run bit-for-bit
        the same again.
    seed
        Of the weights and of every draw.
    most
        Nuclei held in memory (about 36 kB each); of a larger store so many are drawn.
    checkpoint
        File to keep the state in; None for none.
    resume
        Go on from that file.
    steps
        Instead of the recipe's own length.
    """

    minutes: float = 30.0
    seed: int = 0
    most: int = 60_000
    checkpoint: Path | None = None
    resume: bool = False
    steps: int | None = None

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise CallError(f"training takes more than 0 minutes; found {self.minutes:g}.")
        if self.most < 2 or self.seed < 0:
            raise CallError("most is 2 or more and seed 0 or more.")


@dataclass
class EncoderProgress:
    """What a bar can show after a step."""

    step: int
    fraction: float
    seconds_left: float
    loss: float
    health: Health | None


Report = Callable[[EncoderProgress], None]


@dataclass
class _State:
    """All that changes while training."""

    net: EncoderNet
    teacher: EncoderNet
    optimiser: torch.optim.Optimizer
    queue: Queue | None
    step: int = 0
    seconds: float = 0.0
    checks: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seen: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same while training."""

    store: CropStore
    slides: Slides
    edges: NDArray[np.uint8]
    shares: NDArray[np.uint8] | None
    recipe: EncoderRecipe
    settings: EncoderSettings
    config: EncoderConfig
    steps: int


def train_encoder(
    store: CropStore,
    recipe: EncoderRecipe,
    settings: EncoderSettings | None = None,
    *,
    module: nn.Module | None = None,
    report: Report | None = None,
) -> EncoderModel:
    """Train an encoder on crops of nuclei, without labels.

    Parameters
    ----------
    store
        Crops; where outlines are known they are used, elsewhere a disc stands for the nucleus.
    recipe
        See ``ENCODER_RECIPES``.
    settings
        Time, seed, memory, checkpoint.
    module
        An encoder of the caller's instead of the recipe's: ``(B, 3, size, size)`` to ``(B, D)``.
    report
        Called after every step.

    Returns
    -------
    EncoderModel
        In evaluation mode; of ``nuc2vec`` with averaged weights.

    Raises
    ------
    InputError
        Fewer than two nuclei, a loss that is not finite, collapse, or a checkpoint of another run.
    """
    settings = settings or EncoderSettings()
    run = _prepare(store, recipe, settings, module)
    state = _start(run, module)
    path = settings.checkpoint
    if settings.resume and path is not None and path.exists():
        _restore(state, path, _fingerprint(run))
    clock, before = time.monotonic(), state.seconds
    while (fraction := _fraction(state, run)) < 1.0:
        loss = _step(state, run, fraction)
        state.seconds = before + time.monotonic() - clock
        fraction = _fraction(state, run)
        if fraction * CHECKS >= state.checks + 1 or fraction >= 1.0:
            _check(state, run, loss)
            if path is not None:
                _save(state, path, _fingerprint(run))
            state.seconds = before + time.monotonic() - clock
        if report is not None:
            left = state.seconds * max(0.0, 1 - fraction) / max(fraction, 1e-6)
            report(EncoderProgress(state.step, min(fraction, 1.0), left, loss, _last(state)))
    return _finished(state, run)


def _last(state: _State) -> Health | None:
    """The last check's finding."""
    if not state.history:
        return None
    return Health(state.history[-1]["rank"], state.history[-1]["uniformity"])


def _prepare(
    store: CropStore, recipe: EncoderRecipe, settings: EncoderSettings, module: nn.Module | None
) -> _Run:
    """Crops in memory and the description of what is trained on them."""
    if len(store) < 2:
        raise InputError(f"an encoder is trained on two nuclei or more; found {len(store)}.")
    rows: NDArray[np.int64] = np.arange(len(store))
    if len(store) > settings.most:
        draws = generator(settings.seed, 1)
        rows = np.sort(draws.choice(len(store), settings.most, replace=False))
    if len(rows) < len(store) or not isinstance(store.morphology, np.ndarray):
        store = store.take(rows)
    slides = Slides.of(store.slide)
    epochs = recipe.epochs * max(1, len(store) // recipe.batch)
    steps = settings.steps or (recipe.steps if module is None else None) or epochs
    config = describe(recipe, typical_radius(store.mask, MORPHOLOGY_MPP), module)
    # Made once: every key view looks them up.
    ours = recipe.views if isinstance(recipe.views, ViewSettings) else None
    edges = store.mask if ours is None else soft_edges(store.mask, ours, radius=config.radius)
    shares = shares_of(store.mask, config) if channels(config) == 4 else None
    return _Run(store, slides, edges, shares, recipe, settings, config, steps)


def describe(
    recipe: EncoderRecipe, radius: float, module: nn.Module | None = None
) -> EncoderConfig:
    """The description of the encoder that a recipe trains.

    Parameters
    ----------
    radius
        Of a typical nucleus, in crop pixels.
    module
        The caller's own encoder, if any.
    """
    views = recipe.views
    name = recipe.encoder if module is None else f"{OWN}{type(module).__name__}"
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(recipe.encoder if module is None else module, size=views.size)
    width = encoder.width
    readout = recipe.readout if recipe.output == "features" and encoder.parts else 0
    has_context = recipe.context_weight > 0
    return EncoderConfig(
        recipe=recipe.name,
        encoder=name,
        views="paper" if isinstance(views, PaperViews) else "density",
        size=views.size,
        field=64.0 if isinstance(views, PaperViews) else views.field,
        output=recipe.output,
        dimensions=width + readout if recipe.output == "features" else recipe.head[1],
        readout=readout,
        head=recipe.head,
        context_encoder=CONTEXT_ENCODER,
        context_dimensions=build_encoder(CONTEXT_ENCODER).width if has_context else 0,
        context_hole=HOLE_RADII * radius * MORPHOLOGY_MPP / CONTEXT_MPP if has_context else 0.0,
        radius=radius,
    )


def untrained(
    recipe: EncoderRecipe, *, seed: int = 0, radius: float = 14.0, store: CropStore | None = None
) -> EncoderModel:
    """The recipe's encoder with its random start and no readout: the baseline to compare with.

    Parameters
    ----------
    store
        Crops by which its columns are scaled, as those of a trained encoder are.

    >>> from nucleoscope.learn.encoder_recipes import encoder_recipe
    >>> untrained(encoder_recipe("nuc2vec")).config.dimensions
    448
    """
    config = describe(replace(recipe, readout=0), radius)
    net = build_net(config, seed=seed).eval()
    if store is not None:
        settle(net, store, config, recipe.views, seed)
    return EncoderModel(config, net)


def _start(run: _Run, module: nn.Module | None) -> _State:
    recipe, seed = run.recipe, run.settings.seed
    net = build_net(run.config, module, seed=seed)
    # Under a momentum encoder the teacher gives the keys; else it is the average that is kept.
    teacher = deepcopy(net).requires_grad_(False)
    kinds: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adamw": lambda: torch.optim.AdamW(
            net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        ),
        "sgd": lambda: torch.optim.SGD(
            net.parameters(), lr=recipe.learning_rate, momentum=0.9,
            weight_decay=recipe.weight_decay,
        ),
    }  # fmt: skip
    queue = Queue(recipe.queue, recipe.head[1], seed=seed) if recipe.queue else None
    return _State(net, teacher, kinds[recipe.optimiser](), queue)


def _fraction(state: _State, run: _Run) -> float:
    """Share of the training done: by steps or by time, whichever is further."""
    return max(state.step / run.steps, state.seconds / (60 * run.settings.minutes))


def _rate(recipe: EncoderRecipe, step: int, fraction: float) -> float:
    """Warm-up and half a cosine to a hundredth; or tenths, as published."""
    if recipe.optimiser == "sgd":
        return float(recipe.learning_rate * 0.1 ** sum(fraction >= share for share in TENTHS))
    cosine = 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    return recipe.learning_rate * min(1.0, (step + 1) / WARM_UP) * (0.99 * cosine + 0.01)


def batch_rows(slides: Slides, batch: int, *, seed: int, step: int, same_slide: bool) -> I64:
    """Rows of the nuclei of a step.

    Parameters
    ----------
    slides
        Rows by slide.
    batch
        How many; fewer where there are fewer.
    same_slide
        Fill the batch slide by slide, slides drawn by their number of nuclei; otherwise all
        nuclei are shuffled once per epoch and an incomplete last batch is dropped.

    Returns
    -------
    ``(B,)`` int64, no row twice.

    Examples
    --------
    >>> slides = Slides.of(np.repeat([0, 1], 50))
    >>> rows = batch_rows(slides, 20, seed=0, step=3, same_slide=True)
    >>> len(rows), len(set(slides.slide[rows].tolist()))
    (20, 1)
    """
    n = len(slides.slide)
    batch = min(batch, n)
    if not same_slide:
        epoch, part = divmod(step, n // batch)
        order = generator(seed, 2, epoch).permutation(n)
        return order[part * batch : (part + 1) * batch].astype(np.int64)
    draws = generator(seed, 3, step)
    counts = np.diff(slides.start)
    parts: list[I64] = []
    missing = batch
    for slide in draws.choice(len(slides), len(slides), replace=False, p=counts / n):
        own = slides.order[slides.start[slide] : slides.start[slide + 1]]
        parts.append(draws.choice(own, min(missing, len(own)), replace=False))
        missing -= len(parts[-1])
        if not missing:
            break
    return np.concatenate(parts)


def _views(run: _Run, rows: I64, step: int, view: int) -> Tensor:
    """One drawn view of every row, ``(B, 3 or 4, size, size)`` channels last."""
    store, seed, views = run.store, run.settings.seed, run.recipe.views
    radius = run.config.radius
    if isinstance(views, PaperViews):
        made = paper_views(
            store.morphology, store.mask, rows, views, run.slides,
            radius=radius, draw=(seed, step, view),
        )  # fmt: skip
    else:
        drawn = draw_views(views, rows, run.slides, seed=seed, step=step, view=view)
        made = render_views(store.morphology, run.edges, rows, drawn, views)
        if run.shares is not None:
            made = stacked(made, render_outlines(run.shares, rows, drawn, views))
    return torch.from_numpy(made).permute(0, 3, 1, 2)


def _context(run: _Run, rows: I64, step: int) -> Tensor:
    """One drawn view of every row's surroundings."""
    views, store = context_views(run.config), run.store
    drawn = draw_views(views, rows, run.slides, seed=run.settings.seed, step=step, view=2)
    made = render_views(store.context, run.edges, rows, drawn, views)
    return torch.from_numpy(made).permute(0, 3, 1, 2)


def _step(state: _State, run: _Run, fraction: float) -> float:
    """One step; the loss."""
    recipe = run.recipe
    rows = batch_rows(
        run.slides, recipe.batch, seed=run.settings.seed, step=state.step,
        same_slide=recipe.same_slide,
    )  # fmt: skip
    for group in state.optimiser.param_groups:
        group["lr"] = _rate(recipe, state.step, fraction)
    state.net.train()
    query, key = (_views(run, rows, state.step, view) for view in (0, 1))
    slide = torch.from_numpy(run.slides.slide[rows]) if recipe.same_slide else None
    together = _published(state, run, query, key) if state.queue else None
    loss = together if together is not None else _paired(state, run, (query, key, rows), slide)
    if not torch.isfinite(loss):
        raise InputError(
            f"the loss is not finite at step {state.step + 1}; the last checkpoint is kept. Try a "
            "lower learning rate."
        )
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimiser.step()
    state.step += 1
    _follow(state, recipe.momentum or min(0.99, (1 + state.step) / (10 + state.step)))
    return float(loss.detach())


def _scaled(vectors: Tensor, recipe: EncoderRecipe) -> Tensor:
    return vectors if recipe.loss in UNSCALED else functional.normalize(vectors, dim=1)


def _published(state: _State, run: _Run, query: Tensor, key: Tensor) -> Tensor:
    """Loss with keys of the momentum encoder and their queue (MoCo)."""
    recipe, queue = run.recipe, state.queue
    assert queue is not None  # noqa: S101  asked by the caller
    asked = _scaled(state.net(query), recipe)
    with torch.no_grad():
        state.teacher.train()
        keys = _scaled(state.teacher(key), recipe)
    loss = embedding_loss(recipe.loss)(
        asked, keys, queue=queue.keys.clone(), **dict(recipe.loss_settings)
    )
    queue.push(keys)
    _remember(state, asked)
    return loss


def _paired(
    state: _State, run: _Run, batch: tuple[Tensor, Tensor, I64], slide: Tensor | None
) -> Tensor:
    """Loss between both views through one network, and to the surroundings."""
    recipe = run.recipe
    query, key, rows = batch
    both = state.net(torch.cat([query, key]))
    one, other = _scaled(both, recipe).chunk(2)
    _remember(state, one)
    pair = embedding_loss(recipe.loss)
    settings = dict(recipe.loss_settings)
    loss = pair(one, other, group=slide, **settings) + pair(other, one, group=slide, **settings)
    loss = loss / 2
    if state.net.context is None:
        return loss
    around = functional.normalize(state.net.surroundings(_context(run, rows, state.step)), dim=1)
    # The surroundings learn to say which nucleus they belong to. The nucleus learns nothing from
    # them, so that its vector stays free of its neighbours.
    own = functional.normalize(one.detach(), dim=1)
    env = infonce(own, around, group=slide, temperature=recipe.context_temperature)
    return loss + recipe.context_weight * env


def _remember(state: _State, vectors: Tensor) -> None:
    """Keep the last vectors for the next check."""
    state.seen.append(vectors.detach())
    while sum(len(v) for v in state.seen[1:]) >= SEEN:
        state.seen.pop(0)


@torch.no_grad()
def _follow(state: _State, keep: float) -> None:
    """Move the teacher towards the network; batch statistics are copied only by the average."""
    mine = dict(state.net.named_parameters())
    for name, value in state.teacher.named_parameters():
        value.lerp_(mine[name], 1 - keep)
    if state.queue is not None:
        return
    buffers = dict(state.net.named_buffers())
    for name, buffer in state.teacher.named_buffers():
        buffer.copy_(buffers[name])


def _check(state: _State, run: _Run, loss: float) -> None:
    """Note the loss and the health of the last vectors; stop when they have collapsed.

    Raises
    ------
    InputError
        Collapsed.
    """
    state.checks += 1
    found = health(torch.cat(state.seen)[-SEEN:].numpy())
    state.history.append(
        {"step": state.step, "loss": loss, "rank": found.rank, "uniformity": found.uniformity}
    )
    past = [Health(entry["rank"], entry["uniformity"]) for entry in state.history]
    check_health(past, step=state.step, dimensions=run.recipe.head[1])


def _finished(state: _State, run: _Run) -> EncoderModel:
    """The network that is used: the query encoder as published, else the average."""
    net = (state.net if state.queue is not None else state.teacher).eval()
    settle(net, run.store, run.config, run.recipe.views, run.settings.seed)
    last = state.history[-1]
    training = {
        "nuclei": len(run.store),
        "slides": len(run.slides),
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "loss": last["loss"],
        "effective rank": round(last["rank"], 2),
        "uniformity": round(last["uniformity"], 3),
        "seed": run.settings.seed,
        "history": state.history,
    }
    return EncoderModel(run.config.model_copy(update={"training": training}), net)


# Checkpoints ------------------------------------------------------------------------------------


def _fingerprint(run: _Run) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from."""
    facts = {
        "recipe": asdict(run.recipe),
        "config": run.config.model_dump(mode="json"),
        "seed": run.settings.seed,
        "nuclei": len(run.store),
        "slides": list(run.store.slides),
    }
    return dict(guard.parse_json(json.dumps(facts), where="the recipe"))


def _save(state: _State, path: Path, fingerprint: dict[str, Any]) -> None:
    """One file, replaced as a whole: tensors, and the rest as JSON in its header."""
    from safetensors.torch import save

    tensors = {f"net.{k}": v for k, v in state.net.state_dict().items()}
    tensors |= {f"teacher.{k}": v for k, v in state.teacher.state_dict().items()}
    for index, slots in state.optimiser.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value
    tensors |= {f"seen.{i}": v for i, v in enumerate(state.seen)}
    facts: dict[str, Any] = {
        "step": state.step,
        "seconds": state.seconds,
        "checks": state.checks,
        "history": state.history,
        "run": fingerprint,
    }
    if state.queue is not None:
        tensors["queue"] = state.queue.keys
        facts["queue"] = state.queue.at
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    data = save(tensors, metadata={"nucleoscope": json.dumps(facts)})
    guard.write_bytes(path, data, overwrite=True)


def _restore(state: _State, path: Path, fingerprint: dict[str, Any]) -> None:
    """Fill a state from a checkpoint.

    Raises
    ------
    InputError
        It is of another run, or damaged.
    """
    tensors = read_tensors(path)
    raw = guard.read_bytes(path, kind="file_bytes")
    length = int.from_bytes(raw[:8], "little")
    header = guard.parse_json(raw[8 : 8 + length], where=str(path))
    facts = guard.parse_json(header["__metadata__"]["nucleoscope"], where=str(path))
    if facts.get("run") != fingerprint:
        raise InputError(
            f"{path}: this checkpoint is of a run with another recipe, encoder, crops or seed; "
            "give the same call again, or train into another folder."
        )
    load_state(state.net, _part(tensors, "net."), path)
    load_state(state.teacher, _part(tensors, "teacher."), path)
    slots: dict[int, dict[str, Tensor]] = {}
    parameters = list(state.net.parameters())
    for name, value in _part(tensors, "optimiser.").items():
        index, key = name.split(".", 1)
        own = parameters[int(index)]
        # The fused optimiser goes through memory, so its slots must lie as the parameters do.
        alike = torch.empty_like(own).copy_(value) if value.shape == own.shape else value
        slots.setdefault(int(index), {})[key] = alike.detach()
    groups = state.optimiser.state_dict()["param_groups"]
    state.optimiser.load_state_dict({"state": slots, "param_groups": groups})
    seen = _part(tensors, "seen.")
    state.seen = [seen[str(i)] for i in range(len(seen))]
    if state.queue is not None:
        state.queue.keys, state.queue.at = tensors["queue"].clone(), facts["queue"]
    state.step, state.seconds = facts["step"], facts["seconds"]
    state.checks, state.history = facts["checks"], facts["history"]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
