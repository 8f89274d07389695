"""Images of which only some nuclei were clicked: what was not clicked is not background.

A blob filter proposes where further nuclei may be. Blobs as bright as the clicked ones are taught
as nuclei without a type from the start, dimmer ones are unknown: neither nucleus nor background.
Later, and twice, the half-taught network is asked: where it is sure and the filter agrees, there
is a nucleus without a type; where only one of them sees something, nothing is said; and what the
network rules out even the second time becomes background (background propagation and self-
training, Qu et al. 2020, IEEE TMI 39, section III). The network alone is not believed: a third of
the way through a short training it knows little.

The same proposals tell how many nuclei were clicked: of blobs as bright as the clicked ones, the
share that has a click.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from nucleoscope.data.maps import UNLABELLED
from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.learn.lesson import Lesson, Partial, between
from nucleoscope.metrics.detection import match_points
from nucleoscope.nuclei.classical import classical_maps
from nucleoscope.nuclei.peaks import PeakSettings, find_peaks
from nucleoscope.supervision import half_maximum, median_radius
from nucleoscope.supervision.pseudo import nuclei_channel

#: With a smaller share of clicked nuclei an image counts as annotated in part.
COMPLETE = 0.75
#: Blobs at least as bright as this quantile of the clicked ones are likely nuclei.
LIKELY = 0.05
#: With fewer clicks than these in an image they cannot tell that quantile: blobs are then also
#: likely from this share of the height that parts nuclei from noise (Otsu).
ENOUGH_CLICKS, OF_OTSU = 10, 0.8
#: Blobs of at least this share of that height may be nuclei.
POSSIBLE = 0.5
#: The blob filter is this much wider than for images in which every nucleus was clicked: two blobs
#: in a nucleus would be taught as two nuclei, one blob in two nuclei is set right later.
WIDER = 1.2
#: Blobs at least as bright as this quantile tell the share of clicked nuclei.
TYPICAL = 0.5
#: A blob belongs to a click within this many nucleus radii and slices.
REACH_RADII, REACH_SLICES = 2.0, 2.0
#: What lies nearer to a click than this many radii is the clicked nucleus itself.
SAME_RADII = 0.75
#: Below this share of its own working point the network is sure that there is no nucleus; above
#: the working point it is sure that there is one.
RULED_OUT = 0.5
#: Shares of the training after which the network is asked.
ROUNDS = (0.35, 0.7)

Zyx = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Proposals:
    """What a blob filter finds besides the clicks.

    Parameters
    ----------
    zyx
        ``(m, 3)`` blobs without a click.
    is_likely
        ``(m,)`` bool: bright enough to be taken for a nucleus.
    radius
        Median nucleus radius in pixels, measured on clicks and blobs.
    share
        Estimated share of the nuclei that were clicked, in (0, 1].
    """

    zyx: Zyx
    is_likely: NDArray[np.bool_]
    radius: float
    share: float


def propose(
    stain: NDArray[np.generic],
    clicks: Zyx,
    z_step: float,
    area: NDArray[np.bool_],
) -> Proposals:
    """Find blobs like the clicked ones, and estimate how many nuclei were clicked.

    Sparse clicks lie far apart and make the first estimate of the radius too large, so that it
    is taken twice, the second time with the blobs as further clicks.

    Parameters
    ----------
    stain
        ``(Z, Y, X)``, nuclei bright.
    clicks
        ``(n, 3)`` inside the area.
    z_step
        Slice step in pixels.
    area
        ``(Y, X)`` bool: where blobs are looked for.

    Returns
    -------
    Proposals

    Examples
    --------
    >>> y, x = np.mgrid[:60, :60]
    >>> near = lambda b, a: np.exp(-((y - b) ** 2 + (x - a) ** 2) / 50.0)
    >>> stain = (200 * (near(15, 15) + near(40, 42)))[None]
    >>> found = propose(stain, np.array([[0.0, 15, 15]]), 1.0, np.ones((60, 60), bool))
    >>> found.zyx.round().tolist(), found.share
    ([[0.0, 40.0, 42.0]], 0.5)
    """
    radius = median_radius(stain, clicks, z_step)
    for width in (1.0, WIDER):
        blobs, score = _blobs(stain, width * radius, z_step, area)
        reach = (REACH_SLICES, REACH_RADII * radius, REACH_RADII * radius)
        is_clicked = np.zeros(len(blobs), dtype=bool)
        is_clicked[match_points(blobs, clicks, radius=reach).predicted_index] = True
        if not is_clicked.any() and (len(clicks) >= ENOUGH_CLICKS or not len(blobs)):
            return Proposals(np.zeros((0, 3)), np.zeros(0, bool), radius, 1.0)
        heights = score[is_clicked]
        likely, typical = np.quantile(heights, (LIKELY, TYPICAL)) if heights.size else (np.inf,) * 2
        if is_clicked.sum() < ENOUGH_CLICKS:
            likely = min(likely, OF_OTSU * otsu(score))
        kept = np.flatnonzero((score >= POSSIBLE * likely) & ~is_clicked)
        kept = kept[_is_apart(blobs[kept], clicks, radius, z_step)]
        others, is_likely = blobs[kept], score[kept] >= likely
        radius = median_radius(stain, np.concatenate([clicks, others[is_likely]]), z_step)
    # Clicks of which the filter sees none tell nothing of the share.
    share = float(is_clicked[score >= typical].mean()) if is_clicked.any() else 1.0
    return Proposals(others, is_likely, radius, share)


def otsu(height: NDArray[np.float64]) -> float:
    """The height that parts low ones from high ones best (Otsu 1979), on a logarithmic scale.

    Parameters
    ----------
    height
        ``(n,)``, all above 0.

    Examples
    --------
    >>> round(otsu(np.array([1.0, 1.0, 1.0, 100.0, 100.0])), 1)
    10.0
    """
    x = np.sort(np.log(height))
    n = np.arange(1, len(x))
    if not n.size:
        return float(np.exp(x).min(initial=np.inf))
    below = np.cumsum(x)[:-1]
    apart = below / n - (x.sum() - below) / (len(x) - n)
    at = int((n * (len(x) - n) * apart**2).argmax())
    return float(np.exp((x[at] + x[at + 1]) / 2))


def _is_apart(places: Zyx, clicks: Zyx, radius: float, z_step: float) -> NDArray[np.bool_]:
    """Which places do not lie in a clicked nucleus: a long one can have two peaks."""
    scale = np.array([z_step, 1.0, 1.0])
    distance, _ = cKDTree(clicks * scale).query(places * scale)
    return np.asarray(distance) > SAME_RADII * radius


def _apart(places: Zyx, clicks: Zyx, radius: float, z_step: float) -> Zyx:
    return places[_is_apart(places, clicks, radius, z_step)]


def _blobs(
    stain: NDArray[np.generic], radius: float, z_step: float, area: NDArray[np.bool_]
) -> tuple[Zyx, NDArray[np.float64]]:
    """Blobs inside the area and their heights."""
    maps = classical_maps(stain, radius, z_step)
    peaks = find_peaks(
        maps.centre, PeakSettings(threshold=0.05, radius=radius, slice_px=max(z_step, 1e-3))
    )
    rows = np.rint(peaks.zyx[:, 1:]).astype(np.int64).clip(0, np.array(area.shape) - 1)
    inside = area[rows[:, 0], rows[:, 1]]
    return peaks.zyx[inside], peaks.score[inside]


def clicked_share(shares: Sequence[float], clicks: Sequence[int]) -> float:
    """Share of clicked nuclei over images: all clicks by all nuclei there are thought to be.

    >>> clicked_share([1.0, 0.5], [10, 10])
    0.6666666666666666
    """
    nuclei = sum(n / share for n, share in zip(clicks, shares, strict=True))
    return sum(clicks) / nuclei if nuclei else 1.0


def partial_lesson(
    volume: Volume, points: Points, types: NDArray[np.int64], found: Proposals,
    area: NDArray[np.bool_], z_step: float,
) -> Lesson:  # fmt: skip
    """The first lesson of an image annotated in part: likely proposals are nuclei, others unknown.

    In colour too much looks like a nucleus, so there all are unknown.

    Parameters
    ----------
    volume
        As the network sees it.
    points, types
        The clicks inside the area and their types ``(n, G)``.
    found
        Of ``propose``.
    area
        ``(Y, X)`` bool.
    z_step
        Slice step in pixels.
    """
    partial = Partial(
        points.zyx(), types, found.zyx, found.is_likely & (not volume.is_rgb), area, found.radius,
        z_step, found.share,
    )  # fmt: skip
    likely = partial.is_likely
    return taught_with(volume, partial, found.zyx[likely], found.zyx[~likely])


def taught_with(volume: Volume, partial: Partial, sure: Zyx, doubtful: Zyx) -> Lesson:
    """The lesson in which ``sure`` places are nuclei without a type and ``doubtful`` ones unknown.

    All places take part in the outlines, so that a clicked nucleus does not flow into one beside
    it. The outline of a doubtful one, and half a radius around, is left unlabelled.

    Parameters
    ----------
    volume
        As the network sees it.
    partial
        Of the image.
    sure, doubtful
        ``(a, 3)`` and ``(b, 3)`` z, y, x.
    """
    stain = nuclei_channel(volume) if volume.is_rgb else volume.data[-1]
    known = np.concatenate([partial.clicks, sure])
    places = np.concatenate([known, doubtful])
    found = half_maximum(
        stain, places, partial.z_step, region=partial.area, radius=partial.radius
    )  # fmt: skip
    instances, foreground = found.instances, found.foreground.copy()
    unknown = instances > len(known)
    z, y, x = np.rint(doubtful).astype(np.int64).T
    unknown[z, y, x] = True
    margin = ndimage.distance_transform_edt(
        ~unknown, sampling=(partial.z_step, 1.0, 1.0)
    ) <= max(1.0, 0.5 * partial.radius)  # fmt: skip
    foreground[margin & (instances == 0)] = UNLABELLED
    foreground[unknown] = UNLABELLED
    instances = np.where(instances > len(known), 0, instances).astype(np.int32)
    types = np.full((len(known), partial.types.shape[1]), -1, dtype=np.int64)
    types[: len(partial.clicks)] = partial.types
    return Lesson(
        volume, instances, foreground, between(known, instances), types,
        np.ones(len(known), dtype=bool), partial=partial,
    )  # fmt: skip


def judged(
    partial: Partial,
    peaks: Zyx,
    score: NDArray[np.float64],
    threshold: float,
    *,
    is_last: bool = True,
) -> tuple[Zyx, Zyx]:
    """Sort a network's peaks and the proposals into sure and doubtful ones.

    Parameters
    ----------
    partial
        Of the image.
    peaks, score
        ``(n, 3)`` in pixels of the image and ``(n,)``: every peak of the centre map above
        ``RULED_OUT * threshold``.
    threshold
        The network's working point so far.
    is_last
        Of the rounds: now proposals without a peak are ruled out.

    Returns
    -------
    tuple of ndarray
        ``sure``: peaks above the threshold at a proposal. ``doubtful``: the other peaks, and until
        the last round the proposals without one. Clicked nuclei and places outside the area are
        in neither.
    """
    rows = np.rint(peaks[:, 1:]).astype(np.int64).clip(0, np.array(partial.area.shape) - 1)
    fresh = partial.area[rows[:, 0], rows[:, 1]]
    clicks, radius, z_step = partial.clicks, partial.radius, partial.z_step
    reach = (REACH_SLICES, REACH_RADII * radius, REACH_RADII * radius)
    fresh[match_points(peaks, clicks, radius=reach).predicted_index] = False
    peaks, score = peaks[fresh], score[fresh]
    near = (REACH_SLICES, radius, radius)
    pairs = match_points(peaks, partial.proposals, radius=near)
    is_sure = np.zeros(len(peaks), dtype=bool)
    is_sure[pairs.predicted_index] = score[pairs.predicted_index] >= threshold
    doubtful = peaks[~is_sure]
    if not is_last:
        silent = np.delete(partial.proposals, pairs.truth_index, axis=0)
        doubtful = np.concatenate([doubtful, silent])
    return _apart(peaks[is_sure], clicks, radius, z_step), _apart(doubtful, clicks, radius, z_step)


def relearnt(lesson: Lesson, sure: Zyx, doubtful: Zyx) -> Lesson:
    """The lesson anew, after a round of questions.

    Raises
    ------
    ValueError
        The lesson is not one of an image annotated in part.
    """
    if lesson.partial is None:
        raise ValueError("this lesson is of an image annotated in full.")
    made = taught_with(lesson.volume, lesson.partial, sure, doubtful)
    return replace(made, voronoi=lesson.voronoi)
