"""The features by name: what each says in words, its unit, and what to call more and less of it."""

from __future__ import annotations

from typing import NamedTuple


class Feature(NamedTuple):
    """One column ``f_*``.

    ``text`` is what it measures, ``unit`` may be empty, ``more`` and ``less`` are words for a
    nucleus with a high and a low value, ``family`` groups features that say nearly the same.
    """

    name: str
    text: str
    unit: str
    more: str
    less: str
    family: str


def _row(name: str, text: str, unit: str, words: str, family: str) -> Feature:
    more, _, less = words.partition(" | ")
    return Feature(f"f_{name}", text, unit, more, less, family)


_SIZE, _LONG, _ROUND = "larger | smaller", "longer | rounder", "smoother | more irregular"
_DARK, _PINK = "darker | paler", "pinker | less pink"
_MIXED = "more uneven stain | more even stain"
_COARSE, _SHARP = "coarser texture | smoother texture", "sharper | blurrier"

_SHAPE = (
    _row("area_um2", "area", "um2", _SIZE, "size"),
    _row("perimeter_um", "perimeter", "um", _SIZE, "size"),
    _row("axis_major_um", "long axis", "um", _SIZE, "size"),
    _row("axis_minor_um", "short axis", "um", "thicker | thinner", "size"),
    _row("equivalent_diameter_um", "diameter of the disc of equal area", "um", _SIZE, "size"),
    _row("feret_max_um", "largest diameter", "um", _SIZE, "size"),
    _row("feret_min_um", "smallest width", "um", "thicker | thinner", "size"),
    _row("inscribed_radius_um", "radius of the largest disc inside", "um",
         "thicker | thinner", "size"),
    _row("eccentricity", "eccentricity", "", _LONG, "elongation"),
    _row("elongation", "1 - short axis / long axis", "", _LONG, "elongation"),
    _row("solidity", "area / area of the convex hull", "", _ROUND, "outline"),
    _row("convexity", "perimeter of the convex hull / perimeter", "", _ROUND, "outline"),
    _row("circularity", "4 pi area / perimeter^2", "", "more circular | less circular", "outline"),
    _row("radius_cv", "sd / mean of the distance from centre to edge", "",
         "less circular | more circular", "outline"),
    _row("lobes_2", "two-fold part of the outline", "", _LONG, "elongation"),
    *(
        _row(f"lobes_{k}", f"{word}-fold part of the outline", "",
             "more irregular | smoother", "outline")
        for k, word in ((3, "three"), (4, "four"), (5, "five"), (6, "six"), (7, "seven"))
    ),
)  # fmt: skip

_STAIN = tuple(
    _row(f"{prefix}{stain}_{key}_od", f"{where}{stain}, {said}", "OD",
         _MIXED if key == "sd" else words, family)
    for prefix, where, suffix in (("", "", ""), ("ring_", "ring: ", " around"))
    for stain, words, family in (
        ("hematoxylin", _DARK if not prefix else "darker around | paler around",
         f"hematoxylin{suffix}"),
        ("eosin", _PINK if not prefix else "pinker around | less pink around", f"eosin{suffix}"),
    )
    for key, said in (("mean", "mean"), ("sd", "sd"), ("p10", "10 % below"), ("p50", "median"),
                      ("p90", "90 % below"))
)  # fmt: skip

_COLOUR = tuple(
    _row(f"{prefix}{colour}_mean_od", f"{where}optical density in {colour}", "OD",
         "darker | paler" if not prefix else "darker around | paler around",
         f"hematoxylin{suffix}")
    for prefix, where, suffix in (("", "", ""), ("ring_", "ring: ", " around"))
    for colour in ("red", "green", "blue")
)  # fmt: skip

_INTENSITY = (
    _row("hematoxylin_total_od_um2", "hematoxylin summed over the nucleus", "OD um2",
         "more stain in all | less stain in all", "size"),
    _row("hematoxylin_contrast_od", "hematoxylin, nucleus - ring", "OD",
         "stands out more | stands out less", "contrast"),
    _row("eosin_contrast_od", "eosin, nucleus - ring", "OD",
         "pinker than its surroundings | less pink than its surroundings", "contrast"),
    _row("hematoxylin_min_od", "hematoxylin, least", "OD", _DARK, "hematoxylin"),
    _row("hematoxylin_max_od", "hematoxylin, most", "OD", _DARK, "hematoxylin"),
    _row("hematoxylin_iqr_od", "hematoxylin, interquartile range", "OD", _MIXED, "spread"),
    _row("hematoxylin_mad_od", "hematoxylin, median absolute deviation", "OD", _MIXED, "spread"),
    _row("hematoxylin_skewness", "hematoxylin, skewness", "",
         "few dark spots | few pale spots", "distribution"),
    _row("hematoxylin_kurtosis", "hematoxylin, excess kurtosis", "",
         "rare extremes | no extremes", "distribution"),
    _row("hematoxylin_energy", "hematoxylin, energy of the histogram", "",
         "more even stain | more uneven stain", "spread"),
    _row("hematoxylin_entropy_bit", "hematoxylin, entropy of the histogram", "bit",
         _MIXED, "spread"),
)  # fmt: skip

_TEXTURE = (
    _row("glcm_asm", "angular second moment of neighbouring pixels", "",
         "smoother texture | coarser texture", "texture"),
    _row("glcm_contrast", "contrast of neighbouring pixels, in levels of 0.05 OD, squared", "",
         _COARSE, "texture"),
    _row("glcm_correlation", "correlation of neighbouring pixels", "",
         "broader structures | finer structures", "grain"),
    _row("glcm_homogeneity", "homogeneity of neighbouring pixels", "",
         "smoother texture | coarser texture", "texture"),
    _row("glcm_entropy_bit", "entropy of neighbouring pixels", "bit", _COARSE, "texture"),
    _row("glcm_sum_entropy_bit", "entropy of their sums", "bit", _COARSE, "texture"),
    _row("glcm_difference_entropy_bit", "entropy of their differences", "bit", _COARSE, "texture"),
    _row("glcm_information_1", "information measure of correlation 1", "",
         "finer structures | broader structures", "grain"),
    _row("glcm_information_2", "information measure of correlation 2", "",
         "broader structures | finer structures", "grain"),
    _row("gradient_mean_od_per_um", "gradient, mean", "OD/um", _COARSE, "gradient"),
    _row("gradient_sd_od_per_um", "gradient, sd", "OD/um", _COARSE, "gradient"),
    _row("gradient_skewness", "gradient, skewness", "",
         "few sharp lines | no sharp lines", "gradient shape"),
    _row("gradient_kurtosis", "gradient, excess kurtosis", "",
         "few sharp lines | no sharp lines", "gradient shape"),
    _row("gradient_energy", "gradient, energy of the histogram", "",
         "smoother texture | coarser texture", "gradient"),
    _row("gradient_entropy_bit", "gradient, entropy of the histogram", "bit", _COARSE, "gradient"),
    _row("edge_mean_od_per_um", "gradient at the edge, mean", "OD/um",
         "sharper edge | blurrier edge", "edge"),
    _row("edge_sd_od_per_um", "gradient at the edge, sd", "OD/um",
         "uneven edge | even edge", "edge"),
    _row("chromatin_clumps", "dark clumps of chromatin", "",
         "more clumps | fewer clumps", "chromatin"),
    _row("chromatin_clump_share", "share of the area in clumps", "",
         "clumped chromatin | fine chromatin", "chromatin"),
    _row("chromatin_largest_um2", "area of the largest clump", "um2",
         "larger clumps | smaller clumps", "chromatin"),
    _row("chromatin_rim_od", "hematoxylin, rim of 0.75 um - core", "OD",
         "darker rim | paler rim", "rim"),
)  # fmt: skip

_NEIGHBOURS = (
    _row("touching", "share of the edge that touches other nuclei", "",
         "touching others | free", "neighbours"),
    _row("nearest_um", "distance to the nearest nucleus", "um",
         "farther from others | closer to others", "neighbours"),
    _row("nearest5_um", "mean distance to the nearest five", "um",
         "farther from others | closer to others", "neighbours"),
    _row("density_per_mm2", "nuclei within 25 um", "per mm2",
         "more crowded | less crowded", "neighbours"),
)  # fmt: skip

#: Every feature, in the order of the columns.
FEATURES = (*_SHAPE, *_STAIN, *_COLOUR, *_INTENSITY, *_TEXTURE, *_NEIGHBOURS)
