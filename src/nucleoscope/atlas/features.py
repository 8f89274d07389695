"""About eighty interpretable features of every nucleus, with names a pathologist can read.

The families are those that HistomicsTK and other programs made common: shape, stain of nucleus and
cytoplasm, co-occurrence, gradient, intensity, Fourier descriptors; plus chromatin clumps and
neighbours. Pixels are visited by a few compiled loops, never by one mask per nucleus. Turning or
mirroring the image by right angles changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nucleoscope.atlas.features_frame import Floats, dense, make_frame, ring_of
from nucleoscope.atlas.features_names import FEATURES, Feature
from nucleoscope.atlas.features_shape import LOBES, SHAPE, shapes
from nucleoscope.atlas.features_stain import STAIN, TEXTURE, stains, textures
from nucleoscope.errors import CallError, InputError
from nucleoscope.units import PLAUSIBLE_UM

#: Width of the ring that stands for the cytoplasm, and of the nucleus's rim, in um.
RING_UM = 2.0
RIM_UM = 0.75
#: Nuclei within this distance count as neighbours, in um.
DENSITY_UM = 25.0
_CROPS_AT_ONCE = 2048
Column = dict[str, Floats]


def feature_names() -> dict[str, Feature]:
    """Every feature by its column name: what it says, its unit, and words for more and less.

    Examples
    --------
    >>> area = feature_names()["f_area_um2"]
    >>> area.text, area.unit, area.more
    ('area', 'um2', 'larger')
    """
    return {feature.name: feature for feature in FEATURES}


def nucleus_features(image: NDArray[np.uint8], labels: NDArray[Any], *, mpp: float) -> pd.DataFrame:
    """Features of every nucleus of an RGB image, one row per nucleus, ids ascending.

    Parameters
    ----------
    image
        ``(Y, X, 3)`` uint8, hematoxylin and eosin on white.
    labels
        ``(Y, X)`` integers, 0 background, otherwise the nucleus id.
    mpp
        Micrometres per pixel. Texture and gradient look at neighbouring pixels, so compare only
        values of one ``mpp``; the crops of an atlas have 0.25.

    Returns
    -------
    Columns ``f_*`` as in ``feature_names()``, float64, index ``id``. NaN: what there is nothing to
    measure of, i.e. the ring of a nucleus without background within 2 um, co-occurrence of a
    single pixel, the nearest neighbour of a lone nucleus.

    Raises
    ------
    InputError
        Shapes or dtypes differ from these, or a negative id.
    CallError
        ``mpp`` is not between 0.02 and 100 um.

    Notes
    -----
    Needs about 30 bytes per pixel besides the input.

    Examples
    --------
    >>> image = np.full((20, 20, 3), 240, np.uint8)
    >>> labels = np.zeros((20, 20), int)
    >>> labels[4:12, 6:14] = 5
    >>> image[labels > 0] = (90, 60, 140)
    >>> nucleus_features(image, labels, mpp=0.5)[["f_area_um2", "f_axis_major_um"]].round(2)
        f_area_um2  f_axis_major_um
    id
    5         16.0             4.58
    """
    picture, ids_map = np.asarray(image), np.asarray(labels)
    if ids_map.ndim != 2 or ids_map.dtype.kind not in "iub" or ids_map.min(initial=0) < 0:
        raise InputError(
            f"labels: {ids_map.dtype} of shape {ids_map.shape}; expected (Y, X) integers >= 0."
        )
    _check(picture, (*ids_map.shape, 3), mpp)
    counted, ids = dense(ids_map)
    shape, columns = _columns(picture, counted, len(ids), len(ids_map), mpp)
    places = shape[:, [SHAPE.index("y"), SHAPE.index("x")]] * mpp
    columns |= neighbour_features(places)
    return _as_frame(columns, pd.Index(ids, name="id"))


def crop_features(
    crops: NDArray[np.uint8], masks: NDArray[Any], *, mpp: float = 0.25
) -> pd.DataFrame:
    """The same features from crops, one row per crop; neighbours are not in them and are NaN.

    Parameters
    ----------
    crops
        ``(N, S, S, 3)`` uint8, RGB.
    masks
        ``(N, S, S)``, not zero where the crop's own nucleus is. A crop without any is all NaN.
    mpp
        Micrometres per pixel of the crops.

    Notes
    -----
    Equals ``nucleus_features`` on the image where the crop holds nucleus and ring and no other
    nucleus comes within the ring: a crop does not know the others.

    Raises
    ------
    InputError
        Shapes or dtypes differ from these.
    CallError
        ``mpp`` is not between 0.02 and 100 um.

    Examples
    --------
    >>> crops = np.full((2, 16, 16, 3), 200, np.uint8)
    >>> masks = np.zeros((2, 16, 16), bool)
    >>> masks[0, 4:12, 4:12] = True
    >>> crop_features(crops, masks)["f_area_um2"].tolist()
    [4.0, nan]
    """
    pictures, inside = np.asarray(crops), np.asarray(masks)
    if inside.ndim != 3:
        raise InputError(f"masks: shape {inside.shape}; expected (N, S, S).")
    _check(pictures, (*inside.shape, 3), mpp)
    n, height, width = inside.shape
    parts = []
    for start in range(0, n, _CROPS_AT_ONCE):
        part = inside[start : start + _CROPS_AT_ONCE] != 0
        counted = part * np.arange(1, len(part) + 1, dtype=np.int32)[:, None, None]
        image = np.ascontiguousarray(pictures[start : start + len(part)])
        flat = image.reshape(-1, width, 3), counted.reshape(-1, width)
        parts.append(_columns(*flat, len(part), height, mpp)[1])
    names = [f.name for f in FEATURES if f.family != "neighbours"]
    columns = {name: np.concatenate([p[name] for p in parts] or [np.empty(0)]) for name in names}
    columns |= {f.name: np.full(n, np.nan) for f in FEATURES if f.family == "neighbours"}
    return _as_frame(columns, pd.RangeIndex(n))


def neighbour_features(places_um: ArrayLike) -> Column:
    """Distances to neighbours and local density, from ``(N, 2)`` centroids in um.

    Density counts the other nuclei within 25 um over the whole disc, so it is low at the border
    of an image. Call it with a whole slide's nuclei where they were measured tile by tile.

    >>> round(float(neighbour_features([[0, 0], [0, 3], [4, 0]])["f_nearest_um"][0]), 1)
    3.0
    """
    places = np.asarray(places_um, dtype=np.float64).reshape(-1, 2)
    n = len(places)
    nearest, five, density = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n)
    if n > 1:
        from scipy.spatial import cKDTree

        tree = cKDTree(places)
        distances = tree.query(places, k=min(6, n))[0][:, 1:]
        nearest, five = distances[:, 0], distances.mean(axis=1)
        counts = tree.query_ball_point(places, DENSITY_UM, return_length=True) - 1
        density = counts / (np.pi * DENSITY_UM**2) * 1e6
    return {"f_nearest_um": nearest, "f_nearest5_um": five, "f_density_per_mm2": density}


def robust_scores(features: pd.DataFrame, groups: ArrayLike) -> pd.DataFrame:
    """Each feature as ``(x - median) / (1.4826 MAD)`` within its group, such as a slide.

    A feature without spread in a group is 0 there; NaN stays NaN.

    Parameters
    ----------
    features
        ``(N, F)`` numbers.
    groups
        ``N`` names.

    Examples
    --------
    >>> frame = pd.DataFrame({"f_a": [1.0, 2.0, 3.0, 10.0, 10.0]})
    >>> robust_scores(frame, ["s", "s", "s", "t", "t"])["f_a"].round(2).tolist()
    [-0.67, 0.0, 0.67, 0.0, 0.0]
    """
    names = pd.Series(np.asarray(groups)).astype(str).to_numpy()
    centred = features - features.groupby(names).transform("median")
    spread = 1.4826 * centred.abs().groupby(names).transform("median")
    return (centred / spread.where(spread > 0)).where(spread.isna() | (spread > 0), centred * 0)


def _check(image: NDArray[Any], shape: tuple[int, ...], mpp: float) -> None:
    """Refuse pixels that are not RGB bytes, and a scale that cannot be."""
    if image.dtype != np.uint8 or image.shape != shape:
        raise InputError(f"image: {image.dtype} of shape {image.shape}; expected uint8 {shape}.")
    low, high = PLAUSIBLE_UM
    if not low <= mpp <= high:
        raise CallError(f"mpp={mpp}: expected {low:g} to {high:g} um per pixel.")


def _as_frame(columns: Column, index: pd.Index) -> pd.DataFrame:
    """Columns in the order of the table of features."""
    return pd.DataFrame({f.name: columns[f.name] for f in FEATURES}, index=index)


def _columns(
    image: NDArray[np.uint8], labels: NDArray[np.int32], n: int, height: int, mpp: float
) -> tuple[Floats, Column]:
    """All but the neighbours, and the shapes in pixels."""
    frame = make_frame(image, labels, n, height)
    shape = shapes(labels, frame.boxes)
    reach = RING_UM / mpp
    inner = stains(frame, labels, 0)
    ring = stains(frame, ring_of(frame, reach), int(np.ceil(reach)))
    texture = textures(frame, inner, RIM_UM / mpp)
    columns = _shape_columns(dict(zip(SHAPE, shape.T, strict=True)), mpp)
    own = dict(zip(STAIN, inner.T, strict=True))
    around = dict(zip(STAIN, ring.T, strict=True))
    columns |= _stain_columns(own, "f_") | _stain_columns(around, "f_ring_")
    columns |= _intensity_columns(own, around, columns["f_area_um2"])
    columns |= _texture_columns(dict(zip(TEXTURE, texture.T, strict=True)), mpp)
    return shape, columns


def _shape_columns(px: Column, mpp: float) -> Column:
    """Shape in um; axes are those of the ellipse with the same second moments."""
    half = (px["var_y"] + px["var_x"]) / 2
    gap = np.hypot((px["var_y"] - px["var_x"]) / 2, px["cov"])
    major, minor = np.maximum(half + gap, 0), np.maximum(half - gap, 0)
    safe = np.where(major > 0, major, 1)
    perimeter = np.where(px["perimeter"] > 0, px["perimeter"], np.nan)
    circularity = np.minimum(4 * np.pi * px["area"] / perimeter**2, 1)
    convexity = np.minimum(px["hull_perimeter"] / perimeter, 1)
    is_nucleus = px["area"] > 0
    columns = {
        "f_area_um2": px["area"] * mpp**2,
        "f_perimeter_um": px["perimeter"] * mpp,
        "f_axis_major_um": 4 * np.sqrt(major) * mpp,
        "f_axis_minor_um": 4 * np.sqrt(minor) * mpp,
        "f_equivalent_diameter_um": np.sqrt(4 * px["area"] / np.pi) * mpp,
        "f_feret_max_um": px["feret_max"] * mpp,
        "f_feret_min_um": px["feret_min"] * mpp,
        "f_eccentricity": np.sqrt(np.maximum(1 - minor / safe, 0)) * (major > 0),
        "f_elongation": (1 - np.sqrt(minor / safe)) * (major > 0),
        "f_solidity": px["area"] / px["hull_area"],
        "f_convexity": np.where(np.isnan(convexity) & is_nucleus, 1, convexity),
        "f_circularity": np.where(np.isnan(circularity) & is_nucleus, 1, circularity),
        "f_radius_cv": px["radius_sd"] / px["radius_mean"],
        "f_touching": px["touching"],
    }
    columns["f_eccentricity"][~is_nucleus] = columns["f_elongation"][~is_nucleus] = np.nan
    return columns | {f"f_lobes_{k}": px[f"lobes_{k}"] for k in LOBES}


def _stain_columns(found: Column, prefix: str) -> Column:
    """Hematoxylin, eosin and the three colours."""
    names = {"h": "hematoxylin", "e": "eosin"}
    columns = {
        f"{prefix}{names[s]}_{what}_od": found[f"{s}_{what}"]
        for s in "he"
        for what in ("mean", "sd", "p10", "p50", "p90")
    }
    return columns | {f"{prefix}{c}_mean_od": found[c] for c in ("red", "green", "blue")}


def _intensity_columns(own: Column, around: Column, area_um2: Floats) -> Column:
    """The rest of the distribution of hematoxylin, and nucleus against ring."""
    return {
        "f_hematoxylin_total_od_um2": own["h_mean"] * area_um2,
        "f_hematoxylin_contrast_od": own["h_mean"] - around["h_mean"],
        "f_eosin_contrast_od": own["e_mean"] - around["e_mean"],
        "f_hematoxylin_min_od": own["h_min"],
        "f_hematoxylin_max_od": own["h_max"],
        "f_hematoxylin_iqr_od": own["h_p75"] - own["h_p25"],
        "f_hematoxylin_mad_od": own["h_mad"],
        "f_hematoxylin_skewness": own["h_skewness"],
        "f_hematoxylin_kurtosis": own["h_kurtosis"],
        "f_hematoxylin_energy": own["h_energy"],
        "f_hematoxylin_entropy_bit": own["h_entropy"],
    }


def _texture_columns(found: Column, mpp: float) -> Column:
    """Texture with its units."""
    per_um = {"gradient_mean", "gradient_sd", "edge_mean", "edge_sd"}
    bits = {"entropy", "sum_entropy", "difference_entropy", "gradient_entropy"}
    columns = {}
    for name, values in found.items():
        if name in per_um:
            columns[f"f_{name}_od_per_um"] = values / mpp
        elif name.startswith("gradient") or name.startswith("edge"):
            columns[f"f_{name}_bit" if name in bits else f"f_{name}"] = values
        elif name in TEXTURE[:9]:
            columns[f"f_glcm_{name}_bit" if name in bits else f"f_glcm_{name}"] = values
    return columns | {
        "f_chromatin_clumps": found["clumps"],
        "f_chromatin_clump_share": found["clump_share"],
        "f_chromatin_largest_um2": found["largest_clump"] * mpp**2,
        "f_chromatin_rim_od": found["rim_contrast"],
        "f_inscribed_radius_um": found["depth"] * mpp,
    }
