"""Part B from files to files: train an encoder, embed into an atlas, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.slide import Slide
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.crops import crop_nuclei
from nucleoscope.flow.nuc2vec import CHECKPOINT, embed, train_encoder
from nucleoscope.io.atlas import read_atlas
from nucleoscope.io.crops import read_crops
from nucleoscope.learn.encoder_model import EncoderModel, load_encoder

FOREVER = float("inf")
N = 12


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(90, 250, (160, 160, 3), dtype=np.uint8)


def places(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1, N + 1))
    return pd.DataFrame({"id": ids, "y": rng.uniform(8, 150, N), "x": rng.uniform(8, 150, N)})


def outlined(seed: int) -> Nuclei:
    frame = places(seed)
    rings = [
        [(y - 5, x - 4), (y - 5, x + 4), (y + 5, x + 4), (y + 5, x - 4)]
        for y, x in zip(frame["y"], frame["x"], strict=True)
    ]
    return Nuclei(NucleusTable(frame), Outlines.from_rings(rings))


@pytest.fixture(scope="module")
def slides() -> list[Slide]:
    return [Slide.from_array(pixels(i), mpp=0.5, name=f"slide_{i}") for i in (1, 2)]


@pytest.fixture(scope="module")
def nuclei() -> list[Nuclei]:
    return [outlined(1), Nuclei(NucleusTable(places(2)))]


@pytest.fixture(scope="module")
def model(slides, nuclei) -> EncoderModel:
    return train_encoder(slides, nuclei=nuclei, minutes=FOREVER, steps=2, quiet=True)


def test_from_files_to_an_atlas(tmp_path: Path) -> None:
    images, tables = [], []
    for i in (1, 2):
        (tmp_path / f"tile_{i}.png").write_bytes(imagecodecs.png_encode(pixels(i)))
        places(i).to_csv(tmp_path / f"tile_{i}.csv", index=False)
        images.append(tmp_path / f"tile_{i}.png")
        tables.append(tmp_path / f"tile_{i}.csv")
    out = tmp_path / "model"
    train_encoder(images, out, nuclei=tables, mpp=0.5, minutes=FOREVER, steps=2, seed=1, quiet=True)
    assert load_encoder(out).config.training["nuclei"] == 2 * N
    told = json.loads((out / "run.json").read_text())
    assert told["verb"] == "train-encoder"
    assert all("sha256" in entry for entry in told["inputs"])
    assert len(told["inputs"]) == 4
    assert not (out / CHECKPOINT).exists()

    atlas = embed(images, out, tmp_path / "atlas", nuclei=tables, mpp=0.5, quiet=True)
    again = read_atlas(tmp_path / "atlas")
    assert np.array_equal(again.embedding, atlas.embedding)
    assert again.context is not None
    assert len(again) == len(read_crops(tmp_path / "atlas" / "crops.zarr")) == 2 * N
    assert set(again.table.frame["image"]) == {"tile_1", "tile_2"}
    assert json.loads((tmp_path / "atlas" / "run.json").read_text())["verb"] == "embed"


def test_every_row_of_the_atlas_is_its_own_nucleus(slides, nuclei, model) -> None:
    atlas = embed(slides, model, nuclei=nuclei, quiet=True)
    frame = atlas.table.frame
    assert frame["id"].tolist() == [*places(1)["id"], *places(2)["id"]]
    assert np.allclose(frame["y_um"], frame["y"] * 0.5)
    for row in (0, 7, N + 3):
        own = 0 if row < N else 1
        alone = nuclei[own].take([row - own * N])
        single = embed(slides[own], model, nuclei=alone, quiet=True)
        assert np.allclose(
            single.embedding[0].astype(float), atlas.embedding[row].astype(float), atol=2e-3
        )


def test_features_are_measured_where_an_outline_is_known(slides, nuclei, model) -> None:
    atlas = embed(slides, model, nuclei=nuclei, quiet=True)
    assert atlas.features is not None
    area = atlas.features["f_area_um2"].to_numpy()
    assert np.isfinite(area[:N]).all()
    assert np.isnan(area[N:]).all()
    assert embed(slides[1], model, nuclei=nuclei[1], quiet=True).features is None
    assert embed(slides, model, nuclei=nuclei, features=False, quiet=True).features is None


def test_crops_that_are_cut_already_are_taken(slides, nuclei, model) -> None:
    store = crop_nuclei(slides[0], nuclei[0], quiet=True)
    frame = nuclei[0].table.frame.assign(image="slide_1")
    atlas = embed(store, model, nuclei=NucleusTable(frame), quiet=True)
    whole = embed(slides[0], model, nuclei=nuclei[0], quiet=True)
    assert np.array_equal(atlas.embedding, whole.embedding)
    trained = train_encoder(store, minutes=FOREVER, steps=1, quiet=True)
    assert trained.config.training["nuclei"] == N
    with pytest.raises(CallError, match="NucleusTable"):
        embed(store, model, quiet=True)


def test_of_many_nuclei_so_many_are_drawn(slides, nuclei) -> None:
    model = train_encoder(slides, nuclei=nuclei, most=9, minutes=FOREVER, steps=1, quiet=True)
    assert model.config.training["nuclei"] == 9


def test_an_interrupted_training_goes_on(slides, nuclei, tmp_path, monkeypatch) -> None:
    from nucleoscope.flow import nuc2vec

    def stop(progress) -> str:
        if progress.step == 1:
            raise KeyboardInterrupt
        return ""

    call = {"nuclei": nuclei, "minutes": FOREVER, "steps": 3, "quiet": True}
    with monkeypatch.context() as patch:
        patch.setattr(nuc2vec, "_note", stop)
        with pytest.raises(KeyboardInterrupt):
            train_encoder(slides, tmp_path / "m", **call)
    assert (tmp_path / "m" / CHECKPOINT).is_file()
    with pytest.raises(CallError, match="--resume"):
        train_encoder(slides, tmp_path / "m", **call)
    model = train_encoder(slides, tmp_path / "m", resume=True, **call)
    straight = train_encoder(slides, **call)
    assert np.array_equal(
        model.net.encoder.body[0][0].weight.detach().numpy(),
        straight.net.encoder.body[0][0].weight.detach().numpy(),
    )


def test_impossible_calls_are_one_sentence(slides, nuclei, model, tmp_path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for call, said in (
        (lambda: train_encoder(slides), "--nuclei"),
        (lambda: embed(slides, model), "--nuclei"),
        (lambda: train_encoder(slides, nuclei=nuclei, recipe="simclr"), "nuc2vec-paper"),
        (lambda: train_encoder(slides, nuclei=nuclei, resume=True), "name the folder"),
        (lambda: train_encoder(slides, tmp_path / "full", nuclei=nuclei), "not empty"),
        (
            lambda: train_encoder(slides, tmp_path / "full", nuclei=nuclei, resume=True),
            "no checkpoint",
        ),
        (lambda: embed(slides, model, tmp_path / "full" / "mine.txt", nuclei=nuclei), "a file"),
        (lambda: train_encoder(slides, nuclei=nuclei[:1]), "one for each"),
    ):
        with pytest.raises(CallError, match=said) as found:
            call()
        assert "\n" not in str(found.value)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_slide_without_nuclei_or_scale_is_refused(slides, model) -> None:
    empty = Nuclei(NucleusTable.empty())
    with pytest.raises(InputError, match="no nucleus"):
        embed(slides[0], model, nuclei=empty, quiet=True)
    with pytest.raises(InputError, match="--mpp"):
        embed(pixels(0), model, nuclei=outlined(1), quiet=True)
    with pytest.raises(InputError, match="train-encoder"):
        embed(slides[0], "nowhere", nuclei=outlined(1), quiet=True)


def test_one_nucleus_at_the_border_has_a_vector(slides, model) -> None:
    corner = NucleusTable(pd.DataFrame({"id": [5], "y": [0.0], "x": [159.0]}))
    atlas = embed(slides[0], model, nuclei=Nuclei(corner), quiet=True)
    assert atlas.embedding.shape == (1, 464)


def test_an_encoder_that_comes_with_the_package_is_given_by_its_name(slides, nuclei) -> None:
    atlas = embed(slides, "nuc2vec-small", nuclei=nuclei, quiet=True)
    assert atlas.embedding.shape == (2 * N, 464)
    assert atlas.context is not None
    # Nuclei that differ have vectors that differ.
    assert len(np.unique(atlas.embedding, axis=0)) == 2 * N
