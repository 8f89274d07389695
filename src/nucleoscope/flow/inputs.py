"""From what a user names to what the stages take: volumes, their points, their regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from nucleoscope.data.labels import Labels
from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.io.images import find_beside, image_stem, read_labels, read_volume
from nucleoscope.io.outlines import read_region
from nucleoscope.io.points import read_points
from nucleoscope.units import Spacing

Image = str | Path | Volume

#: Names that mean a nuclear stain, in lower case.
NUCLEAR_STAINS = ("dapi", "hoechst", "draq5", "nuclei", "nucleus", "nuclear", "sytox", "to-pro-3")
POINT_SUFFIXES = (".points.csv", ".points.xml", ".points.geojson", ".cell_counter.xml")
LABEL_SUFFIXES = (".labels.tif", ".labels.ome.tif", ".labels.png", ".labels.ome.zarr")
REGION_SUFFIXES = (".roi.geojson", ".roi")


@dataclass(frozen=True)
class Reading:
    """How to read images whose files do not say enough."""

    axes: str | None = None
    spacing: Spacing | None = None
    allow_short: bool = False


@dataclass(frozen=True, eq=False)
class Example:
    """An image with its points and its region."""

    volume: Volume
    points: Points
    region: Region | None
    files: dict[str, str]
    labels: Labels | None = None


Thing = TypeVar("Thing", bound=str | Path | Points | Labels)


def one_per_image(
    given: Sequence[Thing] | Thing | None, images: Sequence[Image], what: str
) -> list[Thing | None]:
    """What was given for the images, in order, or None for each.

    Raises
    ------
    CallError
        As many as images, or none, are expected.
    """
    if given is None:
        return [None] * len(images)
    is_one = isinstance(given, (str, Path, Points, Labels))
    files: list[Thing] = [given] if is_one else list(given)  # type: ignore[list-item, arg-type]
    if len(files) != len(images):
        raise CallError(
            f"{len(files)} {what} files for {len(images)} images; give one per image, in the same "
            f"order, or none to take those beside the images."
        )
    return [*files]


def as_images(images: Sequence[Image] | Image) -> list[Image]:
    """A list of images, with folders of images opened and names that would collide refused.

    Raises
    ------
    CallError
        None given, or two with the same stem.
    """
    many = [images] if isinstance(images, (str, Path, Volume)) else list(images)
    if not many:
        raise CallError("no image was given.")
    stems = [name_of(image) for image in many]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise CallError(
            f"two images are called {twice[0]}, and their results would overwrite each other; "
            "rename one."
        )
    return many


def name_of(image: Image) -> str:
    """The stem of a file, or a volume's name."""
    return image.name if isinstance(image, Volume) else image_stem(image)


def open_image(image: Image, reading: Reading) -> Volume:
    """A volume, read if need be."""
    if isinstance(image, Volume):
        return image if reading.spacing is None else replace(image, spacing=reading.spacing)
    return read_volume(
        image, axes=reading.axes, spacing=reading.spacing, allow_short=reading.allow_short
    )


def region_for(image: Image, given: str | Path | None, volume: Volume) -> tuple[Region | None, str]:
    """The region given or found beside the image, and its file.

    Raises
    ------
    InputError
        No pixel of the image lies inside it.
    """
    path = None if given is None else Path(given)
    if path is None and not isinstance(image, Volume):
        path = find_beside(image, REGION_SUFFIXES)
    if path is None:
        return None, ""
    region = read_region(path)
    if not region.mask(volume.shape[1:]).any():
        raise InputError(
            f"{path}: no pixel of {volume.name} ({volume.shape[1]} x {volume.shape[2]}) lies in "
            "this region; it may belong to another image."
        )
    return region, str(path)


def open_example(
    image: Image, points: str | Path | Points | None, roi: str | Path | None, reading: Reading
) -> Example:
    """An image with its points and region; points must lie inside the image.

    Raises
    ------
    InputError
        No points file, or points outside the image.
    """
    volume = open_image(image, reading)
    path = points
    if path is None and not isinstance(image, Volume):
        path = find_beside(image, POINT_SUFFIXES)
    if path is None:
        raise InputError(
            f"{volume.name}: no points; put {volume.name}.points.csv beside it or name the file "
            "with --points."
        )
    clicks = path if isinstance(path, Points) else read_points(path, image=volume.name)
    if volume.is_2d:
        clicks = replace(clicks, z=clicks.z * 0)
    clicks = drawn_in(clicks, volume.shape)
    clicks = clicks.check_inside(volume.shape)
    region, roi_file = region_for(image, roi, volume)
    files = {
        "path": str(image) if not isinstance(image, Volume) else "",
        "points": "" if isinstance(path, Points) else str(path),
        "roi": roi_file,
    }
    return Example(volume, clicks, region, {k: v for k, v in files.items() if v})


def open_labelled(
    image: Image,
    labels: str | Path | Labels | None,
    points: str | Path | Points | None,
    roi: str | Path | None,
    reading: Reading,
) -> Example:
    """An image with its instance map, and its points where there are any, for their types.

    Raises
    ------
    InputError
        No instance map, one of another size, or points outside the image.
    """
    volume = open_image(image, reading)
    path = labels
    if path is None and not isinstance(image, Volume):
        path = find_beside(image, LABEL_SUFFIXES)
    if path is None:
        raise InputError(
            f"{volume.name}: no instance map; put {volume.name}.labels.tif beside it or name the "
            "file with --labels."
        )
    instances = path if isinstance(path, Labels) else read_labels(path)
    if instances.shape != volume.shape:
        raise InputError(
            f"{volume.name}: its instance map has shape {instances.shape}, the image "
            f"{volume.shape}; they may belong to different images."
        )
    has_points = points is not None or (
        not isinstance(image, Volume) and find_beside(image, POINT_SUFFIXES) is not None
    )
    if has_points:
        example = open_example(image, points, roi, reading)
    else:
        region, roi_file = region_for(image, roi, volume)
        files = {"path": "" if isinstance(image, Volume) else str(image), "roi": roi_file}
        empty = np.zeros(0)
        none = Points(empty, empty, empty, name=volume.name)
        example = Example(volume, none, region, {k: v for k, v in files.items() if v})
    if not isinstance(path, Labels):
        example.files["labels"] = str(path)
    return replace(example, labels=instances)


def drawn_in(points: Points, shape: tuple[int, int, int]) -> Points:
    """The points, those up to a pixel past the lower or right edge put on it.

    Programs that count from the corner of the first pixel write 500 for the edge of 500 pixels.

    >>> drawn_in(Points([0], [500.0], [7.0]), (1, 500, 500)).y.tolist()
    [499.0]
    """
    y, x = (
        np.where((place > n - 1) & (place <= n), n - 1.0, place)
        for place, n in ((points.y, shape[1]), (points.x, shape[2]))
    )
    return replace(points, y=y, x=x)


def nuclear_channel(volume: Volume, asked: str | int | None) -> str:
    """Name of the nuclear channel: the one asked for, a usual stain, or the only one.

    Raises
    ------
    CallError
        It cannot be told; lists the channels.
    """
    if asked is not None:
        return volume.channels[volume.channel_index(asked)]
    if len(volume.channels) == 1:
        return volume.channels[0]
    usual = [c for c in volume.channels if c.casefold() in NUCLEAR_STAINS]
    if len(usual) == 1:
        return usual[0]
    listed = ", ".join(f"{i} {name}" for i, name in enumerate(volume.channels))
    raise CallError(
        f"{volume.name}: which channel shows the nuclei? It has {listed}; say --nuclei NAME."
    )


def marker_channels(
    volume: Volume, nuclei: str, asked: Sequence[str | int], types: Sequence[str]
) -> tuple[str, ...]:
    """Names of the markers: those asked for, else those that types name, else the only other.

    Types are about markers where one is ``positive`` or ``negative`` or names channels (``LT``,
    ``LT+GFP``); others, such as counter types, are classes and need none.

    Raises
    ------
    CallError
        Types are given and it cannot be told which channel they are about.
    """
    if asked:
        names = tuple(volume.channels[volume.channel_index(marker)] for marker in asked)
        if nuclei in names:
            raise CallError(f"{nuclei} cannot be both the nuclear channel and a marker.")
        return names
    others = [c for c in volume.channels if c != nuclei]
    parts = {part.strip().casefold() for text in types for part in text.split("+")}
    named = tuple(c for c in others if c.casefold() in parts)
    if not others or not (named or parts & {"positive", "negative"}):
        return ()
    if named and "positive" not in parts:
        return named
    if len(others) == 1:
        return (others[0],)
    raise CallError(
        f"{volume.name}: the points have types, but which channel is the marker? "
        f"It has {', '.join(others)} besides {nuclei}; say --marker NAME."
    )
