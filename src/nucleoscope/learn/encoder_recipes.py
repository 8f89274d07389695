"""Recipes of encoders: everything that distinguishes one way of training from another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from nucleoscope.errors import CallError
from nucleoscope.learn.paper_views import PaperViews
from nucleoscope.learn.views import ViewSettings


@dataclass(frozen=True)
class EncoderRecipe:
    """One way from crops to an encoder.

    Parameters
    ----------
    name
        What the user calls it.
    encoder
        A row of ``ENCODERS`` or ``timm:NAME``.
    views
        Ours, or the published ones.
    loss, loss_settings
        A row of ``EMBEDDING_LOSSES`` and its numbers.
    batch
        Nuclei per step; each is seen twice.
    epochs
        How often every nucleus is seen, unless the time ends first.
    steps
        A fixed number of steps instead of epochs, for the recipe's own encoder only.
    optimiser, learning_rate, weight_decay
        ``adamw`` with warm-up and cosine, or ``sgd`` (momentum 0.9) with tenths at 60 and 80 %.
    head
        Hidden and output width of the contrastive head, and whether it has a batch norm.
    output
        What is kept as the embedding: ``features`` before the head, or the ``head``'s.
    momentum, queue
        Of the momentum encoder that gives the keys and of their queue (MoCo); 0 for neither.
    same_slide
        A nucleus is set apart from others of its own slide only.
    readout
        Numbers beside the embedding that stand for the interpretable features (``Readout``); 0
        for none. Only of encoders whose vector has parts, and before the head.
    context_weight
        Weight of the second encoder's loss, which sees the surroundings with the nucleus blanked
        out; 0 for none.
    context_temperature
        Of its InfoNCE from morphology to context.
    """

    name: str
    encoder: str = "outlined"
    views: ViewSettings | PaperViews = field(default_factory=ViewSettings)
    loss: str = "dcl"
    loss_settings: tuple[tuple[str, float], ...] = ()
    batch: int = 128
    epochs: int = 100
    steps: int | None = None
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    head: tuple[int, int, bool] = (256, 128, True)
    output: Literal["features", "head"] = "features"
    momentum: float = 0.0
    queue: int = 0
    same_slide: bool = True
    readout: int = 16
    context_weight: float = 0.3
    context_temperature: float = 0.15

    def __post_init__(self) -> None:
        if self.batch < 2 or self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise CallError(
                "a recipe takes batches of two nuclei or more, and at least one epoch or step."
            )
        if self.readout < 0:
            raise CallError("a readout has 0 numbers or more.")
        if bool(self.momentum) != bool(self.queue):
            raise CallError("a momentum encoder and a queue go together.")


#: Nuc2Vec as published (MIDL 2021): every constant of its training.
_PAPER = EncoderRecipe(
    "nuc2vec-paper",
    encoder="resnet34",
    views=PaperViews(),
    loss="align-uniform",
    loss_settings=(("align", 3.0), ("uniform", 1.0), ("t", 3.0)),
    batch=128,
    epochs=200,
    optimiser="sgd",
    learning_rate=0.03,
    weight_decay=1e-4,
    head=(512, 128, False),
    output="head",
    momentum=0.999,
    queue=65_536,
    same_slide=False,
    readout=0,
    context_weight=0.0,
)

ENCODER_RECIPES = {
    # Longer training makes neighbours worse and a linear probe hardly better (decision 10).
    "nuc2vec": EncoderRecipe("nuc2vec", loss_settings=(("temperature", 0.15),), steps=60),
    "nuc2vec-paper": _PAPER,
}


def encoder_recipe(
    name: str, *, encoder: str | None = None, loss: str | None = None
) -> EncoderRecipe:
    """A recipe by name, optionally with another encoder or loss.

    Raises
    ------
    CallError
        No such recipe; lists those there are.

    Examples
    --------
    >>> encoder_recipe("nuc2vec").encoder, encoder_recipe("nuc2vec", loss="vicreg").loss_settings
    ('outlined', ())
    """
    if name not in ENCODER_RECIPES:
        raise CallError(f"no recipe {name!r}; there are {', '.join(ENCODER_RECIPES)}.")
    chosen = ENCODER_RECIPES[name]
    if encoder is not None and encoder != chosen.encoder:
        chosen = replace(chosen, encoder=encoder, steps=None)
    if loss is not None and loss != chosen.loss:
        chosen = replace(chosen, loss=loss, loss_settings=())
    return chosen
