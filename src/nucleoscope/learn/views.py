"""Two looks at one nucleus: the views that the encoder of ``nuc2vec`` learns to hold together.

One pass over the pixels of a view does everything: rotation, mirror, mild scale and shift, another
background behind the nucleus, stain in optical density, normalisation; uint8 crops in, float32
out, nothing of full size between. What is drawn depends only on the seed, the step, the nucleus
and which of its views it is, so neither the order nor the size of batches changes a view.

Feng, Vanderbilt, Fuchs, "Nuc2Vec: Learning Representations of Nuclei in Histopathology Images with
Contrastive Loss", MIDL 2021. Where we differ: the background is swapped behind the contour with a
soft edge (theirs: the bounding box), stain changes a little along haematoxylin and eosin (theirs:
a full circle of hues), and scale by at most a tenth (theirs: up to 1.41), so that a nucleus's size
and tint stay in its embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn.view_kernels import (
    AFFINE,
    BACK,
    COLOUR,
    DENSITY,
    F32,
    HOLE,
    I64,
    N_PARAMETERS,
    OFFSET,
    OWN,
    U8,
    draw,
    edges_of,
    outline,
    render,
)

#: Optical density of haematoxylin, eosin and what is left, per unit of each, rows RGB
#: (Ruifrok and Johnston 2001, table 1, unit vectors; the third is their cross product).
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [-0.3286, -0.0769, 0.9413]])
#: Mean and spread of the optical density of H&E, by which a view is normalised; fixed, so that
#: an embedding never depends on which other nuclei are embedded with it.
OD_MEAN = (0.38, 0.62, 0.36)
OD_STD = (0.22, 0.28, 0.20)
#: Radius in um of the soft disc that stands for the contour where none of the store's is known.
UNKNOWN_RADIUS_UM = 3.5


@dataclass(frozen=True)
class ViewSettings:
    """What may differ between two views of a nucleus.

    Parameters
    ----------
    size
        Side of a view in pixels.
    field
        Side of what it shows, in pixels of the crop (64 = all of it).
    rotation
        Turned by any angle and mirrored; False for neither.
    scale
        Largest relative change of size.
    shift
        Largest shift along y and x, in pixels of the crop.
    stain
        Largest relative change of each stain's amount.
    stain_offset
        Largest optical density added to each stain.
    tilt_deg
        Largest turn of the pair of stains in colour space, in degrees.
    brightness
        Largest change of the light, as optical density on all channels.
    blur, blur_share
        Largest Gaussian sigma in pixels of the view, and how often.
    swap, grey
        How often the key view shows the nucleus on another background, and on plain grey.
    dilate, feather
        Pixels by which the contour is grown, and over which it fades.
    hole
        Radius in crop pixels of a disc that is blanked out (context views); 0 for none.
    """

    size: int = 32
    field: float = 64.0
    rotation: bool = True
    scale: float = 0.1
    shift: float = 1.5
    stain: float = 0.1
    stain_offset: float = 0.03
    tilt_deg: float = 3.0
    brightness: float = 0.05
    blur: float = 0.7
    blur_share: float = 0.3
    swap: float = 0.7
    grey: float = 0.15
    dilate: float = 2.0
    feather: float = 3.0
    hole: float = 0.0

    def __post_init__(self) -> None:
        if not (self.size >= 8 and self.field > 0 and 0 <= self.scale < 1):
            raise CallError("a view takes size >= 8, field > 0 and 0 <= scale < 1.")
        if not (self.swap >= 0 and self.grey >= 0 and self.swap + self.grey <= 1):
            raise CallError("swap and grey are shares of the key views; their sum is at most 1.")

    def numbers(self) -> NDArray[np.float64]:
        """The settings as the kernel takes them."""
        return np.array([
            self.size, self.field, float(self.rotation), self.scale, self.shift, self.stain,
            self.stain_offset, math.radians(self.tilt_deg), self.brightness, self.blur,
            self.blur_share, self.swap, self.grey, self.hole,
        ])  # fmt: skip


@dataclass(frozen=True, eq=False)
class Slides:
    """Rows of a store by slide: those of slide ``s`` are ``order[start[s]:start[s + 1]]``."""

    slide: I64
    order: I64
    start: I64

    @classmethod
    def of(cls, slide: NDArray[np.integer]) -> Slides:
        """Group rows by slide; numbers may have gaps.

        >>> Slides.of(np.array([5, 2, 5])).start.tolist()
        [0, 1, 3]
        """
        names, codes = np.unique(slide, return_inverse=True)
        codes = codes.reshape(-1).astype(np.int64)
        counts = np.bincount(codes, minlength=len(names))
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(codes, np.argsort(codes, kind="stable").astype(np.int64), start)

    def __len__(self) -> int:
        return len(self.start) - 1


def draw_views(
    settings: ViewSettings, rows: I64, slides: Slides, *, seed: int, step: int, view: int
) -> F32:
    """Draw what happens to view ``view`` of the nuclei ``rows``.

    Parameters
    ----------
    rows
        ``(B,)`` rows of the store.
    slides
        Where other backgrounds are taken from: other nuclei of the same slide.
    view
        0 is the query, on its own background; 1 the key, on another; 2 and up keep their own.

    Returns
    -------
    ``(B, N_PARAMETERS)`` float32, what ``render_views`` takes.

    Examples
    --------
    >>> slides = Slides.of(np.zeros(9, dtype=int))
    >>> both = draw_views(ViewSettings(), np.arange(9), slides, seed=0, step=4, view=1)
    >>> one = draw_views(ViewSettings(), np.array([7]), slides, seed=0, step=4, view=1)
    >>> bool((both[7] == one[0]).all())
    True
    """
    start = np.array([seed, step, view], dtype=np.uint64)
    out = np.zeros((len(rows), N_PARAMETERS), dtype=np.float32)
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    draw(
        settings.numbers(), rows, slides.slide, slides.order, slides.start, start,
        np.linalg.inv(STAINS), STAINS, np.array(OD_MEAN), np.array(OD_STD), out,
    )  # fmt: skip
    return out


def plain_views(settings: ViewSettings, n: int) -> F32:
    """Parameters of ``n`` views as they are embedded: nothing drawn, only field and colour.

    >>> plain_views(ViewSettings(), 2).shape
    (2, 27)
    """
    zoom = settings.field / settings.size
    out = np.zeros((n, N_PARAMETERS), dtype=np.float32)
    out[:, AFFINE : AFFINE + 4] = (zoom, 0, 0, zoom)
    out[:, COLOUR : COLOUR + 9] = np.diag(1 / np.array(OD_STD)).ravel()
    out[:, OFFSET : OFFSET + 3] = -np.array(OD_MEAN) / np.array(OD_STD)
    out[:, HOLE] = settings.hole
    out[:, BACK] = OWN
    return out


def soft_edges(mask: U8, settings: ViewSettings, *, radius: float) -> U8:
    """How much of each pixel is the nucleus when it is set on another background.

    Parameters
    ----------
    mask
        ``(N, Y, X)`` uint8, 1 = this nucleus; all zero where its contour is not known.
    settings
        ``dilate`` and ``feather``.
    radius
        Of the disc in the middle, in crop pixels, that stands for an unknown contour.

    Returns
    -------
    ``(N, Y, X)`` uint8: 255 inside and up to ``dilate`` pixels beyond, 0 from ``feather`` pixels
    further on (distances of a two-pass chamfer).

    Examples
    --------
    >>> mask = np.zeros((1, 9, 9), dtype=np.uint8)
    >>> mask[0, 4, 0] = 1
    >>> soft_edges(mask, ViewSettings(), radius=3.0)[0, 4].tolist()
    [255, 255, 255, 170, 85, 0, 0, 0, 0]
    """
    out = np.empty(mask.shape, dtype=np.uint8)
    edge = np.array([settings.dilate, settings.feather, radius], dtype=np.float32)
    edges_of(np.ascontiguousarray(mask), edge, out)
    return out


def render_views(images: U8, edges: U8, rows: I64, parameters: F32, settings: ViewSettings) -> F32:
    """Render views of crops.

    Parameters
    ----------
    images
        ``(N, Y, X, 3)`` uint8 crops.
    edges
        ``(N, Y, X)`` uint8 of ``soft_edges``; looked at only where the background is another one.
    rows
        ``(B,)`` rows to render.
    parameters
        ``(B, N_PARAMETERS)`` from ``draw_views`` or ``plain_views``.

    Returns
    -------
    ``(B, size, size, 3)`` float32, normalised optical density; beyond the crop it is mirrored.

    Raises
    ------
    InputError
        A row is not in the store, or shapes do not fit.

    Notes
    -----
    One core renders ten thousands of views per second; ``bench/bench_views.py`` measures it.

    Examples
    --------
    >>> images = np.full((1, 64, 64, 3), 255, dtype=np.uint8)
    >>> settings, edges = ViewSettings(), np.zeros((1, 64, 64), dtype=np.uint8)
    >>> render_views(images, edges, np.array([0]), plain_views(settings, 1), settings).shape
    (1, 32, 32, 3)
    """
    if images.ndim != 4 or images.shape[3] != 3 or edges.shape != images.shape[:3]:
        raise InputError(
            f"crops are (N, Y, X, 3) with edges (N, Y, X); found {images.shape} and {edges.shape}."
        )
    if parameters.shape != (len(rows), N_PARAMETERS):
        raise InputError(f"{len(rows)} views take as many rows of {N_PARAMETERS} parameters.")
    back = parameters[:, BACK]
    highest = max(int(np.max(rows, initial=-1)), int(np.max(back, initial=-1)))
    if highest >= len(images) or (len(rows) and int(np.min(rows)) < 0):
        raise InputError(f"row {highest} is not among the {len(images)} crops.")
    out = np.empty((len(rows), settings.size, settings.size, 3), dtype=np.float32)
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    render(images, edges, rows, parameters, DENSITY, out)
    return out


def render_outlines(
    shares: U8, rows: I64, parameters: F32, settings: ViewSettings
) -> NDArray[np.float32]:
    """Where the nucleus is in each of the views that ``render_views`` renders.

    Parameters
    ----------
    shares
        ``(N, Y, X)`` uint8 of ``soft_edges``.
    rows, parameters
        As of ``render_views``.

    Returns
    -------
    ``(B, size, size)`` float32, 0 to 1, the nearest pixel's; 0 beyond the crop.

    Examples
    --------
    >>> shares = np.full((1, 64, 64), 255, dtype=np.uint8)
    >>> settings = ViewSettings()
    >>> float(render_outlines(shares, np.array([0]), plain_views(settings, 1), settings).min())
    1.0
    """
    out = np.empty((len(rows), settings.size, settings.size), dtype=np.float32)
    outline(shares, np.ascontiguousarray(rows, dtype=np.int64), parameters, out)
    return out


def typical_radius(mask: U8, mpp: float) -> float:
    """Radius in crop pixels of the median nucleus with a contour; without any, of 3.5 um.

    >>> typical_radius(np.zeros((3, 8, 8), dtype=np.uint8), 0.25)
    14.0
    """
    areas = np.count_nonzero(mask.reshape(len(mask), -1), axis=1) if len(mask) else np.zeros(0)
    known = areas[areas > 0]
    if not len(known):
        return UNKNOWN_RADIUS_UM / mpp
    return float(np.sqrt(np.median(known) / np.pi))
