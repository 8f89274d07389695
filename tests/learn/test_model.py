"""A model folder: round trip, and one sentence for everything that is wrong with it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.learn.model import (
    FORMAT,
    MarkerSpec,
    Model,
    ModelConfig,
    card,
    load_model,
    load_state,
    read_tensors,
    save_model,
)
from nucleoscope.nuclei.markers import FEATURES
from nucleoscope.testing import refusal


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    return save_model(model, tmp_path / "model")


def edit(folder: Path, **changes: Any) -> Path:
    """Change the description; None takes a field away."""
    path = folder / "model.json"
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))
    return folder


def test_a_round_trip_is_bit_equal(model: Model, folder: Path) -> None:
    back = load_model(folder)
    assert back.config.model_dump() == model.config.model_dump()
    assert model.network is not None
    assert back.network is not None
    there, here = model.network.state_dict(), back.network.state_dict()
    assert list(there) == list(here)
    assert all(torch.equal(there[k], here[k]) and there[k].dtype == here[k].dtype for k in there)
    assert not back.network.training


def test_writing_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = save_model(load_model(folder), tmp_path / "again")
    for name in ("model.json", "weights.safetensors", "README.md"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()


def test_the_folder_holds_what_the_contract_says(folder: Path) -> None:
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["README.md", "model.json", "weights.safetensors"]


def test_a_model_without_a_network_has_no_weights(instant: Model, tmp_path: Path) -> None:
    folder = save_model(instant, tmp_path / "instant")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "model.json"]
    assert load_model(folder).config == instant.config
    assert load_model(folder).network is None


def test_a_folder_that_holds_a_model_is_not_overwritten_unasked(
    model: Model, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("do not touch")
    with pytest.raises(CallError, match="exists"):
        save_model(model, mine)
    assert (mine / "README.md").read_text() == "do not touch"
    assert not (mine / "model.json").exists()
    save_model(model, mine, overwrite=True)
    assert load_model(mine).config == model.config


def test_no_folder_or_no_description_is_no_finished_model(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        error = refusal(lambda place=place: load_model(place))
        assert isinstance(error, InputError)
        assert "not a finished model" in str(error)


def test_a_newer_format_names_both_versions(folder: Path) -> None:
    error = refusal(lambda: load_model(edit(folder, format=FORMAT + 1, written_by="9.9")))
    assert isinstance(error, InputError)
    assert "9.9" in str(error)
    assert "update nucleoscope" in str(error)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"surprise": 1}, "surprise"),
        ({"radius_px": None}, "radius_px"),
        ({"radius_px": -1}, "radius_px"),
        ({"radius_px": "wide"}, "radius_px"),
        ({"threshold": 2.0}, "threshold"),
        ({"network": {"name": "light"}}, "network"),
        ({"marker_rules": [{"weights": [1.0], "bias": 0.0, "network_share": 0.5}]}, "weights"),
        ({"marker_rules": []}, "0 marker rules for 1 markers"),
        ({"markers": ["LT", "LT2"]}, "1 marker rules for 2 markers"),
        ({"types": ["a", "b", "c"]}, "channels, types and markers"),
    ],
)
def test_an_impossible_description_is_one_sentence(
    folder: Path, changes: dict[str, Any], what: str
) -> None:
    error = refusal(lambda: load_model(edit(folder, **changes)))
    assert isinstance(error, InputError)
    assert what in str(error)
    assert "model.json" in str(error)


@pytest.mark.parametrize("name", ["resnet", "__import__", ""])
def test_an_unknown_network_is_the_files_fault(folder: Path, name: str) -> None:
    raw = json.loads((folder / "model.json").read_text())
    error = refusal(lambda: load_model(edit(folder, network=raw["network"] | {"name": name})))
    assert isinstance(error, InputError)
    assert "light" in str(error)


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{", '{"radius_px": NaN}', "[" * 5000])
def test_a_description_that_is_none_is_one_sentence(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text)
    assert refusal(lambda: load_model(folder)) is not None


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors is missing"):
        load_model(folder)


class Harm:
    """Would touch a file if it were ever unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_named_weights_is_refused_and_never_run(
    folder: Path, tmp_path: Path, protocol: int
) -> None:
    canary = tmp_path / "canary"
    data = pickle.dumps(Harm(canary), protocol=protocol)
    (folder / "weights.safetensors").write_bytes(data)
    error = refusal(lambda: load_model(folder))
    assert isinstance(error, UnsafeInputError)
    assert "pickle" in str(error)
    assert not canary.exists()


def test_what_torch_saves_is_refused(folder: Path) -> None:
    torch.save({"a": torch.zeros(1)}, folder / "weights.safetensors")
    assert isinstance(refusal(lambda: load_model(folder)), UnsafeInputError)


@pytest.mark.parametrize("length", [19280, 640, 1152, 65536 + 640])
def test_a_sound_file_whose_header_begins_like_an_archive_is_read(
    tmp_path: Path, length: int
) -> None:
    # The first eight bytes are the header's length: 19280 is spelt "PK".
    tensors = {"a": torch.arange(3.0)}
    spare = length - int.from_bytes(save(tensors, metadata={"note": ""})[:8], "little")
    data = save(tensors, metadata={"note": "x" * spare})
    assert int.from_bytes(data[:8], "little") == length
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    assert read_tensors(path)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_weights_cut_short_are_refused(folder: Path, cut: int) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    error = refusal(lambda: load_model(folder))
    assert isinstance(error, InputError)
    assert "safetensors" in str(error)


def test_weights_of_another_shape_or_name_do_not_fit(model: Model, folder: Path) -> None:
    assert model.network is not None
    state = dict(model.network.state_dict())
    first = next(iter(state))
    for wrong in (
        state | {first: state[first][:1].clone()},
        {k: v for k, v in state.items() if k != first},
        state | {"extra": torch.zeros(1)},
    ):
        (folder / "weights.safetensors").write_bytes(save(wrong))
        error = refusal(lambda: load_model(folder))
        assert isinstance(error, InputError)
        assert "do not fit" in str(error)


def test_a_state_that_fits_is_taken(model: Model) -> None:
    layer = torch.nn.Linear(2, 1)
    load_state(layer, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, Path("here"))
    assert layer(torch.ones(1, 2)).item() == 2


def test_the_card_says_what_the_model_is_and_how_it_was_judged(model: Model) -> None:
    text = card(model.config)
    for piece in ("LT, DAPI", "negative, positive", "`lecl`", "detection_f1", "nucleoscope detect",
                  f"{model.config.threshold:.2f}"):  # fmt: skip
        assert piece in text
    assert "history" not in text
    assert "None" not in card(model.config.model_copy(update={"training": {}, "spacing": None}))


def test_channels_are_the_markers_then_the_nuclei_or_the_colours() -> None:
    base = {"recipe": "lecl", "radius_px": 5.0, "threshold": 0.3, "valley": 0.9, "slice_px": 3.0}
    assert ModelConfig(**base, nuclei="DAPI", markers=("A", "B")).channels == ("A", "B", "DAPI")
    assert ModelConfig(**base, is_rgb=True).channels == ("red", "green", "blue")


def test_the_working_point_is_given_in_pixels_of_the_map() -> None:
    config = ModelConfig(recipe="x", radius_px=8.0, threshold=0.4, valley=0.8, slice_px=6.0)
    chosen = config.peak_settings(2)
    assert (chosen.threshold, chosen.valley, chosen.radius, chosen.slice_px) == (0.4, 0.8, 4, 3)


def test_a_marker_spec_carries_its_rule() -> None:
    spec = MarkerSpec(weights=(1.0,) * len(FEATURES), bias=-2.0, network_share=0.5)
    assert spec.rule().bias == -2.0
