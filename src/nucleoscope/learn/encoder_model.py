"""A trained encoder: its description, its networks, and the folder that holds both.

``MODEL/`` is ``weights.safetensors``, ``model.json`` and ``README.md``, as of every model; its
``model.json`` says ``"kind": "encoder"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from nucleoscope import __version__
from nucleoscope.errors import CallError, InputError
from nucleoscope.io import guard
from nucleoscope.learn.model import load_state, read_tensors
from nucleoscope.learn.nets.encoders import ENCODERS, TIMM, Encoder, build_encoder, build_head
from nucleoscope.learn.readout import Readout

#: Version of an encoder's ``model.json``; raised when its meaning changes.
FORMAT = 1
#: Encoders that come with the package, one folder each; their names are given as models.
SHIPPED = Path(__file__).parents[1] / "models"
#: Says that the encoder is a module of the caller's.
OWN = "module:"


class EncoderConfig(BaseModel):
    """Everything about an encoder but its weights; ``model.json`` is this."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    kind: Literal["encoder"] = "encoder"
    written_by: str = __version__
    recipe: str
    encoder: str
    views: Literal["density", "paper"] = "density"
    size: int = Field(ge=8, le=1024)
    field: float = Field(gt=0)
    mpp: float = Field(default=0.25, gt=0)
    output: Literal["features", "head"] = "features"
    dimensions: int = Field(ge=1, le=65536)
    readout: int = Field(default=0, ge=0, le=4096)
    head: tuple[int, int, bool]
    context_encoder: str = "small"
    context_dimensions: int = Field(default=0, ge=0, le=65536)
    context_hole: float = Field(default=0.0, ge=0)
    radius: float = Field(gt=0)
    training: dict[str, Any] = {}


class EncoderNet(nn.Module):
    """An encoder with its head, and a second pair for the surroundings where there is one.

    Parameters
    ----------
    encoder
        Morphology to a vector.
    head
        Hidden and output width, and whether it has a batch norm.
    context
        The second encoder, or None.
    readout
        Numbers that stand for the interpretable features; they are fitted after training.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: tuple[int, int, bool],
        context: Encoder | None = None,
        *,
        readout: int = 0,
    ) -> None:
        super().__init__()
        hidden, n_out, has_norm = head
        self.encoder = encoder
        self.head = build_head(encoder.width, hidden, n_out, has_norm=has_norm)
        self.readout = Readout(encoder.width, readout) if readout else None
        self.context: Encoder | None = None
        if context is not None:
            self.context = context
            self.context_head = build_head(context.width, hidden, n_out, has_norm=has_norm)

    def forward(self, x: Tensor) -> Tensor:
        """The head's vectors of a batch of morphology views."""
        return cast(Tensor, self.head(self.encoder(x)))

    def surroundings(self, x: Tensor) -> Tensor:
        """The context head's vectors of a batch of context views."""
        if self.context is None:
            raise CallError("this encoder does not look at the surroundings.")
        return cast(Tensor, self.context_head(self.context(x)))


@dataclass(frozen=True, eq=False)
class EncoderModel:
    """A description with its networks, in evaluation mode."""

    config: EncoderConfig
    net: EncoderNet

    @property
    def has_context(self) -> bool:
        """True when it also makes vectors of the surroundings."""
        return self.net.context is not None


def build_net(
    config: EncoderConfig, module: nn.Module | None = None, *, seed: int = 0
) -> EncoderNet:
    """Fresh networks of a description, the same for the same seed.

    Parameters
    ----------
    module
        The caller's own encoder, where the description says so.

    Raises
    ------
    CallError
        The description needs a module of the caller's and none was given.
    """
    if config.encoder.startswith(OWN) and module is None:
        raise CallError(
            f"this model's encoder is a module of your own ({config.encoder.removeprefix(OWN)}); "
            "give it as module=."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(config.encoder if module is None else module, size=config.size)
        context = build_encoder(config.context_encoder) if config.context_dimensions else None
        net = EncoderNet(encoder, config.head, context, readout=config.readout)
    return _channels_last(net)


def _channels_last(net: EncoderNet) -> EncoderNet:
    """The order in memory in which CPUs convolve fastest."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def save_encoder(
    model: EncoderModel,
    folder: Path | str,
    *,
    overwrite: bool = False,
    is_half: bool = False,
    notes: str = "",
) -> Path:
    """Write weights, card and, last, ``model.json``.

    Parameters
    ----------
    is_half
        Weights in half precision: half the size, the same vectors to about three digits.
    notes
        More for the card, in Markdown: data, licence, figures.

    Raises
    ------
    CallError
        A file of that name exists that this run did not write, and ``overwrite`` is False.
    """
    from safetensors.torch import save

    folder = Path(folder)
    state = {k: v.detach().cpu().contiguous() for k, v in model.net.state_dict().items()}
    if is_half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    guard.write_bytes(folder / "weights.safetensors", save(state), overwrite=overwrite)
    guard.write_text(folder / "README.md", encoder_card(model.config) + notes, overwrite=overwrite)
    facts = model.config.model_dump(mode="json")
    guard.write_json(folder / "model.json", facts, overwrite=overwrite)
    return folder


def load_encoder(folder: Path | str, *, module: nn.Module | None = None) -> EncoderModel:
    """Read an encoder's folder, or one that comes with the package by its name.

    Parameters
    ----------
    folder
        What ``train-encoder`` wrote, or a row of ``shipped_encoders()``; a folder of that name
        goes first.
    module
        The caller's own encoder, where the model was trained with one; its weights are replaced.

    Raises
    ------
    InputError
        Not an encoder, incomplete, of a newer format, or weights that do not fit.
    UnsafeInputError
        The weights are a pickle.
    """
    folder = Path(folder)
    if str(folder) in shipped_encoders() and not (folder / "model.json").is_file():
        folder = SHIPPED / folder
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no model.json there, so it is not a finished encoder; give the folder "
            "that 'nucleoscope train-encoder' wrote, or one that comes with nucleoscope "
            f"({', '.join(shipped_encoders()) or 'there is none'})."
        )
    config = _config(guard.read_json(path), path)
    net = build_net(config, module)
    load_state(net, read_tensors(folder / "weights.safetensors"), folder)
    return EncoderModel(config, net.eval())


def shipped_encoders() -> tuple[str, ...]:
    """Names of the encoders that come with the package.

    >>> "nuc2vec-small" in shipped_encoders()
    True
    """
    return tuple(sorted(path.parent.name for path in SHIPPED.glob("*/model.json")))


def _config(raw: Any, path: Path) -> EncoderConfig:
    """The description in a ``model.json``.

    Raises
    ------
    InputError
        Of something else, newer, or with a field that cannot be.
    """
    facts: Mapping[str, Any] = raw if isinstance(raw, dict) else {}
    if facts.get("kind") != "encoder":
        raise InputError(
            f"{path}: this is no encoder; give a folder that 'nucleoscope train-encoder' wrote."
        )
    if isinstance(facts.get("format"), int) and facts["format"] > FORMAT:
        raise InputError(
            f"{path}: written by nucleoscope {facts.get('written_by', '?')} in format "
            f"{facts['format']}, this is {__version__} and reads up to {FORMAT}; update "
            "nucleoscope."
        )
    try:
        config = EncoderConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise InputError(f"{path}: {where}: {first['msg'].lower()}.") from None
    is_foreign = config.encoder.startswith((TIMM, OWN))
    for name in ({config.encoder} if not is_foreign else set()) | {config.context_encoder}:
        if name not in ENCODERS:
            raise InputError(f"{path}: no encoder {name!r}; there are {', '.join(ENCODERS)}.")
    return config


def encoder_card(config: EncoderConfig) -> str:
    """The model card, in Markdown."""
    field_um = config.field * config.mpp
    lines = [
        f"# nucleoscope encoder, recipe `{config.recipe}`",
        "",
        f"Written by nucleoscope {config.written_by}. It turns a nucleus in H&E into a vector of "
        f"{config.dimensions} numbers of length 1, without labels.",
        "",
        f"- Encoder: {config.encoder}, {config.output} as the embedding",
        f"- Sees: {field_um:g} um around the centre, at {config.size} px; crops at {config.mpp:g} "
        "um per pixel",
        f"- Readout of the interpretable features: {config.readout or 'none'}"
        + (" of the numbers" if config.readout else ""),
        f"- Surroundings: {config.context_dimensions or 'not looked at'}"
        + (" numbers, kept apart" if config.context_dimensions else ""),
    ]
    lines += [f"- {key}: {value}" for key, value in config.training.items() if key != "history"]
    lines += [
        "",
        "Use it with `nucleoscope embed IMAGE --nuclei FILE -m FOLDER -o ATLAS`. Vectors of two",
        "encoders cannot be compared. Not for diagnosis.",
        "",
    ]
    return "\n".join(lines)
