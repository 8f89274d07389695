"""Recipes of encoders: every constant of the published one, and names that do not exist."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nucleoscope.errors import CallError
from nucleoscope.learn.embedding_losses import EMBEDDING_LOSSES
from nucleoscope.learn.encode import TENTHS
from nucleoscope.learn.encoder_recipes import ENCODER_RECIPES, encoder_recipe
from nucleoscope.learn.nets.encoders import ENCODERS
from nucleoscope.learn.paper_views import PaperViews
from nucleoscope.learn.views import ViewSettings


def test_the_published_recipe_constant_by_constant() -> None:
    paper = encoder_recipe("nuc2vec-paper")
    assert (paper.encoder, paper.head, paper.output) == ("resnet34", (512, 128, False), "head")
    assert (paper.momentum, paper.queue) == (0.999, 65_536)
    assert paper.loss == "align-uniform"
    assert dict(paper.loss_settings) == {"align": 3.0, "uniform": 1.0, "t": 3.0}
    assert (paper.optimiser, paper.learning_rate, paper.weight_decay) == ("sgd", 0.03, 1e-4)
    assert (paper.batch, paper.epochs) == (128, 200)
    assert TENTHS == (120 / 200, 160 / 200)
    assert paper.views == PaperViews()
    assert not paper.same_slide
    assert paper.context_weight == 0.0


def test_ours_keeps_size_and_tint_and_its_negatives_on_the_slide() -> None:
    ours = encoder_recipe("nuc2vec")
    assert isinstance(ours.views, ViewSettings)
    assert ours.views.scale <= 0.1
    assert ours.views.stain <= 0.1
    assert ours.same_slide
    assert ours.output == "features"
    assert ours.context_weight == 0.3
    assert ours.steps == 60


@pytest.mark.parametrize("name", sorted(ENCODER_RECIPES))
def test_a_recipe_names_rows_of_the_tables(name) -> None:
    recipe = encoder_recipe(name)
    assert recipe.name == name
    assert recipe.encoder in ENCODERS
    assert recipe.loss in EMBEDDING_LOSSES


def test_another_loss_takes_its_own_numbers() -> None:
    assert encoder_recipe("nuc2vec", loss="vicreg").loss_settings == ()
    same = encoder_recipe("nuc2vec", loss="dcl")
    assert same == encoder_recipe("nuc2vec")
    other = encoder_recipe("nuc2vec", encoder="resnet18")
    assert (other.encoder, other.steps) == ("resnet18", None)


def test_what_does_not_exist_or_cannot_be_is_refused() -> None:
    with pytest.raises(CallError, match="nuc2vec-paper"):
        encoder_recipe("simclr")
    with pytest.raises(CallError, match="two nuclei"):
        replace(encoder_recipe("nuc2vec"), batch=1)
    with pytest.raises(CallError, match="queue"):
        replace(encoder_recipe("nuc2vec"), queue=16)
