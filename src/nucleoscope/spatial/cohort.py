"""From images to patients: groups compared by permuting patients, never by pooling nuclei."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import InputError
from nucleoscope.seeds import generator
from nucleoscope.spatial.enrichment import benjamini_hochberg

Array = NDArray[np.float64]

#: With at most this many ways to split the patients all of them are visited.
MAX_SPLITS = 20_000


def compare_groups(
    frame: pd.DataFrame,
    value: str,
    groups: Mapping[str, str],
    *,
    by: tuple[str, ...] = (),
    patients: Mapping[str, str] | None = None,
    permutations: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two or more groups of patients on a statistic that each image has once.

    Images of one patient are averaged first; the patient is the unit. Two groups: difference of
    means, Hedges' g with its 95 % interval (Hedges and Olkin 1985, eq. 5.10 and 5.14), and a
    two-sided permutation p; all splits of the patients are visited where there are at most 20,000
    (the p is then exact). More groups: eta squared and the permutation p of F.

    Parameters
    ----------
    frame
        Rows with a column ``image``, the columns of ``by``, and ``value``.
    value
        The statistic, e.g. ``"log2_ratio"``.
    groups
        Group of each patient (or image, without ``patients``).
    by
        Columns that tell one comparison from another, e.g. ``("type_a", "type_b")``.
    patients
        Patient of each image. Default: every image is a patient.
    permutations
        Where not all splits are visited.
    seed
        Of the permutations.

    Returns
    -------
    pandas.DataFrame
        The ``by`` columns, ``n_<group>``, ``mean_<group>``, ``difference``, ``effect``,
        ``effect_low``, ``effect_high``, ``p``, ``q``, ``method``. Values that are not finite are
        left out; a comparison with fewer than two patients in a group has NaN.

    Raises
    ------
    InputError
        An image has no patient, a patient no group, an image two values, or there is one group.

    Examples
    --------
    >>> frame = pd.DataFrame({"image": list("abcdef"), "z": [1.0, 1.2, 0.9, 3.0, 3.3, 2.9]})
    >>> table = compare_groups(frame, "z", dict(zip("abcdef", "xxxyyy")))
    >>> float(table["p"][0]), bool(table["effect"][0] > 3)
    (0.1, True)
    """
    by_patient = _per_patient(frame, value, groups, by, patients)
    names = sorted({groups[p] for p in by_patient["patient"].unique()})
    if len(names) < 2:
        raise InputError(f"two groups or more are needed to compare; found {names}.")
    rows = []
    parts = by_patient.groupby(list(by), sort=False) if by else [((), by_patient)]
    for number, (key, part) in enumerate(parts):
        values = part[value].to_numpy(np.float64)
        labels = np.array([names.index(groups[p]) for p in part["patient"]])
        finite = np.isfinite(values)
        row = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        row |= _compare(values[finite], labels[finite], names, permutations, (seed, number))
        rows.append(row)
    table = pd.DataFrame(rows)
    q = benjamini_hochberg(table["p"].to_numpy(np.float64))
    table.insert(list(table.columns).index("p") + 1, "q", q)
    return table


def _per_patient(
    frame: pd.DataFrame,
    value: str,
    groups: Mapping[str, str],
    by: tuple[str, ...],
    patients: Mapping[str, str] | None,
) -> pd.DataFrame:
    keys = ["image", *by]
    missing = [c for c in (*keys, value) if c not in frame.columns]
    if missing:
        raise InputError(f"the table has no column {missing[0]!r}.")
    if frame.duplicated(keys).any():
        raise InputError(
            f"an image has more than one {value} for the same {', '.join(by) or 'comparison'}; "
            "one statistic per image is compared, so name what tells them apart in by."
        )
    images = frame["image"].astype(str)
    owner = {i: i for i in images.unique()} if patients is None else patients
    for image in images.unique():
        if image not in owner:
            raise InputError(f"image {image!r} has no patient.")
        if owner[image] not in groups:
            raise InputError(f"{owner[image]!r} has no group.")
    table = frame[[*by, value]].assign(patient=images.map(dict(owner)))
    finite = table[np.isfinite(table[value].astype(float))]
    means = finite.groupby([*by, "patient"], sort=False)[value].mean()
    return means.reset_index()


def _compare(
    values: Array,
    labels: NDArray[np.int64],
    names: list[str],
    permutations: int,
    seed: tuple[int, int],
) -> dict[str, object]:
    counts = np.bincount(labels, minlength=len(names))
    row: dict[str, object] = {f"n_{name}": int(n) for name, n in zip(names, counts, strict=True)}
    for index, name in enumerate(names):
        own = values[labels == index]
        row[f"mean_{name}"] = float(own.mean()) if len(own) else np.nan
    undefined = {"effect": np.nan, "effect_low": np.nan, "effect_high": np.nan, "p": np.nan}
    if counts.min() < 2:
        return row | {"difference": np.nan} | undefined | {"method": "too few patients"}
    if len(names) > 2:
        p, method = _many_groups_p(values, labels, permutations, seed)
        eta = _between(values, labels) / max(float(((values - values.mean()) ** 2).sum()), 1e-300)
        row |= {"difference": np.nan, "effect": eta, "effect_low": np.nan, "effect_high": np.nan}
        return row | {"p": p, "method": method}
    first, second = values[labels == 0], values[labels == 1]
    effect, low, high = hedges(first, second)
    p, method = _two_groups_p(values, labels, permutations, seed)
    row |= {"difference": float(second.mean() - first.mean()), "effect": effect}
    return row | {"effect_low": low, "effect_high": high, "p": p, "method": method}


def hedges(first: Array, second: Array) -> tuple[float, float, float]:
    """Hedges' g of the second group over the first, with a 95 % interval.

    ``g = J (m2 - m1) / s`` with the pooled ``s`` and ``J = 1 - 3 / (4 df - 1)``; standard error
    ``sqrt((n1 + n2) / (n1 n2) + g^2 / (2 (n1 + n2)))``. NaN where neither group varies.

    >>> [round(v, 2) for v in hedges(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0]))]
    [0.8, -0.86, 2.46]
    """
    n1, n2 = len(first), len(second)
    df = n1 + n2 - 2
    pooled = math.sqrt(
        (((first - first.mean()) ** 2).sum() + ((second - second.mean()) ** 2).sum()) / df
    )
    if pooled == 0:
        return math.nan, math.nan, math.nan
    g = float(1 - 3 / (4 * df - 1)) * float(second.mean() - first.mean()) / pooled
    error = math.sqrt((n1 + n2) / (n1 * n2) + g**2 / (2 * (n1 + n2)))
    return g, g - 1.959964 * error, g + 1.959964 * error


def _two_groups_p(
    values: Array, labels: NDArray[np.int64], permutations: int, seed: tuple[int, int]
) -> tuple[float, str]:
    n, k = len(values), int((labels == 1).sum())
    mean = k * float(values.mean())
    observed = abs(values[labels == 1].sum() - mean)
    slack = 1e-12 * max(float(np.abs(values).sum()), 1e-300)
    if math.comb(n, k) <= MAX_SPLITS:
        splits = np.array(list(combinations(range(n), k)))
        gaps = np.abs(values[splits].sum(axis=1) - mean)
        return float((gaps >= observed - slack).mean()), "all splits"
    rng = generator(*seed)
    dealt = rng.permuted(np.tile(values, (permutations, 1)), axis=1)[:, :k]
    gaps = np.abs(dealt.sum(axis=1) - mean)
    return float((1 + (gaps >= observed - slack).sum()) / (permutations + 1)), "permutation"


def _between(values: Array, labels: NDArray[np.int64]) -> float:
    counts = np.bincount(labels)
    means = np.bincount(labels, values) / counts
    return float((counts * (means - values.mean()) ** 2).sum())


def _many_groups_p(
    values: Array, labels: NDArray[np.int64], permutations: int, seed: tuple[int, int]
) -> tuple[float, str]:
    """F rises with the sum of squares between groups, the total being fixed."""
    rng = generator(*seed)
    observed = _between(values, labels)
    slack = 1e-12 * max(observed, 1e-300)
    hits = sum(
        _between(rng.permutation(values), labels) >= observed - slack for _ in range(permutations)
    )
    return (1 + hits) / (permutations + 1), "permutation"
