"""The page of an atlas: its 2D map, thumbnails, nearest neighbours, and types given by hand."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.atlas.search import nearest
from nucleoscope.data.atlas import Atlas
from nucleoscope.data.crops import CropStore
from nucleoscope.errors import CallError, InputError
from nucleoscope.io import guard
from nucleoscope.io.atlas import read_atlas
from nucleoscope.io.crops import read_crops
from nucleoscope.io.tables import read_csv, restore_cells, write_csv
from nucleoscope.view.overlay import encode_png, type_colours
from nucleoscope.view.scene import columns_of
from nucleoscope.view.serve import Reply, Request, Site, as_json
from nucleoscope.view.text import short, visible

__all__ = ["Gallery", "TypeSheet", "map_site"]

#: Side of a crop in pixels, pictures in a row of a sheet of thumbnails, and most of them at once.
SIDE, ACROSS, MOST = 64, 16, 256
#: A column of text with more different values than this is no colour.
MOST_NAMES = 200
#: Nearest neighbours shown, and nuclei suggested for a type.
N_NEIGHBOURS, N_SUGGESTED = 24, 48


@dataclass(frozen=True, eq=False)
class Gallery:
    """An atlas to look at.

    Parameters
    ----------
    atlas
        With a 2D map.
    crops
        Thumbnails, or None.

    Raises
    ------
    InputError
        There is no map.
    """

    atlas: Atlas
    crops: CropStore | None = None
    _row_of: NDArray[np.int64] = field(init=False)
    _frame: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        if self.atlas.map2d is None:
            raise InputError("the atlas has no 2D map yet; run nucleoscope subtypes on it first.")
        place = np.full(len(self.atlas), -1, np.int64)
        if self.crops is not None:
            rows = self.crops.table_rows(self.atlas.table)
            place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        object.__setattr__(self, "_row_of", place)
        object.__setattr__(self, "_frame", self.atlas.frame())

    def describe(self) -> dict[str, Any]:
        """How many nuclei, and what they can be coloured by: names of each text column."""
        columns = []
        for name in self._frame.columns:
            values = self._frame[name]
            if values.dtype.kind in "iufb":
                if name != "id":
                    columns.append({"name": name, "is_number": True})
            elif values.nunique() <= MOST_NAMES:
                names = sorted({str(v) for v in values}, key=_natural)
                colours = type_colours(names)
                columns.append({
                    "name": name, "is_number": False,
                    "names": [short(str(visible(n))) for n in names],
                    "colours": [colours[n] for n in names],
                })  # fmt: skip
        return {"n": len(self.atlas), "columns": columns, "has_crops": self.crops is not None}

    def places(self) -> bytes:
        """The map as float32 ``x, y, x, y, ...``, the larger extent from 0 to 1."""
        frame = self.atlas.map2d
        assert frame is not None  # noqa: S101  checked at birth
        xy = frame[["map_x", "map_y"]].to_numpy(dtype=np.float64)
        low = np.nanmin(xy, axis=0, initial=np.inf) if len(xy) else np.zeros(2)
        extent = float((xy - low).max(initial=1e-9))
        return ((xy - low) / extent).astype("<f4").tobytes()

    def column(self, name: str) -> bytes:
        """A column as float32: numbers, or the place of each text in ``describe``'s names.

        Raises
        ------
        InputError
            No such column.
        """
        if name not in self._frame:
            raise InputError(f"the atlas has no column {name[:40]!r}.")
        values = self._frame[name]
        if values.dtype.kind in "iufb":
            return values.to_numpy(dtype=np.float64).astype("<f4").tobytes()
        texts = values.astype(str)
        names = sorted(set(texts), key=_natural)
        return texts.map({n: i for i, n in enumerate(names)}).to_numpy().astype("<f4").tobytes()

    def _checked(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """Rows of the atlas, few enough and all there."""
        wanted = np.array(rows, dtype=np.int64)
        if len(wanted) > MOST or ((wanted < 0) | (wanted >= len(self.atlas))).any():
            raise InputError(f"at most {MOST} rows of {len(self.atlas)} nuclei can be shown.")
        return wanted

    def thumbnails(self, rows: Sequence[int]) -> bytes:
        """A PNG of the crops of these rows, 16 side by side; grey where there is none."""
        wanted = self._checked(rows)
        n_rows = max(1, -(-len(wanted) // ACROSS))
        sheet = np.full((n_rows * SIDE, ACROSS * SIDE, 3), 90, np.uint8)
        at = self._row_of[wanted]
        if self.crops is not None and (at >= 0).any():
            known = np.flatnonzero(at >= 0)
            pictures = np.asarray(self.crops.take(at[known]).morphology)
            for i, picture in zip(known.tolist(), pictures, strict=True):
                y, x = divmod(i, ACROSS)
                sheet[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE] = picture
        return encode_png(sheet)

    def nucleus(self, row: int) -> dict[str, Any]:
        """One nucleus's columns, and its nearest neighbours by cosine, most alike first."""
        self._checked([row])
        one = self._frame.iloc[row : row + 1]
        keep = np.ones(len(self.atlas), dtype=bool)
        keep[row] = False
        rows: list[int] = []
        likeness: list[float] = []
        if keep.any():
            query = self.atlas.embedding[row : row + 1]
            found = nearest(query, self.atlas.embedding, N_NEIGHBOURS, keep=keep)
            rows = [int(r) for r in found.rows[0] if r >= 0]
            likeness = [round(float(s), 4) for s in found.similarity[0][: len(rows)]]
        facts = {c["name"]: c["values"][0] for c in columns_of(one)}
        return {"row": row, "facts": facts, "neighbours": rows, "similarity": likeness}

    def doubtful(self, known: set[int]) -> list[int]:
        """Rows whose type would teach most: the least certain, each subtype in its turn."""
        frame = self._frame
        doubt = (
            frame["type_prob"].fillna(0.0) if "type_prob" in frame else pd.Series(0.0, frame.index)
        )
        group = frame["subtype"] if "subtype" in frame else pd.Series("", frame.index)
        order = pd.DataFrame({"doubt": doubt, "group": group}).sort_values("doubt", kind="stable")
        order = order[~order.index.isin(list(known))]
        turn = order.groupby("group", sort=False).cumcount()
        first = order.assign(turn=turn).sort_values(["turn", "doubt"], kind="stable")
        return [int(row) for row in first.index[:N_SUGGESTED]]


def _natural(text: str) -> tuple[int, float, str]:
    """Numbers in their order, before words."""
    return (0, float(text), text) if text.isdecimal() else (1, 0.0, text)


@dataclass(eq=False)
class TypeSheet:
    """Types given by hand: a CSV ``id, image, type`` of some nuclei of an atlas.

    Raises
    ------
    CallError
        The file has other columns, which saving would lose.
    InputError
        It names a nucleus that the atlas does not have.
    """

    path: Path
    atlas: Atlas
    types: dict[int, str] = field(init=False, default_factory=dict)
    _seen: str = field(init=False, default="")
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.path.suffix.casefold() != ".csv":
            raise CallError(f"{self.path}: types are saved as CSV; name a file that ends in .csv.")
        if self.path.is_file():
            self.types = self._read()
        self._seen = self._digest()

    def _digest(self) -> str:
        return guard.sha256_file(self.path) if self.path.is_file() else ""

    def _read(self) -> dict[int, str]:
        frame = read_csv(self.path)
        if set(frame.columns) != {"id", "image", "type"}:
            raise CallError(
                f"{self.path}: expected the columns id, image and type alone; name another file."
            )
        table = self.atlas.table.frame
        keys = pd.MultiIndex.from_frame(table[["image", "id"]])
        ids = pd.to_numeric(frame["id"], errors="coerce").fillna(-1).astype("int64")
        wanted = pd.MultiIndex.from_arrays([restore_cells(frame["image"].astype(str)), ids])
        rows = keys.get_indexer(wanted)
        if (rows < 0).any():
            line = int(np.flatnonzero(rows < 0)[0]) + 2
            raise InputError(f"{self.path}: line {line} names a nucleus the atlas does not have.")
        names = restore_cells(frame["type"].astype(str))
        return {int(row): str(name) for row, name in zip(rows, names, strict=True)}

    def save(self, given: Any) -> int:
        """Replace the file by these types, ``{row: type}``; how many there are.

        Raises
        ------
        CallError
            Somebody else wrote the file since it was read.
        InputError
            Not rows of the atlas.
        """
        try:
            types = {int(row): str(name).strip() for row, name in given.items()}
        except (AttributeError, TypeError, ValueError):
            raise InputError("the types sent are not rows and names.") from None
        types = {row: name for row, name in sorted(types.items()) if name}
        if types and not (min(types) >= 0 and max(types) < len(self.atlas)):
            raise InputError(f"the types sent are of rows beyond the {len(self.atlas)} nuclei.")
        frame = self.atlas.table.frame.iloc[list(types)][["id", "image"]]
        frame = frame.assign(type=list(types.values()))
        with self._lock:
            if self._digest() != self._seen:
                raise CallError(
                    f"{self.path}: another program changed it since it was read here, so nothing "
                    "was saved; move that file away and save again."
                )
            write_csv(frame, self.path, overwrite=bool(self._seen))
            self._seen, self.types = self._digest(), types
        return len(types)


@dataclass(eq=False)
class _Wall:
    """What the page of an atlas asks for."""

    title: str
    gallery: Gallery
    sheet: TypeSheet | None
    offered: tuple[str, ...]

    def state(self, request: Request) -> Reply:
        found: dict[str, Any] = {"title": short(str(visible(self.title)))}
        found |= self.gallery.describe() | {"side": SIDE, "across": ACROSS, "most": MOST}
        if self.sheet is not None:
            typed = {str(row): name for row, name in self.sheet.types.items()}
            found |= {"types": self.offered, "typed": typed, "file": self.sheet.path.name}
        return as_json(found)

    def places(self, request: Request) -> Reply:
        return Reply(self.gallery.places(), "application/octet-stream")

    def column(self, request: Request) -> Reply:
        return Reply(self.gallery.column(request.text("name")), "application/octet-stream")

    def thumbnails(self, request: Request) -> Reply:
        parts = [part for part in request.text("rows").split(",") if part]
        if not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
            raise InputError("the request's rows are not numbers.")
        return Reply(self.gallery.thumbnails([int(part) for part in parts]), "image/png")

    def nucleus(self, request: Request) -> Reply:
        return as_json(self.gallery.nucleus(request.whole("row")))

    def save(self, request: Request) -> Reply:
        assert self.sheet is not None  # noqa: S101  the route is there only then
        given = guard.parse_json(request.body, where="the types")
        return as_json({"n": self.sheet.save(given), "file": str(self.sheet.path)})

    def suggest(self, request: Request) -> Reply:
        rows = guard.parse_json(request.body, where="the types")
        known = {int(row) for row in rows if str(row).isdigit()}
        return as_json({"rows": self.gallery.doubtful(known)})


def map_site(
    folder: str | Path, *, types: Sequence[str] = (), labels: str | Path | None = None
) -> Site:
    """The page of an ATLAS folder; with ``labels`` types can be given there and are saved to it.

    Raises
    ------
    InputError
        No finished atlas with a 2D map is there.
    """
    folder = Path(folder)
    atlas = read_atlas(folder)
    crops = read_crops(folder / "crops.zarr") if (folder / "crops.zarr").is_dir() else None
    try:
        gallery = Gallery(atlas, crops)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    sheet = None if labels is None else TypeSheet(Path(labels), atlas)
    known = sorted(set(atlas.table.frame["type"]) - {""})
    given = () if sheet is None else (*types, *known, *sorted(set(sheet.types.values())))
    wall = _Wall(folder.name, gallery, sheet, tuple(dict.fromkeys(given)))
    routes = {
        "GET /state": wall.state, "GET /places": wall.places, "GET /column": wall.column,
        "GET /thumbnails": wall.thumbnails, "GET /nucleus": wall.nucleus,
    }  # fmt: skip
    if sheet is not None:
        routes |= {"POST /save": wall.save, "POST /suggest": wall.suggest}
    return Site("map", routes)
