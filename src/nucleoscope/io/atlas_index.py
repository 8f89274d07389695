"""The search index of an ATLAS folder: flat arrays that are memory-mapped, and what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.atlas import embedding_key
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits

INDEX = "index"
_HEAD = "index.json"
_ARRAYS = {"centres": "<f4", "vectors": "<f2", "order": "<i8", "offsets": "<i8"}


class StoredIndex(NamedTuple):
    """Arrays of the index (``vectors`` memory-mapped), the prototypes' subtypes, and their reach.

    ``names`` has one row per prototype and the columns of ``subtypes.parquet``, or is None.
    """

    centres: NDArray[np.float32]
    vectors: NDArray[np.float16]
    order: NDArray[np.int64]
    offsets: NDArray[np.int64]
    names: pd.DataFrame | None = None
    reach: float | None = None


def write_index(folder: Path | str, index: StoredIndex) -> None:
    """Write ``index/`` of an ATLAS folder, all or nothing, over an earlier one.

    Raises
    ------
    InputError
        No atlas there.
    """
    folder = Path(folder)
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    head: dict[str, Any] = {
        "embedding": embedding_key(folder),
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "reach": index.reach,
        "names": None if index.names is None else index.names.to_dict("list"),
    }
    with guard.atomic_folder(folder / INDEX, overwrite=True) as temp:
        for name, array in arrays.items():
            np.ascontiguousarray(array, dtype=_ARRAYS[name]).tofile(temp / f"{name}.bin")
        guard.write_json(temp / _HEAD, json_ready(head))


def read_index(folder: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> StoredIndex | None:
    """The index of an ATLAS folder, or None where there is none for the present embedding.

    Raises
    ------
    InputError
        The index is damaged.
    """
    folder = Path(folder)
    path = folder / INDEX
    if not (path / _HEAD).is_file():
        return None
    head = guard.read_json(path / _HEAD, limits=limits)
    with guard.reading(path):
        if head["embedding"] != embedding_key(folder, limits=limits):
            return None
        arrays = {name: _mapped(path, name, head["shapes"][name]) for name in _ARRAYS}
        names = None if head["names"] is None else pd.DataFrame(head["names"])
        _check(path, arrays, names)
        return StoredIndex(
            np.array(arrays["centres"]), arrays["vectors"], np.array(arrays["order"]),
            np.array(arrays["offsets"]), names, head["reach"],
        )  # fmt: skip


def json_ready(value: Any) -> Any:
    """Plain values for JSON: numpy numbers become Python's.

    >>> json_ready({"n": np.int64(3)})
    {'n': 3}
    """
    return json.JSONDecoder().decode(json.dumps(value, default=lambda v: v.item()))


def _mapped(path: Path, name: str, shape: list[int]) -> NDArray[Any]:
    """One array, after a look at its size."""
    dtype, file = np.dtype(_ARRAYS[name]), path / f"{name}.bin"
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if min(shape, default=0) < 0 or file.stat().st_size != size:
        raise InputError(f"{file}: {file.stat().st_size} bytes instead of {size}; index again.")
    if size == 0:
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype=dtype, mode="r", shape=tuple(shape))


def _check(path: Path, arrays: dict[str, NDArray[Any]], names: pd.DataFrame | None) -> None:
    """Refuse an index whose parts point outside each other."""
    n, groups = len(arrays["vectors"]), len(arrays["centres"])
    order, offsets = arrays["order"], arrays["offsets"]
    fits = (
        order.shape == (n,) and offsets.shape == (groups + 1,)
        and offsets[0] == 0 and offsets[-1] == n and bool((np.diff(offsets) >= 0).all())
        and (n == 0 or (int(order.min()) >= 0 and int(order.max()) < n))
        and (names is None or len(names) == groups)
        and arrays["centres"].shape[1:] == arrays["vectors"].shape[1:]
    )  # fmt: skip
    if not fits:
        raise InputError(f"{path}: the index is damaged; run subtypes again.")
