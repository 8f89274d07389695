"""What the three branches are taught with: masked losses that read labelled pixels only.

Every function takes logits, computes in float32 (float64 where it was given float64), divides by
what it really counted, and returns an exact 0 that still carries a gradient graph where it counted
nothing. Logits, maps and targets of pixels outside ``labelled`` never change a result.

References
----------
.. [1] Graham et al. 2019, HoVer-Net, Medical Image Analysis 58, section 3.1.
.. [2] Moradinasab et al. 2022, Weakly supervised deep instance nuclei detection using points
   annotation in 3D cardiovascular immunofluorescent images, MLHC.
.. [3] Moradinasab et al. 2023, Label-efficient contrastive learning-based model for nuclei
   detection and classification in 3D cardiovascular immunofluorescent images, equation 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleoscope.errors import CallError, InputError
from nucleoscope.learn.contrast import supervised_pixel_contrast
from nucleoscope.learn.crf import dense_crf

#: Added to numerator and denominator of Dice.
EPSILON = 1e-3


@dataclass(frozen=True)
class LossSettings:
    """Weights and choices of the three branches; the defaults read labelled pixels only.

    Parameters
    ----------
    entropy
        Weight of the entropy of unlabelled pixels in NP (published: 0.5).
    type_entropy
        The same in NC. The paper has it, its code does not.
    hv_gradient
        Weight of the gradient term of HV (1 in the published code, 2 in HoVer-Net's text).
    type_weights
        Fixed class weights of NC, one per class with background first; ``None`` takes inverse
        frequencies of the labelled pixels, see ``inverse_frequency``.
    background_floor
        Least weight of the background among inverse frequencies.
    unlabelled_is_background
        Cross-entropy (NC) and HV count unlabelled pixels as background, as the published code
        does; its class weights make that harmless.
    dice_everywhere
        So does Dice (NP, NC), which has no such weights: a defect of that code.
    probability_floor
        Probabilities are kept in [floor, 1 - floor] before their logarithm; 0 does not clamp.

    Examples
    --------
    >>> LossSettings.paper().type_weights
    (0.0005, 0.4995, 0.5)
    """

    entropy: float = 0.5
    type_entropy: float = 0.5
    hv_gradient: float = 1.0
    type_weights: tuple[float, ...] | None = None
    background_floor: float = 0.05
    unlabelled_is_background: bool = False
    dice_everywhere: bool = False
    probability_floor: float = 0.0

    @classmethod
    def paper(cls, n_types: int = 2, *, defects: bool = True) -> LossSettings:
        """What the published code does, for two types; for others its background weight is kept.

        Parameters
        ----------
        n_types
            Types, background not counted.
        defects
            With ``dice_everywhere``; the recipes leave it out.
        """
        weights: tuple[float, ...] = (0.0005, 0.4995, 0.5)
        if n_types != 2:
            weights = (0.0005, *(0.9995 / max(1, n_types) for _ in range(n_types)))
        return cls(
            type_entropy=0.0,
            type_weights=weights,
            unlabelled_is_background=True,
            dice_everywhere=defects,
            probability_floor=1e-7,
        )

    @classmethod
    def hovernet(cls, n_types: int = 2) -> LossSettings:
        """HoVer-Net's own, for instance maps: nothing is unlabelled and classes weigh the same."""
        return cls(entropy=0.0, type_entropy=0.0, type_weights=(1.0,) * (1 + n_types))


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    labelled: Tensor | None = None,
    class_weights: Tensor | None = None,
    *,
    probability_floor: float = 0.0,
) -> Tensor:
    """Mean of ``-w_k ln Y_k`` over labelled pixels, divided by the sum of their weights.

    Parameters
    ----------
    logits
        ``(B, K, *S)``.
    target
        ``(B, *S)`` int64 in [0, K) wherever labelled, anything elsewhere.
    labelled
        ``(B, *S)`` bool; ``None`` for every pixel.
    class_weights
        ``(K,)``, not negative; ``None`` for 1.
    probability_floor
        See ``LossSettings``.

    Returns
    -------
    Tensor
        Scalar; 0 where nothing is labelled.

    Raises
    ------
    InputError
        Shapes do not fit, or a labelled target is not a class.

    Examples
    --------
    >>> logits, target = torch.zeros(1, 2, 3), torch.tensor([[0, 1, 9]])
    >>> round(float(cross_entropy(logits, target, torch.tensor([[True, True, False]]))), 4)
    0.6931
    """
    where = _where(logits, target, labelled)
    target = _classes(target, where, logits.shape[1])
    log_probability = _log_probability(logits, probability_floor)
    surprise = -log_probability.gather(1, target.unsqueeze(1)).squeeze(1)
    if class_weights is None:
        return _mean(surprise, where)
    weight = _per_class(class_weights, logits).to(surprise.dtype)[target] * where
    return _over(torch.where(where, surprise, 0.0).mul(weight).sum(), weight.sum())


def dice(
    logits: Tensor,
    target: Tensor,
    labelled: Tensor | None = None,
    *,
    epsilon: float = EPSILON,
) -> Tensor:
    """Sum over classes of ``1 - (2 sum YX + e) / (sum Y + sum X + e)``, sums over labelled pixels.

    The sums run over the whole batch. The published code sums over all pixels with the unlabelled
    ones as background; that is ``labelled=None`` with their targets set to 0.

    Parameters
    ----------
    logits
        ``(B, K, *S)``.
    target
        ``(B, *S)`` int64.
    labelled
        ``(B, *S)`` bool; ``None`` for every pixel.
    epsilon
        Makes the loss of an empty selection exactly 0.

    Returns
    -------
    Tensor
        Scalar in [0, K].

    Raises
    ------
    InputError
        As ``cross_entropy``.

    Examples
    --------
    >>> logits = torch.tensor([[[50.0, -50.0], [-50.0, 50.0]]])
    >>> float(dice(logits, torch.tensor([[0, 1]])))
    0.0
    """
    where = _where(logits, target, labelled)
    n_classes = logits.shape[1]
    target = _classes(target, where, n_classes)
    one_hot = (target.unsqueeze(1) == _column(n_classes, logits)) & where.unsqueeze(1)
    probability = torch.where(where.unsqueeze(1), _full(logits).softmax(1), 0.0)
    over = [axis for axis in range(logits.ndim) if axis != 1]
    shared = torch.where(one_hot, probability, 0.0).sum(over)
    total = probability.sum(over) + one_hot.sum(over)
    return (1.0 - (2.0 * shared + epsilon) / (total + epsilon)).sum()


def entropy(logits: Tensor, where: Tensor, *, probability_floor: float = 0.0) -> Tensor:
    """Mean of ``-sum_k Y_k ln Y_k`` (natural logarithm) over the pixels of ``where``.

    Parameters
    ----------
    logits
        ``(B, K, *S)``.
    where
        ``(B, *S)`` bool, usually the unlabelled pixels.
    probability_floor
        See ``LossSettings``.

    Returns
    -------
    Tensor
        Scalar in [0, ln K]; 0 where ``where`` is empty.

    Raises
    ------
    InputError
        Shapes do not fit.

    Examples
    --------
    >>> round(float(entropy(torch.zeros(1, 2, 4), torch.ones(1, 4, dtype=torch.bool))), 4)
    0.6931
    """
    where = _where(logits, where, where)
    log_probability = _log_probability(logits, probability_floor)
    return _mean(-(log_probability.exp() * log_probability).sum(1), where)


def hv_mse(predicted: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Mean squared error of the HV maps over labelled pixels and all maps.

    Parameters
    ----------
    predicted, target
        ``(B, C, Y, X)``: horizontal, vertical and whatever else (such as an offset along z).
    labelled
        ``(B, Y, X)`` bool; ``None`` for every pixel.

    Returns
    -------
    Tensor
        Scalar; 0 where nothing is labelled.

    Raises
    ------
    InputError
        Shapes do not fit.

    Examples
    --------
    >>> float(hv_mse(torch.ones(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)))
    1.0
    """
    where = _where_hv(predicted, target, labelled)
    return _mean(_difference(predicted, target, where).square().mean(1), where)


def hv_gradient(
    predicted: Tensor,
    target: Tensor,
    foreground: Tensor,
    labelled: Tensor | None = None,
) -> Tensor:
    """Squared error of the slopes of the HV maps, averaged over nucleus pixels and both maps.

    The horizontal map is differentiated along x with the 5 x 5 kernel ``h / (h^2 + v^2)``, the
    vertical map along y with ``v / (h^2 + v^2)`` [1]_. Both kernels are linear, so one pass over
    the difference of the maps suffices; outside the patch the difference counts as 0. A pixel
    counts only where the whole 5 x 5 window is labelled: a slope across an unlabelled pixel is
    not known. ``labelled=None`` is HoVer-Net's own term.

    Parameters
    ----------
    predicted, target
        ``(B, C, Y, X)``, C >= 2: horizontal, vertical, and maps that this term does not read.
    foreground
        ``(B, Y, X)`` bool: pixels of nuclei.
    labelled
        ``(B, Y, X)`` bool; ``None`` for every pixel.

    Returns
    -------
    Tensor
        Scalar; 0 where no nucleus pixel counts.

    Raises
    ------
    InputError
        Shapes do not fit.

    Examples
    --------
    >>> nothing = torch.zeros(1, 2, 7, 7)
    >>> float(hv_gradient(nothing, nothing, torch.ones(1, 7, 7, dtype=torch.bool)))
    0.0
    """
    known = _where_hv(predicted, target, labelled)
    where = _where_hv(predicted, target, foreground) & _eroded(known)
    difference = _difference(predicted[:, :2], target[:, :2], known)
    slope = F.conv2d(difference, _slope_kernels(difference), padding=2, groups=2)
    return _mean(slope.square().mean(1), where)


def inverse_frequency(
    target: Tensor,
    n_classes: int,
    labelled: Tensor | None = None,
    *,
    background_floor: float = 0.05,
) -> Tensor:
    """Class weights ``(1 / n_k) / sum_j (1 / n_j)`` over the classes that occur.

    Parameters
    ----------
    target
        Any shape, int64.
    n_classes
        K.
    labelled
        Bool, as ``target``; only these pixels are counted.
    background_floor
        Least weight of class 0: it is so frequent that it would hardly be learned otherwise.

    Returns
    -------
    Tensor
        ``(K,)`` float32; a class without pixels weighs 0 and the sum is 1 before the floor.

    Raises
    ------
    InputError
        Shapes do not fit, or a labelled target is not a class.

    Examples
    --------
    >>> inverse_frequency(torch.tensor([0] * 98 + [1, 1]), 2).tolist()
    [0.05000000074505806, 0.9800000190734863]
    """
    where = _same_shape(target, labelled)
    counts = torch.bincount(_classes(target, where, n_classes)[where], minlength=n_classes)
    inverse = torch.where(counts > 0, 1.0 / counts.clamp(min=1), 0.0)
    weights = inverse / inverse.sum().clamp(min=torch.finfo(inverse.dtype).tiny)
    weights[0] = weights[0].clamp(min=background_floor)
    return weights


def np_loss(
    logits: Tensor, target: Tensor, labelled: Tensor, settings: LossSettings | None = None
) -> Tensor:
    """Foreground branch: ``CE + Dice`` where labelled ``+ 0.5 H`` where not [2]_.

    Parameters
    ----------
    logits
        ``(B, 2, *S)``.
    target
        ``(B, *S)`` int64: 1 for nucleus.
    labelled
        ``(B, *S)`` bool.
    settings
        Defaults to ``LossSettings()``.

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    InputError
        As ``cross_entropy``.

    Examples
    --------
    >>> logits, target = torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.int64)
    >>> float(np_loss(logits, target, torch.ones(1, 4, dtype=torch.bool))) > 0
    True
    """
    chosen = settings or LossSettings()
    floor = chosen.probability_floor
    loss = cross_entropy(logits, target, labelled, probability_floor=floor)
    loss = loss + dice(logits, *_scope(target, labelled, everywhere=chosen.dice_everywhere))
    return loss + _weighted_entropy(logits, labelled, chosen.entropy, floor)


def hv_loss(
    predicted: Tensor,
    target: Tensor,
    foreground: Tensor,
    labelled: Tensor,
    settings: LossSettings | None = None,
) -> Tensor:
    """Offset branch: ``MSE + w MSGE`` [1]_, where labelled.

    Parameters
    ----------
    predicted, target
        ``(B, C, Y, X)``, C >= 2: horizontal, vertical, and maps that only the MSE reads.
    foreground, labelled
        ``(B, Y, X)`` bool. Under ``unlabelled_is_background`` every pixel counts as labelled, and
        the target of an unlabelled pixel is taken as given.
    settings
        Defaults to ``LossSettings()``.

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    InputError
        Shapes do not fit.

    Examples
    --------
    >>> maps, everywhere = torch.zeros(1, 2, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
    >>> float(hv_loss(maps, maps, everywhere, everywhere))
    0.0
    """
    chosen = settings or LossSettings()
    scope = None if chosen.unlabelled_is_background else labelled
    slope = hv_gradient(predicted, target, foreground, scope)
    return hv_mse(predicted, target, scope) + chosen.hv_gradient * slope


def nc_loss(
    logits: Tensor,
    target: Tensor,
    labelled: Tensor,
    settings: LossSettings | None = None,
) -> Tensor:
    """Type branch: weighted ``CE + Dice`` where labelled ``+ 0.5 H`` where not; [3]_ without SCL.

    The contrastive term is added by ``contrast.PixelContrast``.

    Parameters
    ----------
    logits
        ``(B, K, *S)``.
    target
        ``(B, *S)`` int64: 0 background, 1 .. K - 1 types.
    labelled
        ``(B, *S)`` bool.
    settings
        Defaults to ``LossSettings()``.

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    CallError
        ``type_weights`` is not one number per class.
    InputError
        As ``cross_entropy``.

    Examples
    --------
    >>> logits, target = torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2, 2]])
    >>> everywhere = torch.ones(1, 4, dtype=torch.bool)
    >>> float(nc_loss(logits, target, everywhere, LossSettings.paper())) > 0
    True
    """
    chosen = settings or LossSettings()
    floor = chosen.probability_floor
    everywhere = chosen.unlabelled_is_background
    scope = _scope(target, labelled, everywhere=everywhere)
    weights = _type_weights(logits, *scope, chosen)
    loss = cross_entropy(logits, *scope, weights, probability_floor=floor)
    loss = loss + dice(logits, *_scope(target, labelled, everywhere=chosen.dice_everywhere))
    return loss + _weighted_entropy(logits, labelled, chosen.type_entropy, floor)


#: Name to loss; a new row has to pass ``learn.contract.LossContract``.
LOSSES: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "cross_entropy": cross_entropy,
        "dice": dice,
        "entropy": entropy,
        "hv_mse": hv_mse,
        "hv_gradient": hv_gradient,
        "np": np_loss,
        "hv": hv_loss,
        "nc": nc_loss,
        "dense_crf": dense_crf,
        "supervised_pixel_contrast": supervised_pixel_contrast,
    }
)


def _full(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _log_probability(logits: Tensor, floor: float) -> Tensor:
    if floor == 0.0:
        return _full(logits).log_softmax(1)
    return _full(logits).softmax(1).clamp(floor, 1.0 - floor).log()


def _over(total: Tensor, weight: Tensor) -> Tensor:
    return total / torch.where(weight > 0, weight, 1.0)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)


def _difference(predicted: Tensor, target: Tensor, where: Tensor) -> Tensor:
    full = _full(predicted)
    return torch.where(where.unsqueeze(1), full - target.to(full.dtype), 0.0)


def _column(n_classes: int, like: Tensor) -> Tensor:
    classes = torch.arange(n_classes, device=like.device)
    return classes.view(1, n_classes, *(1,) * (like.ndim - 2))


def _slope_kernels(like: Tensor) -> Tensor:
    """``(2, 1, 5, 5)``: along x for the horizontal map, along y for the vertical one."""
    steps = torch.arange(-2, 3, device=like.device, dtype=like.dtype)
    vertical, horizontal = torch.meshgrid(steps, steps, indexing="ij")
    square = (vertical.square() + horizontal.square()).clamp(min=1.0)
    return torch.stack([horizontal / square, vertical / square]).unsqueeze(1)


def _eroded(known: Tensor) -> Tensor:
    unknown = (~known).unsqueeze(1).float()
    return F.max_pool2d(unknown, 5, stride=1, padding=2).squeeze(1) == 0


def _scope(target: Tensor, labelled: Tensor, *, everywhere: bool) -> tuple[Tensor, Tensor | None]:
    """Targets and labelled pixels; everywhere, the unlabelled ones are background."""
    if everywhere:
        return torch.where(_same_shape(target, labelled), target, 0), None
    return target, labelled


def _weighted_entropy(logits: Tensor, labelled: Tensor, weight: float, floor: float) -> Tensor:
    if weight == 0.0:
        return logits.new_zeros((), dtype=torch.float32)
    return weight * entropy(logits, ~labelled, probability_floor=floor)


def _type_weights(
    logits: Tensor, target: Tensor, labelled: Tensor | None, settings: LossSettings
) -> Tensor:
    if settings.type_weights is not None:
        return torch.tensor(settings.type_weights, device=logits.device)
    floor = settings.background_floor
    return inverse_frequency(target, logits.shape[1], labelled, background_floor=floor)


def _per_class(class_weights: Tensor, logits: Tensor) -> Tensor:
    if class_weights.shape != (logits.shape[1],):
        raise CallError(
            f"class weights: found shape {tuple(class_weights.shape)}, expected one number for "
            f"each of the {logits.shape[1]} classes; give one weight per output of the branch."
        )
    return class_weights.to(logits.device)


def _same_shape(target: Tensor, labelled: Tensor | None) -> Tensor:
    if labelled is None:
        return torch.ones_like(target, dtype=torch.bool)
    if labelled.shape != target.shape or labelled.dtype != torch.bool:
        raise InputError(
            f"labelled: found {labelled.dtype} {tuple(labelled.shape)}, expected torch.bool "
            f"{tuple(target.shape)}, one value per pixel of the target; compare the label map "
            "with its unlabelled value to make one."
        )
    return labelled


def _where(logits: Tensor, target: Tensor, labelled: Tensor | None) -> Tensor:
    expected = (logits.shape[0], *logits.shape[2:])
    if logits.ndim < 2 or target.shape != expected:
        raise InputError(
            f"loss: found logits {tuple(logits.shape)} with a target {tuple(target.shape)}, "
            "expected (B, K, *S) with (B, *S); crop the target to what the network returns."
        )
    return _same_shape(target, labelled)


def _where_hv(predicted: Tensor, target: Tensor, labelled: Tensor | None) -> Tensor:
    if predicted.ndim != 4 or predicted.shape[1] < 2 or target.shape != predicted.shape:
        raise InputError(
            f"HV loss: found maps {tuple(predicted.shape)} and {tuple(target.shape)}, expected "
            "both (B, C, Y, X) with C >= 2; crop the target to what the network returns."
        )
    return _same_shape(target[:, 0], labelled)


def _classes(target: Tensor, where: Tensor, n_classes: int) -> Tensor:
    safe = torch.where(where, target, 0)
    if safe.numel() and not 0 <= int(safe.min()) <= int(safe.max()) < n_classes:
        raise InputError(
            f"target: found classes {int(safe.min())} to {int(safe.max())} at labelled pixels, "
            f"expected 0 to {n_classes - 1}; give the network as many outputs as there are classes."
        )
    return safe
