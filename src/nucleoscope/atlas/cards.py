"""A card per subtype in plain words: what is larger, darker, more irregular, by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nucleoscope.atlas.features_names import FEATURES, Feature
from nucleoscope.errors import InputError
from nucleoscope.seeds import generator

Floats = NDArray[np.float64]

#: Differences that a card names at most, one per family of features.
N_DIFFERENCES = 5
#: Cliff's delta below which a difference is called negligible (Romano et al. 2006).
NEGLIGIBLE = 0.147
_COMPARED_NUCLEI = 200_000


class Difference(NamedTuple):
    """One feature: Cliff's delta of the subtype against all others, and both medians."""

    feature: str
    delta: float
    median: float
    median_rest: float


class Card(NamedTuple):
    """What there is to say about one subtype.

    ``share`` of the nuclei; ``slide_entropy`` from 0 (one slide) to 1 (as mixed as the atlas's
    slides could be), NaN with a single slide; ``types`` the shares of the types in it.
    """

    name: str
    n: int
    share: float
    text: str
    differences: tuple[Difference, ...]
    slide_entropy: float
    types: dict[str, float]

    def plain(self) -> dict[str, Any]:
        """The card as values that JSON knows; what is not a number is None."""
        return {
            **self._asdict(),
            "differences": [d._asdict() for d in self.differences],
            "slide_entropy": None if np.isnan(self.slide_entropy) else self.slide_entropy,
        }


def write_cards(
    subtype: ArrayLike,
    *,
    features: pd.DataFrame | None = None,
    images: ArrayLike | None = None,
    types: ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, Card]:
    """A card per subtype.

    Parameters
    ----------
    subtype
        ``N`` names.
    features
        ``(N, F)`` columns ``f_*``; NaN is left out. Without them cards speak of numbers only.
    images, types
        ``N`` names each, of the slide and the type.
    seed
        Chooses the 200,000 nuclei on which features of larger atlases are compared.

    Raises
    ------
    InputError
        Lengths differ.

    Examples
    --------
    >>> cards = write_cards(list("aab"), features=pd.DataFrame({"f_area_um2": [48.0, 48, 30]}))
    >>> cards["a"].text
    'larger (area 48 vs 30 um2, 1.6x)'
    """
    names, code = np.unique(np.asarray(subtype, dtype=str), return_inverse=True)
    for what, given in (("features", features), ("images", images), ("types", types)):
        if given is not None and len(np.asarray(given)) != len(code):
            raise InputError(f"{what}: {len(np.asarray(given))} rows for {len(code)} nuclei.")
    differences = _differences(code, len(names), features, seed)
    entropy = _entropies(code, len(names), images)
    mixes = _mixes(code, names, types)
    counts = np.bincount(code, minlength=len(names))
    return {
        str(name): Card(
            str(name), int(counts[i]), float(counts[i] / len(code)),
            "; ".join(map(_sentence, differences[i])) or "like the others in all features",
            differences[i], entropy[i], mixes[i],
        )
        for i, name in enumerate(names)
    }  # fmt: skip


def cliffs_delta(values: ArrayLike, code: NDArray[np.int64], n: int) -> Floats:
    """Cliff's delta of each of ``n`` groups against all others: P(larger) - P(smaller).

    Cliff 1993, Psychol Bull 114, 494. From ranks, so it costs one sort. NaN values are left out; a
    group without values, or without others, is 0.

    >>> cliffs_delta([1.0, 2.0, 3.0, 4.0], np.array([0, 0, 1, 1]), 2).tolist()
    [-1.0, 1.0]
    """
    from scipy.stats import rankdata

    numbers = np.asarray(values, dtype=np.float64)
    valid = np.isfinite(numbers)
    ranks, own = rankdata(numbers[valid]), code[valid]
    count = np.bincount(own, minlength=n).astype(np.float64)
    rest = count.sum() - count
    above = np.bincount(own, weights=ranks, minlength=n) - count * (count + 1) / 2
    delta: Floats = np.where(count * rest > 0, 2 * above / np.maximum(count * rest, 1) - 1, 0.0)
    return delta


def _differences(
    code: NDArray[np.int64], n: int, features: pd.DataFrame | None, seed: int
) -> list[tuple[Difference, ...]]:
    """The largest differences of each subtype, one per family."""
    if features is None or n < 2:
        return [()] * n
    known = [feature for feature in FEATURES if feature.name in features.columns]
    rows = np.sort(generator(seed, 9).permutation(len(code))[:_COMPARED_NUCLEI])
    part, own = features.iloc[rows], code[rows]
    table = part[[f.name for f in known]].to_numpy(dtype=np.float64)
    if not known:
        return [()] * n
    deltas = np.stack([cliffs_delta(column, own, n) for column in table.T], axis=1)
    return [_largest(deltas[i], table, own == i, known) for i in range(n)]


def _largest(
    deltas: Floats, table: Floats, inside: NDArray[np.bool_], known: list[Feature]
) -> tuple[Difference, ...]:
    """The features of largest delta, at most one per family, none that is negligible."""
    chosen: list[Difference] = []
    families: set[str] = set()
    for at in np.argsort(-np.abs(deltas), kind="stable"):
        feature = known[at]
        if abs(deltas[at]) < NEGLIGIBLE or len(chosen) == N_DIFFERENCES:
            break
        if feature.family in families:
            continue
        families.add(feature.family)
        own, rest = table[inside, at], table[~inside, at]
        medians = float(np.nanmedian(own)), float(np.nanmedian(rest))
        chosen.append(Difference(feature.name, float(deltas[at]), *medians))
    return tuple(chosen)


def _sentence(difference: Difference) -> str:
    """One difference in words: ``larger (area 48 vs 31 um2, 1.6x)``."""
    feature = _BY_NAME[difference.feature]
    word = feature.more if difference.delta > 0 else feature.less
    one, other = difference.median, difference.median_rest
    unit = f" {feature.unit}" if feature.unit else ""
    says = f"{feature.text} {one:.3g} vs {other:.3g}{unit}"
    if one > 0 and other > 0 and feature.unit:
        factor = one / other
        says += f", {factor:.1f}x" if factor >= 0.95 else f", {factor:.2f}x"
    return f"{word} ({says})"


_BY_NAME: Mapping[str, Feature] = {feature.name: feature for feature in FEATURES}


def _entropies(code: NDArray[np.int64], n: int, images: ArrayLike | None) -> list[float]:
    """How mixed the slides of each subtype are, 0 to 1."""
    if images is None:
        return [float("nan")] * n
    slides, slide = np.unique(np.asarray(images, dtype=str), return_inverse=True)
    if len(slides) < 2:
        return [float("nan")] * n
    counts = np.bincount(code * len(slides) + slide, minlength=n * len(slides))
    shares = counts.reshape(n, -1) / np.maximum(counts.reshape(n, -1).sum(1, keepdims=True), 1)
    logs = np.log(np.where(shares > 0, shares, 1))
    return [float(h) for h in np.abs((shares * logs).sum(axis=1)) / np.log(len(slides))]


def _mixes(
    code: NDArray[np.int64], names: NDArray[Any], types: ArrayLike | None
) -> list[dict[str, float]]:
    """Shares of the named types in each subtype, largest first."""
    if types is None:
        return [{} for _ in names]
    kinds, kind = np.unique(np.asarray(types, dtype=object).astype(str), return_inverse=True)
    counts = np.bincount(code * len(kinds) + kind, minlength=len(names) * len(kinds))
    mixes = []
    for row in counts.reshape(len(names), -1):
        named = [(str(k), int(c)) for k, c in zip(kinds, row, strict=True) if c and k]
        total = max(sum(c for _, c in named), 1)
        mixes.append({k: c / total for k, c in sorted(named, key=lambda item: -item[1])})
    return mixes
