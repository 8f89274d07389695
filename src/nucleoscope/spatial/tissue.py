"""Where the tissue is, from the image itself: stained sections and fluorescence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial.window import Window

Plane = NDArray[np.float64]

#: Side of the mask's pixels, in um.
COARSE_UM = 4.0
#: Mean optical density of glass stays below this.
GLASS_DENSITY = 0.05
#: A histogram whose two halves explain less of its variance than this has one peak, not two.
TWO_PEAKS = 0.7


def _two_classes(values: Plane) -> tuple[float, float]:
    """Otsu's threshold, and the part of the variance that lies between the classes it makes.

    Otsu 1979, eq. 12 and 16.

    >>> _two_classes(np.array([0.0, 0.0, 1.0, 1.0]))[1]
    1.0
    """
    from skimage.filters import threshold_otsu

    threshold = float(threshold_otsu(values))  # type: ignore[no-untyped-call]
    is_above, variance = values > threshold, float(values.var())
    if not is_above.any() or variance == 0:
        return threshold, 0.0
    share = float(is_above.mean())
    apart = float(values[is_above].mean() - values[~is_above].mean())
    return threshold, share * (1 - share) * apart**2 / variance


def _shrunk(plane: NDArray[np.generic], factor: int) -> Plane:
    """Means over blocks of ``factor`` pixels; the last ones may be smaller."""
    rows = np.arange(0, plane.shape[0], factor)
    columns = np.arange(0, plane.shape[1], factor)
    sums = np.add.reduceat(np.add.reduceat(plane, rows, 0, dtype=np.float64), columns, 1)
    sizes = np.outer(
        np.diff(np.append(rows, plane.shape[0])), np.diff(np.append(columns, plane.shape[1]))
    )
    return np.asarray(sums / sizes)


def _white(image: Volume) -> float:
    """Grey value of glass: the image's brightest percent, or nearly full scale in a dark image."""
    bright = max(float(np.percentile(image.data.astype(np.float32), 99)), 1e-9)
    full = (
        float(2 ** (8 * image.data.dtype.itemsize) - 1) if image.data.dtype.kind == "u" else bright
    )
    return bright if bright > 0.7 * full else 0.94 * full


def _stained(planes: list[Plane], white: float) -> NDArray[np.bool_]:
    """Tissue of a brightfield image: what takes light away."""
    density = np.mean([-np.log10(np.clip(p / white, 1e-3, 1.0)) for p in planes], axis=0)
    threshold, explained = _two_classes(density)
    two_peaks = explained >= TWO_PEAKS and density.min() < GLASS_DENSITY
    return np.asarray(density > (min(threshold, 3 * GLASS_DENSITY) if two_peaks else GLASS_DENSITY))


def _glowing(planes: list[Plane], blur: float) -> NDArray[np.bool_]:
    """Tissue of a fluorescence image: what glows, between nuclei as well.

    Channels are put on their own log scale, blurred over the width of some nuclei, and the largest
    counts. Without two peaks everything is tissue.
    """
    from scipy.ndimage import gaussian_filter

    scaled = []
    for plane in planes:
        value = np.log1p(np.maximum(plane - plane.min(), 0) / max(float(np.median(plane)), 1e-9))
        value = gaussian_filter(value, blur, mode="nearest")
        top = float(value.max())
        if top > 0:
            scaled.append(value / top)
    if not scaled:
        return np.zeros(planes[0].shape, bool)
    glow = np.max(scaled, axis=0)
    threshold, explained = _two_classes(glow)
    return glow > threshold if explained >= TWO_PEAKS else np.ones(glow.shape, bool)


def _cleaned(mask: NDArray[np.bool_], pixel: float, min_area: float) -> NDArray[np.bool_]:
    """Closed over 20 um; pieces and holes smaller than ``min_area`` are gone."""
    from scipy.ndimage import binary_closing, label

    reach = max(round(20.0 / pixel), 1)
    disc = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    closed = binary_closing(np.pad(mask, reach, mode="edge"), disc)
    mask = closed[reach:-reach, reach:-reach] | mask
    for value in (True, False):
        pieces, n = label(mask == value)
        small = np.bincount(pieces.ravel(), minlength=n + 1) * pixel**2 < min_area
        small[0] = False
        mask = mask ^ small[pieces]
    return mask


def tissue_of(
    image: Volume, *, pixel_um: float = COARSE_UM, min_area_um2: float = 2500.0
) -> Window:
    """The tissue in an image as a window in um.

    Brightfield (``is_rgb``): optical density above glass. Fluorescence: the brightest projection of
    all channels, blurred by 10 um; where its histogram has no two peaks the whole image is tissue.
    Small pieces and holes are dropped.

    Parameters
    ----------
    image
        A 2D image or a stack with a known spacing; a stack's window is a slab through all slices.
    pixel_um
        Side of the window's pixels.
    min_area_um2
        Smallest piece, and smallest hole, that stays.

    Returns
    -------
    Window
        In um; two axes for a 2D image, three for a stack.

    Raises
    ------
    CallError
        The spacing is unknown.
    InputError
        No tissue found.

    Examples
    --------
    >>> glass = np.full((3, 1, 100, 100), 240, np.uint8)
    >>> glass[:, :, :, :40] = 120
    >>> rgb = ("red", "green", "blue")
    >>> image = Volume(glass, rgb, (1.0, 2.0, 2.0), is_rgb=True, is_2d=True)
    >>> tissue_of(image).size
    16000.0
    """
    if image.spacing is None:
        raise CallError(f"{image.name}: its scale is unknown; give it with --spacing or --mpp.")
    step_z, step_y, step_x = image.spacing
    factor = max(round(pixel_um / min(step_y, step_x)), 1)
    pixel = factor * max(step_y, step_x)
    planes = [_shrunk(image.data[c].max(axis=0), factor) for c in range(image.data.shape[0])]
    if image.is_rgb:
        white = _white(image)
        mask = _stained(planes, white)
    else:
        mask = _glowing(planes, 10.0 / pixel)
    mask = _cleaned(mask, pixel, min_area_um2)
    if not mask.any():
        raise InputError(f"{image.name}: no tissue found; give it as a region instead.")
    scale = (factor * step_y, factor * step_x)
    window = Window(mask, scale, (-step_y / 2, -step_x / 2), "um", image.name)
    if image.is_2d or image.shape[0] == 1:
        return window
    return window.extruded(-step_z / 2, (image.shape[0] - 0.5) * step_z)
