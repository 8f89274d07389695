"""What chance means: the null models, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.window import Window

#: A shifted window overlaps the tissue by at least this part of it.
MIN_OVERLAP = 0.25


@dataclass(frozen=True)
class Null:
    """A null model.

    Parameters
    ----------
    simulate
        Draws one pattern under the null.
    is_paired
        True when the drawn pattern holds the types twice, first in place and then moved, so that
        only pairs of a placed and a moved type mean something.
    observe
        How the observed nuclei are looked at, when not as they are.
    """

    simulate: Callable[[Pattern, np.random.Generator], Pattern]
    is_paired: bool = False
    observe: Callable[[Pattern, np.random.Generator], Pattern] | None = None


def csr(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    """Complete spatial randomness: as many nuclei of each type, uniform in the window."""
    assert pattern.window is not None  # noqa: S101  simulated patterns have one
    return replace(pattern, at=pattern.window.sample(len(pattern), rng))


def labelling(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    """The same places; types dealt out again at random over the whole image."""
    return pattern.relabelled(rng.permutation(pattern.codes))


def labelling_within_strata(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    """The same places; types dealt out again within each stratum."""
    if pattern.strata is None:
        raise CallError(
            "labelling within strata needs strata; give tissue regions or use density_strata."
        )
    codes = pattern.codes.copy()
    for stratum in np.unique(pattern.strata):
        own = pattern.strata == stratum
        codes[own] = rng.permutation(codes[own])
    return pattern.relabelled(codes)


def shifted(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    """All nuclei, and after them all nuclei moved rigidly by one random vector.

    Each type keeps its own clustering; what is between two types is broken. In a rectangle what
    leaves on one side comes in on the other. In a mask only the part of the tissue stays in which
    both copies were looked at, and the observed nuclei are looked at through a part drawn in the
    same way (``unshifted``), so that both see equally much tissue (compare Mrkvička et al. 2021,
    Spatial Statistics 42).
    """
    window = pattern.window
    assert window is not None  # noqa: S101  simulated patterns have one
    if window.is_box:
        by = rng.random(pattern.n_dims) * window.extent
        return _twice(
            pattern, window.corner + np.mod(pattern.at - window.corner + by, window.extent), window
        )
    by, overlap = _slide(window, rng)
    return _twice(pattern, pattern.at + by, overlap)


def unshifted(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    """What ``shifted`` draws, but for the move."""
    window = pattern.window
    assert window is not None  # noqa: S101  simulated patterns have one
    return _twice(pattern, pattern.at, window if window.is_box else _slide(window, rng)[1])


def _twice(pattern: Pattern, moved: NDArray[np.float64], window: Window) -> Pattern:
    at = np.concatenate([pattern.at, moved])
    codes = np.concatenate([pattern.codes, pattern.codes + np.uint8(pattern.n_types)])
    keep = window.contains(at)
    names = tuple(f"{name} {copy}" for copy in ("placed", "moved") for name in pattern.names)
    return Pattern(at[keep], codes[keep], names, pattern.unit, pattern.image, window)


def _slide(window: Window, rng: np.random.Generator) -> tuple[NDArray[np.float64], Window]:
    """A shift in whole pixels, at most a quarter of each side, and the tissue that both share."""
    scale = np.array(window.scale)
    for _ in range(1000):
        pixels = np.rint((2 * rng.random(window.n_dims) - 1) * window.extent / 4 / scale)
        overlap = window.mask & _moved_mask(window.mask, pixels.astype(np.int64))
        if overlap.sum() >= MIN_OVERLAP * window.mask.sum():
            return pixels * scale, replace(window, mask=overlap)
    raise InputError(f"{window.name}: the tissue is too thin to be shifted over itself.")


def _moved_mask(mask: NDArray[np.bool_], by: NDArray[np.int64]) -> NDArray[np.bool_]:
    result = np.zeros_like(mask)
    source = tuple(slice(max(-b, 0), n - max(b, 0)) for b, n in zip(by, mask.shape, strict=True))
    target = tuple(slice(max(b, 0), n - max(-b, 0)) for b, n in zip(by, mask.shape, strict=True))
    result[target] = mask[source]
    return result


#: Name -> null model.
NULLS: dict[str, Null] = {
    "csr": Null(csr),
    "labelling": Null(labelling),
    "labelling-exact": Null(labelling),
    "labelling within strata": Null(labelling_within_strata),
    "shift": Null(shifted, is_paired=True, observe=unshifted),
}


def null_model(name: str) -> Null:
    """The null called ``name``; CallError lists those there are.

    >>> null_model("csr").is_paired
    False
    """
    if name not in NULLS:
        raise CallError(f"no null {name!r}; there are {', '.join(NULLS)}.")
    return NULLS[name]


def density_strata(pattern: Pattern, *, n: int = 10, radius: float) -> NDArray[np.int64]:
    """``(n_nuclei,)``: which of ``n`` equal groups by local density a nucleus falls in.

    Local density is the number of nuclei within ``radius``; ties go by the distance to the nearest
    neighbour, then by row. Relabelling within these groups removes what crowding alone explains.

    Examples
    --------
    >>> at = np.array([[0, 0], [0, 1], [0, 2], [0, 50], [0, 90], [0, 130]])
    >>> pattern = Pattern(at, np.zeros(6), ("any",))
    >>> density_strata(pattern, n=2, radius=5.0).tolist()
    [1, 1, 1, 0, 0, 0]
    """
    if n < 1 or not (math.isfinite(radius) and radius > 0):
        raise CallError(f"density strata need n >= 1 and a radius above 0; found {n}, {radius!r}.")
    if len(pattern) < 2:
        return np.zeros(len(pattern), np.int64)
    from scipy.spatial import cKDTree

    tree = cKDTree(pattern.at)
    near = tree.query_ball_point(pattern.at, radius, return_length=True)
    gap = tree.query(pattern.at, 2)[0][:, 1]
    order = np.lexsort((np.arange(len(near)), -gap, near))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank * n // len(order)
