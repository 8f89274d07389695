"""Verbs on an atlas: subtypes, transfer of types, search. Folders in and out, or an ``Atlas``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.atlas.cards import write_cards
from nucleoscope.atlas.map2d import N_LANDMARKS, fit_map
from nucleoscope.atlas.search import EXACT_BELOW, Index, build_index, nearest, search_index
from nucleoscope.atlas.subtypes import LEVELS, Subtypes, assign_subtypes, exemplars, find_subtypes
from nucleoscope.atlas.transfer import DEFAULT_VOTE, Vote, transfer_types
from nucleoscope.data.atlas import Atlas
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.run import Run
from nucleoscope.io import guard
from nucleoscope.io.atlas import is_atlas, read_atlas, write_layer
from nucleoscope.io.atlas_index import StoredIndex, json_ready, read_index, write_index
from nucleoscope.io.tables import types_of

AtlasLike = str | Path | Atlas

CARDS = "subtypes.json"


class SubtypesResult(NamedTuple):
    """The atlas with subtypes and map, and what ``subtypes.json`` holds: levels and cards."""

    atlas: Atlas
    report: dict[str, Any]


def subtypes(
    atlas: AtlasLike,
    *,
    levels: Sequence[int] = LEVELS,
    seed: int = 0,
    reference: str | Path | None = None,
    method: Literal["auto", "umap", "pca", "none"] = "auto",
    n_landmarks: int = N_LANDMARKS,
    n_replicates: int = 10,
) -> SubtypesResult:
    """Find subtypes, describe them, make the search index and the 2D map.

    Parameters
    ----------
    atlas
        An ATLAS folder, which gets ``subtypes.parquet``, ``subtypes.json``, ``map2d.parquet`` and
        ``index/``; or an ``Atlas``, which is only computed on.
    levels
        About so many subtypes, coarse to fine.
    seed
        Same seed, same subtypes and map.
    reference
        An ATLAS folder with subtypes: the nuclei get those of their nearest prototype there and
        nothing is clustered. ``levels`` is then the reference's.
    method
        Of the map; ``"none"`` leaves it out.
    n_landmarks
        Nuclei the map is fitted on.
    n_replicates
        Bootstrap replicates of the stability.

    Returns
    -------
    SubtypesResult

    Raises
    ------
    InputError
        No finished atlas there, or a reference without subtypes.
    MissingExtraError
        igraph is not installed and there is no reference.
    """
    given = _opened(atlas)
    run = Run(
        "subtypes", {"seed": seed, "reference": None if reference is None else str(reference)}
    )
    if reference is None:
        found = find_subtypes(given.embedding, levels=levels, seed=seed, n_replicates=n_replicates)
        frame = found.frame
    else:
        found = _reference(reference)
        frame = assign_subtypes(given.embedding, found)
    made = given.with_parts(subtypes=frame)
    if method != "none":
        finest = frame[_level_columns(frame)[-1]]
        mapped = fit_map(
            given.embedding, groups=finest, method=method, n_landmarks=n_landmarks, seed=seed
        )
        made = made.with_parts(map2d=mapped.frame)
        run.figures["map"] = mapped.note
    report = run.manifest(levels=_levels(made, found, seed))
    if not isinstance(atlas, Atlas):
        _save(Path(atlas), made, found, report)
    return SubtypesResult(made, report)


def transfer(
    atlas: AtlasLike,
    *,
    reference: AtlasLike,
    vote: Vote = DEFAULT_VOTE,
    seed: int = 0,
) -> Atlas:
    """Give the nuclei of an atlas the types of another one, with doubt and novelty.

    Parameters
    ----------
    atlas
        An ATLAS folder, which gets ``transfer.parquet``; or an ``Atlas``.
    reference
        A typed atlas of the same encoder; the same folder passes types on to the untyped nuclei.
        Or a table (CSV or Parquet) with ``id, type`` and, of several images, ``image``: types of
        some of this atlas's own nuclei.
    vote
        How the vote is counted.

    Returns
    -------
    The atlas with the new columns in its table; its earlier types are in ``nuclei.parquet``.

    Raises
    ------
    InputError
        No finished atlas, no typed nucleus in the reference, or another encoder.
    """
    given = _opened(atlas)
    typed = _typed_by(given, reference) if _is_table(reference) else _opened(reference)
    known = typed.table.frame
    frame = transfer_types(
        given.embedding, typed.embedding, known["type"].to_numpy(),
        slides=known["image"].to_numpy(), vote=vote, seed=seed,
    )  # fmt: skip
    if not isinstance(atlas, Atlas):
        write_layer(atlas, "transfer", frame)
    table = given.table.frame.drop(columns=list(frame), errors="ignore")
    return given.with_parts(table=type(given.table)(pd.concat([table, frame], axis=1)))


def search(
    atlas: AtlasLike,
    *,
    nucleus: int | str,
    k: int = 24,
    image: str | None = None,
    only_image: str | None = None,
    only_type: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The nuclei that look most like one of the atlas.

    Parameters
    ----------
    atlas
        An ATLAS folder or an ``Atlas``. From 300,000 nuclei on the folder's index is used, and
        made where it is missing.
    nucleus
        Its id; ``IMAGE:ID`` or ``image`` says which where several images have that id.
    k
        Neighbours.
    only_image, only_type
        Answer with nuclei of this image or type only.

    Returns
    -------
    One row per neighbour, most alike first: ``rank``, ``row`` in the atlas, ``similarity``
    (cosine), then the table's columns and the subtypes, without features.

    Raises
    ------
    InputError
        There is no such nucleus, or nothing passes the filter.
    CallError
        Several images have a nucleus of that id, or ``k`` below 1.
    """
    given = _opened(atlas)
    row = _row_of(given, nucleus, image)
    keep = np.ones(len(given), bool)
    for column, wanted in (("image", only_image), ("type", only_type)):
        if wanted is not None:
            keep = keep & (given.table.frame[column] == wanted).to_numpy()
    keep[row] = False
    if not keep.any():
        raise InputError("no other nucleus of the atlas passes the filter.")
    query = given.embedding[row : row + 1]
    if len(given) < EXACT_BELOW:
        found = nearest(query, given.embedding, k, keep=keep)
    else:
        found = search_index(_index_of(atlas, given, seed), query, k, keep=keep)
    rows = found.rows[0][found.rows[0] >= 0]
    frame: pd.DataFrame = given.with_parts(features=None).frame().iloc[rows]
    frame = frame.reset_index(drop=True)
    frame.insert(0, "rank", np.arange(1, len(rows) + 1))
    frame.insert(1, "row", rows)
    frame.insert(2, "similarity", found.similarity[0][: len(rows)])
    return frame


def _opened(atlas: AtlasLike) -> Atlas:
    """An atlas as it is, or from its folder."""
    return atlas if isinstance(atlas, Atlas) else read_atlas(atlas)


def _is_table(reference: AtlasLike) -> bool:
    return not isinstance(reference, Atlas) and Path(reference).is_file()


def _typed_by(atlas: Atlas, table: Any) -> Atlas:
    """The atlas's own nuclei with the types a table gives some of them."""
    types = types_of(atlas.table, table)
    if not (types != "").any():
        raise InputError(f"{table}: none of its nuclei is in the atlas.")
    frame = atlas.table.frame.assign(type=types)
    return atlas.with_parts(table=NucleusTable(frame))


def _level_columns(frame: pd.DataFrame) -> list[str]:
    """Columns ``subtype_<level>``, coarse to fine."""
    names = [c for c in frame.columns if str(c).removeprefix("subtype_").isdigit()]
    return sorted(map(str, names), key=lambda c: int(c.removeprefix("subtype_")))


def _reference(folder: str | Path) -> Subtypes:
    """The stored prototypes of another atlas with their subtypes."""
    stored = read_index(folder) if is_atlas(folder) else None
    if stored is None or stored.names is None or stored.reach is None:
        raise InputError(f"{folder}: it holds no subtypes; run subtypes on it first.")
    return Subtypes(pd.DataFrame(), stored.centres, stored.names, stored.reach, ())


def _levels(atlas: Atlas, found: Subtypes, seed: int) -> list[dict[str, Any]]:
    """What ``subtypes.json`` says of each level and each of its subtypes."""
    frame, table = atlas.subtypes, atlas.table.frame
    if frame is None:
        return []
    stability = {s.level: s for s in found.stability}
    levels = []
    for column in _level_columns(frame):
        level, names = int(column.removeprefix("subtype_")), frame[column].to_numpy()
        cards = write_cards(
            names, features=atlas.features, images=table["image"], types=table["type"], seed=seed
        )
        shown = exemplars(atlas.embedding, names, seed=seed)
        known = stability.get(level)
        levels.append(
            {
                "level": level, "found": len(cards),
                "ari": None if known is None else known.ari,
                "ari_sd": None if known is None else known.sd,
                "subtypes": [
                    {**card.plain(), "parent": name.rpartition(".")[0], "exemplars": shown[name]}
                    for name, card in sorted(cards.items(), key=lambda item: _order(item[0]))
                ],
            }
        )  # fmt: skip
    return levels


def _order(name: str) -> tuple[int, ...]:
    """Paths in the order of their numbers."""
    return tuple(int(part) for part in name.split("."))


def _save(folder: Path, made: Atlas, found: Subtypes, report: dict[str, Any]) -> None:
    """Layers, index and cards into an ATLAS folder; the cards last."""
    if made.subtypes is not None:
        write_layer(folder, "subtypes", made.subtypes)
    if made.map2d is not None:
        write_layer(folder, "map2d", made.map2d)
    index = build_index(made.embedding, centres=found.centres)
    write_index(folder, StoredIndex(*index, names=found.names, reach=found.reach))
    guard.write_json(folder / CARDS, json_ready(report), overwrite=True)


def _index_of(atlas: AtlasLike, given: Atlas, seed: int) -> Index:
    """The stored index, or a new one, which a folder keeps."""
    stored = None if isinstance(atlas, Atlas) else read_index(atlas)
    if stored is not None:
        return Index(stored.centres, stored.vectors, stored.order, stored.offsets)
    made = build_index(given.embedding, seed=seed)
    if not isinstance(atlas, Atlas):
        write_index(atlas, StoredIndex(*made))
    return made


def _row_of(atlas: Atlas, nucleus: int | str, image: str | None) -> int:
    """The row of a nucleus by id, where needed with its image."""
    text = str(nucleus)
    if image is None and ":" in text:
        image, _, text = text.rpartition(":")
    if not text.lstrip("-").isdigit():
        raise CallError(f"nucleus={nucleus!r}: expected an id, such as 17, or IMAGE:17.")
    frame = atlas.table.frame
    hit: NDArray[np.bool_] = (frame["id"] == int(text)).to_numpy()
    if image is not None:
        hit = hit & (frame["image"] == image).to_numpy()
    rows = np.flatnonzero(hit)
    if rows.size == 0:
        where = "" if image is None else f" in image {image!r}"
        raise InputError(f"the atlas has no nucleus {text}{where}.")
    if rows.size > 1:
        some = ", ".join(f"{frame['image'].iloc[r]}:{text}" for r in rows[:3])
        raise CallError(f"{rows.size} images have a nucleus {text}; write one of {some}.")
    return int(rows[0])
