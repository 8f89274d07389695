"""A 2D map for browsing: fitted on landmarks, every other nucleus placed among its nearest ones.

Distances on the map mean little; statistics belong to the embedding.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nucleoscope.atlas.search import nearest_many
from nucleoscope.errors import CallError, InputError, MissingExtraError
from nucleoscope.seeds import generator

Float32s = NDArray[np.float32]

#: Nuclei the map is fitted on, at most.
N_LANDMARKS = 100_000
#: Nuclei of a group that become landmarks at least, where it has so many.
_LEAST_PER_GROUP = 50
_N_COMPONENTS = 50
_PLACED_BY = 5
_TEMPERATURE = 0.07
_TOO_FEW = 20


class Map2D(NamedTuple):
    """``frame`` has ``map_x``, ``map_y`` per nucleus; ``note`` says how they were made."""

    frame: pd.DataFrame
    note: str


def fit_map(
    embedding: NDArray[Any],
    *,
    groups: ArrayLike | None = None,
    method: Literal["auto", "umap", "pca"] = "auto",
    n_landmarks: int = N_LANDMARKS,
    seed: int = 0,
) -> Map2D:
    """Place every nucleus on a plane.

    Parameters
    ----------
    embedding
        ``(N, D)`` rows of length 1.
    groups
        ``N`` names, such as subtypes: every group gets landmarks, rare ones more than their share.
    method
        ``"umap"`` (McInnes et al. 2018, through umap-learn, on 50 principal components),
        ``"pca"`` (two principal components), or the first where it is installed.
    n_landmarks
        The map is fitted on so many; the others lie at the weighted mean of their five nearest
        landmarks.
    seed
        Fixed, and one thread: the same map each time on one machine.

    Raises
    ------
    MissingExtraError
        ``"umap"`` is asked for and not installed.
    CallError
        An unknown method, or fewer than one landmark.
    InputError
        There is no nucleus, or not one group per nucleus.

    Examples
    --------
    >>> fit_map(np.eye(3), method="pca").frame.shape
    (3, 2)
    """
    if method not in ("auto", "umap", "pca") or n_landmarks < 1:
        raise CallError(f"method={method!r}, n_landmarks={n_landmarks}: expected auto, umap, pca.")
    if len(embedding) == 0:
        raise InputError("there is no nucleus to place on a map.")
    rows = landmarks(len(embedding), n_landmarks, groups=groups, seed=seed)
    points = np.asarray(embedding[rows], dtype=np.float32)
    reduced = principal_components(points, _N_COMPONENTS)
    umap = None if method == "pca" or len(points) < _TOO_FEW else _import_umap(method)
    if umap is None:
        placed, how = reduced[:, :2], "the first two principal components"
        if method != "pca" and len(points) >= _TOO_FEW:
            how += "; for UMAP: pip install 'nucleoscope[atlas]'"
    else:
        fit = umap.UMAP(n_components=2, random_state=seed, n_jobs=1)
        placed, how = np.asarray(fit.fit_transform(reduced), dtype=np.float32), "UMAP"
    xy = np.zeros((len(embedding), 2), np.float32)
    xy[:, : placed.shape[1]] = _placed(embedding, rows, points, placed, seed)
    frame = pd.DataFrame({"map_x": xy[:, 0], "map_y": xy[:, 1]})
    return Map2D(frame, f"{how}; fitted on {len(rows)} of {len(embedding)} nuclei")


def landmarks(
    n: int, wanted: int, *, groups: ArrayLike | None = None, seed: int = 0
) -> NDArray[np.int64]:
    """Rows to fit on: at random, but at least 50 of every group where that leaves room.

    >>> landmarks(4, 10).tolist()
    [0, 1, 2, 3]
    """
    if n <= wanted:
        return np.arange(n)
    shuffled = generator(seed, 8).permutation(n)
    if groups is None:
        return np.sort(shuffled[:wanted])
    code = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    if len(code) != n:
        raise InputError(f"groups: {len(code)} given for {n} nuclei.")
    least = min(_LEAST_PER_GROUP, wanted // (int(code.max()) + 1))
    order = shuffled[np.argsort(code[shuffled], kind="stable")]
    counts = np.bincount(code)
    within = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    first = order[within < least]
    is_first = np.zeros(n, bool)
    is_first[first] = True
    rest = shuffled[~is_first[shuffled]][: wanted - len(first)]
    return np.sort(np.concatenate([first, rest]))


def principal_components(points: Float32s, n: int) -> Float32s:
    """Scores on the first ``n`` principal components, signs fixed by the largest loading.

    >>> principal_components(np.array([[0, 0], [0, 2.0]], np.float32), 1).ravel().tolist()
    [-1.0, 1.0]
    """
    centred = points - points.mean(axis=0)
    axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1][:, ::-1][:, :n]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    scores: Float32s = centred @ (axes * signs).astype(np.float32)
    return scores


def _import_umap(method: str) -> Any:
    """The umap package, or None where any method will do."""
    try:
        return importlib.import_module("umap")
    except ImportError:
        if method == "umap":
            raise MissingExtraError("a UMAP map", "atlas") from None
        return None


def _placed(
    embedding: NDArray[Any], rows: NDArray[np.int64], points: Float32s, placed: Float32s, seed: int
) -> Float32s:
    """Coordinates of all nuclei from those of the landmarks."""
    out = np.empty((len(embedding), placed.shape[1]), np.float32)
    out[rows] = placed
    others = np.setdiff1d(np.arange(len(embedding)), rows, assume_unique=True)
    if others.size:
        found = nearest_many(embedding[others], points, min(_PLACED_BY, len(points)), seed=seed)
        weight = np.exp((found.similarity - found.similarity[:, :1]) / _TEMPERATURE)
        weight /= weight.sum(axis=1, keepdims=True)
        out[others] = np.einsum("nk,nkd->nd", weight, placed[found.rows])
    return out
