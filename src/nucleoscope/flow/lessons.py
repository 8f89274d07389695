"""From annotated images to lessons: channels, types, scale, pseudo labels, projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.data.maps import UNLABELLED, PseudoLabels
from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.inputs import Example, marker_channels, nuclear_channel
from nucleoscope.flow.progress import bar
from nucleoscope.learn.feed import Lesson, make_lesson
from nucleoscope.learn.lecl import type_table
from nucleoscope.learn.lesson import as_complete
from nucleoscope.learn.model import ModelConfig
from nucleoscope.learn.partial import (
    COMPLETE,
    Proposals,
    clicked_share,
    partial_lesson,
    propose,
)
from nucleoscope.learn.recipes import Recipe
from nucleoscope.supervision import (
    median_radius,
    nuclei_channel,
    project,
    projected_labels,
    pseudo_labels,
    to_uint8,
    voronoi_labels,
)
from nucleoscope.supervision.voronoi import grid_points
from nucleoscope.units import z_step_px

#: One slice step in pixels when the scale is unknown (the published constant).
UNKNOWN_Z_STEP = 11.0


def prepare(
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    nuclei: str | int | None = None,
    marker: Sequence[str | int] = (),
    partial: bool | None = None,
    quiet: bool = True,
) -> tuple[ModelConfig, list[Lesson]]:
    """Settle channels, types and scale, and make a lesson of every example.

    Parameters
    ----------
    partial
        Whether only some of the nuclei were clicked; None finds out, see ``learn.partial``.

    Raises
    ------
    CallError
        Channels cannot be told, or the recipe needs a stack and an image is not one.
    """
    first = examples[0].volume
    stain = None if first.is_rgb else nuclear_channel(first, nuclei)
    types = sorted({str(t) for example in examples for t in example.points.types} - {""})
    markers: tuple[str, ...] = ()
    if stain is not None:
        markers = marker_channels(first, stain, marker, types)
    # In fluorescence a single counter type is no type: everything was clicked with it.
    named = tuple(types) if stain is None or len(types) > 1 else ()
    classes = ("negative", "positive") if markers else named
    channels = ("red", "green", "blue") if stain is None else (*markers, stain)
    lessons, radii = [], []
    with bar("pseudo labels", quiet=quiet) as tell:
        for i, example in enumerate(examples):
            tell(i / len(examples), example.volume.name)
            lesson, radius = _lesson(example, recipe, channels, markers, classes)
            lessons.append(lesson)
            radii.append(radius)
    if _may_be_partial(recipe, stain, partial):
        lessons, radii = _in_part(examples, lessons, radii, partial)
    scales = [e.volume.spacing for e in examples if e.volume.spacing is not None]
    scale = np.median(np.array(scales), axis=0).tolist() if scales else None
    spacing = (scale[0], scale[1], scale[2]) if scale is not None else None
    config = ModelConfig(
        recipe=recipe.name,
        nuclei=stain,
        markers=markers,
        is_rgb=stain is None,
        types=classes,
        spacing=spacing,
        radius_px=float(np.median(radii)),
        threshold=0.35,
        valley=0.95,
        slice_px=z_step_px(spacing, UNKNOWN_Z_STEP),
        typing=recipe.typing,
        decode=recipe.decode,
        projection=recipe.projection,
    )
    return config, lessons


def _may_be_partial(recipe: Recipe, stain: str | None, partial: bool | None) -> bool:
    """Whether to ask if images are annotated in part.

    The published recipes take clicks as complete. In colour images too much looks like a nucleus
    for the share of clicked ones to be told, so there it must be said.
    """
    if recipe.projection is not None or recipe.objective == "pixel":
        if partial:
            raise CallError(f"recipe {recipe.name} takes every nucleus as clicked; lecl does not.")
        return False
    return partial is True or (partial is None and stain is not None)


def _in_part(
    examples: Sequence[Example],
    lessons: Sequence[Lesson],
    radii: Sequence[float],
    partial: bool | None,
) -> tuple[list[Lesson], list[float]]:
    """The lessons, those of images annotated in part made anew, and the radii of nuclei."""
    proposals = [_proposals(e, x) for e, x in zip(examples, lessons, strict=True)]
    n_clicks = [int(lesson.is_taught.sum()) for lesson in lessons]
    if partial is None and clicked_share([p.share for p in proposals], n_clicks) >= COMPLETE:
        return [*lessons], [*radii]
    out, sizes = [], []
    for example, lesson, found, radius in zip(examples, lessons, proposals, radii, strict=True):
        if partial is None and found.share >= COMPLETE:
            out.append(lesson)
            sizes.append(radius)
            continue
        inside = lesson.is_taught
        step = z_step_px(lesson.volume.spacing, UNKNOWN_Z_STEP)
        clicks = example.points.where(inside)
        out.append(partial_lesson(
            lesson.volume, clicks, lesson.types[inside], found, _area(example), step
        ))  # fmt: skip
        sizes.append(found.radius)
    return out, sizes


def _area(example: Example) -> NDArray[np.bool_]:
    shape = example.volume.shape[1:]
    return np.ones(shape, bool) if example.region is None else example.region.mask(shape)


def _proposals(example: Example, lesson: Lesson) -> Proposals:
    stain = _nuclear_view(lesson.volume).data[0]
    clicks = example.points.zyx()[lesson.is_taught]
    step = z_step_px(lesson.volume.spacing, UNKNOWN_Z_STEP)
    return propose(stain, clicks, step, _area(example))


def _lesson(
    example: Example,
    recipe: Recipe,
    channels: tuple[str, ...],
    markers: tuple[str, ...],
    classes: tuple[str, ...],
) -> tuple[Lesson, float]:
    """One example's lesson, and the radius of its nuclei in pixels."""
    seen = example.volume.select(channels)
    target = _nuclear_view(seen)
    taught, region = example.points, example.region
    inside = (
        np.ones(len(taught), dtype=bool) if region is None else region.contains(taught.y, taught.x)
    )
    step = z_step_px(seen.spacing, UNKNOWN_Z_STEP)
    if example.labels is not None:
        return _labelled(example, seen, type_table(taught, markers, classes))
    # First, for it says which points and which region do not fit.
    pseudo = pseudo_labels(target, taught, nuclei=0, region=region, setting=recipe.supervision)
    radius = median_radius(target.data[0], taught.zyx()[inside], step)
    voronoi = None
    if recipe.projection is not None:
        area = None if region is None else region.mask(seen.shape[1:])
        seen, pseudo, taught = projected(seen, pseudo, taught, recipe, area)
        if recipe.objective == "qu":
            clicks = taught.zyx()[inside]
            voronoi = voronoi_labels(pseudo.cells, clicks, np.flatnonzero(inside) + 1, area)[None]
    types = type_table(taught, markers, classes)
    if recipe.projection is not None and recipe.supervision == "paper":
        pseudo, types = _owned(pseudo, taught, types, any_wins=bool(markers))
    lesson = replace(make_lesson(seen, pseudo, taught, types, inside), voronoi=voronoi)
    if seen.is_rgb and recipe.objective == "nucleus":
        lesson = as_complete(lesson, _area(example), radius)
    return lesson, radius


def _owned(
    pseudo: PseudoLabels, points: Points, types: NDArray[np.int64], *, any_wins: bool
) -> tuple[PseudoLabels, NDArray[np.int64]]:
    """Published instances are components of the plane; number each after the click inside it.

    Of several clicks in one the first gives its number, and the component is positive where any
    of them is (``any_wins``; without markers the first click gives the type too). A component
    without a click is not taught.
    """
    parts = pseudo.instances[0]
    _, y, x = grid_points(pseudo.instances.shape, points.zyx()).T
    under = parts[y, x]
    owner = np.zeros(int(parts.max(initial=0)) + 1, dtype=np.int32)
    types = types.copy()
    for part in np.unique(under[under > 0]):
        rows = np.flatnonzero(under == part)
        owner[part] = rows[0] + 1
        if any_wins:
            types[rows[0]] = types[rows].max(axis=0)
    instances = owner[pseudo.instances]
    foreground = pseudo.foreground.copy()
    foreground[(pseudo.instances > 0) & (instances == 0)] = UNLABELLED
    return replace(pseudo, instances=instances, foreground=foreground), types


def _labelled(
    example: Example, seen: Volume, point_types: NDArray[np.int64]
) -> tuple[Lesson, float]:
    """The lesson of an instance map: every nucleus exact, its type that of a point inside it.

    Nuclei without a typed point teach detection only. Raises ``InputError`` where no nucleus lies
    in the region.
    """
    assert example.labels is not None  # noqa: S101  asked by the caller
    ids = example.labels.ids()
    if not len(ids):
        raise InputError(f"{seen.name}: its instance map holds no nucleus.")
    numbers = np.zeros(int(ids[-1]) + 1, dtype=np.int32)
    numbers[ids] = np.arange(1, len(ids) + 1)
    instances = numbers[example.labels.data]
    types = np.full((len(ids), point_types.shape[1]), -1, dtype=np.int64)
    if len(example.points):
        z, y, x = grid_points(seen.shape, example.points.zyx()).T
        owner = instances[z, y, x]
        types[owner[owner > 0] - 1] = point_types[owner > 0]
    ones = np.broadcast_to(np.ones(1, np.uint8), instances.shape)
    centres = np.array(ndimage.center_of_mass(ones, instances, np.arange(1, len(ids) + 1)))
    foreground = (instances > 0).astype(np.uint8)
    inside = np.ones(len(ids), dtype=bool)
    if example.region is not None:
        foreground[:, ~example.region.mask(seen.shape[1:])] = UNLABELLED
        inside = example.region.contains(centres[:, 1], centres[:, 2])
    sections = np.stack([np.bincount(p.ravel(), minlength=len(ids) + 1)[1:] for p in instances])
    radius = max(2.0, float(np.median(np.sqrt(sections.max(axis=0) / np.pi))))
    return Lesson(seen, instances, foreground, centres, types, inside), radius


def projected(
    volume: Volume,
    pseudo: PseudoLabels,
    points: Points,
    recipe: Recipe,
    area: NDArray[np.bool_] | None,
) -> tuple[Volume, PseudoLabels, Points]:
    """A stack, its pseudo labels and its points, on one plane.

    The markers are projected as the recipe says, the nuclear stain over all slices (as in the
    published code); the labels are made anew on the projected stain (LECL, section 4 of Qu 2019).
    A colour image is one plane already.
    """
    if volume.is_rgb:
        stain = _nuclear_view(volume).data[0, 0]
        return volume, _plane_labels(stain, pseudo, points, recipe, area), _flat(points)
    method = recipe.projection or "mip"
    flat = project(
        volume, method=method, cells=pseudo.cells, z_ranges=pseudo.z_ranges,
        channels=list(volume.channels[:-1]), nuclei=volume.channels[-1],
    )  # fmt: skip
    stain = volume.data[-1].max(axis=0)
    data = np.concatenate([_planes(flat.data, flat.channels, volume), stain[None]])[:, None]
    image = replace(volume, data=data.astype(volume.data.dtype))
    return image, _plane_labels(stain, pseudo, points, recipe, area), _flat(points)


def _plane_labels(
    stain: NDArray[np.generic],
    pseudo: PseudoLabels,
    points: Points,
    recipe: Recipe,
    area: NDArray[np.bool_] | None,
) -> PseudoLabels:
    """Cluster labels of a projected stain."""
    setting = recipe.supervision
    plane = projected_labels(
        to_uint8(stain[None], None, setting)[0], _flat(points), pseudo.cells, setting
    )
    foreground = np.where(plane.instances > 0, 1, 0).astype(np.uint8)
    foreground[plane.unlabelled] = UNLABELLED
    if area is not None:
        foreground[~area] = UNLABELLED
    return PseudoLabels(
        pseudo.cells, plane.instances[None], foreground[None],
        np.ones((len(points), 1), dtype=bool), pseudo.n_fallback,
    )  # fmt: skip


def _planes(
    data: NDArray[np.generic], channels: tuple[str, ...], volume: Volume
) -> NDArray[np.generic]:
    """The projected markers, in the volume's order."""
    order = [channels.index(channel) for channel in volume.channels[:-1]]
    planes: NDArray[np.generic] = data[order]
    return planes


def _flat(points: Points) -> Points:
    return replace(points, z=np.zeros(len(points)))


def _nuclear_view(volume: Volume) -> Volume:
    """The channel the pseudo labels read: the stain, or of a colour image its dark nuclei."""
    stain = nuclei_channel(volume) if volume.is_rgb else volume.data[-1]
    return replace(volume, data=stain[None], channels=("nuclei",), is_rgb=False)
