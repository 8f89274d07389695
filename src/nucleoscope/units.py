"""Pixels and micrometres.

``spacing`` is ``(z, y, x)`` in micrometres per voxel (volumes); ``mpp`` is micrometres per pixel
(slides). An unknown scale is ``None`` and is asked for by name, never guessed.
"""

from __future__ import annotations

import math

from nucleoscope.errors import CallError, InputError

Spacing = tuple[float, float, float]

#: Pixel sizes outside this range (um) are taken for a wrong unit, not for a microscope.
PLAUSIBLE_UM = (0.02, 100.0)


def check_spacing(spacing: Spacing | None) -> Spacing | None:
    """Return ``spacing`` as three floats, or None; raise InputError when it is implausible.

    >>> check_spacing((1.5, 0.5, 0.5))
    (1.5, 0.5, 0.5)
    """
    if spacing is None:
        return None
    if len(spacing) != 3:
        raise InputError(f"spacing is (z, y, x) in um, three numbers; found {spacing!r}.")
    low, high = PLAUSIBLE_UM
    for axis, value in zip("zyx", spacing, strict=True):
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(
                f"a {axis} spacing of {value:g} um is not between {low:g} and {high:g} um; "
                "give the real one with --spacing Z,Y,X."
            )
    return (float(spacing[0]), float(spacing[1]), float(spacing[2]))


def parse_length(text: str) -> tuple[float, str]:
    """Split ``"15px"`` or ``"4.5um"`` into a value and ``"px"`` or ``"um"``; no unit is px.

    >>> parse_length("15px"), parse_length("4.5um"), parse_length("12")
    ((15.0, 'px'), (4.5, 'um'), (12.0, 'px'))
    """
    raw = text.strip().lower().replace("µm", "um").replace("μm", "um")
    unit = "um" if raw.endswith("um") else "px"
    number = raw.removesuffix("um").removesuffix("px").strip()
    try:
        value = float(number)
    except ValueError:
        raise CallError(f"{text!r} is not a length; write 15px or 4.5um.") from None
    if not (math.isfinite(value) and value > 0):
        raise CallError(f"a length must be positive and finite; found {text!r}.")
    return value, unit


def z_step_px(spacing: Spacing | None, fallback: float) -> float:
    """One slice step expressed in xy pixels, ``dz / dxy``; ``fallback`` when the scale is unknown.

    >>> z_step_px((3.0, 0.5, 0.5), fallback=11.0)
    6.0
    """
    if spacing is None:
        return fallback
    return spacing[0] / math.sqrt(spacing[1] * spacing[2])
