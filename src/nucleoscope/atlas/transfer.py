"""Types for new nuclei from typed ones: a vote of neighbours that may abstain or call one new.

Against the published majority of 1,024 neighbours, in which a type with a few hundred members can
hardly win: fewer neighbours, weighted by likeness, with the votes of common types made lighter.
How often such a vote is right is learnt from the reference itself: some of its nuclei are typed by
those of other slides, as new nuclei are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from nucleoscope.atlas.search import nearest_many
from nucleoscope.calibrate import platt
from nucleoscope.errors import CallError, InputError
from nucleoscope.seeds import generator

Floats = NDArray[np.float64]

_SELF_NUCLEI = 20_000
#: Reference nuclei that are typed by the others to learn how often a vote is right, by how many of
#: them at most, and parts they are dealt into.
_JUDGED, _VOTERS, _FOLDS = 5_000, 100_000, 5
#: Shares of votes are kept this far from 0 and 1.
_SURE = 1e-3


class Vote(NamedTuple):
    """How a vote is counted.

    Parameters
    ----------
    k
        Neighbours that vote.
    temperature
        A neighbour of cosine ``s`` weighs ``exp(s / temperature)``.
    balance
        Votes of a type with ``n`` reference nuclei are divided by ``n ** balance``: 0 is the plain
        vote, 1 treats all types as equally frequent.
    min_margin
        Smallest difference between the best two probabilities for a type to be given.
    reach
        A nucleus farther from its nearest neighbour than this share of the reference nuclei are
        from theirs is novel.
    """

    k: int = 50
    temperature: float = 0.07
    balance: float = 0.5
    min_margin: float = 0.2
    reach: float = 0.99


DEFAULT_VOTE = Vote()


def transfer_types(
    embedding: NDArray[Any],
    reference: NDArray[Any],
    types: Sequence[str] | NDArray[Any],
    *,
    slides: Sequence[str] | NDArray[Any] | None = None,
    vote: Vote = DEFAULT_VOTE,
    seed: int = 0,
) -> pd.DataFrame:
    """Give each nucleus the type its neighbours in a reference agree on.

    Parameters
    ----------
    embedding
        ``(N, D)`` rows of length 1.
    reference
        ``(M, D)`` rows of length 1, from the same encoder.
    types
        ``M`` names; nuclei without one (``""``) do not vote.
    slides
        ``M`` names of the slides of the reference; with two or more, nuclei of one slide do not
        help to judge how often votes on that slide are right.
    vote
        How the vote is counted.
    seed
        Chooses the reference nuclei that novelty and calibration are measured on, and the index
        of large ones.

    Returns
    -------
    One row per nucleus: ``type`` (empty where it abstains or is novel), ``type_prob`` (probability
    that ``type_guess`` is right), ``type_guess`` (the best type in any case), ``type_margin``
    (between the shares of the balanced votes of the best two), ``is_abstained``, ``is_novel``, and
    ``novelty``, the distance ``1 - cosine`` to the nearest typed nucleus divided by the limit.

    Notes
    -----
    ``type_prob`` is calibrated on the reference (Platt 1999): it holds for nuclei that are as like
    the reference as its slides are like one another, and not for novel ones.

    Raises
    ------
    InputError
        No typed reference nucleus, or dimensions or lengths that differ.
    CallError
        An impossible ``vote``.

    Examples
    --------
    >>> reference = np.array([[1, 0, 0], [0.96, 0.28, 0], [0, 1, 0], [0, 0.96, 0.28]])
    >>> found = transfer_types(np.eye(3), reference, list("aabb"), vote=Vote(k=2))
    >>> found["type"].tolist(), found["is_novel"].tolist()
    (['a', 'b', ''], [False, False, True])
    """
    named = np.asarray(types, dtype=object).astype(str)
    if len(named) != len(reference):
        raise InputError(f"types: {len(named)} given for {len(reference)} reference nuclei.")
    typed = np.flatnonzero(named != "")
    if typed.size == 0:
        raise InputError("no nucleus of the reference has a type.")
    _check(vote)
    voters = np.asarray(reference[typed])
    names, code = np.unique(named[typed], return_inverse=True)
    found = nearest_many(embedding, voters, vote.k, seed=seed)
    shares = _shares(found.rows, found.similarity, code, len(names), vote)
    limit = _self_distance(voters, vote.reach, seed)
    distance = 1 - found.similarity[:, 0].astype(np.float64)
    places = None if slides is None else np.asarray(slides, dtype=object).astype(str)[typed]
    table = _decided(shares, names, distance, limit, vote)
    slope, offset = _calibration(voters, code, places, vote, seed)
    table["type_prob"] = expit(slope * _log_odds(shares.max(axis=1, initial=0)) + offset)
    return table


def _check(vote: Vote) -> None:
    """Refuse settings outside their ranges."""
    fits = (
        vote.k >= 1 and vote.temperature > 0 and 0 <= vote.balance <= 1
        and 0 <= vote.min_margin <= 1 and 0 < vote.reach <= 1
    )  # fmt: skip
    if not fits:
        raise CallError(
            f"{vote}: expected k >= 1, temperature > 0, and balance, min_margin and reach "
            "between 0 and 1."
        )


def _shares(
    rows: NDArray[np.int64], similarity: NDArray[np.float32], code: NDArray[np.int64], n: int,
    vote: Vote,
) -> Floats:  # fmt: skip
    """``(N, n)`` shares of the balanced votes; weights are taken relative to the best neighbour."""
    frequency = np.bincount(code, minlength=n) ** vote.balance
    cosine = np.where(rows >= 0, similarity, -np.inf).astype(np.float64)
    weight = np.exp((cosine - cosine[:, :1]) / vote.temperature)
    kinds = code[np.maximum(rows, 0)]
    place = np.arange(len(rows))[:, None] * n + kinds
    votes = np.bincount(
        place.ravel(), weights=(weight / frequency[kinds]).ravel(), minlength=len(rows) * n
    ).reshape(len(rows), n)
    shares: Floats = votes / votes.sum(axis=1, keepdims=True)
    return shares


def _self_distance(voters: NDArray[Any], reach: float, seed: int) -> float:
    """The quantile of the distance of reference nuclei to the nearest other one."""
    if len(voters) < 2:
        return 1e-3
    some = np.sort(generator(seed, 7).permutation(len(voters))[:_SELF_NUCLEI])
    found = nearest_many(voters[some], voters, 2, seed=seed)
    is_self = found.rows[:, 0] == some
    other = np.where(is_self, found.similarity[:, 1], found.similarity[:, 0])
    return max(float(np.quantile(1 - other.astype(np.float64), reach)), 1e-3)


def _log_odds(share: Floats) -> Floats:
    return np.asarray(logit(np.clip(share, _SURE, 1 - _SURE)))


def _calibration(
    voters: NDArray[Any],
    code: NDArray[np.int64],
    slides: NDArray[np.str_] | None,
    vote: Vote,
    seed: int,
) -> tuple[float, float]:
    """Slope and offset from the best share's log odds to those of being right."""
    n, n_types = len(voters), int(code.max()) + 1
    order = generator(seed, 11).permutation(n)
    fold = _folds(slides, n, seed)
    judged, odds, right = order[:_JUDGED], [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for part in range(_FOLDS):
        asked = judged[fold[judged] == part]
        others = np.sort(order[fold[order] != part][:_VOTERS])
        if not asked.size or not others.size:
            continue
        found = nearest_many(voters[asked], voters[others], vote.k, seed=seed)
        shares = _shares(found.rows, found.similarity, code[others], n_types, vote)
        odds.append(_log_odds(shares.max(axis=1)))
        right.append(shares.argmax(axis=1) == code[asked])
    return platt(np.concatenate(odds), np.concatenate(right))


def _folds(slides: NDArray[np.str_] | None, n: int, seed: int) -> NDArray[np.int64]:
    """The part each reference nucleus belongs to: by slide, or by lot where there is one slide."""
    _, place = np.unique(np.arange(n) if slides is None else slides, return_inverse=True)
    if place.max(initial=0) == 0:
        place = np.arange(n)
    which = generator(seed, 12).permutation(int(place.max(initial=0)) + 1)
    return np.asarray(which[place] % _FOLDS, dtype=np.int64)


def _decided(
    shares: Floats, names: NDArray[Any], distance: Floats, limit: float, vote: Vote
) -> pd.DataFrame:
    """Best type, margin, and where none is given."""
    best = shares.argmax(axis=1)
    top = shares[np.arange(len(shares)), best]
    rest = shares.copy()
    rest[np.arange(len(shares)), best] = 0.0
    margin = top - rest.max(axis=1, initial=0.0)
    novel, unsure = distance > limit, margin < vote.min_margin
    guess = names[best].astype(object)
    return pd.DataFrame(
        {
            "type": np.where(novel | unsure, "", guess).astype(object),
            "type_guess": guess, "type_margin": margin, "is_abstained": unsure,
            "is_novel": novel, "novelty": distance / limit,
        }
    )  # fmt: skip
