"""The page of results, and the verb that opens it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import nucleoscope
from nucleoscope.errors import InputError
from nucleoscope.io.guard import write_json
from nucleoscope.io.omezarr import write_labels
from nucleoscope.io.tables import write_table
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.view import browse
from nucleoscope.view.browse import results_site
from nucleoscope.view.report import ReportImage
from nucleoscope.view.serve import TOKEN_HEADER, Request, Site, run, start


@pytest.fixture
def folder(scene: Callable[..., ReportImage], tmp_path: Path) -> Path:
    """OUT of four images."""
    names = [f"image_{i}" for i in range(4)]
    for name in names:
        image = scene(name)
        write_ome_tiff(tmp_path / f"{name}.ome.tif", image.volume)
        write_table(image.table, tmp_path / "out" / name)
        write_labels(tmp_path / "out" / name / "labels.ome.zarr", image.labels)
    inputs = [{"path": str(tmp_path / f"{name}.ome.tif")} for name in names]
    write_json(tmp_path / "out" / "run.json", {"inputs": inputs})
    return tmp_path / "out"


def test_images_are_read_when_they_are_looked_at_and_few_are_kept(folder: Path) -> None:
    site = results_site(folder)
    state = json.loads(site.routes["GET /state"](Request()).body)
    assert state["images"] == [f"image_{i}" for i in range(4)]
    shelf = site.routes["GET /image"].__self__  # type: ignore[attr-defined]
    assert not shelf._open
    for number in "01230":
        told = json.loads(site.routes["GET /image"](Request({"image": number})).body)
        assert told["image"]["name"] == f"image_{number}"
        assert told["colours"] == {"negative": "#56B4E9", "positive": "#E69F00"}
    assert list(shelf._open) == ["image_2", "image_3", "image_0"]
    for number in ("4", "-1"):
        with pytest.raises(InputError):
            site.routes["GET /image"](Request({"image": number}))


def test_a_missing_image_is_said_and_its_nuclei_are_shown(folder: Path) -> None:
    (folder.parent / "image_0.ome.tif").unlink()
    told = json.loads(results_site(folder).routes["GET /image"](Request({"image": "0"})).body)
    assert any("could not be read" in notice for notice in told["image"]["notices"])
    assert told["image"]["has_nuclei"] is True


def test_a_page_is_answered_over_http_from_tile_to_nucleus(folder: Path) -> None:
    running = start(results_site(folder))
    try:
        link = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        headers = {TOKEN_HEADER: running.url.partition("#")[2]}

        def get(target: str) -> bytes:
            link.request("GET", target, headers=headers)
            reply = link.getresponse()
            body = reply.read()
            assert reply.status == 200, body
            return body

        get("/image?image=0")
        tile = get("/tile?image=0&channel=1&z=2&level=0&row=0&column=0&low=0&high=255")
        assert tile.startswith(b"\x89PNG")
        outlines = json.loads(get("/outlines?image=0&z=-1"))
        assert outlines["ids"] == [1, 2, 3, 4, 5, 6]
        assert json.loads(get("/nucleus?image=0&z=2&y=15&x=16")) == {"id": 1}
        link.close()
    finally:
        running.stop()


def test_a_folder_that_is_neither_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        nucleoscope.view(tmp_path, browser=False)


def test_the_verb_can_be_called_whichever_way_it_was_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nucleoscope.view.report

    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(browse, "run", lambda site, **more: seen.append((site.script, more)))
    nucleoscope.view(folder, port=7, browser=False)
    nucleoscope.view.browse.view(folder)  # type: ignore[attr-defined]
    assert seen == [
        ("results", {"port": 7, "browser": False}), ("results", {"port": 0, "browser": True}),
    ]  # fmt: skip


def test_it_runs_until_it_is_interrupted_and_says_its_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if timeout is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    run(Site("results", {}))
    said = capsys.readouterr().err
    assert said.startswith("http://127.0.0.1:")
    assert "#once-" in opened[0]
    assert opened[0].partition("#once-")[2] not in said
