"""After training: columns that weigh alike, and the readout of interpretable features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nucleoscope.atlas.features import crop_features
from nucleoscope.data.crops import CropStore
from nucleoscope.learn.embed import channels, context_views, plain_looks, shares_of, stacked
from nucleoscope.learn.encoder_model import EncoderConfig, EncoderNet
from nucleoscope.learn.nets.encoders import Encoder
from nucleoscope.learn.paper_views import PaperViews
from nucleoscope.learn.readout import Readout
from nucleoscope.learn.views import (
    Slides,
    ViewSettings,
    draw_views,
    render_outlines,
    render_views,
    soft_edges,
)
from nucleoscope.seeds import generator

#: Nuclei by whose vectors the columns of an embedding are scaled and its readout is fitted.
SCALED_BY = 4096
#: Views a readout is fitted on, beside the plain one: as drawn for queries and for keys, in the
#: colours of the slide, which the features depend on.
READ_VIEWS = (0, 1)
#: Steps no training reaches: draws that have nothing to do with it.
AFTERWARDS = 2**40


@torch.no_grad()
def settle(
    net: EncoderNet,
    store: CropStore,
    config: EncoderConfig,
    views: ViewSettings | PaperViews,
    seed: int,
) -> None:
    """Scale the columns of both embeddings by some of the nuclei, seen plainly; fit the readout."""
    store = store.take(np.sort(generator(seed, 4).permutation(len(store))[:SCALED_BY]))
    looks = [(net.encoder, views, store, config if channels(config) == 4 else None)]
    if net.context is not None:
        around = replace(store, morphology=store.context)
        looks.append((net.context, context_views(config), around, None))
    for encoder, seen_as, crops, outlined in looks:
        if not encoder.parts:
            continue
        rows_in_turn = np.array_split(np.arange(len(crops)), -(-len(crops) // 256))
        made = [plain_looks(crops, seen_as, some, outlined) for some in rows_in_turn]
        vectors = [encoder(torch.from_numpy(one).permute(0, 3, 1, 2)) for one in made]
        balanced = encoder.balance(torch.cat(vectors))
        if encoder is net.encoder and net.readout is not None:
            seen = _views_of(net.encoder, store, config, views, seed)
            _fit(net.readout, torch.cat([balanced, *seen]), store, config)


def _views_of(
    encoder: Encoder,
    store: CropStore,
    config: EncoderConfig,
    views: ViewSettings | PaperViews,
    seed: int,
) -> list[Tensor]:
    """Vectors of the nuclei turned and on other backgrounds: a whole store for each view."""
    if isinstance(views, PaperViews):
        return []
    views = replace(views, scale=0, stain=0, stain_offset=0, tilt_deg=0, brightness=0)
    shares, slides = shares_of(store.mask, config), Slides.of(store.slide)
    edges = soft_edges(store.mask, views, radius=config.radius)
    vectors = []
    for view in READ_VIEWS:
        for rows in np.array_split(np.arange(len(store)), -(-len(store) // 256)):
            drawn = draw_views(views, rows, slides, seed=seed, step=AFTERWARDS, view=view)
            made = render_views(store.morphology, edges, rows, drawn, views)
            if channels(config) == 4:
                made = stacked(made, render_outlines(shares, rows, drawn, views))
            vectors.append(encoder(torch.from_numpy(made).permute(0, 3, 1, 2)))
    return vectors


def _fit(readout: Readout, vectors: Tensor, store: CropStore, config: EncoderConfig) -> None:
    """Fit the readout on the store's nuclei, whose vectors come once or several times over."""
    shares = shares_of(store.mask, config)
    features = crop_features(store.morphology, shares >= 128).to_numpy()
    readout.fit(vectors, np.tile(features, (len(vectors) // len(features), 1)))
