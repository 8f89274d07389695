"""Does this nucleus carry the marker? Evidence per nucleus, and the rules that weigh it.

Evidence is read in 3D, inside the nucleus and in a thin shell around it, slice by slice, so that
a marker above or below a nucleus is seen for what it is. A rule turns evidence into a
probability; a new rule is one frozen dataclass with a ``__call__`` and a row in ``RULES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.errors import CallError, InputError
from nucleoscope.jit import kernel

#: Sections smaller than this share of the nucleus's largest section are not looked at: they are
#: mostly blur (LECL: "tiny end sections").
MIN_SECTION = 0.25

#: Names of the columns of ``Evidence.values``, in order.
FEATURES = (
    "mean",            # marker inside the nucleus, mean over its voxels
    "best_slice",      # largest of the slices' means
    "weakest_slice",   # smallest of the slices' means
    "middle_slice",    # mean in the largest section
    "on_fraction",     # share of voxels above the stack's marker threshold
    "best_overlap",    # largest share over the sections
    "weakest_overlap", # smallest share over the sections
    "shell",           # marker in the shell around the nucleus, in the same slices
    "best_shell",      # largest of the slices' shell means
    "core_minus_shell",
    "caps",            # marker just above and below the nucleus, over its own outline
    "core_minus_caps",
    "profile",         # correlation of marker and section area along z
    "nuclear_stain",   # mean of the nuclear stain
    "log_volume",
)  # fmt: skip


#: Columns that hold an amount of marker, from which the stack's autofluorescence is taken.
LEVELS = ("mean", "best_slice", "weakest_slice", "middle_slice", "shell", "best_shell", "caps")
#: Autofluorescence is this quantile of the nuclei's shells, which carry marker less often than
#: nuclei do; of fewer nuclei it is not told, and it is never taken for more than so much.
GLOW_QUANTILE, GLOW_NUCLEI, MOST_GLOW = 0.25, 10, 0.2


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one marker shows at every nucleus.

    Parameters
    ----------
    ids
        ``(n,)`` nucleus ids, ascending.
    values
        ``(n, len(FEATURES))`` float64, finite; marker values on a square-root scale on which the
        stack's 99.8th percentile lies 1 above its background, less the stack's autofluorescence.
    overlap
        ``(n, Z)`` share of the nucleus's section that lies above the marker threshold; NaN where
        the nucleus has no section.
    """

    ids: NDArray[np.int64]
    values: NDArray[np.float64]
    overlap: NDArray[np.float64]

    def column(self, name: str) -> NDArray[np.float64]:
        """One feature, by name."""
        column: NDArray[np.float64] = self.values[:, FEATURES.index(name)]
        return column


def marker_evidence(
    labels: Labels,
    marker: NDArray[np.generic],
    nuclear_stain: NDArray[np.generic],
    *,
    shell_px: int = 2,
) -> Evidence:
    """Read a marker's evidence for every nucleus, in one pass over the stack.

    Parameters
    ----------
    labels
        Instance map (Z, Y, X).
    marker, nuclear_stain
        ``(Z, Y, X)``, any numeric dtype.
    shell_px
        Width of the shell around each section, in pixels of ``labels``; voxels of other nuclei
        are not part of it.

    Returns
    -------
    Evidence

    Raises
    ------
    InputError
        Shapes differ.

    Examples
    --------
    >>> instances = np.zeros((3, 8, 8), np.int32)
    >>> instances[1, 2:6, 2:6] = 7
    >>> marker = np.where(instances > 0, 200, 0).astype(np.uint8)
    >>> evidence = marker_evidence(Labels(instances), marker, marker)
    >>> evidence.ids.tolist(), float(evidence.column("best_overlap")[0])
    ([7], 1.0)
    """
    if marker.shape != labels.shape or nuclear_stain.shape != labels.shape:
        raise InputError(f"marker {marker.shape} and instance map {labels.shape} differ in shape.")
    ids = labels.ids()
    if not len(ids):
        empty = np.zeros((0, labels.shape[0]))
        return Evidence(ids, np.zeros((0, len(FEATURES))), empty)
    index = np.zeros(int(ids[-1]) + 1, dtype=np.int32)
    index[ids] = np.arange(1, len(ids) + 1)
    light, threshold = marker_scale(marker)
    stain, _ = marker_scale(nuclear_stain)
    sums = _accumulate(labels.data, index, light, stain, np.float32(threshold), shell_px, len(ids))
    return Evidence(ids, _dark(_features(sums)), _share(sums[:, :, 2], sums[:, :, 0]))


def _dark(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The features with the stack's autofluorescence taken off.

    Tissue of another animal or day glows more or less where there is no marker, and a rule that
    was fitted on one cohort would call the nuclei of another positive for it.
    """
    if len(values) < GLOW_NUCLEI:
        return values
    shells = values[:, FEATURES.index("shell")]
    glow = min(float(np.quantile(shells, GLOW_QUANTILE)), MOST_GLOW)
    values[:, [FEATURES.index(name) for name in LEVELS]] -= glow
    return values


def marker_scale(image: NDArray[np.generic]) -> tuple[NDArray[np.float32], float]:
    """Put an image on a square-root scale and find where signal starts.

    The square root makes shot noise even over the range. The background is the median, its
    noise the upper half-width of the values below the median mirrored; signal starts four noise
    widths up, and nowhere below 0.15 of the range.

    Returns
    -------
    scaled
        float32, 0 = median background, 1 = 99.8th percentile, not clipped above.
    threshold
        On that scale.
    """
    sample = image[:, ::2, ::2].ravel().astype(np.float32)
    low, middle, high = (float(v) for v in np.percentile(sample, [16, 50, 99.8]))
    span = max(high - middle, 1e-6)
    shifted = image.astype(np.float32)
    shifted -= np.float32(middle)
    np.maximum(shifted, 0, out=shifted)
    shifted /= np.float32(span)
    np.sqrt(shifted, out=shifted)
    noise = float(np.sqrt(max(4 * (middle - low), 0.0) / span))
    return shifted, float(np.clip(noise, 0.15, 0.6))


@kernel
def _accumulate(
    labels: NDArray[np.int32],
    index: NDArray[np.int32],
    marker: NDArray[np.float32],
    stain: NDArray[np.float32],
    threshold: np.float32,
    shell_px: int,
    n: int,
) -> NDArray[np.float64]:
    """Sums per nucleus and slice.

    Columns: area, marker, on, stain, shell area, shell marker, caps area, caps marker.
    """
    n_z, height, width = labels.shape
    sums = np.zeros((n, n_z, 8))
    for z in range(n_z):
        for y in range(height):
            for x in range(width):
                label = labels[z, y, x]
                value = marker[z, y, x]
                if label > 0:
                    i = index[label] - 1
                    sums[i, z, 0] += 1
                    sums[i, z, 1] += value
                    sums[i, z, 2] += value > threshold
                    sums[i, z, 3] += stain[z, y, x]
                    for side in (-1, 1):
                        other = z + side
                        if 0 <= other < n_z and labels[other, y, x] != label:
                            sums[i, z, 6] += 1
                            sums[i, z, 7] += marker[other, y, x]
                    continue
                # A voxel of no nucleus belongs to the shell of the nearest one in its slice.
                nearest = shell_px * shell_px + 1
                owner = 0
                for v in range(max(0, y - shell_px), min(height, y + shell_px + 1)):
                    for u in range(max(0, x - shell_px), min(width, x + shell_px + 1)):
                        candidate = labels[z, v, u]
                        if candidate > 0:
                            distance = (v - y) ** 2 + (u - x) ** 2
                            if distance < nearest:
                                nearest = distance
                                owner = candidate
                if owner > 0:
                    i = index[owner] - 1
                    sums[i, z, 4] += 1
                    sums[i, z, 5] += value
    return sums


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """``part / whole``, NaN where there is nothing to share."""
    share: NDArray[np.float64] = np.divide(
        part, whole, out=np.full(part.shape, np.nan), where=whole > 0
    )
    return share


def _features(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The columns of FEATURES from the sums per nucleus and slice."""
    area = sums[:, :, 0]
    largest = area.max(axis=1, keepdims=True)
    looked_at = area >= np.maximum(MIN_SECTION * largest, 1)
    inside = np.where(looked_at, _share(sums[:, :, 1], area), np.nan)
    overlap = np.where(looked_at, _share(sums[:, :, 2], area), np.nan)
    shell = np.where(looked_at, _share(sums[:, :, 5], sums[:, :, 4]), np.nan)
    total = sums.sum(axis=1)
    mean = total[:, 1] / total[:, 0]
    # A nucleus without a shell or caps (packed all around) says nothing: its own mean stands in.
    shell = np.where(np.isfinite(shell), shell, inside)
    shell_mean = np.where(total[:, 4] > 0, total[:, 5] / np.maximum(total[:, 4], 1), mean)
    caps = np.where(total[:, 6] > 0, total[:, 7] / np.maximum(total[:, 6], 1), mean)
    middle = inside[np.arange(len(area)), area.argmax(axis=1)]
    columns = [
        mean, np.nanmax(inside, 1), np.nanmin(inside, 1), middle, total[:, 2] / total[:, 0],
        np.nanmax(overlap, 1), np.nanmin(overlap, 1), shell_mean, np.nanmax(shell, 1),
        mean - shell_mean, caps, mean - caps, _profile(sums), total[:, 3] / total[:, 0],
        np.log(total[:, 0]),
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def _profile(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation along z of section area and marker sum, over all slices; 0 when undefined."""
    area = sums[:, :, 0] - sums[:, :, 0].mean(axis=1, keepdims=True)
    light = sums[:, :, 1] - sums[:, :, 1].mean(axis=1, keepdims=True)
    scale = np.sqrt((area**2).sum(axis=1) * (light**2).sum(axis=1))
    profile: NDArray[np.float64] = (area * light).sum(axis=1) / np.maximum(scale, 1e-9)
    return profile


class MarkerRule(Protocol):
    """Anything that turns evidence into one probability per nucleus."""

    def __call__(self, evidence: Evidence) -> NDArray[np.float64]:
        """``(n,)`` probabilities in [0, 1]; 0.5 and above is positive."""


@dataclass(frozen=True)
class AnySlice:
    """The paper's rule: positive when the marker covers enough of any one section."""

    overlap: float = 0.3

    def __call__(self, evidence: Evidence) -> NDArray[np.float64]:
        """Probabilities, ``(n,)``."""
        return _soft(evidence.column("best_overlap"), self.overlap)


@dataclass(frozen=True)
class NucleusFraction:
    """Positive when the marker covers enough of the whole nucleus."""

    fraction: float = 0.3

    def __call__(self, evidence: Evidence) -> NDArray[np.float64]:
        """Probabilities, ``(n,)``."""
        return _soft(evidence.column("on_fraction"), self.fraction)


@dataclass(frozen=True)
class CoreAgainstShell:
    """Positive when the nucleus is marked and not much dimmer than what surrounds it."""

    level: float = 0.3

    def __call__(self, evidence: Evidence) -> NDArray[np.float64]:
        """Probabilities, ``(n,)``."""
        contrast = evidence.column("mean") + np.minimum(evidence.column("core_minus_shell"), 0.0)
        return _soft(contrast, self.level)


@dataclass(frozen=True)
class Learned:
    """A logistic regression on the evidence, fitted on the clicks' types.

    Parameters
    ----------
    weights
        One per feature of FEATURES, for features as they are (scaling is folded in).
    bias
        Added to the weighted sum.
    """

    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        if len(self.weights) != len(FEATURES):
            raise InputError(
                f"a learned marker rule has {len(FEATURES)} weights; found {len(self.weights)}."
            )

    def logit(self, evidence: Evidence) -> NDArray[np.float64]:
        """Log odds of positive, ``(n,)``."""
        logit: NDArray[np.float64] = evidence.values @ np.asarray(self.weights) + self.bias
        return logit

    def __call__(self, evidence: Evidence) -> NDArray[np.float64]:
        """Probabilities, ``(n,)``."""
        return sigmoid(self.logit(evidence))


#: Rules that need no training, by name.
RULES: dict[str, Callable[..., MarkerRule]] = {
    "any_slice": AnySlice,
    "fraction": NucleusFraction,
    "ring": CoreAgainstShell,
}

#: Name of the rule that a model has learnt from its points.
LEARNED = "learned"


def marker_rule(name: str, **settings: float) -> MarkerRule:
    """A rule by name.

    Raises
    ------
    CallError
        No such rule; lists those there are.

    Examples
    --------
    >>> marker_rule("any_slice", overlap=0.5)
    AnySlice(overlap=0.5)
    """
    if name not in RULES:
        raise CallError(f"no marker rule {name!r}; there are {', '.join(sorted(RULES))}.")
    return RULES[name](**settings)


def rule_named(text: str) -> MarkerRule:
    """A rule from ``NAME`` or ``NAME:THRESHOLD``, such as ``ring:0.4``.

    The threshold is the rule's first setting; for the rules here that is where the probability
    is one half.

    Raises
    ------
    CallError
        No such rule, or no number after the colon.

    Examples
    --------
    >>> rule_named("ring:0.4"), rule_named("any_slice")
    (CoreAgainstShell(level=0.4), AnySlice(overlap=0.3))
    """
    name, colon, threshold = text.partition(":")
    if not colon:
        return marker_rule(name)
    try:
        value = float(threshold)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise CallError(f"marker rule {text!r}: expected a number between 0 and 1 after the colon.")
    marker_rule(name)
    return RULES[name](value)


def fit_learned(
    evidence: Evidence, positive: NDArray[np.bool_], *, strength: float = 1.0
) -> Learned:
    """Fit the learned rule to nuclei of known type by ridge-penalised logistic regression.

    Parameters
    ----------
    evidence
        Of n nuclei.
    positive
        ``(n,)`` bool.
    strength
        Inverse penalty, as in scikit-learn's ``C``, on standardised features.

    Raises
    ------
    InputError
        All nuclei are of one type, so there is nothing to tell apart.
    """
    if positive.all() or not positive.any():
        raise InputError("all typed points are of one type; typing needs examples of both.")
    from sklearn.linear_model import LogisticRegression

    centre = evidence.values.mean(axis=0)
    scale = np.maximum(evidence.values.std(axis=0), 1e-6)
    model = LogisticRegression(C=strength, max_iter=2000)
    model.fit((evidence.values - centre) / scale, positive)
    weights = model.coef_[0] / scale
    bias = float(model.intercept_[0] - weights @ centre)
    return Learned(tuple(float(w) for w in weights), bias)


def sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logistic function, exact at both ends."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def _soft(value: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """A probability that crosses one half at ``threshold``; 0 at 0, 1 at 1."""
    return np.interp(value, [0.0, threshold, 1.0], [0.0, 0.5, 1.0])
