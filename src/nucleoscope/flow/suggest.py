"""Where to click next: files and a model in, a table of regions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.volume import Volume
from nucleoscope.flow.inputs import (
    POINT_SUFFIXES,
    Image,
    Reading,
    as_images,
    name_of,
    nuclear_channel,
    one_per_image,
    open_image,
    region_for,
)
from nucleoscope.flow.lessons import UNKNOWN_Z_STEP
from nucleoscope.flow.progress import bar
from nucleoscope.io.images import find_beside
from nucleoscope.io.points import read_points
from nucleoscope.learn.infer import detect, scale_factors
from nucleoscope.learn.model import Model, load_model
from nucleoscope.learn.normalise import levels, normalise
from nucleoscope.nuclei.classical import classical_maps
from nucleoscope.nuclei.peaks import PeakSettings, find_peaks
from nucleoscope.nuclei.suggest import Regions, choose_regions, doubt_of, windows
from nucleoscope.supervision import median_radius, nuclei_channel
from nucleoscope.units import Spacing, z_step_px

#: Side of a region in nucleus radii: some ten to thirty nuclei, one look of an annotator.
SIDE_RADII = 12.0
#: Candidates are looked for down to this share of the model's threshold.
LOWEST = 0.25
#: A nucleus within this many radii of a click is annotated already.
CLICKED_RADII = 1.5
#: Radius looked for before there are so many clicks, in um, or in pixels of an unknown scale.
USUAL_UM, USUAL_PX, FEW_CLICKS = 3.5, 7.0, 3
#: What doubt at least counts as one in the table, in bits.
DOUBTFUL = 0.5

COLUMNS = (
    "image", "z", "y0", "x0", "y1", "x1", "n_nuclei", "n_doubtful", "n_doubtful_types", "doubt",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Look:
    """The nuclei a model may see in one image, and how much it doubts each."""

    frame: pd.DataFrame
    detection: NDArray[np.float64]
    types: NDArray[np.float64]


def suggest(
    images: Sequence[Image] | Image,
    model: str | Path | Model | None = None,
    *,
    n: int = 10,
    side: int | None = None,
    points: Sequence[str | Path | Points] | str | Path | Points | None = None,
    roi: Sequence[str | Path] | str | Path | None = None,
    axes: str | None = None,
    spacing: Spacing | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> pd.DataFrame:
    """Regions in which an annotator's clicks would teach a model most.

    Nuclei are looked for well below the model's threshold. Each counts as doubtful as its
    detection and, if it is one, its type; those already clicked do not count. Regions of the
    largest sums are taken one after the other, the less the more they look like one taken before.
    Before there is a model, every bright blob that was not clicked counts as one.

    Parameters
    ----------
    images
        Files or volumes, annotated or not.
    model
        A model or its folder; None looks for blobs of the size of the clicked nuclei.
    n
        How many regions, over all images.
    side
        Of a region in pixels; None: 12 nucleus radii.
    points
        Clicks there are already, one per image; found by name beside files.
    roi
        One region of interest per image, where it is not beside it; nothing outside is suggested.
    axes, spacing, device
        As in ``train``.

    Returns
    -------
    DataFrame
        Best first: ``image``, ``z`` (the slice with most doubt), the half-open box ``y0 x0 y1 x1``
        in pixels, ``n_nuclei`` the model may see there that were not clicked, ``n_doubtful`` of
        which it does not know whether they are nuclei, ``n_doubtful_types`` of which it does not
        know the type, and ``doubt`` in bits. Fewer than n rows where there is no more to learn.

    Raises
    ------
    CallError
        An impossible number, or lists of other lengths than the images.
    InputError
        An image or the model cannot be read.
    """
    loaded = model if model is None or isinstance(model, Model) else load_model(model)
    many = as_images(images)
    clicks = one_per_image(points, many, "points")
    outlines = one_per_image(roi, many, "roi")
    reading = Reading(axes, spacing)
    parts, rows = [], []
    with bar("looking", quiet=quiet) as tell:
        for i, (image, click, outline) in enumerate(zip(many, clicks, outlines, strict=True)):
            tell(i / len(many), name_of(image))
            volume = open_image(image, reading)
            region, _ = region_for(image, outline, volume)
            known = _clicked(image, click)
            if loaded is None:
                look, radius = _blobs(volume, known, region)
            else:
                radius = _radius_in(volume, loaded)
                found = detect(_lowered(loaded), volume, region=region, device=device)
                look = _looked(found.table.frame, loaded, known, radius)
            size = side or max(16, round(SIDE_RADII * radius))
            part, table = _candidates(volume, look, size, i)
            parts.append(part)
            rows.append(table)
    whole = Regions(*(
        np.concatenate([getattr(p, name) for p in parts])
        for name in ("image", "box", "doubt", "look")
    ))  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    chosen = table.iloc[choose_regions(whole, n)].reset_index(drop=True)
    return chosen[list(COLUMNS)]


def _lowered(model: Model) -> Model:
    """The model with a threshold low enough to show what it is unsure of."""
    low = model.config.model_copy(update={"threshold": LOWEST * model.config.threshold})
    return replace(model, config=low)


def _radius_in(volume: Volume, model: Model) -> float:
    """Nucleus radius in the image's pixels."""
    _, y, x = scale_factors(volume, model.config)
    return model.config.radius_px / float(np.sqrt(y * x))


def _clicked(image: Image, given: str | Path | Points | None) -> Points | None:
    """The clicks given or found beside the image."""
    if isinstance(given, Points):
        return given
    path = given
    if path is None and not isinstance(image, Volume):
        path = find_beside(image, POINT_SUFFIXES)
    return None if path is None else read_points(path, image=name_of(image))


def _blobs(volume: Volume, clicks: Points | None, region: Region | None) -> tuple[_Look, float]:
    """Peaks of a blob filter of the nuclear stain that were not clicked, and its radius in pixels.

    Their size is that of the clicked nuclei, or a usual one where there is no click.
    """
    stain = nuclei_channel(volume, 0 if volume.is_rgb else nuclear_channel(volume, None))
    step = z_step_px(volume.spacing, UNKNOWN_Z_STEP)
    radius = USUAL_UM / volume.spacing[2] if volume.spacing else USUAL_PX
    if clicks is not None and len(clicks) >= FEW_CLICKS:
        radius = median_radius(stain, clicks.zyx(), step)
    radius = float(np.clip(radius, 2.0, 40.0))
    centre = classical_maps(stain, radius, step).centre
    peaks = find_peaks(centre, PeakSettings(radius=radius, slice_px=step))
    frame = pd.DataFrame(peaks.zyx, columns=["z", "y", "x"])
    if region is not None:
        frame = frame[region.contains(frame["y"].to_numpy(), frame["x"].to_numpy())]
    frame = _not_clicked(frame, clicks, radius)
    return _Look(frame, np.ones(len(frame)), np.zeros(len(frame))), radius


def _not_clicked(frame: pd.DataFrame, clicks: Points | None, radius: float) -> pd.DataFrame:
    """The candidates that are not where somebody clicked."""
    if clicks is None or not len(clicks) or not len(frame):
        return frame
    places = np.stack([clicks.y, clicks.x], axis=1)
    distance, _ = cKDTree(places).query(frame[["y", "x"]].to_numpy(dtype=np.float64))
    return frame[np.asarray(distance) > CLICKED_RADII * radius]


def _looked(frame: pd.DataFrame, model: Model, clicks: Points | None, radius: float) -> _Look:
    """Doubts of every candidate that was not clicked."""
    config = model.config
    frame = _not_clicked(frame, clicks, radius)
    threshold = config.threshold if config.decode == "peaks" else 0.5
    score = frame["score"].to_numpy(dtype=np.float64)
    detection = doubt_of(score, threshold)
    types = np.zeros(len(frame))
    for column in [f"{marker}_prob" for marker in config.markers]:
        types += doubt_of(frame[column].to_numpy(dtype=np.float64))
    if not config.markers and "type_prob" in frame:
        sure = frame["type_prob"].to_numpy(dtype=np.float64)
        types = np.where(sure > 0.5, doubt_of(sure), 1.0)
    # The type of what is no nucleus is no question.
    return _Look(frame, detection, types * (score >= threshold))


def _candidates(
    volume: Volume, look: _Look, side: int, number: int
) -> tuple[Regions, pd.DataFrame]:
    """Every window of an image with its doubt and what it looks like."""
    boxes = windows(volume.shape[1:], side)
    y, x, z = (look.frame[k].fillna(0).to_numpy(dtype=np.float64) for k in ("y", "x", "z"))
    light = normalise(volume.data.max(axis=1), levels(volume))
    doubt = look.detection + look.types
    rows, looks = [], []
    for y0, x0, y1, x1 in boxes.tolist():
        inside = (y >= y0 - 0.5) & (y < y1 - 0.5) & (x >= x0 - 0.5) & (x < x1 - 0.5)
        piece = light[:, y0:y1, x0:x1]
        total = float(doubt[inside].sum())
        slices = np.bincount(
            np.rint(z[inside]).astype(np.int64), weights=doubt[inside], minlength=volume.shape[0]
        )
        rows.append((
            volume.name, int(slices.argmax()), y0, x0, y1, x1, int(inside.sum()),
            int((look.detection[inside] > DOUBTFUL).sum()),
            int((look.types[inside] > DOUBTFUL).sum()), round(total, 3),
        ))  # fmt: skip
        looks.append([
            *piece.mean(axis=(1, 2)), *piece.std(axis=(1, 2)), inside.sum(),
            look.detection[inside].sum(), look.types[inside].sum(),
        ])  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    images = np.full(len(boxes), number, dtype=np.int64)
    regions = Regions(
        images, boxes, table["doubt"].to_numpy(dtype=np.float64), np.array(looks, dtype=np.float64)
    )
    return regions, table
