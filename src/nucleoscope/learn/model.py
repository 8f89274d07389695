"""A trained model: its description, its weights, and the folder that holds both.

``MODEL/`` is ``weights.safetensors``, ``model.json`` and ``README.md`` (the model card). Nothing
in it can run code: the description is checked field by field and weights are plain arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from nucleoscope import __version__
from nucleoscope.errors import InputError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.learn.nets import NETWORKS, Network, build_network
from nucleoscope.learn.typing import Typer
from nucleoscope.nuclei.markers import FEATURES, Learned
from nucleoscope.nuclei.peaks import PeakSettings
from nucleoscope.nuclei.slices import Way

#: Version of ``model.json``; raised when its meaning changes.
FORMAT = 1
#: The files of the typer and the sieve.
TYPING, SIEVE = "typing.safetensors", "sieve.safetensors"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSpec(_Part):
    """Arguments of ``build_network``."""

    name: str
    n_channels: int = Field(ge=1, le=64)
    n_types: int = Field(ge=0, le=256)
    n_groups: int = Field(ge=1, le=64)
    context: int = Field(ge=0, le=16)


class MarkerSpec(_Part):
    """How one marker's probability is made: evidence and network averaged, then calibrated."""

    weights: tuple[float, ...]
    bias: float
    network_share: float = Field(ge=0, le=1)
    slope: float = 1.0
    offset: float = 0.0

    def rule(self) -> Learned:
        """The logistic regression on the evidence."""
        return Learned(self.weights, self.bias)


class PlacementSpec(_Part):
    """Where a nucleus is said to lie, see ``learn.placement``; pixels of the model's scale."""

    centroid_share: float = Field(ge=0, le=1)
    dy: float = 0.0
    dx: float = 0.0


class ModelConfig(_Part):
    """Everything about a model but its weights; ``model.json`` is this."""

    format: int = FORMAT
    written_by: str = __version__
    recipe: str
    network: NetworkSpec | None = None
    nuclei: str | None = None
    markers: tuple[str, ...] = ()
    is_rgb: bool = False
    types: tuple[str, ...] = ()
    spacing: tuple[float, float, float] | None = None
    radius_px: float = Field(gt=0)
    threshold: float = Field(gt=0, le=1)
    valley: float = Field(gt=0, le=1)
    slice_px: float = Field(gt=0)
    typing: str = "nucleus"
    decode: Literal["peaks", Way] = "peaks"
    projection: str | None = None
    marker_rules: tuple[MarkerSpec, ...] = ()
    has_typer: bool = False
    sieve_threshold: float | None = Field(default=None, gt=0, lt=1)
    views: int = Field(default=1, ge=1, le=4)
    placement: PlacementSpec | None = None
    training: dict[str, Any] = {}

    @property
    def channels(self) -> tuple[str, ...]:
        """What the network sees, in order: markers, then nuclei; or the colours."""
        if self.is_rgb or self.nuclei is None:
            return ("red", "green", "blue")
        return (*self.markers, self.nuclei)

    def peak_settings(self, stride: int) -> PeakSettings:
        """Working point on a map of this stride."""
        return PeakSettings(
            threshold=self.threshold,
            valley=self.valley,
            radius=self.radius_px / stride,
            slice_px=self.slice_px / stride,
        )


@dataclass(frozen=True, eq=False)
class Model:
    """A description with its network (None for the classical recipe).

    In colour also with a ``typer``, and a ``sieve``: the same thing for the two types "no nucleus"
    and "nucleus", asked about every peak.
    """

    config: ModelConfig
    network: Network | None = None
    typer: Typer | None = None
    sieve: Typer | None = None


def save_model(model: Model, folder: Path | str, *, overwrite: bool = False) -> Path:
    """Write ``model.json``, ``weights.safetensors`` and the card; ``model.json`` comes last.

    Raises
    ------
    CallError
        A file of that name exists that this run did not write, and ``overwrite`` is False.
    """
    from safetensors.numpy import save as save_arrays
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if model.network is not None:
        state = {k: v.detach().contiguous() for k, v in model.network.state_dict().items()}
        guard.write_bytes(folder / "weights.safetensors", save(state), overwrite=overwrite)
    for name, part in ((TYPING, model.typer), (SIEVE, model.sieve)):
        if part is not None:
            arrays = {k: np.ascontiguousarray(v) for k, v in part.arrays().items()}
            guard.write_bytes(folder / name, save_arrays(arrays), overwrite=overwrite)
    guard.write_text(folder / "README.md", card(model.config), overwrite=overwrite)
    guard.write_json(
        folder / "model.json", model.config.model_dump(mode="json"), overwrite=overwrite
    )
    return folder


def load_model(folder: Path | str) -> Model:
    """Read a model folder.

    Raises
    ------
    InputError
        Not a model, incomplete, of a newer format, or weights that do not fit the description.
    UnsafeInputError
        The weights are a pickle.
    """
    folder = Path(folder)
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no model.json there, so it is not a finished model; give the folder that "
            "'nucleoscope train' wrote."
        )
    raw = guard.read_json(path)
    if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
        raise InputError(
            f"{path}: written by nucleoscope {raw.get('written_by', '?')} in format "
            f"{raw['format']}, this is {__version__} and reads up to {FORMAT}; update nucleoscope."
        )
    try:
        config = ModelConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise InputError(f"{path}: {where}: {first['msg'].lower()}.") from None
    _check_parts(config, path)
    typer = _typer(folder / TYPING, len(config.types)) if config.has_typer else None
    sieve = _typer(folder / SIEVE, 2) if config.sieve_threshold is not None else None
    if config.network is None:
        return Model(config, None, typer, sieve)
    network = build_network(**config.network.model_dump())
    load_state(network, read_tensors(folder / "weights.safetensors"), folder)
    return Model(config, network.eval(), typer, sieve)


def _typer(path: Path, n_types: int) -> Typer:
    arrays = {k: v.numpy() for k, v in read_tensors(path).items()}
    return Typer.from_arrays(arrays, n_types)


def _check_parts(config: ModelConfig, path: Path) -> None:
    """Refuse a description whose parts contradict each other.

    Raises
    ------
    InputError
        Says which two.
    """
    if any(len(rule.weights) != len(FEATURES) for rule in config.marker_rules):
        raise InputError(f"{path}: a marker rule does not have {len(FEATURES)} weights.")
    if len(config.marker_rules) != len(config.markers):
        raise InputError(
            f"{path}: {len(config.marker_rules)} marker rules for {len(config.markers)} markers."
        )
    spec = config.network
    if spec is None:
        return
    if spec.name not in NETWORKS:
        raise InputError(f"{path}: no network {spec.name!r}; there are {', '.join(NETWORKS)}.")
    told = (spec.n_channels, spec.n_types, spec.n_groups)
    meant = (len(config.channels), len(config.types), max(1, len(config.markers)))
    if told != meant:
        raise InputError(
            f"{path}: its network is for {told} channels, types and markers, but it names {meant}."
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises
    ------
    InputError
        Absent or damaged.
    UnsafeInputError
        A pickle or zip archive under that name.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise InputError(f"{path.parent}: {path.name} is missing.")
    data = guard.read_bytes(path, kind="file_bytes")
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        # Asked only now: the length of a sound file's header can begin with the same two bytes.
        if data[:2] == b"PK" or (data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05"):
            raise UnsafeInputError(f"{path}: a pickle can run code and is never read.") from None
        detail = " ".join(str(error).split())
        raise InputError(f"{path}: not a valid safetensors file ({detail}).") from None
    return tensors


def load_state(module: nn.Module, state: dict[str, Tensor], where: Path) -> None:
    """Fill a module; every tensor must be there in the right shape, and none more.

    Raises
    ------
    InputError
        They do not fit.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: the weights do not fit the description ({detail}).") from None


def card(config: ModelConfig) -> str:
    """The model card, in Markdown."""
    training = config.training
    lines = [
        f"# nucleoscope model, recipe `{config.recipe}`",
        "",
        f"Written by nucleoscope {config.written_by}.",
        "",
        f"- Channels: {', '.join(config.channels)}",
        f"- Types: {', '.join(config.types) or 'none, detection only'}",
        f"- Markers: {', '.join(config.markers) or 'none'}",
        f"- Voxel (z, y, x): {config.spacing or 'unknown'} um; nucleus radius "
        f"{config.radius_px:.1f} px",
        f"- Peak threshold {config.threshold:.2f}, valley {config.valley:.2f}",
    ]
    lines += [f"- {key}: {value}" for key, value in training.items() if key != "history"]
    lines += [
        "",
        "Read it with `nucleoscope detect IMAGE -m FOLDER -o OUT`. Scores above come from images",
        "that trained the model unless they say held out; judge it on your own.",
        "",
    ]
    return "\n".join(lines)
