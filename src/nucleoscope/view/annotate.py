"""Click nuclei of an image: one point and a type each, saved as the points file of the contract."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.inputs import POINT_SUFFIXES, Reading, open_image, region_for
from nucleoscope.flow.suggest import suggest
from nucleoscope.io import guard
from nucleoscope.io.atlas import is_atlas
from nucleoscope.io.images import find_beside, image_stem
from nucleoscope.io.points import read_points, write_points
from nucleoscope.io.tables import read_csv
from nucleoscope.learn.model import load_model
from nucleoscope.units import Spacing
from nucleoscope.view.mapped import map_site
from nucleoscope.view.scene import Scene
from nucleoscope.view.serve import Reply, Request, Site, as_json, run

__all__ = ["Sheet", "annotate", "clicks_site"]

#: Columns of a points file; one that has others is not ours to write.
COLUMNS = {"id", "z", "y", "x", "type"}
#: Types offered where neither the clicks, nor the model, nor the caller name any.
USUAL_TYPES = ("positive", "negative")
#: Suggested regions.
N_SUGGESTED = 12


@dataclass(eq=False)
class Sheet:
    """The points file of one image: read at the start, replaced as a whole at each save.

    Parameters
    ----------
    path
        The file, ``<stem>.points.csv``; it need not be there yet.
    shape
        ``(Z, Y, X)`` of the image, which every point lies in.
    source
        Another file that the clicks are taken from when ``path`` is not there, or None.

    Raises
    ------
    CallError
        ``path`` has columns that saving would lose.
    InputError
        It cannot be read, or a point lies outside the image.
    """

    path: Path
    shape: tuple[int, int, int]
    source: Path | None = None
    points: Points = field(init=False)
    _seen: str = field(init=False, default="")
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        origin = self.path if self.path.is_file() else self.source
        self.points = Points(z=[], y=[], x=[])  # type: ignore[arg-type]
        if origin is not None:
            self.points = read_points(origin, image=image_stem(origin)).check_inside(self.shape)
        if self.path.is_file():
            self._check_columns()
        self._seen = self._digest()

    def _check_columns(self) -> None:
        """Refuse a file in which somebody keeps more than points."""
        more = sorted({str(c).strip().casefold() for c in read_csv(self.path)} - COLUMNS)
        if more:
            raise CallError(
                f"{self.path}: it also has the column {more[0]!r}, which saving clicks would lose; "
                "name another file to write."
            )

    def _digest(self) -> str:
        """What the file holds now; empty when it is not there."""
        return guard.sha256_file(self.path) if self.path.is_file() else ""

    def rows(self) -> list[dict[str, Any]]:
        """The points as the page has them."""
        p = self.points
        return [
            {"id": int(i), "z": float(z), "y": float(y), "x": float(x), "type": str(t)}
            for i, z, y, x, t in zip(p.ids, p.z, p.y, p.x, p.types, strict=True)
        ]

    def points_of(self, rows: Any) -> Points:
        """Checked points from the page's rows.

        Raises
        ------
        InputError
            Not rows of ``id, z, y, x, type``, ids that repeat, or a point outside the image.
        """
        try:
            columns = {key: [row[key] for row in rows] for key in ("id", "z", "y", "x", "type")}
            places = {key: np.array(columns[key], dtype=np.float64) for key in ("z", "y", "x")}
            types = np.array([str(t).strip() for t in columns["type"]], dtype=np.str_)
            ids = np.array(columns["id"], dtype=np.int64)
        except (TypeError, ValueError, KeyError, OverflowError):
            raise InputError("the clicks sent are not rows of id, z, y, x and type.") from None
        return Points(**places, type=types, id=ids, name="clicks").check_inside(self.shape)

    def save(self, rows: Any) -> int:
        """Replace the file by these rows at once; how many there are.

        Raises
        ------
        CallError
            Somebody else wrote the file since it was read: nothing is written.
        InputError
            See ``points_of``.
        """
        points = self.points_of(rows)
        with self._lock:
            if self._digest() != self._seen:
                raise CallError(
                    f"{self.path}: another program changed it since it was read here, so nothing "
                    "was saved; move that file away and save again to keep these clicks."
                )
            write_points(self.path, points, overwrite=bool(self._seen))
            self._seen, self.points = self._digest(), points
        return len(points)


@dataclass(eq=False)
class _Desk:
    """What the page of clicks asks for."""

    scene: Scene
    sheet: Sheet
    types: tuple[str, ...]
    model: Any
    rings: list[list[list[float]]]
    roi: Path | None

    def state(self, request: Request) -> Reply:
        return as_json({
            "image": self.scene.describe(), "points": self.sheet.rows(), "types": self.types,
            "file": self.sheet.path.name, "is_new": not self.sheet.path.is_file(),
            "has_model": self.model is not None, "region": self.rings,
        })  # fmt: skip

    def tile(self, request: Request) -> Reply:
        return tile_reply(self.scene, request)

    def save(self, request: Request) -> Reply:
        rows = guard.parse_json(request.body, where="the clicks")
        return as_json({"n": self.sheet.save(rows), "file": str(self.sheet.path)})

    def suggest(self, request: Request) -> Reply:
        rows = guard.parse_json(request.body, where="the clicks")
        known = self.sheet.points_of(rows)
        found = suggest(
            self.scene.volume, self.model, n=N_SUGGESTED, points=known, roi=self.roi, quiet=True
        )
        return as_json({"regions": found.drop(columns="image").to_dict(orient="records")})


def tile_reply(scene: Scene, request: Request) -> Reply:
    """The tile a page asks for."""
    body = scene.tile(
        request.whole("channel", 0), request.whole("z"), request.whole("level"),
        request.whole("row"), request.whole("column"),
        low=request.number("low", 0.0), high=request.number("high", 255.0),
    )  # fmt: skip
    return Reply(body, "image/png")


def clicks_site(
    image: str | Path | Volume,
    points: str | Path | None = None,
    *,
    model: str | Path | None = None,
    types: Sequence[str] = (),
    roi: str | Path | None = None,
    axes: str | None = None,
    spacing: Spacing | None = None,
) -> Site:
    """The page of ``annotate`` for an image; see there."""
    volume = open_image(image, Reading(axes, spacing))
    if points is None and isinstance(image, Volume):
        raise CallError("an image in memory has no place of its own; name the points file.")
    source = None if isinstance(image, Volume) else find_beside(image, POINT_SUFFIXES)
    path = _beside(Path(str(image))) if points is None else Path(points)
    if path.suffix.casefold() != ".csv":
        raise CallError(f"{path}: clicks are saved as CSV; name a file that ends in .csv.")
    sheet = Sheet(path, volume.shape, source if points is None else None)
    region, file = region_for(image, roi, volume)
    loaded = None if model is None else load_model(model)
    desk = _Desk(
        Scene(volume), sheet, _types(types, sheet.points, loaded), loaded,
        [] if region is None else [ring.tolist() for ring in region.rings],
        Path(file) if file else None,
    )  # fmt: skip
    return Site("clicks", {
        "GET /state": desk.state, "GET /tile": desk.tile, "POST /save": desk.save,
        "POST /suggest": desk.suggest,
    })  # fmt: skip


def _beside(image: Path) -> Path:
    """``<stem>.points.csv`` beside an image."""
    return image.parent / f"{image_stem(image)}.points.csv"


def _types(given: Sequence[str], points: Points, model: Any) -> tuple[str, ...]:
    """The types offered: those given, then the model's, then those of the clicks, at least two."""
    config = getattr(model, "config", None)
    taught = () if config is None else (*config.types, *(USUAL_TYPES if config.markers else ()))
    found = (*given, *taught, *sorted(set(points.types.tolist()) - {""}))
    return tuple(dict.fromkeys(found)) or USUAL_TYPES


def annotate(
    image: str | Path | Volume,
    points: str | Path | None = None,
    *,
    model: str | Path | None = None,
    types: Sequence[str] = (),
    roi: str | Path | None = None,
    axes: str | None = None,
    spacing: Spacing | None = None,
    port: int = 0,
    browser: bool = True,
) -> None:
    """Click nuclei of an image, or give types to nuclei of an atlas, in a page on this machine.

    Of an image, each click is a point with a slice and the current type. Saving replaces the
    points file as a whole, never a file that changed since it was read. Of an atlas, types of
    its nuclei are kept in a CSV that ``transfer --reference`` takes. Runs until Ctrl-C.

    Parameters
    ----------
    image
        An image, or an ATLAS folder.
    points
        The file to go on from and to write; None: ``<stem>.points.csv`` beside the image. Clicks
        of another format beside the image are taken over into it. Of an atlas:
        ``<ATLAS>.types.csv`` beside it.
    model
        Suggests where clicks would teach it most; without one, where blobs were not clicked.
    types
        Names of the types, for the keys 1 to 9.
    roi
        The region that is annotated; found by name beside the image.
    axes, spacing
        Of an image that does not say.
    port
        On 127.0.0.1; 0 takes one that is free.
    browser
        Open the page.

    Raises
    ------
    CallError
        The points file has columns that saving would lose.
    InputError
        The image, the points or the model cannot be read.
    """
    if not isinstance(image, Volume) and is_atlas(image):
        site = map_site(image, types=types, labels=points or Path(f"{Path(image)}.types.csv"))
    else:
        site = clicks_site(
            image, points, model=model, types=types, roi=roi, axes=axes, spacing=spacing
        )
    run(site, port=port, browser=browser)
