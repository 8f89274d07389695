"""Supervised contrast between pixels, with a memory of pixels and whole nuclei per class.

An embedding of unit length is pulled towards remembered embeddings of its own class and pushed from
those of the others. The published code remembers rows of the image instead of rows of the class,
counts rows never written, and hides arbitrary keys; none of this is repeated here: the memory is a
real ring per class, only written rows are read, and a key is a nucleus rather than an image.

References
----------
.. [1] Moradinasab et al. 2023, Label-efficient contrastive learning-based model for nuclei
   detection and classification in 3D cardiovascular immunofluorescent images, section 2.
.. [2] Wang et al. 2021, Exploring cross-image pixel contrast for semantic segmentation, ICCV.
.. [3] Khosla et al. 2020, Supervised contrastive learning, NeurIPS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nucleoscope.errors import CallError, InputError

#: Value of a pixel without a class; it is never an anchor and never remembered.
UNLABELLED = -1

#: The two kinds of entries of a memory bank.
PIXEL, REGION = 0, 1


@dataclass(frozen=True)
class ContrastSettings:
    """Choices of the contrastive term; ``paper`` are the published ones.

    Parameters
    ----------
    temperature
        Divides the similarities.
    views
        Anchors per image and class.
    max_anchors
        Per batch, over all images and classes.
    pixels
        Random pixels remembered per image and class at every step.
    bank_size
        Rows per class, for pixels and for regions alike.
    per_nucleus
        A region is a nucleus; otherwise all pixels of a class in an image.
    background
        Labelled background is a class like any other.
    hard_fraction
        Share of keys used per anchor, the nearest negatives and the farthest positives [2]_;
        ``None`` for all.
    weight
        Of the term once the ramp has ended.
    ramp_start, ramp_end
        Shares of the training between which the weight rises from 0.

    Examples
    --------
    >>> ContrastSettings.paper().temperature
    0.07
    """

    temperature: float = 0.1
    views: int = 32
    max_anchors: int = 1024
    pixels: int = 10
    bank_size: int = 1024
    per_nucleus: bool = True
    background: bool = True
    hard_fraction: float | None = None
    weight: float = 1.0
    ramp_start: float = 0.0
    ramp_end: float = 0.25

    @classmethod
    def paper(cls) -> ContrastSettings:
        """As published: 2 views, one region per image, no background, on from epoch 30 of 100."""
        return cls(
            temperature=0.07,
            views=2,
            bank_size=5000,
            per_nucleus=False,
            background=False,
            ramp_start=0.3,
            ramp_end=0.3,
        )


def supervised_pixel_contrast(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    temperature: float = 0.1,
    *,
    hard_fraction: float | None = None,
) -> Tensor:
    """Mean over anchors ``v`` of ``-1/|P| sum_p ln( e^(vp/t) / (e^(vp/t) + sum_q e^(vq/t)) )``.

    P are the keys of the anchor's class, Q all others [1]_, [2]_. Unlike [3]_ the other positives
    are not in the denominator; the two agree where every anchor has one positive. An anchor
    without a positive is left out; one without a negative counts 0.

    Parameters
    ----------
    anchors
        ``(A, D)``, unit length.
    anchor_labels
        ``(A,)`` int64.
    keys
        ``(M, D)``, unit length, usually detached.
    key_labels
        ``(M,)`` int64.
    temperature
        At least 1e-4: below it the gradient would not fit half precision.
    hard_fraction
        In (0, 1]: per anchor only the nearest share of negatives and the farthest share of
        positives, at least one of each; ``None`` for all.

    Returns
    -------
    Tensor
        Scalar in float32 (float64 for float64); 0 where no anchor has a positive.

    Raises
    ------
    CallError
        ``temperature`` or ``hard_fraction`` out of range.
    InputError
        Shapes do not fit.

    Examples
    --------
    >>> v = torch.eye(2)
    >>> loss = supervised_pixel_contrast(v, torch.tensor([0, 1]), v, torch.tensor([0, 1]), 1.0)
    >>> round(float(loss), 4)
    0.3133
    """
    _check_pairs(anchors, anchor_labels, keys, key_labels)
    _check_range(temperature, hard_fraction)
    vectors = _full(anchors) / temperature
    keys = keys.to(vectors.dtype)
    terms = []
    for label in torch.unique(anchor_labels).tolist():
        own = key_labels == label
        if bool(own.any()):
            rows = vectors[anchor_labels == label]
            terms.append(_one_class(rows @ keys[own].T, rows @ keys[~own].T, hard_fraction))
    return torch.cat(terms).mean() if terms else vectors[:0].sum()


def sample_anchors(
    embedding: Tensor,
    labels: Tensor,
    predicted: Tensor,
    *,
    per_class: int,
    generator: torch.Generator,
    max_anchors: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Random labelled pixels as anchors, half of them hard: those the network still gets wrong.

    Where one half runs short the other fills up. Background (0) is a class; ``UNLABELLED`` never
    is drawn.

    Parameters
    ----------
    embedding
        ``(B, D, Y, X)``.
    labels
        ``(B, Y, X)`` int64, -1 for unlabelled.
    predicted
        ``(B, Y, X)`` int64: the network's present classes.
    per_class
        Anchors per image and class; fewer where a class has fewer pixels.
    generator
        Source of all draws.
    max_anchors
        Cap over the batch: every image and class gets at most its equal share of it, at least 1.

    Returns
    -------
    tuple of Tensor
        ``(A, D)`` anchors, still in the graph, and ``(A,)`` their labels.

    Raises
    ------
    InputError
        Shapes do not fit.

    Examples
    --------
    >>> embedding, labels = torch.ones(1, 4, 2, 2), torch.tensor([[[0, 0], [1, -1]]])
    >>> g = torch.Generator().manual_seed(0)
    >>> sample_anchors(embedding, labels, labels, per_class=1, generator=g)[1].tolist()
    [0, 1]
    """
    _check_maps(embedding, labels, predicted)
    flat, guess = labels.flatten(1), predicted.flatten(1)
    pairs = [(b, c) for b in range(len(flat)) for c in _present(flat[b])]
    n = min(per_class, max(1, max_anchors // max(1, len(pairs))))
    found = [_hard_and_easy(flat[b] == c, guess[b] != c, n, generator) for b, c in pairs]
    image = [torch.full_like(at, b) for (b, _), at in zip(pairs, found, strict=True)]
    if not pairs:
        return embedding.new_zeros((0, embedding.shape[1])), flat.new_zeros(0)
    where, at = torch.cat(image), torch.cat(found)
    # One gather for all: its backward pass then fills one map and not one per image and class.
    return embedding.flatten(2)[where, :, at], flat[where, at]


def regions(
    embedding: Tensor, labels: Tensor, instances: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean embedding, scaled to unit length, of every nucleus and of the background of an image.

    Parameters
    ----------
    embedding
        ``(D, Y, X)``.
    labels
        ``(Y, X)`` int64, -1 for unlabelled (those pixels are not averaged).
    instances
        ``(Y, X)`` integers, 0 outside nuclei; ``None`` gives one region per class.

    Returns
    -------
    tuple of Tensor
        ``(R, D)`` and ``(R,)`` labels.

    Raises
    ------
    InputError
        Shapes do not fit.

    Examples
    --------
    >>> embedding = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    >>> rows, classes = regions(embedding, torch.tensor([[1, 1, 1]]), torch.tensor([[5, 5, 9]]))
    >>> rows.tolist(), classes.tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [1, 1])
    """
    _check_maps(embedding[None], labels[None], labels[None])
    at = torch.nonzero(labels.flatten() != UNLABELLED).squeeze(1)
    if len(at) == 0:
        return embedding.new_zeros((0, len(embedding))), labels.new_zeros(0)
    classes = labels.flatten()[at]
    owner = torch.zeros_like(classes) if instances is None else instances.flatten()[at].long()
    n_classes = classes.max() + 1
    key = torch.where(classes > 0, owner, 0) * n_classes + classes
    groups, member = torch.unique(key, return_inverse=True)
    rows = _full(embedding).flatten(1)[:, at].T
    total = rows.new_zeros((len(groups), rows.shape[1])).index_add_(0, member, rows)
    return F.normalize(total, dim=1), groups % n_classes


class MemoryBank(nn.Module):
    """Per class one ring of pixel embeddings and one of region embeddings.

    Rows are kept detached, in float32, in buffers: they move with the module and are saved with a
    checkpoint, so that a resumed training sees the same keys.

    Parameters
    ----------
    n_classes
        K, background included.
    n_dims
        D.
    size
        Rows per ring. Memory: ``2 K size D`` floats.

    Attributes
    ----------
    rows
        ``(2, K, size, D)`` float32, kinds ``PIXEL`` and ``REGION``.
    written
        ``(2, K)`` int64: rows ever written; the next goes to ``written % size``.

    Examples
    --------
    >>> bank = MemoryBank(2, 3, size=4)
    >>> bank.enqueue(PIXEL, 1, torch.eye(3))
    >>> bank.keys()[1].tolist()
    [1, 1, 1]
    """

    rows: Tensor
    written: Tensor

    def __init__(self, n_classes: int, n_dims: int, *, size: int = 1024) -> None:
        super().__init__()
        if min(n_classes, n_dims, size) < 1:
            raise CallError(
                f"memory bank: found {n_classes} classes, {n_dims} dimensions and {size} rows, "
                "expected at least one of each; give positive numbers."
            )
        self.register_buffer("rows", torch.zeros(2, n_classes, size, n_dims))
        self.register_buffer("written", torch.zeros(2, n_classes, dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, kind: int, label: int, rows: Tensor) -> None:
        """Write ``(R, D)`` rows over the oldest ones of a class; rows with NaN or inf are skipped.

        Raises
        ------
        InputError
            The rows are not ``(R, D)`` or the class is unknown.
        """
        _, n_classes, size, n_dims = self.rows.shape
        if rows.ndim != 2 or rows.shape[1] != n_dims or not 0 <= label < n_classes:
            raise InputError(
                f"memory bank: found rows {tuple(rows.shape)} of class {label}, expected "
                f"(R, {n_dims}) of a class from 0 to {n_classes - 1}; build the bank for them."
            )
        # A step that overflowed in half precision would otherwise stay in the memory for good.
        kept = rows.detach().float()[torch.isfinite(rows).all(1)]
        first = int(self.written[kind, label])
        at = torch.arange(first, first + len(kept), device=kept.device)[-size:]
        self.rows[kind, label, at % size] = kept[-size:]
        self.written[kind, label] += len(kept)

    def keys(self, *, background: bool = True) -> tuple[Tensor, Tensor]:
        """Everything written and not yet overwritten: ``(M, D)`` rows and their ``(M,)`` labels."""
        size, first = self.rows.shape[2], 0 if background else 1
        filled = self.written.clamp(max=size)[:, first:, None]
        used = torch.arange(size, device=self.rows.device) < filled
        classes = torch.arange(first, self.rows.shape[1], device=self.rows.device)
        return self.rows[:, first:][used], classes[None, :, None].expand_as(used)[used]

    @torch.no_grad()
    def update(
        self,
        embedding: Tensor,
        labels: Tensor,
        instances: Tensor | None = None,
        *,
        generator: torch.Generator,
        pixels: int = 10,
    ) -> None:
        """Remember a batch: every region, and random pixels of every class in every image.

        Parameters
        ----------
        embedding
            ``(B, D, Y, X)``.
        labels
            ``(B, Y, X)`` int64, -1 for unlabelled.
        instances
            ``(B, Y, X)``; see ``regions``.
        generator
            Source of the draws.
        pixels
            Per image and class.

        Raises
        ------
        InputError
            Shapes do not fit.
        """
        _check_maps(embedding, labels, labels)
        for b in range(len(labels)):
            owners = None if instances is None else instances[b]
            rows, classes = regions(embedding[b], labels[b], owners)
            flat = labels[b].flatten()
            for c in _present(flat):
                self.enqueue(REGION, c, rows[classes == c])
                at = _draw(torch.nonzero(flat == c).squeeze(1), pixels, generator)
                self.enqueue(PIXEL, c, embedding[b].flatten(1)[:, at].T)


class PixelContrast(nn.Module):
    """The contrastive term of the type branch: anchors against the memory, ramped, then remembered.

    Parameters
    ----------
    n_classes
        K, background included.
    n_dims
        D of the embedding.
    settings
        Defaults to ``ContrastSettings()``.

    Examples
    --------
    >>> contrast = PixelContrast(2, 3)
    >>> embedding = F.normalize(torch.ones(1, 3, 4, 4), dim=1)
    >>> labels = torch.tensor([[[0, 0, 1, 1]] * 4])
    >>> g = torch.Generator().manual_seed(0)
    >>> float(contrast(embedding, labels, labels, generator=g, progress=1.0))  # nothing remembered
    0.0
    >>> float(contrast(embedding, labels, labels, generator=g, progress=1.0)) > 0
    True
    """

    def __init__(
        self, n_classes: int, n_dims: int = 256, settings: ContrastSettings | None = None
    ) -> None:
        super().__init__()
        self.settings = settings or ContrastSettings()
        self.bank = MemoryBank(n_classes, n_dims, size=self.settings.bank_size)

    def weight(self, progress: float) -> float:
        """Weight of the term after a share ``progress`` of the training, from 0 to 1."""
        chosen = self.settings
        if progress >= chosen.ramp_end:
            return chosen.weight
        if progress <= chosen.ramp_start:
            return 0.0
        span = chosen.ramp_end - chosen.ramp_start
        return chosen.weight * (progress - chosen.ramp_start) / span

    def forward(
        self,
        embedding: Tensor,
        labels: Tensor,
        predicted: Tensor,
        instances: Tensor | None = None,
        *,
        generator: torch.Generator,
        progress: float = 1.0,
    ) -> Tensor:
        """Weighted loss of a batch; in training mode the batch is then remembered.

        Parameters
        ----------
        embedding
            ``(B, D, Y, X)``, unit length per pixel. At a coarser stride it costs less: the head on
            ``features[..., 1::2, 1::2]`` sees the very pixels whose labels are read.
        labels
            ``(B, *, *)`` int64, -1 for unlabelled. A map of another size than the embedding's is
            read at its nearest pixels.
        predicted
            As ``labels``: the network's present classes.
        instances
            As ``labels``: ids of nuclei, for regions per nucleus.
        generator
            Source of all draws.
        progress
            Share of the training done, for the ramp.

        Returns
        -------
        Tensor
            Scalar; 0 with a graph where there is nothing to compare.

        Raises
        ------
        InputError
            Shapes do not fit.
        """
        chosen, size = self.settings, (embedding.shape[2], embedding.shape[3])
        labels, predicted = _nearest(labels, size), _nearest(predicted, size)
        if not chosen.background:
            labels = torch.where(labels == 0, UNLABELLED, labels)
        loss, weight = embedding[:0].sum(dtype=torch.float32), self.weight(progress)
        if weight > 0:
            loss = weight * self._loss(embedding, labels, predicted, generator)
        if self.training:
            owners = (
                _nearest(instances, size) if chosen.per_nucleus and instances is not None else None
            )
            self.bank.update(embedding, labels, owners, generator=generator, pixels=chosen.pixels)
        return loss

    def _loss(
        self, embedding: Tensor, labels: Tensor, predicted: Tensor, generator: torch.Generator
    ) -> Tensor:
        chosen = self.settings
        anchors, classes = sample_anchors(
            embedding,
            labels,
            predicted,
            per_class=chosen.views,
            generator=generator,
            max_anchors=chosen.max_anchors,
        )
        keys, key_classes = self.bank.keys(background=chosen.background)
        return supervised_pixel_contrast(
            anchors,
            classes,
            keys,
            key_classes,
            chosen.temperature,
            hard_fraction=chosen.hard_fraction,
        )


def _full(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _one_class(positive: Tensor, negative: Tensor, hard_fraction: float | None) -> Tensor:
    """``(A,)`` losses of the anchors of one class from their ``(A, P)`` and ``(A, Q)``."""
    if negative.shape[1] == 0:
        return positive[:, 0] * 0.0
    if hard_fraction is not None:
        positive = positive.topk(math.ceil(hard_fraction * positive.shape[1]), largest=False).values
        negative = negative.topk(math.ceil(hard_fraction * negative.shape[1])).values
    return -F.logsigmoid(positive - negative.logsumexp(1, keepdim=True)).mean(1)


def _present(labels: Tensor) -> list[int]:
    return [int(c) for c in torch.unique(labels) if c != UNLABELLED]


def _draw(candidates: Tensor, n: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(candidates), generator=generator, device=generator.device)
    return candidates[order[:n].to(candidates.device)]


def _hard_and_easy(own: Tensor, wrong: Tensor, n: int, generator: torch.Generator) -> Tensor:
    hard, easy = (torch.nonzero(own & half).squeeze(1) for half in (wrong, ~wrong))
    n_hard = min(len(hard), max(n // 2, n - len(easy)))
    return torch.cat([_draw(hard, n_hard, generator), _draw(easy, n - n_hard, generator)])


def _nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Integers at the pixel under the centre of each new pixel."""
    height, width = labels.shape[1:]
    rows = ((torch.arange(size[0], device=labels.device) + 0.5) * height / size[0]).long()
    columns = ((torch.arange(size[1], device=labels.device) + 0.5) * width / size[1]).long()
    return labels if size == (height, width) else labels[:, rows[:, None], columns]


def _check_maps(embedding: Tensor, labels: Tensor, predicted: Tensor) -> None:
    expected = (embedding.shape[0], *embedding.shape[2:])
    if embedding.ndim != 4 or labels.shape != expected or predicted.shape != expected:
        raise InputError(
            f"contrast: found an embedding {tuple(embedding.shape)} with labels "
            f"{tuple(labels.shape)} and classes {tuple(predicted.shape)}, expected (B, D, Y, X) "
            "with (B, Y, X) twice; crop the labels to what the network returns."
        )


def _check_pairs(anchors: Tensor, anchor_labels: Tensor, keys: Tensor, key_labels: Tensor) -> None:
    fit = anchors.ndim == keys.ndim == 2 and anchors.shape[1] == keys.shape[1]
    if not fit or anchor_labels.shape != anchors.shape[:1] or key_labels.shape != keys.shape[:1]:
        raise InputError(
            f"contrast: found anchors {tuple(anchors.shape)} with labels "
            f"{tuple(anchor_labels.shape)} and keys {tuple(keys.shape)} with labels "
            f"{tuple(key_labels.shape)}, expected (A, D), (A,), (M, D), (M,); flatten the maps."
        )


def _check_range(temperature: float, hard_fraction: float | None) -> None:
    if not temperature >= 1e-4:
        raise CallError(
            f"contrast: found temperature {temperature}, expected at least 1e-4; 0.1 is usual."
        )
    if hard_fraction is not None and not 0.0 < hard_fraction <= 1.0:
        raise CallError(
            f"contrast: found hard_fraction {hard_fraction}, expected a share in (0, 1]; leave it "
            "out to use every key."
        )
