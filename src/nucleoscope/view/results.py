"""From the folders a run left behind to its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nucleoscope.data.labels import Labels
from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError, NucleoscopeError
from nucleoscope.flow.inputs import POINT_SUFFIXES, REGION_SUFFIXES
from nucleoscope.io.guard import read_json
from nucleoscope.io.images import find_beside, image_stem, read_labels, read_volume
from nucleoscope.io.outlines import read_region
from nucleoscope.io.points import read_points
from nucleoscope.io.tables import read_table
from nucleoscope.view.model import ReportImage, ReportRun
from nucleoscope.view.report import write_report

__all__ = ["read_results", "report", "result_readers"]

T = TypeVar("T")

#: Entries of the manifest that are long lists or say nothing to a reader.
NOT_FACTS = {"inputs", "outputs", "history", "files", "verb", "model_sha256", "figures"}
#: Entries that a reader knows under another name.
SPELT = {"at": "made", "seconds": "time (s)"}


@dataclass(frozen=True)
class _Input:
    """An image the manifest names, with its clicks and region where it names them."""

    image: Path
    points: Path | None
    region: Path | None
    notes: tuple[str, ...]


def report(
    folders: str | Path | Sequence[str | Path],
    path: str | Path | None = None,
    *,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one page that shows the results in one or more folders written by ``detect``.

    Images are read again from where the manifest says they were; clicks and regions are those it
    names or, failing that, those beside the image. What is missing is said on the page.

    Parameters
    ----------
    folders
        ``OUT`` of ``detect``: it holds ``run.json`` and a folder per image.
    path
        The HTML file; default ``report.html`` in the first folder.
    title
        Heading of the page; default names the folders.
    overwrite
        Replace a file that this process did not write itself.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        A folder has no ``run.json`` (the run is not finished) or no table of nuclei.
    """
    many = [folders] if isinstance(folders, (str, Path)) else list(folders)
    loaded = [read_results(folder) for folder in many]
    images = [image for _, found in loaded for image in found]
    facts = {k: v for run, _ in reversed(loaded) for k, v in run.facts.items()}
    history = next((run.history for run, _ in loaded if run.history), None)
    heading = title or "Nuclei in " + ", ".join(run.title for run, _ in loaded)
    target = Path(many[0]) / "report.html" if path is None else Path(path)
    return write_report(target, ReportRun(heading, facts, history), images, overwrite=overwrite)


def read_results(folder: str | Path) -> tuple[ReportRun, list[ReportImage]]:
    """What a finished run left in ``folder``: its facts and its images, in order of their names.

    Raises
    ------
    InputError
        No ``run.json``, or no image folder with a table of nuclei.
    """
    run, readers = result_readers(folder)
    return run, [read() for read in readers.values()]


def result_readers(
    folder: str | Path,
) -> tuple[ReportRun, dict[str, Callable[[], ReportImage]]]:
    """The facts of a finished run, and of each image by name what reads it.

    Raises
    ------
    InputError
        No ``run.json``, or no image folder with a table of nuclei.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise InputError(
            f"{folder}: it has no run.json, so no finished run is there; give the OUT folder of a "
            "finished detect, or finish it with --resume."
        )
    manifest = read_json(folder / "run.json")
    inputs = {image_stem(entry.image): entry for entry in _inputs(manifest, folder)}
    tables = sorted(folder.glob("*/nuclei.parquet"))
    if not tables:
        raise InputError(f"{folder}: no <image>/nuclei.parquet in it; run detect first.")
    model = _model_of(manifest, folder)
    stain = model.get("nuclei")
    readers: dict[str, Callable[[], ReportImage]] = {
        place.name: partial(_read_image, place, inputs.get(place.name), stain)
        for place in (table.parent for table in tables)
    }
    taught = model.get("training")
    training = dict(taught) if isinstance(taught, Mapping) else {}
    history = training.pop("history", None) or manifest.get("history")
    facts = {k: v for k, v in model.items() if k in ("recipe", "types", "markers")}
    facts |= {"training": training} | dict(manifest)
    return ReportRun(folder.name, dict(_facts(facts)), history or None), readers


def _model_of(manifest: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The description of the model the manifest names, where it is still there."""
    named = manifest.get("model")
    path = _locate(named, folder) / "model.json" if isinstance(named, str) else None
    if path is None or not path.is_file():
        return {}
    try:
        found = read_json(path)
    except NucleoscopeError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _inputs(manifest: Mapping[str, Any], folder: Path) -> Iterator[_Input]:
    """The images a manifest names; each entry is a path or has one under ``path``."""
    for entry in manifest.get("inputs", ()):
        row = entry if isinstance(entry, Mapping) else {"path": entry}
        named = row.get("path") or row.get("image")
        if isinstance(named, str):
            image = _locate(named, folder)
            yield _Input(
                image,
                _file_of(row, "points", folder) or find_beside(image, POINT_SUFFIXES),
                _file_of(row, "roi", folder) or find_beside(image, REGION_SUFFIXES),
                tuple(str(note) for note in row.get("notes", ())),
            )


def _locate(named: str, folder: Path) -> Path:
    """A path of the manifest: as it is, or from the folder of the results or the one around it.

    Relative paths are those of the working folder of the run, which mostly held its results.
    """
    places = (Path(named), folder / named, folder.absolute().parent / named)
    return next((place for place in places if place.exists()), Path(named))


def _file_of(row: Mapping[str, Any], key: str, folder: Path) -> Path | None:
    """A further file the manifest names for an image."""
    named = row.get(key)
    return _locate(named, folder) if isinstance(named, str) else None


def _read_image(place: Path, source: _Input | None, nuclei: str | None) -> ReportImage:
    """One image's results with its pixels, or with what is missing said in a notice."""
    table, labels = read_table(place / "nuclei.parquet"), read_labels(place / "labels.ome.zarr")
    source = source or _Input(Path(place.name), None, None, ())
    notices = list(source.notes)
    volume = _read(read_volume, source.image, "The image", notices)
    if volume is None:
        black = np.zeros((1, *labels.shape), dtype=np.uint8)
        volume = Volume(black, ("image not found",), labels.spacing, place.name)
    return ReportImage(
        place.name,
        volume,
        Labels(labels.data, volume.spacing or labels.spacing),
        table,
        _read(read_points, source.points, "The annotation", notices),
        _read(read_region, source.region, "The region", notices),
        nuclei=nuclei,
        notices=tuple(notices),
    )


def _read(read: Callable[[Path], T], path: Path | None, what: str, notices: list[str]) -> T | None:
    """The content of a file, or None and a notice that says why it is not shown."""
    if path is None:
        return None
    try:
        return read(path)
    except NucleoscopeError as error:
        notices.append(f"{what} could not be read and is not shown: {error}")
        return None


def _facts(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Scalars of the manifest, and mappings of scalars on one line."""
    for key, value in manifest.items():
        if key in NOT_FACTS:
            continue
        if isinstance(value, (list, tuple)):
            value = ", ".join(_plain(v) for v in value)
        name = SPELT.get(key, key.replace("_", " "))
        if isinstance(value, Mapping):
            inner = [f"{k.replace('_', ' ')} {_plain(v)}" for k, v in value.items() if _plain(v)]
            if inner:
                yield name, ", ".join(inner)
        elif _plain(value):
            yield name, _plain(value)


def _plain(value: object) -> str:
    """A scalar as text; floats to four figures; anything else is empty."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, (str, int)) else ""
