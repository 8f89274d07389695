"""Watch whether an encoder still tells nuclei apart, or gives them all the same vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nucleoscope.errors import InputError

#: Below this effective rank, or above this uniformity, vectors say next to nothing.
LOWEST_RANK = 2.0
HIGHEST_UNIFORMITY = -0.05
#: Checks in a row that must say so before training is stopped.
PATIENCE = 2


class Health(NamedTuple):
    """Effective rank (1 to the number of dimensions) and uniformity (0 to about -4) of vectors."""

    rank: float
    uniformity: float

    @property
    def is_collapsed(self) -> bool:
        """True when all vectors lie in one point or on one line."""
        return not (self.rank >= LOWEST_RANK and self.uniformity <= HIGHEST_UNIFORMITY)


def effective_rank(vectors: ArrayLike) -> float:
    """``exp(H)`` of the normalised singular values of the centred vectors.

    Roy and Vetterli, "The effective rank", EUSIPCO 2007, definition 1: about the number of
    directions that vectors really use.

    Parameters
    ----------
    vectors
        ``(N, D)``.

    Returns
    -------
    float
        1 to min(N - 1, D); 0 where all vectors are equal.

    Examples
    --------
    >>> round(effective_rank(np.vstack([np.eye(4), -np.eye(4)])), 6)
    4.0
    """
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"vectors are (N, D); found shape {array.shape}.")
    if len(array) < 2:
        return 0.0
    values = np.linalg.svd(array - array.mean(0), compute_uv=False)
    total = values.sum()
    if not total > 1e-9 * max(1.0, float(np.abs(array).max())):
        return 0.0
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def uniformity(vectors: ArrayLike, *, t: float = 2.0) -> float:
    """``ln mean exp(-t |u - v|^2)`` over all pairs of different rows, scaled to length 1.

    Wang and Isola, ICML 2020, section 4.1.2. 0 when all rows point the same way; the better they
    spread over the sphere, the lower.

    Examples
    --------
    >>> uniformity(np.ones((5, 3)))
    0.0
    """
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"vectors are (N, D); found shape {array.shape}.")
    if len(array) < 2:
        return 0.0
    length = np.linalg.norm(array, axis=1, keepdims=True)
    unit = array / np.where(length > 0, length, 1)
    upper = np.triu_indices(len(unit), 1)
    squared = np.clip(2 - 2 * (unit @ unit.T)[upper], 0, None)
    return float(np.log(np.exp(-t * squared).mean()))


def health(vectors: ArrayLike) -> Health:
    """Effective rank and uniformity of vectors; not finite ones count as collapsed.

    >>> health(np.ones((8, 4))).is_collapsed
    True
    """
    array = np.asarray(vectors, dtype=np.float64)
    if not np.isfinite(array).all():
        return Health(0.0, 0.0)
    return Health(effective_rank(array), uniformity(array))


def check_health(history: Sequence[Health], *, step: int, dimensions: int) -> None:
    """Stop a training whose last checks all found the vectors collapsed.

    Raises
    ------
    InputError
        Says what was found, what is usual and what to change.
    """
    last = list(history)[-PATIENCE:]
    if len(last) < PATIENCE or not all(one.is_collapsed for one in last):
        return
    found = last[-1]
    raise InputError(
        f"training stopped at step {step}: the encoder gives nearly every nucleus the same vector "
        f"(effective rank {found.rank:.1f} of {dimensions}, expected above {LOWEST_RANK:g}; "
        f"uniformity {found.uniformity:.2f}, expected below {HIGHEST_UNIFORMITY:g}); check that "
        "the crops show different nuclei, or try another loss or a lower learning rate."
    )
