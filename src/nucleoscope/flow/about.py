"""What a file is, and what this machine can do."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nucleoscope.errors import InputError, MissingExtraError, NucleoscopeError
from nucleoscope.flow.run import versions
from nucleoscope.io import guard
from nucleoscope.io.atlas import read_atlas
from nucleoscope.io.images import describe, is_image
from nucleoscope.io.nuclei import read_nuclei
from nucleoscope.io.outlines import read_region
from nucleoscope.io.points import read_points
from nucleoscope.io.qupath import is_project, read_project
from nucleoscope.io.slides import read_slide

#: Extra -> a module that tells whether it is installed.
EXTRAS = {
    "cluster": "distributed", "spatial": "anndata", "spatialdata": "spatialdata",
    "bio": "bioio_czi", "dicom": "highdicom", "wsi": "wsidicom", "atlas": "igraph",
}  # fmt: skip


def info(file: str | Path) -> dict[str, Any]:
    """What a file or folder holds, in a few lines.

    Parameters
    ----------
    file
        An image, a slide, nuclei, points, outlines, OUT of ``detect``, a model, an atlas or a
        QuPath project. Images and slides are described from their headers.

    Returns
    -------
    dict
        ``kind`` first; the rest depends on it.

    Raises
    ------
    InputError
        Absent, damaged, or of no known kind.
    MissingExtraError
        A format whose reader is an extra that is not installed.
    """
    path = Path(file)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder.")
    look = next((look for is_one, look in _KINDS if is_one(path)), None)
    return _by_content(path) if look is None else look(path)


def _model(path: Path) -> dict[str, Any]:
    """A model from its card."""
    from nucleoscope.learn.model import load_model

    config = load_model(path).config
    figures = {k: v for k, v in config.training.items() if k != "history"}
    return {
        "kind": "model",
        "recipe": config.recipe,
        "channels": ", ".join(config.channels),
        "types": ", ".join(config.types),
        "spacing (z, y, x) um": config.spacing,
        "nucleus radius px": round(config.radius_px, 2),
        **figures,
    }


def _encoder(path: Path) -> dict[str, Any]:
    """An encoder of nuclei from its card."""
    card = guard.read_json(path / "model.json")
    plain = {k: v for k, v in card.items() if isinstance(v, str | int | float) and k != "kind"}
    return {"kind": "encoder", **plain}


def _atlas(path: Path) -> dict[str, Any]:
    """An atlas: how many nuclei, how long their vectors, what was found out."""
    atlas = read_atlas(path)
    parts = {"features": atlas.features, "subtypes": atlas.subtypes, "2D map": atlas.map2d}
    return {
        "kind": "atlas",
        **_table(atlas.table.frame),
        "dimensions": int(atlas.embedding.shape[1]),
        "with": ", ".join(k for k, v in parts.items() if v is not None) or "embedding only",
    }


def _out(path: Path) -> dict[str, Any]:
    """OUT of ``detect``: the images that it holds."""
    manifest = guard.read_json(path / "run.json")
    images = sorted(found.parent.name for found in path.glob("*/nuclei.parquet"))
    facts = {k: v for k, v in manifest.items() if isinstance(v, str | int | float)}
    return {"kind": "result", **facts, "images": ", ".join(images) or "none"}


def _project(path: Path) -> dict[str, Any]:
    """A QuPath project: its images."""
    images = read_project(path)
    return {
        "kind": "QuPath project",
        "images": len(images),
        **{i.name: f"{i.shape} {'found' if i.path else 'not on this machine'}" for i in images},
    }


def _image(path: Path) -> dict[str, Any]:
    """An image, and its levels where it is also a slide."""
    found = describe(path)
    facts = {"kind": "image", **vars(found)}
    with contextlib.suppress(NucleoscopeError):
        if found.channels == ("red", "green", "blue") and path.is_file():
            facts["levels"] = [list(shape) for shape in read_slide(path).level_shapes]
    return facts


def _by_content(path: Path) -> dict[str, Any]:
    """Whatever reader takes it; the sentence of the last that knew the format, if none does."""
    if is_image(path):
        return _image(path)
    refused: list[NucleoscopeError] = []
    for look in (_slide, _points, _nuclei, _outlines):
        try:
            return look(path)
        except MissingExtraError:
            raise
        except NucleoscopeError as error:
            refused.append(error)
    known = [error for error in refused if not any(w in str(error) for w in _UNKNOWN)]
    if known:
        raise known[0]
    raise InputError(
        f"{path}: it is nothing that is read here: no image, slide, nuclei, points, outlines, "
        "result, model, atlas or QuPath project."
    )


#: What readers say of a format that is not theirs.
_UNKNOWN = (
    "is no slide format", "holds no nuclei", "which is none of", "it is a folder", "is not GeoJSON",
    "is neither GeoJSON", "without a point", "holds no point ROI", "holds no polygon",
)  # fmt: skip


def _slide(path: Path) -> dict[str, Any]:
    slide = read_slide(path)
    levels = [list(shape) for shape in slide.level_shapes]
    return {"kind": "slide", "levels": levels, "um per pixel": slide.mpp, "notes": slide.notes}


def _points(path: Path) -> dict[str, Any]:
    """Clicks; a table with scores or outlines is one of nuclei."""
    if path.is_dir():
        raise InputError(f"{path}: it is a folder; give a file of points.")
    with path.open("rb") as file:
        first = file.readline(65536).lower()
    if b"score" in first:
        raise InputError(f"{path}: its first line is a table of nuclei, which is none of points.")
    points = read_points(path)
    zyx = points.zyx()
    facts: dict[str, Any] = {"kind": "points", "points": len(points)}
    if len(points):
        low, high = zyx.min(axis=0), zyx.max(axis=0)
        facts |= {f"{a} from to": [float(low[i]), float(high[i])] for i, a in enumerate("zyx")}
    return facts | {"types": _counts(points.types.tolist())}


def _nuclei(path: Path) -> dict[str, Any]:
    nuclei = read_nuclei(path)
    n_known = 0 if nuclei.outlines is None else int(nuclei.outlines.is_known().sum())
    return {
        "kind": "nuclei",
        **_table(nuclei.table.frame),
        "with an outline": n_known,
        "instance map": "yes" if nuclei.labels is not None else "no",
        "notes": nuclei.notes,
    }


def _outlines(path: Path) -> dict[str, Any]:
    region = read_region(path)
    return {"kind": "outlines", "rings": len(region.rings)}


def _table(frame: Any) -> dict[str, Any]:
    """A table of nuclei in a few lines."""
    images = sorted(set(frame["image"]) - {""})
    return {
        "nuclei": len(frame),
        "images": ", ".join(images[:5]) + (f" and {len(images) - 5} more" if images[5:] else ""),
        "types": _counts(frame["type"].tolist()),
        "columns": ", ".join(map(str, frame.columns)),
    }


def _counts(types: list[str]) -> str:
    """How many of each type, the most frequent first.

    >>> _counts(["a", "b", "b", ""])
    'b 2, a 1, no type 1'
    """
    found = Counter(types).most_common(12)
    return ", ".join(f"{kind or 'no type'} {n}" for kind, n in found)


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda path: all((path / name).exists() for name in names)


def _is_encoder(path: Path) -> bool:
    """A model's folder whose card is an encoder's."""
    card = path / "model.json"
    return card.is_file() and "encoder" in str(guard.read_json(card).get("kind", ""))


#: How to know what is no file of a format, and how to look at it; the first that fits is taken.
_KINDS: tuple[tuple[Callable[[Path], bool], Callable[[Path], dict[str, Any]]], ...] = (
    (_is_encoder, _encoder),
    (_has("model.json"), _model),
    (_has("embedding.zarr"), _atlas),
    (is_project, _project),
    (_has("run.json"), _out),
)


def doctor() -> dict[str, Any]:
    """Versions, cores, memory, disk, accelerators, installed extras, and the reading limits."""
    from nucleoscope.learn.infer import accelerators

    free = guard.available_memory()
    return {
        **versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory free": "unknown" if free is None else f"{free / 2**30:.1f} GiB",
        "disk free here": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB",
        **accelerators(),
        **{
            f"extra {name}": "installed" if find_spec(module) else "not installed"
            for name, module in EXTRAS.items()
        },
        **{f"limit {k}": v for k, v in vars(guard.DEFAULT_LIMITS).items()},
    }
