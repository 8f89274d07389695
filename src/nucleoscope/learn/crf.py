"""A dense conditional random field as a loss: pixels near in place and colour should agree.

The published code filters in a permutohedral lattice of its own C++; here the pairs are summed
directly, over a grid of offsets that stands for all of them, which needs no extension and is
exact in its gradient.

References
----------
.. [1] Qu et al. 2019, Weakly supervised deep nuclei segmentation using points annotation in
   histopathology images, MIDL, section 2.3.
.. [2] Tang et al. 2018, On regularized losses for weakly-supervised CNN segmentation, ECCV.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nucleoscope.errors import CallError, InputError

#: Published: spread in pixels, spread in intensity of [0, 1], weight of the term.
SIGMA_XY, SIGMA_IMAGE, WEIGHT = 10.0, 10.0 / 255.0, 5e-4
#: Offsets are looked at up to this many spreads and every so many spreads.
REACH, STEP = 1.5, 0.3


def dense_crf(
    probability: Tensor,
    image: Tensor,
    *,
    sigma_xy: float = SIGMA_XY,
    sigma_image: float = SIGMA_IMAGE,
) -> Tensor:
    """Mean over pixels i of ``p_i sum_j w_ij (1 - p_j)``.

    ``w_ij = exp(-|x_i - x_j|^2 / 2 s^2 - |I_i - I_j|^2 / 2 t^2)`` [1]_, [2]_. Offsets lie on a grid
    of 0.3 s up to 1.5 s in y and x (three quarters of the Gaussian), each weighted by the grid's
    cell, so that the sum estimates that over all pairs; a pixel is no pair with itself.

    Parameters
    ----------
    probability
        ``(B, Y, X)`` of nucleus.
    image
        ``(B, C, Y, X)``, in [0, 1]; no gradient flows into it.
    sigma_xy, sigma_image
        s in pixels and t in intensity.

    Returns
    -------
    Tensor
        Scalar in float32 (float64 for float64), not negative; 0 where all pixels agree.

    Raises
    ------
    CallError
        A spread is not positive.
    InputError
        Shapes do not fit.

    Notes
    -----
    60 offsets, each one pass over the pixels, whatever the spread.

    Examples
    --------
    >>> image = torch.zeros(1, 1, 8, 8)
    >>> float(dense_crf(torch.ones(1, 8, 8), image))
    0.0
    >>> half = torch.cat([torch.ones(1, 8, 4), torch.zeros(1, 8, 4)], 2)
    >>> float(dense_crf(half, image)) > float(dense_crf(half, half[:, None])) == 0.0
    True
    """
    if not (sigma_xy > 0 and sigma_image > 0):
        raise CallError(
            f"CRF loss: found spreads {sigma_xy} and {sigma_image}, expected positive numbers."
        )
    if probability.ndim != 3 or image.ndim != 4 or image[:, 0].shape != probability.shape:
        raise InputError(
            f"CRF loss: found a probability {tuple(probability.shape)} with an image "
            f"{tuple(image.shape)}, expected (B, Y, X) with (B, C, Y, X); crop the image."
        )
    full = probability.dtype if probability.dtype == torch.float64 else torch.float32
    p, light = probability.to(full), image.detach().to(full)
    step = max(1, round(STEP * sigma_xy))
    total = p[:0].sum()
    for dy, dx in _half_grid(step, REACH * sigma_xy):
        if dy >= p.shape[1] or abs(dx) >= p.shape[2]:
            continue
        one, other = _pair(p, dy, dx)
        a, b = _pair(light, dy, dx)
        near = -(dy * dy + dx * dx) / (2 * sigma_xy**2)
        alike = (near - (a - b).square().sum(1) / (2 * sigma_image**2)).exp()
        total = total + (alike * (one + other - 2 * one * other)).sum()
    return step * step * total / max(1, p.numel())


def _half_grid(step: int, reach: float) -> list[tuple[int, int]]:
    """One of every two opposite offsets."""
    n = int(reach / step)
    rows = [(dy * step, dx * step) for dy in range(n + 1) for dx in range(-n, n + 1)]
    return [(dy, dx) for dy, dx in rows if dy > 0 or dx > 0]


def _pair(values: Tensor, dy: int, dx: int) -> tuple[Tensor, Tensor]:
    """Every pixel that has a neighbour at the offset, and that neighbour; last two axes."""
    height, width = values.shape[-2:]
    left, right = max(0, -dx), max(0, dx)
    one = values[..., : height - dy, left : width - right]
    other = values[..., dy:, right : width - left]
    return one, other
