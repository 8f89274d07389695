"""Look at results: images with their nuclei, or an atlas, in a page on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nucleoscope.errors import InputError
from nucleoscope.io.atlas import is_atlas
from nucleoscope.view.annotate import tile_reply
from nucleoscope.view.mapped import map_site
from nucleoscope.view.model import ReportImage
from nucleoscope.view.overlay import type_colours
from nucleoscope.view.results import result_readers
from nucleoscope.view.scene import Scene
from nucleoscope.view.serve import Reply, Request, Site, as_json, run
from nucleoscope.view.text import short, visible

__all__ = ["results_site", "view"]

#: Images kept in memory; the one looked at longest ago goes first.
_KEPT = 3


@dataclass(eq=False)
class _Shelf:
    """The images of OUT, each read when it is first looked at."""

    title: str
    readers: dict[str, Callable[[], ReportImage]]
    _open: dict[str, Scene] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def scene(self, request: Request) -> Scene:
        """The image that a request names by its number."""
        names = list(self.readers)
        number = request.whole("image")
        if not 0 <= number < len(names):
            raise InputError(f"there is no image {number}.")
        name = names[number]
        with self._lock:
            if name in self._open:
                self._open[name] = self._open.pop(name)
                return self._open[name]
            found = self.readers[name]()
            scene = Scene(found.volume, found.labels, found.table, found.nuclei, found.notices)
            self._open[name] = scene
            while len(self._open) > _KEPT:
                self._open.pop(next(iter(self._open)))
            return scene

    def state(self, request: Request) -> Reply:
        names = [short(str(visible(name))) for name in self.readers]
        return as_json({"title": short(str(visible(self.title))), "images": names})

    def image(self, request: Request) -> Reply:
        scene = self.scene(request)
        types = [] if scene.table is None else sorted(set(scene.table.frame["type"]))
        colours = {
            short(str(visible(name))): colour for name, colour in type_colours(types).items()
        }
        return as_json({"image": scene.describe(), "columns": scene.rows(), "colours": colours})

    def tile(self, request: Request) -> Reply:
        return tile_reply(self.scene(request), request)

    def outlines(self, request: Request) -> Reply:
        return as_json(self.scene(request).outlines(request.whole("z")))

    def nucleus(self, request: Request) -> Reply:
        found = self.scene(request).nucleus_at(
            request.whole("z"), request.number("y"), request.number("x")
        )
        return as_json({"id": found})


def results_site(folder: str | Path) -> Site:
    """The page of ``view`` for OUT of ``detect``.

    Raises
    ------
    InputError
        No finished run is there.
    """
    run_of, readers = result_readers(folder)
    shelf = _Shelf(run_of.title, readers)
    return Site("results", {
        "GET /state": shelf.state, "GET /image": shelf.image, "GET /tile": shelf.tile,
        "GET /outlines": shelf.outlines, "GET /nucleus": shelf.nucleus,
    })  # fmt: skip


def view(folder: str | Path, *, port: int = 0, browser: bool = True) -> None:
    """Look at the results of ``detect`` or at an atlas, in a page on this machine.

    Of OUT: slices and the maximum over them, channels with their contrast and colours, outlines
    coloured by type or by any number of the table, the table with a filter. Of an ATLAS: the 2D
    map coloured by subtype, type or any number, thumbnails, nearest neighbours. Nothing is
    written. Runs until Ctrl-C.

    Parameters
    ----------
    folder
        OUT of ``detect``, or ATLAS.
    port
        On 127.0.0.1; 0 takes one that is free.
    browser
        Open the page.

    Raises
    ------
    InputError
        Neither is there.
    """
    site = map_site(folder) if is_atlas(folder) else results_site(folder)
    run(site, port=port, browser=browser)
