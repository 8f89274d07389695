"""The type of a nucleus in a stained section: what it looks like, where it lies, who is near.

A network that is taught from a few dozen tiles knows its tiles by heart, so its word alone is
weak. Here it is one witness of two. The other is a softmax regression in two rounds: `alone`
types a nucleus by its interpretable features and its surroundings, `among` looks again, knowing
what the first round said of the neighbours. The two are weighed, and the answer calibrated, on
images that did not teach the network. All of it is linear, small, and fitted in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from nucleoscope.atlas.features import feature_names, nucleus_features
from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError
from nucleoscope.learn.normalise import levels
from nucleoscope.learn.surroundings import (
    N_CROWDING,
    N_NEIGHBOURHOODS,
    N_SURROUNDINGS,
    crowding,
    of_neighbours,
    surroundings,
)

Floats = NDArray[np.float64]
Float32 = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Weight of the penalty on squared weights, per nucleus.
STRENGTH = 0.003
#: Features are cut off at this many standard deviations.
LIMIT = 4.0
#: Images are dealt into as many parts to type each part by the others.
FOLDS = 4
#: Micrometres per pixel where the scale is unknown (20x).
USUAL_MPP = 0.5
#: Starting shares of network and regression, and what departing from them costs, in nuclei. Types
#: get no offsets: those of a dozen images follow the mixture of types in them and mislead.
SHARES, PRIOR = (0.3, 0.7), 100.0
#: Least probability whose logarithm is taken.
LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Softmax:
    """Multinomial logistic regression on standardised features.

    Parameters
    ----------
    centre, spread
        ``(F,)`` of the features; one that is missing (NaN) counts as ``centre``.
    weight, bias
        ``(F, T)`` and ``(T,)``.
    """

    centre: Float32
    spread: Float32
    weight: Float32
    bias: Float32

    def logits(self, features: NDArray[np.floating]) -> Floats:
        """``(n, T)`` of ``(n, F)``."""
        z = _standard(features, self.centre, self.spread)
        return np.asarray(z @ self.weight + self.bias, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Scene:
    """All nuclei of one image.

    Parameters
    ----------
    evidence
        ``(n, F)`` of `evidence`.
    yx
        ``(n, 2)`` centres in pixels.
    network
        ``(n, T)`` type logits.
    types
        ``(n,)`` int64, -1 where unknown.
    judges
        The network was not taught this image.
    """

    evidence: Float32
    yx: Floats
    network: Floats
    types: Ints
    judges: bool


@dataclass(frozen=True, eq=False)
class Typer:
    """The two rounds, and how they are weighed against the network.

    Parameters
    ----------
    alone, among
        The rounds.
    mix
        ``(2,)``: shares of the network's and of the second round's logits.
    """

    alone: Softmax
    among: Softmax
    mix: Float32

    def probabilities(self, evidence: Float32, yx: Floats, network: Floats) -> Floats:
        """Calibrated ``(n, T)``; every nucleus of the image must be given, as neighbours count."""
        first = softmax(self.alone.logits(evidence))
        second = self.among.logits(_with_company(evidence, yx, first))
        return softmax(_mixed(self.mix.astype(np.float64), network, second))

    def arrays(self) -> dict[str, Float32]:
        """Every array by name, for a file."""
        rounds = {"alone": self.alone, "among": self.among}
        named = {f"{r}.{k}": v for r, one in rounds.items() for k, v in vars(one).items()}
        return named | {"mix": self.mix}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], n_types: int) -> Typer:
        """The reverse of `arrays`.

        Raises
        ------
        InputError
            One is missing, or they do not fit each other or this version's features.
        """
        n = n_features()
        wide = n + n_types * (1 + N_NEIGHBOURHOODS)
        shapes: dict[str, tuple[int, ...]] = {"mix": (2,)}
        for name, width in (("alone", n), ("among", wide)):
            shapes |= {f"{name}.{key}": (width,) for key in ("centre", "spread")}
            shapes |= {f"{name}.weight": (width, n_types), f"{name}.bias": (n_types,)}
        found = {name: tuple(array.shape) for name, array in arrays.items()}
        if found != shapes:
            wrong = sorted(k for k in shapes | found if shapes.get(k) != found.get(k))[0]
            raise InputError(
                f"the typing of this model has {wrong} of shape {found.get(wrong)}; expected "
                f"{shapes.get(wrong)}. It may be of another version; train again."
            )
        given = {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}
        parts = {
            r: Softmax(*(given[f"{r}.{k}"] for k in ("centre", "spread", "weight", "bias")))
            for r in ("alone", "among")
        }
        return cls(parts["alone"], parts["among"], given["mix"])


def n_features() -> int:
    """Columns of `evidence`."""
    return (1 + N_NEIGHBOURHOODS) * len(feature_names()) + N_SURROUNDINGS + N_CROWDING


def evidence(
    volume: Volume, labels: NDArray[np.int32], yx: Floats, *, radius: float, mpp: float | None
) -> Float32:
    """What speaks for a type, ``(n, F)``: the nucleus, its surroundings, its neighbours.

    Parameters
    ----------
    volume
        A colour image.
    labels
        ``(Y, X)``: nucleus ``i`` is ``i + 1``. One without a pixel has NaN for its features.
    yx
        ``(n, 2)`` centres in pixels.
    radius
        Typical radius in pixels.
    mpp
        Micrometres per pixel; None: unknown.
    """
    image = _as_bytes(volume)
    picture = np.ascontiguousarray(image.transpose(1, 2, 0))
    frame = nucleus_features(picture, labels, mpp=USUAL_MPP if mpp is None else mpp)
    own = frame.reindex(np.arange(1, len(yx) + 1)).to_numpy(dtype=np.float32)
    parts = [own, surroundings(image, yx, radius), crowding(yx, radius), _company(own, yx)]
    return np.concatenate(parts, axis=1)


def _company(own: Float32, yx: Floats) -> Float32:
    """Means of the neighbours' features; one that is missing counts as the image's mean."""
    known = ~np.isnan(own)
    total = np.where(known, own, 0).sum(axis=0, dtype=np.float64)
    mean = (total / known.sum(axis=0).clip(min=1)).astype(np.float32)
    return of_neighbours(yx, np.where(known, own, mean))


def _as_bytes(volume: Volume) -> NDArray[np.uint8]:
    """``(3, Y, X)`` uint8; resampled and 16-bit images are brought to 0..255."""
    plane = volume.data[:, 0]
    if plane.dtype == np.uint8:
        return np.asarray(plane, dtype=np.uint8)
    top = levels(volume)[:, 1].astype(np.float32).reshape(-1, 1, 1)
    scaled = np.clip(plane.astype(np.float32) * (255 / top), 0, 255)
    return np.rint(scaled).astype(np.uint8)


def softmax(logits: Floats) -> Floats:
    """Rows to probabilities.

    >>> softmax(np.zeros((1, 4))).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    raised = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _standard(features: NDArray[np.floating], centre: Float32, spread: Float32) -> Float32:
    z = np.nan_to_num((features - centre) / spread, nan=0.0)
    return np.asarray(np.clip(z, -LIMIT, LIMIT), dtype=np.float32)


def _with_company(evidence: Float32, yx: Floats, first: Floats) -> Float32:
    """Evidence, the first round's log probabilities, and their means over neighbours."""
    log = np.log(np.maximum(first, LEAST)).astype(np.float32)
    return np.concatenate([evidence, log, of_neighbours(yx, first)], axis=1)


def fit_softmax(
    features: Float32, types: Ints, n_types: int, *, strength: float = STRENGTH
) -> Softmax:
    """Maximum likelihood with a penalty on squared weights, by L-BFGS.

    Parameters
    ----------
    features
        ``(n, F)``, may hold NaN.
    types
        ``(n,)`` in 0..T-1.
    strength
        Penalty per nucleus: ``mean(-log p) + strength / 2 sum(w^2)``.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    >>> fit_softmax(x, np.array([0, 0, 1, 1]), 2).logits(x).argmax(axis=1).tolist()
    [0, 0, 1, 1]
    """
    known = ~np.isnan(features)
    count = known.sum(axis=0).clip(min=1)
    filled = np.where(known, features, 0).astype(np.float64)
    centre = filled.sum(axis=0) / count
    away = np.where(known, features - centre, 0)
    spread = np.sqrt((away**2).sum(axis=0) / count)
    centre32, spread32 = centre.astype(np.float32), np.maximum(spread, 1e-6).astype(np.float32)
    z = _standard(features, centre32, spread32)
    truth = np.eye(n_types, dtype=np.float32)[types]
    width = z.shape[1]

    def loss(flat: Floats) -> tuple[float, Floats]:
        table = flat.reshape(width + 1, n_types)
        weight = table[:-1]
        logits = (z @ weight.astype(np.float32) + table[-1].astype(np.float32)).astype(np.float64)
        value, slope = _surprise(logits, truth)
        inner = z.T @ slope.astype(np.float32) + strength * weight
        total = value + 0.5 * strength * float((weight**2).sum())
        return total, np.concatenate([inner.ravel(), slope.sum(axis=0)])

    table = _least(loss, np.zeros((width + 1) * n_types)).reshape(width + 1, n_types)
    weight, bias = table[:-1].astype(np.float32), table[-1].astype(np.float32)
    return Softmax(centre32, spread32, weight, bias)


def _surprise(logits: Floats, truth: NDArray[np.floating]) -> tuple[float, Floats]:
    """Mean of ``-log p(truth)`` and its slope by the logits."""
    top = logits.max(axis=1, keepdims=True)
    total = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    n = max(1, len(logits))
    return float(((total - logits) * truth).sum() / n), (np.exp(logits - total) - truth) / n


def _least(loss: Callable[[Floats], tuple[float, Floats]], start: Floats) -> Floats:
    """Where the loss is least."""
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x, dtype=np.float64)


def _mixed(mix: Floats, network: Floats, second: Floats) -> Floats:
    level = network - network.mean(axis=1, keepdims=True)
    return np.asarray(mix[0] * level + mix[1] * second)


def fit_mix(network: Floats, second: Floats, types: Ints) -> Float32:
    """Shares of network and regression with the greatest likelihood.

    The prior is worth some nuclei, so that few of them cannot bend the starting shares.
    """
    start = np.array(SHARES)
    truth = np.eye(network.shape[1])[types]
    level = network - network.mean(axis=1, keepdims=True)
    share = PRIOR / max(1, len(types))

    def loss(mix: Floats) -> tuple[float, Floats]:
        value, slope = _surprise(_mixed(mix, network, second), truth)
        inner = [(slope * level).sum(), (slope * second).sum()]
        away = mix - start
        return value + 0.5 * share * float(away @ away), np.array(inner) + share * away

    return np.maximum(_least(loss, start), 0).astype(np.float32)


def fit_typer(scenes: Sequence[Scene], n_types: int) -> Typer | None:
    """Fit both rounds and the mix.

    What the second round and the mix see of an image comes from fits without that image, as it
    will in new images. The mix is fitted on images that judge, on all where none does.

    Parameters
    ----------
    scenes
        One per image.
    n_types
        How many types there are.

    Returns
    -------
    Typer
        None where fewer than two types were seen.
    """
    fold = np.concatenate(
        [np.full(len(s.types), i % FOLDS) for i, s in enumerate(scenes)] or [np.zeros(0, int)]
    )
    types = np.concatenate([s.types for s in scenes]) if scenes else np.zeros(0, int)
    if len(np.unique(types[types >= 0])) < 2:
        return None
    alone_in = np.concatenate([s.evidence for s in scenes])
    first = softmax(_by_the_others(alone_in, types, fold, n_types))
    ends = np.cumsum([len(s.types) for s in scenes])[:-1]
    among_in = np.concatenate(
        [
            _with_company(s.evidence, s.yx, part)
            for s, part in zip(scenes, np.split(first, ends), strict=True)
        ]
    )
    second = _by_the_others(among_in, types, fold, n_types)
    known = types >= 0
    judge = np.concatenate([np.full(len(s.types), s.judges) for s in scenes]) & known
    judge = judge if judge.any() else known
    network = np.concatenate([s.network for s in scenes])
    return Typer(
        fit_softmax(alone_in[known], types[known], n_types),
        fit_softmax(among_in[known], types[known], n_types),
        fit_mix(network[judge], second[judge], types[judge]),
    )


def _by_the_others(features: Float32, types: Ints, fold: Ints, n_types: int) -> Floats:
    """Logits of every nucleus by a fit on the images of the other folds."""
    logits = np.zeros((len(types), n_types))
    for k in np.unique(fold):
        taught = (fold != k) & (types >= 0)
        if not taught.any():  # a single image: it can only be typed by itself
            taught = types >= 0
        model = fit_softmax(features[taught], types[taught], n_types)
        logits[fold == k] = model.logits(features[fold == k])
    return logits
