"""What an embedding of nuclei is worth: probes, agreement, retrieval, leakage, invariance.

Everything is judged between slides: nuclei of one slide look alike because of its stain, so a
split over random nuclei flatters every embedding. Whatever must be chosen (the number of
neighbours, the strength of regularisation, raw, centred or standardised columns) is chosen on
validation slides, never on the test slides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucleoscope.errors import CallError
from nucleoscope.seeds import spawn

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Neighbours tried by ``knn_probe`` (the protocol of MUSE, arXiv 2511.05170, table 2).
NEIGHBOURS = (10, 20, 50, 100, 200)
#: Inverse strengths of regularisation tried by ``linear_probe``.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
#: Temperature of the neighbours' votes.
TEMPERATURE = 0.07
#: Rows whose similarities to all others are held at a time.
BLOCK = 1024


class Split(NamedTuple):
    """Row numbers of three disjoint sets of slides."""

    train: Ints
    valid: Ints
    test: Ints


class Probe(NamedTuple):
    """How well types are read from an embedding on the test slides, and what was chosen."""

    weighted_f1: float
    macro_f1: float
    accuracy: float
    chosen: str


class Agreement(NamedTuple):
    """Clusters against types: adjusted Rand and mutual information, purity; the last at 4k."""

    ari: float
    ami: float
    purity: float
    purity_fine: float


class Leakage(NamedTuple):
    """How often the nearest other nucleus is of the same slide, and how often by chance."""

    same_slide: float
    chance: float


def split_by_slide(slides: ArrayLike, *, test: Sequence[str] | None = None, seed: int = 0) -> Split:
    """Divide nuclei by slide: test slides, and of the rest a fifth to choose on.

    Parameters
    ----------
    slides
        ``(N,)`` names.
    test
        Names of the test slides; None draws a quarter of all.
    seed
        Of the draws.

    Raises
    ------
    CallError
        Fewer than three slides, or a test slide that is not there.

    Examples
    --------
    >>> split = split_by_slide(["a", "b", "c", "a"], test=["c"])
    >>> split.test.tolist(), len(split.train) + len(split.valid)
    ([2], 3)
    """
    names = np.asarray(slides).astype(str)
    there = np.unique(names)
    if len(there) < 3:
        raise CallError(
            f"an embedding is judged between slides and needs three of them; found {len(there)}."
        )
    (rng,) = spawn(seed, 1)
    if test is None:
        test = rng.permutation(there)[: max(1, len(there) // 4)].tolist()
    missing = sorted(set(test) - set(there.tolist()))
    if missing:
        raise CallError(f"test slide {missing[0]!r} has no nuclei here.")
    rest = np.setdiff1d(there, np.asarray(test))
    if len(rest) < 2:
        raise CallError("no slides are left to train and to choose on; name fewer test slides.")
    chosen = rng.permutation(rest)[: max(1, len(rest) // 5)]
    is_test, is_valid = np.isin(names, np.asarray(test)), np.isin(names, chosen)
    return Split(
        np.flatnonzero(~is_test & ~is_valid), np.flatnonzero(is_valid), np.flatnonzero(is_test)
    )


def scores(true: ArrayLike, predicted: ArrayLike, chosen: str = "") -> Probe:
    """Weighted F1, macro F1 and accuracy of types.

    >>> scores(["a", "a", "b"], ["a", "b", "b"]).accuracy.__round__(2)
    0.67
    """
    from sklearn.metrics import accuracy_score, f1_score

    t, p = np.asarray(true).astype(str), np.asarray(predicted).astype(str)
    return Probe(
        float(f1_score(t, p, average="weighted", zero_division=0.0)),
        float(f1_score(t, p, average="macro", zero_division=0.0)),
        float(accuracy_score(t, p)),
        chosen,
    )


def unit_rows(embedding: ArrayLike) -> Floats:
    """Rows of length 1 as float32; a zero row stays zero.

    >>> unit_rows([[3.0, 4.0]]).round(1).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    x = np.asarray(embedding, dtype=np.float32)
    rows: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return rows


def standardised(embedding: ArrayLike, rows: Ints, blocks: Sequence[int] = ()) -> Floats:
    """Columns of mean 0 and standard deviation 1 over ``rows``; unknown values become 0.

    Parameters
    ----------
    blocks
        Widths of what was put side by side. Columns of the narrower blocks are made larger, so
        that every block has the variance of the widest.

    Raises
    ------
    CallError
        The widths of the blocks do not add up to that of the embedding.

    Examples
    --------
    >>> standardised([[1, 1, 1], [3, 3, 3]], np.arange(2), (2, 1)).astype(float).round(1).tolist()
    [[-1.0, -1.0, -1.4], [1.0, 1.0, 1.4]]
    """
    x = np.asarray(embedding, dtype=np.float32)
    mean = np.nanmean(x[rows], axis=0, dtype=np.float64)
    spread = np.nanstd(x[rows], axis=0, dtype=np.float64)
    away = (x - mean) / np.where(spread > 1e-6, spread, 1.0)
    z: Floats = np.nan_to_num(np.clip(away, -8.0, 8.0)).astype(np.float32)
    if not blocks:
        return z
    if sum(blocks) != z.shape[1] or min(blocks) < 1:
        raise CallError(f"blocks of {tuple(blocks)} columns do not make {z.shape[1]}.")
    weight = np.sqrt(max(blocks) / np.asarray(blocks, dtype=np.float64))
    z *= np.repeat(weight, blocks).astype(np.float32)
    return z


def _similar(
    query: Floats, reference: Floats, k: int, forbid: tuple[Ints, Ints] | None = None
) -> Iterator[tuple[slice, Ints, Floats]]:
    """Blocks of queries with their ``k`` most similar references, best first.

    ``forbid`` gives a group to every query and reference; equal groups never match.
    """
    k = min(k, len(reference))
    for start in range(0, len(query), BLOCK):
        here = slice(start, start + BLOCK)
        near = query[here] @ reference.T
        if forbid is not None:
            near[forbid[0][here, None] == forbid[1][None, :]] = -np.inf
        top = np.argpartition(-near, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(near, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        yield (
            here,
            np.take_along_axis(top, order, axis=1),
            np.take_along_axis(values, order, axis=1),
        )


def _votes(codes: Ints, near: Ints, similarity: Floats, k: int, n_types: int) -> Ints:
    """The type with the most weight among the first ``k`` neighbours of every query."""
    k = min(k, near.shape[1])
    weight = np.exp(similarity[:, :k] / TEMPERATURE)
    rows = np.repeat(np.arange(len(near)), k)
    flat = rows * n_types + codes[near[:, :k]].ravel()
    total = np.bincount(flat, weights=weight.ravel(), minlength=len(near) * n_types)
    winner: Ints = total.reshape(len(near), n_types).argmax(axis=1)
    return winner


def knn_probe(
    embedding: ArrayLike,
    types: ArrayLike,
    split: Split,
    *,
    neighbours: Sequence[int] = NEIGHBOURS,
    blocks: Sequence[int] = (),
) -> Probe:
    """Types by the vote of the most similar nuclei of other slides.

    Cosine similarity ``s``, votes ``exp(s / 0.07)``; the number of neighbours, and whether columns
    are centred or standardised first, are chosen on the validation slides by weighted F1.

    Parameters
    ----------
    embedding
        ``(N, D)``; NaN counts as the column's mean.
    types
        ``(N,)`` names; nuclei without one (``""``) take no part.
    split
        Row numbers, see ``split_by_slide``.
    neighbours
        Numbers to choose from.
    blocks
        As of ``standardised``.

    Raises
    ------
    CallError
        A set of the split holds no typed nucleus, or blocks that do not fit.

    Examples
    --------
    >>> x = [[1, 0], [0, 1], [1, 0.1], [0.1, 1], [0.9, 0], [0, 0.8]]
    >>> split = Split(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    >>> knn_probe(x, ["a", "b"] * 3, split, neighbours=(1,)).accuracy
    1.0
    """
    codes, names, split = _typed(types, split)
    best: tuple[float, Floats, int, str] | None = None
    for label, x in _variants(embedding, split.train, blocks):
        predicted = _knn(x, codes, split.train, split.valid, neighbours, len(names))
        for k, found in zip(neighbours, predicted, strict=True):
            f1 = scores(names[codes[split.valid]], names[found]).weighted_f1
            if best is None or f1 > best[0]:
                best = (f1, x, k, label)
    assert best is not None  # noqa: S101  there are always variants
    _, x, k, label = best
    train = np.concatenate([split.train, split.valid])
    (found,) = _knn(x, codes, train, split.test, (k,), len(names))
    return scores(names[codes[split.test]], names[found], f"k={k}, {label}")


def _typed(types: ArrayLike, split: Split) -> tuple[Ints, NDArray[np.str_], Split]:
    """Types as numbers, their names, and the split without untyped nuclei."""
    names = np.asarray(types).astype(str)
    kept = Split(*(rows[names[rows] != ""] for rows in split))
    for name, rows in zip(Split._fields, kept, strict=True):
        if not rows.size:
            raise CallError(
                f"the {name} slides hold no typed nucleus, so there is nothing to judge."
            )
    there, codes = np.unique(names, return_inverse=True)
    return codes.astype(np.int64), there, kept


def _variants(
    embedding: ArrayLike, train: Ints, blocks: Sequence[int]
) -> Iterator[tuple[str, Floats]]:
    """The embedding as it is, around the train mean, and standardised; all with rows of length 1.

    What all nuclei have in common makes every cosine large and the votes alike; around the mean
    the cosine is about the differences (Wang et al., SimpleShot, arXiv 1911.04623, "CL2N").
    """
    x = np.asarray(embedding, dtype=np.float32)
    mean = np.nan_to_num(np.nanmean(x[train], axis=0, dtype=np.float64)).astype(np.float32)
    known = np.where(np.isnan(x), mean, x)
    yield "as it is", unit_rows(known)
    yield "centred", unit_rows(known - mean)
    yield "standardised", unit_rows(standardised(x, train, blocks))


def _knn(
    x: Floats, codes: Ints, train: Ints, query: Ints, neighbours: Sequence[int], n_types: int
) -> list[Ints]:
    """Types of the query rows for every number of neighbours."""
    found = [np.empty(len(query), np.int64) for _ in neighbours]
    for here, near, similarity in _similar(x[query], x[train], max(neighbours)):
        for k, out in zip(neighbours, found, strict=True):
            out[here] = _votes(codes[train], near, similarity, k, n_types)
    return found


def linear_probe(
    embedding: ArrayLike,
    types: ArrayLike,
    split: Split,
    *,
    n_labels: int | None = None,
    seed: int = 0,
    blocks: Sequence[int] = (),
) -> Probe:
    """Types by logistic regression on standardised columns.

    The strength of the (L2) regularisation is chosen on the validation slides by log loss; then
    train and validation slides are fitted together.

    Parameters
    ----------
    embedding, types, split
        As of ``knn_probe``.
    n_labels
        Use only this many labels of train and validation slides, drawn by ``seed`` in proportion
        of both sets; None = all.
    blocks
        As of ``standardised``. Without them the block of the fewest columns is regularised the
        most.

    Raises
    ------
    CallError
        As of ``knn_probe``, or fewer than two types to learn.

    Examples
    --------
    >>> x = [[1, 0], [0, 1], [1, 0.1], [0.1, 1], [0.9, 0], [0, 0.8]]
    >>> split = Split(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    >>> linear_probe(x, ["a", "b"] * 3, split).accuracy
    1.0
    """
    codes, names, split = _typed(types, split)
    if n_labels is not None:
        split = _fewer(split, n_labels, seed)
    if len(np.unique(codes[split.train])) < 2:
        raise CallError("the train slides hold one type only; a probe needs two.")
    x = standardised(embedding, split.train, blocks)
    best = min(STRENGTHS, key=lambda c: _surprise(x, codes, split, c))
    both = np.concatenate([split.train, split.valid])
    found = _regress(standardised(embedding, both, blocks), codes, both, split.test, best)
    return scores(names[codes[split.test]], names[found], f"C={best:g}")


def _fewer(split: Split, n_labels: int, seed: int) -> Split:
    """A split whose train and validation sets have ``n_labels`` rows together."""
    (rng,) = spawn(seed, 1)
    total = len(split.train) + len(split.valid)
    share = min(1.0, n_labels / total)
    train, valid = (
        np.sort(rng.permutation(rows)[: max(1, round(share * len(rows)))])
        for rows in (split.train, split.valid)
    )
    return Split(train, valid, split.test)


def _fitted(x: Floats, codes: Ints, train: Ints, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000).fit(x[train], codes[train])


def _regress(x: Floats, codes: Ints, train: Ints, query: Ints, strength: float) -> Ints:
    """Types of the query rows by logistic regression on the train rows."""
    found: Ints = _fitted(x, codes, train, strength).predict(x[query])
    return found


def _surprise(x: Floats, codes: Ints, split: Split, strength: float) -> float:
    """Mean log loss on the validation rows; a type that was not taught has probability 1e-6."""
    model = _fitted(x, codes, split.train, strength)
    probability = np.full((len(split.valid), codes.max() + 1), 1e-6)
    probability[:, model.classes_] = np.maximum(model.predict_proba(x[split.valid]), 1e-6)
    right = probability[np.arange(len(split.valid)), codes[split.valid]]
    return float(-np.log(right).mean())


def cluster_agreement(embedding: ArrayLike, types: ArrayLike, *, seed: int = 0) -> Agreement:
    """k-means clusters against types, with as many clusters as types and with four times as many.

    Parameters
    ----------
    embedding
        ``(N, D)``.
    types
        ``(N,)`` names; ``""`` takes no part.

    Raises
    ------
    CallError
        Fewer than two types.

    Notes
    -----
    Purity is the share of nuclei whose type is the most frequent one of their cluster. Four times
    as many clusters is how people use them: look, name, merge (protocol of VOLTA, Nat. Commun.
    2024).
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    names = np.asarray(types).astype(str)
    rows = np.flatnonzero(names != "")
    there, codes = np.unique(names[rows], return_inverse=True)
    if len(there) < 2:
        raise CallError("agreement of clusters with types needs two types.")
    x = unit_rows(standardised(embedding, rows)[rows])

    def clusters(k: int) -> Ints:
        k = min(k, len(rows))
        found: Ints = KMeans(k, n_init=4, random_state=seed).fit_predict(x)
        return found

    coarse, fine = clusters(len(there)), clusters(4 * len(there))
    return Agreement(
        float(adjusted_rand_score(codes, coarse)),
        float(adjusted_mutual_info_score(codes, coarse)),
        purity(coarse, codes),
        purity(fine, codes),
    )


def purity(clusters: ArrayLike, types: ArrayLike) -> float:
    """Share of nuclei whose type is the most frequent one of their cluster.

    >>> purity([0, 0, 1, 1], ["a", "a", "a", "b"])
    0.75
    """
    _, c = np.unique(np.asarray(clusters), return_inverse=True)
    _, t = np.unique(np.asarray(types), return_inverse=True)
    table = np.zeros((c.max(initial=0) + 1, t.max(initial=0) + 1))
    np.add.at(table, (c, t), 1)
    return float(table.max(axis=1).sum() / max(1, len(c)))


def retrieval_precision(
    embedding: ArrayLike, types: ArrayLike, slides: ArrayLike, *, k: int = 10
) -> float:
    """Share of the ``k`` most similar nuclei of other slides that are of the same type.

    Parameters
    ----------
    embedding
        ``(N, D)``.
    types, slides
        ``(N,)`` names; untyped nuclei (``""``) take no part.

    Raises
    ------
    CallError
        All typed nuclei are of one slide.
    """
    names = np.asarray(types).astype(str)
    rows = np.flatnonzero(names != "")
    group = np.unique(np.asarray(slides).astype(str)[rows], return_inverse=True)[1]
    if not rows.size or group.max() == 0:
        raise CallError("retrieval across slides needs typed nuclei of two slides.")
    codes = np.unique(names[rows], return_inverse=True)[1]
    x = unit_rows(standardised(embedding, rows)[rows])
    hits = total = 0.0
    for here, near, similarity in _similar(x, x, k, (group, group)):
        there = np.isfinite(similarity)
        hits += float(((codes[near] == codes[here, None]) & there).sum())
        total += float(there.sum())
    return hits / total


def slide_leakage(embedding: ArrayLike, slides: ArrayLike) -> Leakage:
    """How often the most similar other nucleus comes from the same slide.

    Near ``chance`` (the sum of squared shares of the slides) the embedding does not tell slides
    apart; composition differs between slides, so chance itself is seldom reached.

    >>> slide_leakage([[1, 0], [1, 0.01], [0, 1], [0.01, 1]], ["a", "a", "b", "b"])
    Leakage(same_slide=1.0, chance=0.3333333333333333)
    """
    group = np.unique(np.asarray(slides).astype(str), return_inverse=True)[1].astype(np.int64)
    n = len(group)
    if n < 2:
        raise CallError("leakage needs two nuclei.")
    x = unit_rows(standardised(embedding, np.arange(n)))
    myself = np.arange(n)
    same = 0
    for here, near, _ in _similar(x, x, 1, (myself, myself)):
        same += int((group[near[:, 0]] == group[here]).sum())
    sizes = np.bincount(group).astype(np.float64)
    return Leakage(same / n, float((sizes * (sizes - 1)).sum() / (n * (n - 1))))


def invariance(embedding: ArrayLike, changed: ArrayLike) -> float:
    """Mean cosine between the embeddings of nuclei and of the same nuclei changed.

    >>> invariance([[1, 0], [0, 2]], [[2, 0], [0, 1]])
    1.0
    """
    a, b = unit_rows(embedding), unit_rows(changed)
    if a.shape != b.shape or not len(a):
        raise CallError(f"invariance compares rows with rows; found {a.shape} and {b.shape}.")
    return float((a * b).sum(axis=1, dtype=np.float64).mean())


def read_out(embedding: ArrayLike, values: ArrayLike, split: Split) -> float:
    """Spearman correlation of a value with its best linear read-out, on the test slides.

    Ridge regression of the value's ranks on standardised columns; the strength is chosen on the
    validation slides. Near 1 the embedding knows the value (nuclear area, say), near 0 it does
    not.

    Parameters
    ----------
    embedding
        ``(N, D)``.
    values
        ``(N,)``; nuclei with NaN take no part.

    Raises
    ------
    CallError
        A set of the split has fewer than three known values.
    """
    from scipy.stats import rankdata, spearmanr
    from sklearn.linear_model import Ridge

    v = np.asarray(values, dtype=np.float64)
    train, valid, test = (rows[np.isfinite(v[rows])] for rows in split)
    if min(len(train), len(valid), len(test)) < 3:
        raise CallError("a read-out needs three known values in each set of slides.")
    x = standardised(embedding, train)
    target = rankdata(v[train])

    def judged(alpha: float, rows: Ints) -> float:
        guess = Ridge(alpha=alpha).fit(x[train], target).predict(x[rows])
        rho = spearmanr(guess, v[rows]).statistic
        return 0.0 if np.isnan(rho) else float(rho)

    best = max((1.0, 10.0, 100.0, 1000.0), key=lambda alpha: judged(alpha, valid))
    return judged(best, test)
