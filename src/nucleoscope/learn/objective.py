"""What a step of training minimises: the branches' losses put together.

Types are learnt per nucleus, not per pixel: a nucleus is a bag of slices and is positive where
its marker overlaps it in any of them, so the bag's logit is a soft maximum over its slices of
the mean logit in each (multiple-instance learning). The pixel-wise type loss of the paper stays
as a small guide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from nucleoscope.data.maps import UNLABELLED
from nucleoscope.learn.contrast import ContrastSettings, PixelContrast
from nucleoscope.learn.crf import SIGMA_XY, dense_crf
from nucleoscope.learn.feed import Batch
from nucleoscope.learn.losses import LossSettings, cross_entropy, hv_loss, nc_loss, np_loss

#: A nucleus of which a crop shows fewer voxels than this is not asked for its type.
MIN_BAG = 12
#: At most this many slices of a batch go through the contrastive term.
CONTRAST_SLICES = 8


@dataclass(frozen=True)
class Weights:
    """Weights of the terms."""

    centre: float = 10.0
    offsets: float = 0.5
    types: float = 2.0
    pixel_types: float = 0.05
    contrast: float = 0.1


class Objective(nn.Module):
    """The sum of the losses of a batch, and each of them by name.

    Parameters
    ----------
    n_types, n_groups
        Of the network's type branch.
    head_dim
        Size of the contrastive embedding.
    weights
        Of the terms.
    losses
        Settings of the branches.
    contrast
        Of the contrastive term; None: few views and a short memory, for CPUs.
    """

    def __init__(
        self,
        n_types: int,
        n_groups: int,
        head_dim: int,
        *,
        weights: Weights | None = None,
        losses: LossSettings | None = None,
        contrast: ContrastSettings | None = None,
    ) -> None:
        super().__init__()
        self.n_types, self.n_groups = n_types, n_groups
        self.weights = weights or Weights()
        self.losses = losses or LossSettings()
        settings = contrast or ContrastSettings(views=16, bank_size=512)
        settings = replace(settings, weight=self.weights.contrast)
        self.contrast = PixelContrast(1 + n_types, head_dim, settings) if n_types else None

    @property
    def wants_embedding(self) -> bool:
        """Whether the network must give its embedding."""
        return self.contrast is not None and self.weights.contrast > 0

    def forward(
        self, maps: dict[str, Tensor], batch: Batch, *, progress: float,
        generator: torch.Generator, crf: float = 0.0,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Every weighted term by name; their sum is the loss. ``crf`` is for ``QuObjective``."""
        labelled = batch.foreground != UNLABELLED
        target = (batch.foreground == 1).long()
        nucleus = batch.instances > 0
        # The nucleus recipes ask for offsets in nuclei only, the published ones everywhere.
        where = labelled if self.weights.centre == 0 else nucleus
        terms = {
            "foreground": np_loss(maps["np"], target, labelled, self.losses),
            "offsets": self.weights.offsets
            * hv_loss(maps["hv"], batch.offsets, nucleus, where, self.losses),
        }
        if "centre" in maps and self.weights.centre:
            terms["centre"] = self.weights.centre * centre_loss(
                maps["centre"][:, 0], batch.centre, labelled
            )
        if self.n_types:
            terms |= self._type_terms(maps, batch, labelled)
        if self.contrast is not None and "embedding" in maps:
            terms["contrast"] = self._contrast(maps, batch, labelled, progress, generator)
        return terms

    def _groups(self, logits: Tensor) -> Tensor:
        """``(N, G * (1 + T), ...)`` to ``(N, G, 1 + T, ...)``."""
        n, _, y, x = logits.shape
        return logits.reshape(n, self.n_groups, 1 + self.n_types, y, x)

    def _type_terms(
        self, maps: dict[str, Tensor], batch: Batch, labelled: Tensor
    ) -> dict[str, Tensor]:
        logits = self._groups(maps["nc"])
        bags = pool_types(logits, batch.instances, len(batch.types))
        bag, pixel = bags.new_zeros(()), bags.new_zeros(())
        for group in range(self.n_groups):
            known = (batch.types[:, group] >= 0) & (
                torch.bincount(batch.instances.flatten(), minlength=len(batch.types)) >= MIN_BAG
            )
            if known.any():
                bag = bag + functional.cross_entropy(bags[known, group], batch.types[known, group])
            classes, is_known = pixel_classes(batch, labelled, group)
            pixel = pixel + nc_loss(logits[:, group], classes, is_known, self.losses)
        return {
            "types": self.weights.types * bag / self.n_groups,
            "pixel_types": self.weights.pixel_types * pixel / self.n_groups,
        }

    def _contrast(
        self,
        maps: dict[str, Tensor],
        batch: Batch,
        labelled: Tensor,
        progress: float,
        generator: torch.Generator,
    ) -> Tensor:
        assert self.contrast is not None  # noqa: S101  asked by forward
        rows = torch.randperm(len(labelled), generator=generator)[:CONTRAST_SLICES]
        classes, is_known = pixel_classes(batch, labelled, 0)
        classes = torch.where(is_known, classes, -1)
        predicted = self._groups(maps["nc"].detach())[:, 0].argmax(1)
        loss: Tensor = self.contrast(
            maps["embedding"][rows], classes[rows], predicted[rows], batch.instances[rows],
            generator=generator, progress=progress,
        )  # fmt: skip
        return loss


class QuObjective(nn.Module):
    """Cross-entropy against cluster and Voronoi labels, and late a dense CRF (Qu et al. 2019).

    The type branch learns background and types from both labels. A network with a foreground map
    of its own learns that from both as well; of one that has none, it is the sum of the types, and
    only nuclei of unknown type teach it directly.

    Parameters
    ----------
    n_types, n_groups
        Of the network's type branch.
    stride
        Image pixels per map pixel.
    sums_types
        The network's ``np`` is the sum of its types.
    """

    wants_embedding = False

    def __init__(
        self, n_types: int, n_groups: int, *, stride: int = 1, sums_types: bool = False
    ) -> None:
        super().__init__()
        self.n_types, self.n_groups = n_types, n_groups
        self.stride, self.sums_types = stride, sums_types

    def forward(
        self, maps: dict[str, Tensor], batch: Batch, *, progress: float,
        generator: torch.Generator, crf: float = 0.0,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Every weighted term by name; their sum is the loss. ``crf`` weighs the CRF."""
        labelled = batch.foreground != UNLABELLED
        drawn = batch.voronoi != 0
        nuclei = {"cluster": (batch.foreground == 1, labelled, batch.instances),
                  "voronoi": (batch.voronoi > 0, drawn, batch.voronoi.clamp(min=0))}  # fmt: skip
        terms = {}
        for name, (inside, known, owners) in nuclei.items():
            taught = known
            if self.sums_types:
                taught = known & inside & (batch.types[:, 0][owners] < 0)
            terms[name] = cross_entropy(maps["np"], inside.long(), taught)
            if self.n_types:
                terms[f"{name}_types"] = self._types(maps["nc"], batch, inside, known, owners)
        if crf:
            terms["crf"] = crf * self._crf(maps["np"], batch)
        return terms

    def _types(
        self, logits: Tensor, batch: Batch, inside: Tensor, known: Tensor, owners: Tensor
    ) -> Tensor:
        """Mean over the groups of the cross-entropy of background and types."""
        n, _, y, x = logits.shape
        grouped = logits.reshape(n, self.n_groups, 1 + self.n_types, y, x)
        total = logits.new_zeros(())
        for group in range(self.n_groups):
            types = batch.types[:, group][owners]
            target = torch.where(inside & (types >= 0), types + 1, 0)
            total = total + cross_entropy(
                grouped[:, group], target, known & (~inside | (types >= 0))
            )
        return total / self.n_groups

    def _crf(self, logits: Tensor, batch: Batch) -> Tensor:
        """The CRF on the image at the map's resolution."""
        size = (logits.shape[2], logits.shape[3])
        edge = (batch.image.shape[2] - size[0] * self.stride) // 2
        image = batch.image[:, :, edge : edge + size[0] * self.stride]
        image = image[..., edge : edge + size[1] * self.stride].clamp(max=1.0)
        small = functional.avg_pool2d(image, self.stride) if self.stride > 1 else image
        probability = logits.float().softmax(1)[:, 1]
        return dense_crf(probability, small, sigma_xy=SIGMA_XY / self.stride)


def pixel_classes(batch: Batch, labelled: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Class of every pixel (0 background, 1 + type) and where it is known."""
    types = batch.types[:, group][batch.instances]
    is_nucleus = batch.instances > 0
    known = labelled & (~is_nucleus | (types >= 0))
    return torch.where(is_nucleus & (types >= 0), types + 1, 0), known


def centre_loss(logits: Tensor, target: Tensor, labelled: Tensor, positive: float = 4.0) -> Tensor:
    """Cross-entropy against the bumps, positives weighted up; unlabelled pixels count near centres.

    Parameters
    ----------
    logits, target
        ``(N, Y, X)``; target in [0, 1].
    labelled
        ``(N, Y, X)`` bool.
    positive
        Weight of the positive part (as in Spotiflow, where it is 10).
    """
    counts = labelled | (target > 0.05)
    loss = functional.binary_cross_entropy_with_logits(
        logits, target, reduction="none", pos_weight=logits.new_tensor(positive)
    )
    return (loss * counts).sum() / counts.sum().clamp(min=1)


def pool_types(logits: Tensor, instances: Tensor, n: int, *, rule: str = "nucleus") -> Tensor:
    """Type logits of whole nuclei, ``(n, G, T)``, from per-pixel logits.

    Per slice the mean over the nucleus's pixels; over slices, per type, a log-sum-exp weighted by
    section area for two types (a marker seen in one slice decides), the plain mean for more.

    Parameters
    ----------
    logits
        ``(N, G, 1 + T, Y, X)``, background first; N slices of one or more stacks.
    instances
        ``(N, Y, X)`` int64 in 0..n-1; 0 is no nucleus. Ids do not repeat between stacks.
    n
        Rows of the result; row 0 is meaningless.
    rule
        ``nucleus`` as above; ``any_slice`` takes, for two types, the slice most in favour of the
        second (the paper's rule: positive where any slice is).
    """
    n_slices, groups, _, _, _ = logits.shape
    types = logits[:, :, 1:].float()
    n_types = types.shape[2]
    place = instances + n * torch.arange(n_slices, device=logits.device)[:, None, None]
    # Only pixels of nuclei are gathered: they are a tenth of the image.
    inside = instances > 0
    rows = place[inside]
    values = types.permute(0, 3, 4, 1, 2)[inside]  # (P, G, T)
    area = torch.zeros(n_slices * n, device=logits.device).index_add_(
        0, rows, torch.ones_like(rows, dtype=torch.float32)
    )
    total = values.new_zeros(n_slices * n, groups, n_types).index_add_(0, rows, values)
    mean = (total / area.clamp(min=1)[:, None, None]).view(n_slices, n, groups, n_types)
    area = area.view(n_slices, n)
    if n_types != 2:
        weight = area / area.sum(0, keepdim=True).clamp(min=1)
        pooled: Tensor = (mean * weight[:, :, None, None]).sum(0)
        return pooled
    weight = area / area.max(0, keepdim=True).values.clamp(min=1)
    odds = mean[..., 1] - mean[..., 0]
    if rule == "any_slice":
        best = torch.where(area[:, :, None] > 0, odds, -1e4).max(0).values
        return torch.stack([torch.zeros_like(best), best], dim=-1)
    scored = torch.where(
        area[:, :, None] > 0, odds + weight.clamp(min=1e-6).log()[:, :, None], -1e4
    )
    bag = scored.logsumexp(0) - weight.sum(0).clamp(min=1e-6).log()[:, None]
    return torch.stack([torch.zeros_like(bag), bag], dim=-1)
