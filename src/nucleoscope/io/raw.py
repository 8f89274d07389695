"""What every image reader hands over: an array in ``CZYX`` with its names, scale and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits
from nucleoscope.units import PLAUSIBLE_UM, Spacing, check_spacing

RGB = ("red", "green", "blue")

#: Lengths in um of the units that files name.
UNITS_UM = {
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "micrometre": 1.0, "\\u00b5m": 1.0, "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4, "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4, "m": 1e6, "meter": 1e6, "metre": 1e6,
    "inch": 25_400.0, "in": 25_400.0, "mil": 25.4,
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What the caller said about a file: axes, scale, names, and what is allowed."""

    axes: str | None = None
    spacing: Spacing | None = None
    channels: tuple[str, ...] | None = None
    allow_short: bool = False
    limits: Limits = DEFAULT_LIMITS
    as_labels: bool = False


@dataclass(frozen=True)
class ImageInfo:
    """What a file's header says, without its pixels.

    Parameters
    ----------
    format
        Name of the format.
    shape
        ``(C, Z, Y, X)``.
    axes
        The axes as stored, slowest first; ``"?"`` for one the file does not name.
    channels
        One name per channel.
    spacing
        ``(z, y, x)`` in um, or None.
    dtype
        Name of the pixel type.
    notes
        What is odd about the file, one sentence each.
    """

    format: str
    shape: tuple[int, int, int, int]
    axes: str
    channels: tuple[str, ...]
    spacing: Spacing | None
    dtype: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RawImage:
    """Pixels ``(C, Z, Y, X)`` of any dtype, before they become a Volume or Labels."""

    data: NDArray[np.generic]
    channels: tuple[str, ...] | None = None
    spacing: Spacing | None = None
    is_rgb: bool = False
    is_2d: bool = False
    notes: tuple[str, ...] = field(default=())


def to_um(value: float, unit: str) -> float | None:
    """A length in um, or None when the unit is not a length we know.

    >>> to_um(250.0, "nm"), to_um(1.0, "pixel")
    (0.25, None)
    """
    factor = UNITS_UM.get(unit.strip().casefold())
    return None if factor is None else value * factor


def scale_of(
    zyx: Sequence[float | None], is_2d: bool, where: str
) -> tuple[Spacing | None, tuple[str, ...]]:
    """Spacing from the three values a file gives, and a note where they do not suffice.

    The z entry of a 2D image is 1 um when the file gives none; it is never used.
    """
    z, y, x = zyx
    if y is None or x is None:
        return None, ()
    if z is None and not is_2d:
        return None, (f"{where} gives the pixel size in xy ({y:g} um) but no z step.",)
    spacing = (1.0 if z is None else z, y, x)
    low, high = PLAUSIBLE_UM
    if is_2d and not low <= spacing[0] <= high:
        spacing = (1.0, y, x)
    if not all(low <= value <= high for value in spacing):
        listed = ", ".join(f"{value:g}" for value in spacing)
        return None, (
            f"{where} gives a scale of {listed} um (z, y, x), outside {low:g} to {high:g} um, "
            "so the scale counts as unknown; give the real one with --spacing Z,Y,X.",
        )
    return spacing, ()


def check_axes(axes: str, n_dims: int, where: str) -> str:
    """Axes as capital letters, checked against the number of dimensions.

    Raises
    ------
    CallError
        Unknown or repeated letters, no Y or X, or another number of axes than dimensions.
    """
    letters = axes.upper()
    if set(letters) - set("TCZYXS") or len(set(letters)) != len(letters):
        raise CallError(f"--axes {axes}: use each of T, C, Z, Y, X, S once at most.")
    if not {"Y", "X"} <= set(letters):
        raise CallError(f"--axes {axes}: Y and X are needed.")
    if len(letters) != n_dims:
        raise CallError(f"{where}: it has {n_dims} axes but --axes {axes} names {len(letters)}.")
    return letters


def arrange(
    array: NDArray[np.generic], axes: str, where: str
) -> tuple[NDArray[np.generic], bool, bool]:
    """Bring an array with named axes into ``(C, Z, Y, X)``; a view where possible.

    Returns
    -------
    data, is_rgb, is_2d

    Raises
    ------
    InputError
        A time axis longer than one, or colour samples that are not RGB(A).
    """
    for letter, size in zip(axes, array.shape, strict=True):
        if letter == "T" and size > 1:
            raise refuse_time(size, where)
    is_rgb = "S" in axes and array.shape[axes.index("S")] > 1
    if is_rgb:
        samples = array.shape[axes.index("S")]
        channels = array.shape[axes.index("C")] if "C" in axes else 1
        if samples not in (3, 4) or channels > 1:
            raise InputError(
                f"{where}: {channels} channels of {samples} colour samples are not an RGB image."
            )
        array = np.take(array, range(3), axis=axes.index("S")) if samples == 4 else array
    present = dict(zip(axes, array.shape, strict=True))
    first = "S" if is_rgb else "C"
    order = [axes.index(a) for a in (first, "Z", "Y", "X") if a in present]
    others = [i for i in range(len(axes)) if i not in order]
    data = array.transpose(others + order).reshape(
        present.get(first, 1), present.get("Z", 1), present["Y"], present["X"]
    )
    return data, is_rgb, present.get("Z", 1) == 1


def refuse_time(n: int, where: str) -> InputError:
    """The error for a time series."""
    return InputError(
        f"{where}: it holds {n} time points (axis T) and nucleoscope reads one; "
        "save each time point as its own file."
    )


def unique_names(
    names: Sequence[str | None], where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """One name per channel, filled in and made unique, and a note when they had to be changed.

    >>> unique_names(["DAPI", "DAPI", None], "a.tif")[0]
    ('DAPI', 'DAPI_2', 'ch2')
    """
    result: list[str] = []
    for index, name in enumerate(names):
        base = (name or "").strip() or f"ch{index}"
        candidate, n = base, 1
        while candidate in result:
            n += 1
            candidate = f"{base}_{n}"
        result.append(candidate)
    changed = any(n and n.strip() != r for n, r in zip(names, result, strict=True))
    note = f"{where} repeats channel names; they became {', '.join(result)}."
    return tuple(result), ((note,) if changed else ())


def _unsigned(data: NDArray[np.generic], where: str) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Signed pixels of 8 or 16 bits as unsigned ones, or as float32 where some are negative."""
    if data.dtype not in (np.int8, np.int16):
        return data, ()
    width = data.dtype.itemsize * 8
    is_negative = data.size > 0 and int(data.min()) < 0
    kept = data.astype(np.float32 if is_negative else f"uint{width}")
    return kept, (f"{where}: its {data.dtype} pixels are read as {kept.dtype}.",)


def to_volume(raw: RawImage, request: Request, path: Path | str, name: str) -> Volume:
    """A checked Volume from what a reader found and what the caller said."""
    spacing, notes = raw.spacing, list(raw.notes)
    given = check_spacing(request.spacing)
    if given is not None:
        if spacing is not None and not np.allclose(given, spacing, rtol=0.01):
            notes.append(f"--spacing {given} replaces the scale {spacing} of the file.")
        spacing = given
    n = raw.data.shape[0]
    data, more = _unsigned(raw.data, str(path))
    notes += more
    names = raw.channels if request.channels is None else request.channels
    if names is None:
        names = RGB if raw.is_rgb else tuple(f"ch{index}" for index in range(n))
    if len(names) != n:
        raise CallError(f"{path}: {len(names)} channel names were given for {n} channels.")
    volume = Volume(data, tuple(names), spacing, name, raw.is_rgb, raw.is_2d)
    return replace(volume, notes=tuple(notes))
