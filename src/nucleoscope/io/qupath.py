"""QuPath projects: which images they list. Their objects are Java's own serialisation (.qpdata).

The objects are exported in QuPath (File > Export objects as GeoJSON) and read by ``read_nuclei``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits
from nucleoscope.io.raw import to_um

PROJECT = "project.qpproj"


@dataclass(frozen=True)
class ProjectImage:
    """One image of a QuPath project.

    Parameters
    ----------
    name
        As QuPath shows it.
    path
        The file, where it lies at the place the project names or below the project's folder;
        else None.
    shape
        ``(C, Z, Y, X)``.
    channels
        Names.
    mpp
        ``(y, x)`` um per pixel, or None.
    """

    name: str
    path: Path | None
    shape: tuple[int, int, int, int]
    channels: tuple[str, ...]
    mpp: tuple[float, float] | None


def is_project(path: Path | str) -> bool:
    """True for a ``.qpproj`` file, or a folder with ``project.qpproj``."""
    path = Path(path)
    return path.suffix.casefold() == ".qpproj" or (path / PROJECT).is_file()


def read_project(path: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> list[ProjectImage]:
    """The images that a QuPath project lists.

    Parameters
    ----------
    path
        The project's folder or its ``project.qpproj``.

    Raises
    ------
    InputError
        Not a project, or damaged.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> guard.write_json(folder / "project.qpproj", {"images": []})
    >>> read_project(folder)
    []
    """
    path = Path(path)
    file = path / PROJECT if path.is_dir() else path
    value = guard.read_json(file, limits=limits)
    images = value.get("images") if isinstance(value, dict) else None
    if not isinstance(images, list):
        raise InputError(f"{file}: it is no QuPath project (no list of images).")
    try:
        return [_image(entry, file.parent) for entry in images]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{file}: an image of the project is not described as expected.") from None


def _image(entry: dict[str, Any], folder: Path) -> ProjectImage:
    """One entry of the list."""
    builder = entry.get("serverBuilder") or {}
    meta = builder.get("metadata") or {}
    channels = tuple(str(c.get("name", "")) for c in meta.get("channels") or [])
    shape = tuple(int(meta.get(key, 1)) for key in ("sizeZ", "height", "width"))
    name = str(entry.get("imageName") or meta.get("name") or "")
    size = meta.get("pixelCalibration") or {}
    lengths = [_um(size.get(key)) for key in ("pixelHeight", "pixelWidth")]
    y, x = lengths
    return ProjectImage(
        name, _file(str(builder.get("uri", "")), folder),
        (max(1, len(channels)), shape[0], shape[1], shape[2]), channels,
        None if y is None or x is None else (y, x),
    )  # fmt: skip


def _um(value: Any) -> float | None:
    """A length of QuPath's calibration in um."""
    return to_um(float(value["value"]), str(value["unit"])) if isinstance(value, dict) else None


def _file(uri: str, folder: Path) -> Path | None:
    """The image on this machine: where the project says, or below the project's folder."""
    place = PurePosixPath(unquote(urlsplit(uri).path))
    if not place.name:
        return None
    if Path(place).is_file():
        return Path(place)
    tails = [place.parts[-n:] for n in range(1, min(4, len(place.parts)))]
    found = [folder.joinpath(*tail) for tail in tails if ".." not in tail]
    return next((path for path in found if path.is_file()), None)
