"""Embed nuclei with an encoder: crops in, vectors of length 1 out, block by block."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nucleoscope.data.atlas import unit_rows
from nucleoscope.data.crops import CropStore
from nucleoscope.learn.encoder_model import EncoderConfig, EncoderModel
from nucleoscope.learn.nets.encoders import ENCODERS, folded
from nucleoscope.learn.paper_views import PaperViews, paper_views
from nucleoscope.learn.readout import Readout
from nucleoscope.learn.view_kernels import I64
from nucleoscope.learn.views import (
    ViewSettings,
    plain_views,
    render_outlines,
    render_views,
    soft_edges,
)

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]

#: How the outline is given to encoders that take it: neither grown nor soft.
SHARP = ViewSettings(dilate=0.0, feather=1.0)


def embed(
    model: EncoderModel,
    store: CropStore,
    *,
    batch: int = 256,
    is_fast: bool = False,
    report: Callable[[float], None] | None = None,
) -> F16:
    """Morphology vectors of every nucleus of a store.

    Parameters
    ----------
    batch
        Crops at a time; it changes neither the result's meaning nor, to half precision, its value.
    is_fast
        Compute in bfloat16. Vectors keep a cosine of .999 with the exact ones. Faster only on
        processors that multiply in bfloat16 (AMX), where it takes about half the time.
    report
        Told the share that is done.

    Returns
    -------
    ``(N, D)`` float16, rows of length 1, row by row with the store.

    Notes
    -----
    Batch norms are folded into the convolutions and crops are read in blocks, so memory does not
    grow with the store but for the result.
    """
    views = PaperViews(size=model.config.size) if model.config.views == "paper" else ViewSettings(
        size=model.config.size, field=model.config.field
    )  # fmt: skip
    last = model.net.readout if model.config.output == "features" else model.net.head
    parts = [model.net.encoder] if last is None else [model.net.encoder, last]
    config = model.config if channels(model.config) == 4 else None
    return _embedded(nn.Sequential(*parts), views, store, config, (batch, is_fast), report)


def embed_context(
    model: EncoderModel,
    store: CropStore,
    *,
    batch: int = 256,
    is_fast: bool = False,
    report: Callable[[float], None] | None = None,
) -> F16 | None:
    """Vectors of the surroundings, ``(N, Dc)`` float16; None where the encoder makes none.

    Parameters are those of ``embed``.
    """
    if model.net.context is None:
        return None
    views = replace(context_views(model.config), size=32)
    around = replace(store, morphology=store.context)
    return _embedded(
        nn.Sequential(model.net.context), views, around, None, (batch, is_fast), report
    )


@torch.inference_mode()
def _embedded(
    net: nn.Sequential,
    views: ViewSettings | PaperViews,
    store: CropStore,
    config: EncoderConfig | None,
    how: tuple[int, bool],
    report: Callable[[float], None] | None,
) -> F16:
    """Rows of length 1 from what ``net`` makes of plain views, with outlines given a config."""
    batch, is_fast = how
    number = torch.bfloat16 if is_fast else torch.float32
    fast = nn.Sequential(*(_made_fast(part, number) for part in net))
    blocks: list[F16] = []
    for first, block in store.blocks():
        made = [
            fast(
                torch.from_numpy(plain_looks(block, views, rows, config))
                .permute(0, 3, 1, 2)
                .to(number)
            )
            for rows in np.array_split(np.arange(len(block)), -(-len(block) // batch))
        ]
        blocks.append(unit_rows(torch.cat(made).float().numpy()))
        if report is not None:
            report((first + len(block)) / len(store))
    if blocks:
        return np.concatenate(blocks)
    empty = torch.zeros(1, 3 if config is None else 4, views.size, views.size, dtype=number)
    width = fast(empty).shape[1]
    return np.zeros((0, width), dtype=np.float16)


def _made_fast(part: nn.Module, number: torch.dtype) -> nn.Module:
    """A copy without batch norms, computing in ``number``."""
    if isinstance(part, Readout):
        # It takes small differences of large numbers, so it stays in single precision.
        return part
    made = folded(deepcopy(part))
    made.to(dtype=number, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


def plain_looks(
    block: CropStore, views: ViewSettings | PaperViews, rows: I64, config: EncoderConfig | None
) -> F32:
    """Views as they are embedded, nothing drawn."""
    images, mask = block.morphology, block.mask
    if isinstance(views, PaperViews):
        return paper_views(images, mask, rows, views, None, radius=1.0)
    drawn = plain_views(views, len(rows))
    made = render_views(images, mask, rows, drawn, views)
    if config is None:
        return made
    shares = shares_of(np.asarray(mask)[rows], config)
    return stacked(made, render_outlines(shares, np.arange(len(rows)), drawn, views))


def context_views(config: EncoderConfig) -> ViewSettings:
    """How the surroundings are looked at: the whole field, the nucleus blanked out."""
    return ViewSettings(field=64.0, hole=config.context_hole, scale=0.0, shift=0.0, blur_share=0.0)


def channels(config: EncoderConfig) -> int:
    """Channels of the morphology encoder: of ours by name; of others three."""
    maker = ENCODERS.get(config.encoder)
    return 3 if maker is None else getattr(maker, "channels", 3)


def shares_of(mask: NDArray[np.uint8], config: EncoderConfig) -> NDArray[np.uint8]:
    """How much of each pixel is the nucleus, a disc where its outline is not known."""
    shares: NDArray[np.uint8] = mask * np.uint8(255)
    unknown = np.flatnonzero(~mask.reshape(len(mask), -1).any(axis=1))
    if len(unknown):
        shares[unknown] = soft_edges(mask[unknown[:1]], SHARP, radius=config.radius)
    return shares


def stacked(views: F32, outlines: F32) -> F32:
    """Views with the outline as their last channel."""
    return np.concatenate([views, outlines[..., None]], axis=3)
