"""What every loss must pass; subclass it in a test module and pytest runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Situations that a loss meets sooner or later.
SCENES = ("mixed", "one class", "one sample", "no positives", "nothing labelled", "all labelled")


def _demand(holds: bool, otherwise: str) -> None:
    """Fail with a sentence."""
    if not holds:
        raise AssertionError(otherwise)


class LossContract:
    """A golden value from a slow float64 loop, a checked gradient, and no input that breaks it.

    Attributes
    ----------
    loss
        ``loss(prediction, *rest) -> Tensor``, a scalar.
    slow
        The same in plain loops, ``slow(prediction, *rest) -> float``.
    inputs
        ``inputs(scene) -> (prediction, rest)`` in float64, for every one of ``SCENES``.
    is_zero_without_labels
        Whether the loss is exactly 0 where nothing is labelled (an entropy term is not).

    Examples
    --------
    >>> class TestSquare(LossContract):
    ...     loss = staticmethod(lambda p, t: (p - t).square().mean())
    ...     slow = staticmethod(lambda p, t: sum(float(a) ** 2 for a in p - t) / len(p))
    ...     inputs = staticmethod(
    ...         lambda scene: (torch.linspace(0, 1, 5, dtype=torch.float64), (torch.ones(5),))
    ...     )
    ...     is_zero_without_labels = False
    >>> TestSquare().test_equals_the_slow_float64_loop()
    """

    loss: Callable[..., Tensor]
    slow: Callable[..., float]
    inputs: Callable[[str], tuple[Tensor, tuple[Any, ...]]]
    is_zero_without_labels = True

    def test_equals_the_slow_float64_loop(self) -> None:
        """The same value as the loop, in every scene."""
        for scene in SCENES:
            prediction, rest = self.inputs(scene)
            found, expected = self.loss(prediction, *rest).item(), self.slow(prediction, *rest)
            near = abs(found - expected) <= 1e-6 * abs(expected) + 1e-9
            _demand(near, f"{scene}: found {found!r}, the loop says {expected!r}")

    def test_gradient_is_right(self) -> None:
        """The analytic gradient is the numerical one."""
        prediction, rest = self.inputs("mixed")
        prediction.requires_grad_(True)
        checked = torch.autograd.gradcheck(
            lambda values: self.loss(values, *rest), (prediction,), atol=1e-5
        )
        _demand(bool(checked), "the gradient is wrong")

    def test_value_and_gradient_stay_finite_in_any_precision(self) -> None:
        """Halves, and predictions a thousand times as large."""
        for scene in SCENES:
            for dtype in (torch.float16, torch.bfloat16, torch.float32):
                for scale in (1.0, 1e3):
                    prediction, rest = self.inputs(scene)
                    values = (prediction * scale).to(dtype).requires_grad_(True)
                    loss = self.loss(values, *rest)
                    # Scaled as a mean: the sum of squares of a half is not a half.
                    (loss / scale**2).backward()  # type: ignore[no-untyped-call]
                    where = f"{scene} in {dtype} times {scale:g}"
                    _demand(bool(torch.isfinite(loss)), f"{where}: the loss is {loss.item()}")
                    sound = values.grad is not None and bool(torch.isfinite(values.grad).all())
                    _demand(sound, f"{where}: the gradient is missing or not finite")

    def test_depends_on_its_prediction_only_where_it_should(self) -> None:
        """With nothing labelled there is a graph and, of a supervised loss, nothing to pay."""
        prediction, rest = self.inputs("nothing labelled")
        prediction.requires_grad_(True)
        loss = self.loss(prediction, *rest)
        _demand(loss.requires_grad, "the graph is lost where nothing is labelled")
        if self.is_zero_without_labels:
            _demand(loss.item() == 0.0, f"nothing labelled costs {loss.item()}")
