"""Losses of self-supervision: two views of a nucleus together, other nuclei apart.

All take L2-normalised float vectors but ``vicreg``, which takes any. Negatives come from the
batch, from the same slide only where ``group`` says which slide a row is of (so that the colour of
a slide cannot lower the loss), and from a queue where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from nucleoscope.errors import CallError, InputError


def infonce(
    query: Tensor,
    key: Tensor,
    *,
    queue: Tensor | None = None,
    group: Tensor | None = None,
    temperature: float = 0.07,
) -> Tensor:
    """InfoNCE: ``-ln(exp(q k+ / T) / (exp(q k+ / T) + sum over k- of exp(q k- / T)))``, mean.

    van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018,
    eq. 4; with a queue as in He et al., "Momentum Contrast", CVPR 2020, eq. 1. Negatives are the
    keys of other rows of the same group, or with a queue its rows and nothing of the batch.

    Parameters
    ----------
    query, key
        ``(B, D)``, unit rows; row i of both shows nucleus i.
    queue
        ``(K, D)`` keys of earlier batches.
    group
        ``(B,)`` int64; None puts all rows in one.
    temperature
        T above.

    Returns
    -------
    Tensor
        Scalar; 0 where there is no negative.

    Raises
    ------
    InputError
        Shapes do not fit.
    CallError
        The temperature is not positive.

    Examples
    --------
    >>> vectors = torch.eye(2)
    >>> round(float(infonce(vectors, vectors, temperature=1.0)), 4)
    0.3133
    """
    query, key, other = _checked(query, key, group)
    _positive(temperature, "temperature")
    together = (query * key).sum(1, keepdim=True) / temperature
    if queue is not None:
        apart = query @ _full(queue).t() / temperature
    else:
        apart = (query @ key.t() / temperature).masked_fill(~other, -math.inf)
    joint = torch.cat([together, apart], 1).logsumexp(1)
    return (joint - together.squeeze(1)).sum() / max(1, len(query))


def dcl(
    query: Tensor,
    key: Tensor,
    *,
    queue: Tensor | None = None,
    group: Tensor | None = None,
    temperature: float = 0.15,
) -> Tensor:
    """Decoupled contrast: InfoNCE without the positive in its denominator; good in small batches.

    Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, eq. 5: negatives of a row are both
    views of every other nucleus (of the same group, or the queue). Rows without any are left out.

    Parameters
    ----------
    query, key, queue, group, temperature
        As of ``infonce``.

    Examples
    --------
    >>> vectors = torch.eye(2)
    >>> round(float(dcl(vectors, vectors, temperature=1.0)), 4)
    -0.3069
    """
    query, key, other = _checked(query, key, group)
    _positive(temperature, "temperature")
    together = (query * key).sum(1) / temperature
    if queue is not None:
        apart = (query @ _full(queue).t() / temperature).logsumexp(1)
        return (apart - together).sum() / max(1, len(query))
    both = torch.cat([query @ query.t(), query @ key.t()], 1) / temperature
    has_any = other.any(1)
    allowed = torch.cat([other, other], 1) | ~has_any.unsqueeze(1)
    apart = both.masked_fill(~allowed, -math.inf).logsumexp(1)
    terms = torch.where(has_any, apart - together, 0.0)
    return terms.sum() / has_any.sum().clamp(min=1)


def align_uniform(
    query: Tensor,
    key: Tensor,
    *,
    queue: Tensor | None = None,
    group: Tensor | None = None,
    align: float = 3.0,
    uniform: float = 1.0,
    t: float = 3.0,
) -> Tensor:
    """``align * E|q - k|^2 + uniform * ln E exp(-t |q - n|^2)``.

    Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere", ICML 2020, sections 4.1 and 4.2; the weights are those of
    Nuc2Vec. n are the queue's rows and all other queries of the batch (of the same group).

    Parameters
    ----------
    query, key, queue, group
        As of ``infonce``.
    align, uniform, t
        Weights and t above.

    Examples
    --------
    >>> vectors = torch.eye(2)
    >>> round(float(align_uniform(vectors, vectors)), 4)
    -6.0
    """
    query, key, other = _checked(query, key, group)
    together = (query - key).square().sum(1).sum() / max(1, len(query))
    # |q - n|^2 = 2 - 2 q n between unit vectors; each pair counts once, as in the paper.
    pairs = (2 * t * (query @ query.t() - 1))[other.triu()]
    if queue is not None:
        pairs = torch.cat([pairs, (2 * t * (query @ _full(queue).t() - 1)).flatten()])
    if not len(pairs):
        return align * together
    return align * together + uniform * (pairs.logsumexp(0) - math.log(len(pairs)))


def vicreg(
    query: Tensor,
    key: Tensor,
    *,
    queue: Tensor | None = None,
    group: Tensor | None = None,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Tensor:
    """VICReg: views close, every coordinate with a spread of 1, coordinates uncorrelated.

    Bardes, Ponce, LeCun, ICLR 2022, eqs. 1 to 6. It has no negatives, so ``queue`` and ``group``
    change nothing.

    Examples
    --------
    >>> vectors = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]])
    >>> float(vicreg(vectors, vectors))
    0.0
    """
    query, key, _ = _checked(query, key, group)
    together = (query - key).square().mean() if query.numel() else query.sum()
    if len(query) < 2:
        return invariance * together
    loss = invariance * together
    for view in (query, key):
        spread = (view.var(0) + 1e-4).sqrt()
        centred = view - view.mean(0)
        matrix = centred.t() @ centred / (len(view) - 1)
        off = matrix.square().sum() - matrix.diagonal().square().sum()
        loss = loss + variance * functional.relu(1 - spread).mean() / 2
        loss = loss + covariance * off / view.shape[1]
    return loss


#: Name -> loss; a new row has to pass the contract in ``tests/learn/test_embedding_losses.py``.
EMBEDDING_LOSSES: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"align-uniform": align_uniform, "infonce": infonce, "dcl": dcl, "vicreg": vicreg}
)

#: Losses that take vectors as they come, not of length 1.
UNSCALED = frozenset({"vicreg"})


def embedding_loss(name: str) -> Callable[..., Tensor]:
    """A loss by name.

    Raises
    ------
    CallError
        No such loss; lists those there are.
    """
    if name not in EMBEDDING_LOSSES:
        raise CallError(f"no loss {name!r}; there are {', '.join(EMBEDDING_LOSSES)}.")
    return EMBEDDING_LOSSES[name]


class Queue:
    """Keys of earlier batches, first in first out, starting with random unit vectors.

    He et al., CVPR 2020, section 3.2.

    Parameters
    ----------
    size, dim
        Rows and columns.
    seed
        Of the vectors it starts with.

    Examples
    --------
    >>> queue = Queue(4, 2, seed=0)
    >>> queue.push(torch.ones(3, 2)); queue.push(torch.zeros(2, 2))
    >>> queue.keys.tolist()
    [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    """

    def __init__(self, size: int, dim: int, *, seed: int) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.keys = functional.normalize(torch.randn(size, dim, generator=draws), dim=1)
        self.at = 0

    def push(self, keys: Tensor) -> None:
        """Replace the oldest keys."""
        rows = (self.at + torch.arange(len(keys))) % len(self.keys)
        self.keys[rows] = keys.detach().to(self.keys.dtype)
        self.at = int((self.at + len(keys)) % len(self.keys))


def _full(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _positive(value: float, name: str) -> None:
    if not value > 0:
        raise CallError(f"{name} is above 0; found {value:g}.")


def _checked(query: Tensor, key: Tensor, group: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Both views in full precision, and ``(B, B)`` which rows are each other's negatives."""
    if query.ndim != 2 or query.shape != key.shape:
        raise InputError(
            f"two views are (B, D) alike; found {tuple(query.shape)} and {tuple(key.shape)}."
        )
    n = len(query)
    other = ~torch.eye(n, dtype=torch.bool, device=query.device)
    if group is not None:
        if group.shape != (n,):
            raise InputError(f"group holds one number per row, ({n},); found {tuple(group.shape)}.")
        other = other & (group.unsqueeze(0) == group.unsqueeze(1))
    return _full(query), _full(key), other
