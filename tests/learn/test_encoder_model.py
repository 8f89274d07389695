"""The folder of an encoder: round trip, card, and every way it can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nucleoscope.data.crops import CropStore
from nucleoscope.errors import CallError, InputError, NucleoscopeError, UnsafeInputError
from nucleoscope.learn.embed import embed
from nucleoscope.learn.encode import describe, untrained
from nucleoscope.learn.encoder_model import (
    SHIPPED,
    EncoderModel,
    build_net,
    encoder_card,
    load_encoder,
    save_encoder,
    shipped_encoders,
)
from nucleoscope.learn.encoder_recipes import encoder_recipe


@pytest.fixture(scope="module")
def model() -> EncoderModel:
    return untrained(encoder_recipe("nuc2vec"), seed=3)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    return save_encoder(model, tmp_path / "encoder")


def damage(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in facts.items() if v is not ...}))


def test_a_round_trip_keeps_everything(model, folder) -> None:
    again = load_encoder(folder)
    assert again.config == model.config
    assert again.has_context
    assert not again.net.training
    x = torch.randn(2, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.net(x), model.net(x))
        assert torch.equal(again.net.surroundings(x[:, :3]), model.net.surroundings(x[:, :3]))


def test_the_folder_holds_weights_description_and_card(folder) -> None:
    names = {p.name for p in folder.iterdir()}
    assert names == {"weights.safetensors", "model.json", "README.md"}
    assert json.loads((folder / "model.json").read_text())["kind"] == "encoder"


def test_the_card_says_what_it_sees_and_does_not_claim_a_diagnosis(model) -> None:
    card = encoder_card(model.config)
    assert "16 um around the centre, at 32 px" in card
    assert "Not for diagnosis" in card


def test_the_same_seed_builds_the_same_networks(model) -> None:
    one, other = (build_net(model.config, seed=s).state_dict() for s in (3, 4))
    assert all(torch.equal(v, one[k]) for k, v in model.net.state_dict().items())
    assert not torch.equal(one["encoder.body.0.0.weight"], other["encoder.body.0.0.weight"])


def test_building_leaves_the_global_generator_alone(model) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build_net(model.config)
    assert torch.equal(torch.rand(1), expected)


def test_without_surroundings_asking_for_them_is_refused() -> None:
    plain = untrained(encoder_recipe("nuc2vec-paper", encoder="small"))
    assert not plain.has_context
    with pytest.raises(CallError, match="surroundings"):
        plain.net.surroundings(torch.zeros(1, 3, 32, 32))


def test_ones_own_module_is_asked_for_and_then_filled(tmp_path) -> None:
    def own() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    config = describe(encoder_recipe("nuc2vec"), 14.0, own())
    trained = EncoderModel(config, build_net(config, own(), seed=5).eval())
    save_encoder(trained, tmp_path / "m")
    with pytest.raises(CallError, match=r"Sequential.*module="):
        load_encoder(tmp_path / "m")
    again = load_encoder(tmp_path / "m", module=own())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.net.encoder(x), trained.net.encoder(x))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "network"}, "no encoder"),
        ({"format": 99}, "update nucleoscope"),
        ({"size": 2}, "size"),
        ({"encoder": "vgg"}, "no encoder 'vgg'"),
        ({"dimensions": ...}, "dimensions"),
        ({"surprise": 1}, "surprise"),
        ({"head": [64, 32, True]}, "do not fit"),
        ({"context_dimensions": 0}, "do not fit"),
    ],
)
def test_a_wrong_description_is_one_sentence(folder, changes, said) -> None:
    damage(folder, **changes)
    with pytest.raises(InputError, match=said) as found:
        load_encoder(folder)
    assert "\n" not in str(found.value)


def test_missing_and_damaged_files_are_named(folder, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no model\.json"):
        load_encoder(tmp_path)
    weights = folder / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="safetensors"):
        load_encoder(folder)
    weights.write_bytes(b"\x80\x04" + bytes(20))
    with pytest.raises(UnsafeInputError, match="pickle"):
        load_encoder(folder)
    weights.unlink()
    with pytest.raises(InputError, match="missing"):
        load_encoder(folder)


def test_somebody_elses_file_is_not_overwritten(model, tmp_path) -> None:
    (tmp_path / "weights.safetensors").write_text("mine")
    with pytest.raises(NucleoscopeError, match="exists"):
        save_encoder(model, tmp_path)
    assert (tmp_path / "weights.safetensors").read_text() == "mine"


def test_half_the_precision_is_half_the_file_and_nearly_the_same_weights(model, tmp_path) -> None:
    whole = save_encoder(model, tmp_path / "whole")
    half = save_encoder(model, tmp_path / "half", is_half=True, notes="\n## Data\n")
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.55 * sizes[0]
    assert (half / "README.md").read_text(encoding="utf-8").endswith("## Data\n")
    again = load_encoder(half).net.state_dict()
    for name, value in model.net.state_dict().items():
        assert again[name].dtype == value.dtype
        assert torch.allclose(again[name].float(), value.float(), atol=1e-3, rtol=1e-3)


def test_an_encoder_that_comes_with_the_package_is_loaded_by_name(tmp_path, monkeypatch) -> None:
    assert "nuc2vec-small" in shipped_encoders()
    shipped = load_encoder("nuc2vec-small")
    assert shipped.config.recipe == "nuc2vec"
    assert shipped.config.training["steps"] > 0
    files = list((SHIPPED / "nuc2vec-small").iterdir())
    assert sum(path.stat().st_size for path in files) < 5e6
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="nuc2vec-small"):
        load_encoder("nuc2vec-large")


def test_a_folder_of_ones_own_goes_before_a_shipped_one(model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_encoder(model, "nuc2vec-small")
    assert load_encoder("nuc2vec-small").config == model.config


def test_the_shipped_encoder_embeds_nuclei_of_any_slide() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(60, 250, (5, 64, 64, 3)).astype(np.uint8)
    store = CropStore(
        pictures, pictures, np.zeros((5, 64, 64), np.uint8), np.zeros(5, bool), np.zeros(5, int),
        ("a",), np.arange(5),
    )  # fmt: skip
    vectors = embed(load_encoder("nuc2vec-small"), store)
    assert vectors.shape == (5, 464)
    assert np.isfinite(vectors.astype(float)).all()
