"""Training and embedding: repeatable, resumable, watched, and the same however it is batched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nucleoscope.atlas.changes import change
from nucleoscope.data.crops import CropStore
from nucleoscope.errors import CallError, InputError
from nucleoscope.learn import encode
from nucleoscope.learn.embed import embed, embed_context, plain_looks
from nucleoscope.learn.encode import (
    EncoderSettings,
    batch_rows,
    train_encoder,
    untrained,
)
from nucleoscope.learn.encoder_model import EncoderModel
from nucleoscope.learn.encoder_recipes import EncoderRecipe, encoder_recipe
from nucleoscope.learn.paper_views import PaperViews
from nucleoscope.learn.readout import LENGTH
from nucleoscope.learn.views import Slides, ViewSettings

FOREVER = float("inf")
OURS = replace(encoder_recipe("nuc2vec"), batch=12)
#: The published way of training, on the small encoder so that a test takes a second.
MOCO = replace(
    encoder_recipe("nuc2vec-paper"), encoder="small", batch=8, queue=32, views=PaperViews(size=32)
)


def nuclei(n: int = 40, n_slides: int = 2, seed: int = 0) -> CropStore:
    """Dark discs of different sizes and tints on a light, rough background."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((64, 64)) - 31.5
    radius = rng.uniform(8, 20, n)
    mask = (np.hypot(y, x)[None] < radius[:, None, None]).astype(np.uint8)
    light = rng.integers(180, 240, (n, 64, 64, 3))
    dark = light - rng.integers(60, 150, (n, 1, 1, 3))
    images = np.where(mask[..., None] == 1, dark, light).astype(np.uint8)
    context = rng.integers(150, 240, (n, 64, 64, 3)).astype(np.uint8)
    slide = np.arange(n) % n_slides
    names = tuple(f"s{i}" for i in range(n_slides))
    return CropStore(images, context, mask, np.zeros(n, bool), slide, names, np.arange(n))


@pytest.fixture(scope="module")
def store() -> CropStore:
    return nuclei()


@pytest.fixture(scope="module")
def model(store) -> EncoderModel:
    return train_encoder(store, OURS, EncoderSettings(FOREVER, steps=4))


def weights(model: EncoderModel) -> dict[str, torch.Tensor]:
    return model.net.state_dict()


def same(one: EncoderModel, other: EncoderModel) -> bool:
    a, b = weights(one), weights(other)
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


class TestTraining:
    def test_the_same_seed_gives_the_same_encoder(self, store, model) -> None:
        assert same(model, train_encoder(store, OURS, EncoderSettings(FOREVER, steps=4)))
        other = train_encoder(store, OURS, EncoderSettings(FOREVER, seed=1, steps=4))
        assert not same(model, other)

    @pytest.mark.parametrize("recipe", [OURS, MOCO], ids=["ours", "published"])
    def test_interrupted_and_resumed_equals_uninterrupted(self, store, recipe, tmp_path) -> None:
        straight = train_encoder(store, recipe, EncoderSettings(FOREVER, steps=4))
        held = EncoderSettings(FOREVER, steps=4, checkpoint=tmp_path / "c.safetensors", resume=True)

        def stop(progress) -> None:
            if progress.step == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_encoder(store, recipe, held, report=stop)
        again = train_encoder(store, recipe, held)
        assert same(straight, again)
        assert again.config.training["steps"] == 4

    def test_a_checkpoint_of_another_run_is_refused(self, store, tmp_path) -> None:
        held = EncoderSettings(FOREVER, steps=1, checkpoint=tmp_path / "c", resume=True)
        train_encoder(store, OURS, held)
        with pytest.raises(InputError, match="another recipe"):
            train_encoder(store, OURS, replace(held, seed=3))

    def test_what_happened_is_told_and_written_down(self, store) -> None:
        told = []
        model = train_encoder(store, OURS, EncoderSettings(FOREVER, steps=3), report=told.append)
        assert [p.step for p in told] == [1, 2, 3]
        assert told[-1].fraction == 1.0
        assert told[-1].seconds_left == 0.0
        assert told[-1].health is not None
        training = model.config.training
        assert (training["nuclei"], training["slides"], training["steps"]) == (40, 2, 3)
        assert len(training["history"]) == 3

    def test_time_ends_a_run(self, store) -> None:
        model = train_encoder(store, OURS, EncoderSettings(minutes=1e-4))
        assert model.config.training["steps"] < 5

    def test_a_larger_store_is_drawn_from(self, store) -> None:
        model = train_encoder(store, OURS, EncoderSettings(FOREVER, most=10, steps=1))
        assert model.config.training["nuclei"] == 10

    @pytest.mark.parametrize("loss", ["infonce", "vicreg", "align-uniform"])
    def test_every_loss_trains(self, store, loss) -> None:
        recipe = replace(OURS, loss=loss, loss_settings=(), context_weight=0.0)
        model = train_encoder(store, recipe, EncoderSettings(FOREVER, steps=1))
        assert np.isfinite(model.config.training["loss"])

    def test_a_module_of_ones_own_is_trained(self, store) -> None:
        own = nn.Sequential(nn.Conv2d(3, 16, 3, 4), nn.Flatten(), nn.Linear(1024, 20))
        model = train_encoder(store, OURS, EncoderSettings(FOREVER, steps=1), module=own)
        assert model.config.encoder == "module:Sequential"
        assert embed(model, store).shape == (40, 20)

    def test_equal_crops_collapse_and_say_so(self, store) -> None:
        class Constant(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.value = nn.Parameter(torch.ones(8))

            def forward(self, x):
                return self.value.expand(len(x), 8)

        recipe = replace(OURS, head=(16, 8, False), context_weight=0.0)
        with pytest.raises(InputError, match=r"stopped at step 2.*effective rank"):
            train_encoder(store, recipe, EncoderSettings(FOREVER, steps=9), module=Constant())

    def test_a_loss_that_is_not_finite_stops(self, store, monkeypatch) -> None:
        monkeypatch.setattr(encode, "_paired", lambda *_: torch.tensor(float("nan")))
        with pytest.raises(InputError, match="not finite at step 1"):
            train_encoder(store, OURS, EncoderSettings(FOREVER, steps=1))

    def test_one_nucleus_is_too_few_and_settings_are_checked(self, store) -> None:
        with pytest.raises(InputError, match="found 1"):
            train_encoder(store.take([0]), OURS)
        with pytest.raises(CallError, match="minutes"):
            EncoderSettings(minutes=0)
        with pytest.raises(CallError, match="most"):
            EncoderSettings(most=1)

    def test_the_morphology_learns_nothing_from_the_surroundings(self, store) -> None:
        # Two stores that differ in their surroundings only give the same morphology encoder.
        other = replace(store, context=store.context[::-1].copy())
        few = EncoderSettings(FOREVER, steps=2)
        one, two = (train_encoder(s, OURS, few) for s in (store, other))
        assert all(
            torch.equal(a, b)
            for (name, a), b in zip(weights(one).items(), weights(two).values(), strict=True)
            if name.startswith(("encoder.", "head."))
        )
        assert not same(one, two)


class TestBatches:
    @given(
        counts=st.lists(st.integers(1, 30), min_size=1, max_size=5),
        batch=st.integers(1, 40),
        step=st.integers(0, 50),
        same_slide=st.booleans(),
    )
    @settings(max_examples=40, deadline=None)
    def test_a_batch_has_no_row_twice_and_is_full(self, counts, batch, step, same_slide) -> None:
        slides = Slides.of(np.repeat(np.arange(len(counts)), counts))
        rows = batch_rows(slides, batch, seed=0, step=step, same_slide=same_slide)
        assert len(rows) == len(set(rows.tolist())) == min(batch, sum(counts))
        if same_slide and batch <= min(counts):
            assert len(set(slides.slide[rows].tolist())) == 1

    def test_an_epoch_of_the_published_way_shows_every_nucleus_once(self) -> None:
        slides = Slides.of(np.arange(21) % 3)
        rows = [batch_rows(slides, 7, seed=0, step=k, same_slide=False) for k in range(3)]
        assert sorted(np.concatenate(rows).tolist()) == list(range(21))

    def test_larger_slides_are_seen_more_often(self) -> None:
        slides = Slides.of(np.repeat([0, 1], [300, 100]))
        seen = [
            slides.slide[batch_rows(slides, 10, seed=0, step=k, same_slide=True)[0]]
            for k in range(400)
        ]
        assert 0.68 < np.mean(np.array(seen) == 0) < 0.82


class TestEmbedding:
    def test_rows_have_length_one_and_follow_the_store(self, store, model) -> None:
        vectors = embed(model, store)
        assert vectors.shape == (40, 464)
        assert vectors.dtype == np.float16
        assert np.allclose(np.linalg.norm(vectors.astype(float), axis=1), 1, atol=2e-3)
        order = np.random.default_rng(0).permutation(40)
        turned = embed(model, store.take(order)).astype(float)
        assert np.allclose(turned, vectors[order].astype(float), atol=2e-3)

    @pytest.mark.parametrize("batch", [1, 7, 100])
    def test_the_batch_changes_nothing(self, store, model, batch) -> None:
        one, other = embed(model, store, batch=batch), embed(model, store)
        assert np.allclose(one.astype(float), other.astype(float), atol=2e-3)

    def test_the_fast_way_gives_nearly_the_same_vectors(self, store, model) -> None:
        exact, fast = embed(model, store), embed(model, store, is_fast=True)
        assert fast.dtype == np.float16
        assert ((exact.astype(float) * fast.astype(float)).sum(axis=1) > 0.999).all()
        around, near = embed_context(model, store), embed_context(model, store, is_fast=True)
        assert around is not None
        assert near is not None
        assert ((around.astype(float) * near.astype(float)).sum(axis=1) > 0.999).all()

    def test_embedding_leaves_the_model_as_it_was(self, store, model) -> None:
        before = {k: v.clone() for k, v in weights(model).items()}
        embed(model, store)
        assert all(torch.equal(before[k], v) for k, v in weights(model).items())
        assert not model.net.training

    def test_it_equals_the_network_without_folding(self, store, model) -> None:
        views = ViewSettings(size=32, field=64.0)
        made = plain_looks(store, views, np.arange(40), model.config)
        with torch.no_grad():
            slow = model.net.encoder(torch.from_numpy(made).permute(0, 3, 1, 2))
            slow = model.net.readout(slow).numpy()
        slow /= np.linalg.norm(slow, axis=1, keepdims=True)
        assert np.allclose(embed(model, store).astype(float), slow, atol=2e-3)

    def test_the_surroundings_stay_apart_and_do_not_see_the_nucleus(self, store, model) -> None:
        around = embed_context(model, store)
        assert around is not None
        assert around.shape == (40, 224)
        painted = store.context.copy()
        painted[:, 30:34, 30:34] = 0
        hidden = embed_context(model, replace(store, context=painted))
        assert np.array_equal(around, hidden)
        assert np.array_equal(embed(model, store), embed(model, replace(store, context=painted)))

    def test_the_outline_says_where_the_nucleus_is(self, store, model) -> None:
        wider = embed(model, replace(store, mask=np.ones_like(store.mask))).astype(float)
        assert (embed(model, store).astype(float) * wider).sum(axis=1).min() < 0.99

    def test_without_an_outline_a_disc_stands_for_it(self, store, model) -> None:
        y, x = np.indices((64, 64)) - 31.5
        disc = (np.hypot(y, x) <= model.config.radius).astype(np.uint8)
        none = replace(store, mask=np.zeros_like(store.mask))
        discs = replace(store, mask=np.broadcast_to(disc, store.mask.shape))
        cosine = (embed(model, none).astype(float) * embed(model, discs)).sum(axis=1)
        assert cosine.min() > 0.99

    def test_an_encoder_without_outlines_still_trains_and_embeds(self, store) -> None:
        recipe = replace(OURS, encoder="small")
        model = train_encoder(store, recipe, EncoderSettings(FOREVER, steps=1))
        assert embed(model, store).shape == (40, 128)

    def test_the_published_embedding_is_the_heads(self, store) -> None:
        model = untrained(MOCO)
        assert model.config.dimensions == 128
        assert embed(model, store.take(range(3))).shape == (3, 128)
        assert embed_context(model, store) is None

    def test_no_nucleus_gives_no_row(self, store, model) -> None:
        assert embed(model, store.take([])).shape == (0, 464)

    def test_the_share_done_is_told(self, store, model) -> None:
        told: list[float] = []
        embed(model, store, report=told.append)
        assert told[-1] == 1.0


def test_training_lowers_the_loss() -> None:
    store = nuclei(64, 1, seed=3)
    recipe: EncoderRecipe = replace(OURS, batch=32, context_weight=0.0)
    losses: list[float] = []
    train_encoder(
        store, recipe, EncoderSettings(FOREVER, steps=16), report=lambda p: losses.append(p.loss)
    )
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_a_trained_encoder_is_balanced_by_what_it_saw(store) -> None:
    # 4,096 nuclei or all; half precision and length 1 come after it.
    model = train_encoder(store, OURS, EncoderSettings(minutes=FOREVER, steps=2))
    for encoder in (model.net.encoder, model.net.context):
        assert float(encoder.scale.std()) > 0
    vectors = embed(model, store).astype(np.float32)[:, :448]
    parts = np.split(vectors.std(axis=0), np.cumsum(model.net.encoder.parts)[:-1])
    assert parts[0].mean() > parts[1].mean() > parts[2].mean()


def test_an_untrained_encoder_may_be_balanced_too(store) -> None:
    plain, balanced = (untrained(OURS, seed=3, store=crops) for crops in (None, store))
    assert torch.equal(plain.net.encoder.scale, torch.ones(448))
    assert not torch.equal(balanced.net.encoder.scale, torch.ones(448))
    mine, other = plain.net.state_dict(), balanced.net.state_dict()
    assert all(torch.equal(mine[k], other[k]) for k in mine if "scale" not in k)


def test_the_readout_knows_the_features_of_nuclei_it_never_saw(model) -> None:
    taught = train_encoder(nuclei(400, 4, seed=1), OURS, EncoderSettings(FOREVER, steps=2))
    others = nuclei(200, 2, seed=2)
    read = embed(taught, others).astype(np.float64)[:, 448:]
    assert np.allclose(np.linalg.norm(read, axis=1), LENGTH / np.hypot(1, LENGTH), atol=2e-3)
    area = np.count_nonzero(others.mask.reshape(200, -1), axis=1)
    found = [abs(np.corrcoef(column, area)[0, 1]) for column in read.T]
    assert max(found) > 0.8


def test_the_readout_minds_how_a_nucleus_lies_no_more_than_the_rest(store) -> None:
    taught = train_encoder(nuclei(400, 4, seed=1), OURS, EncoderSettings(FOREVER, steps=2))
    others = nuclei(100, 1, seed=2)
    before, after = (
        embed(taught, crops).astype(np.float64) for crops in (others, change(others, "rotation"))
    )
    assert (before * after).sum(axis=1).mean() > 0.95


def test_without_outlines_the_readout_is_of_discs(store) -> None:
    none = replace(store, mask=np.zeros_like(store.mask))
    model = train_encoder(none, OURS, EncoderSettings(FOREVER, steps=1))
    assert np.isfinite(embed(model, none).astype(float)).all()


def test_a_random_start_has_no_readout(store) -> None:
    assert untrained(OURS, store=store).net.readout is None
    assert embed(untrained(OURS, store=store), store).shape == (40, 448)


def test_a_checkpoint_is_one_whole_file(store, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    train_encoder(store, OURS, EncoderSettings(FOREVER, steps=2, checkpoint=path))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
