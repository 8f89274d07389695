"""A linear readout: the interpretable features of a nucleus, as its embedding knows them.

An embedding trained to tell nuclei apart has the size, stain and texture of a nucleus in it, but
spread over columns where stain shifts of a slide weigh as much. A ridge regression on the
features of nuclei seen in training finds the directions that stand for them; no label is needed.
It is fitted on turned nuclei and on other backgrounds too, which leave the features as they are, so
that it does not rest on what changes with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

#: Length of the readout beside an embedding of length 1.
LENGTH = 0.3
#: Ridge penalty, as many nuclei as outweigh it for a column of spread 1.
RIDGE = 100.0
#: Features are cut at so many standard deviations.
CLIP = 8.0


class Readout(nn.Module):
    """Appends ``width`` numbers that stand for the interpretable features.

    ``forward`` takes ``(B, n_in)`` and gives ``(B, n_in + width)``: the vector brought to length
    1, then the readout brought to length ``LENGTH``; zeros until ``fit`` has been called.

    Parameters
    ----------
    n_in
        Length of the embedding.
    width
        Principal components of the predicted features that are kept.
    """

    def __init__(self, n_in: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weights: Tensor
        self.offset: Tensor
        self.register_buffer("weights", torch.zeros(n_in, width))
        self.register_buffer("offset", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Vectors with their readout."""
        x = functional.normalize(x.float(), dim=1)
        read = functional.normalize(x @ self.weights + self.offset, dim=1)
        return torch.cat([x, LENGTH * read], 1)

    @torch.no_grad()
    def fit(self, vectors: Tensor, features: NDArray[Any]) -> None:
        """Find the readout by ridge regression in closed form (Hoerl and Kennard 1970).

        Of the predicted features the first ``width`` principal components are kept, each divided
        by the root of its spread: the largest few are size and stain, and would be all that a
        cosine hears.

        Parameters
        ----------
        vectors
            ``(N, n_in)`` of nuclei, of any length; a nucleus may be there in several views.
        features
            ``(N, F)`` of the same rows; what is not finite counts as average.

        Examples
        --------
        >>> draws = np.random.default_rng(0)
        >>> x = draws.normal(size=(2000, 6))
        >>> readout = Readout(6, 1)
        >>> readout.fit(torch.from_numpy(x), x[:, :1] * 5 + 2)
        >>> [round(abs(float(v)), 1) for v in readout.weights[:, 0] / readout.weights.abs().max()]
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        """
        x = functional.normalize(vectors.double(), dim=1).numpy()
        mean, scale = _moments(x)
        z = (x - mean) * scale
        wanted = _standardised(np.asarray(features, dtype=np.float64))
        self.weights.zero_()
        self.offset.zero_()
        if not wanted.any():
            return
        gram = z.T @ z + RIDGE * np.eye(z.shape[1])
        weights = np.linalg.solve(gram, z.T @ wanted)
        predicted = z @ weights
        variances, axes = np.linalg.eigh(predicted.T @ predicted / max(1, len(z)))
        kept = slice(None, -self.width - 1, -1)
        variances, axes = variances[kept], axes[:, kept]
        # An axis may point either way; the same way on every machine.
        strongest = np.abs(axes).argmax(0)
        axes = axes * np.sign(axes[strongest, np.arange(axes.shape[1])])
        floor = max(1e-6 * float(variances.max(initial=0.0)), 1e-12)
        axes = axes / np.maximum(variances, floor) ** 0.25
        found = scale[:, None] * (weights @ axes)
        self.weights[:, : found.shape[1]] = torch.from_numpy(found)
        self.offset[: found.shape[1]] = torch.from_numpy(-mean @ found)


def _moments(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column means and inverse spreads, 0 for a column that never changes."""
    mean, spread = x.mean(0), x.std(0)
    return mean, np.where(spread > 1e-9, 1.0 / np.maximum(spread, 1e-9), 0.0)


def _standardised(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of mean 0 and spread 1, cut, 0 where they are not finite."""
    kept = np.where(np.isfinite(features), features, np.nan)
    known = np.isfinite(kept).any(0)
    kept = kept[:, known]
    mean, spread = np.nanmean(kept, 0), np.nanstd(kept, 0)
    z = (kept - mean) / np.where(spread > 1e-9, spread, np.inf)
    z = np.clip(z, -CLIP, CLIP)
    return np.where(np.isfinite(z), z, 0.0)
