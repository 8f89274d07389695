"""Arrays in memory that name their axes: xarray, and the images of SpatialData.

Nothing is imported for them: an array that has ``dims`` and ``coords`` is taken at its word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError
from nucleoscope.units import Spacing


@dataclass(frozen=True, eq=False)
class NamedArray:
    """Pixels with what the array itself says; None for what it does not."""

    data: NDArray[Any]
    axes: str | None = None
    channels: tuple[str, ...] | None = None
    spacing: Spacing | None = None


def of(array: Any, name: str) -> NamedArray:
    """Pixels and names of an array in memory.

    Raises
    ------
    CallError
        A SpatialData with more than one image, or an axis that is none of ours.

    Examples
    --------
    >>> of(np.zeros((2, 3)), "a").axes is None
    True
    """
    if hasattr(array, "images") and not hasattr(array, "dims"):
        array = _only_image(dict(array.images), name)
    if hasattr(array, "children") and not hasattr(array, "dtype"):
        array = _full_resolution(array)
    if not (hasattr(array, "dims") and hasattr(array, "coords")):
        return NamedArray(np.asarray(array))
    letters = "".join(str(dim)[:1].upper() for dim in array.dims)
    if set(letters) - set("TCZYXS"):
        raise CallError(f"{name}: its axes {', '.join(map(str, array.dims))} are not of t c z y x.")
    return NamedArray(np.asarray(array.data), letters, _channels(array), _spacing(array))


def _only_image(images: dict[str, Any], name: str) -> Any:
    """The image of a SpatialData that has one."""
    if len(images) != 1:
        listed = ", ".join(images) or "none"
        raise CallError(f"{name}: the SpatialData has the images {listed}; give one of them.")
    return next(iter(images.values()))


def _full_resolution(tree: Any) -> Any:
    """The first scale of an image of several."""
    level = tree[next(iter(tree.children))]
    return next(iter(level.data_vars.values()))


def _channels(array: Any) -> tuple[str, ...] | None:
    """The coordinates along the channels, as text."""
    dim = next((d for d in array.dims if str(d)[:1].upper() == "C"), None)
    if dim is None or dim not in array.coords:
        return None
    return tuple(str(value) for value in np.asarray(array.coords[dim]).tolist())


def _spacing(array: Any) -> Spacing | None:
    """The scale to the coordinate system ``um``, where the image has one."""
    transforms = getattr(array, "attrs", {}).get("transform")
    found = transforms.get("um") if isinstance(transforms, dict) else None
    axes, scale = getattr(found, "axes", None), getattr(found, "scale", None)
    if axes is None or scale is None:
        return None
    sizes = dict(zip(axes, (float(v) for v in scale), strict=True))
    if not {"y", "x"} <= set(sizes):
        return None
    return (sizes.get("z", 1.0), sizes["y"], sizes["x"])
