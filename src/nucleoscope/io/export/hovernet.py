"""Nuclei in the formats of HoVer-Net: the JSON of ``nuc`` and the .mat of instance maps.

HoVer-Net counts from the centre of the first pixel as we do, and writes ``(x, y)`` in contours and
centroids but ``(row, column)`` in boxes (Graham et al. 2019, Med. Image Anal. 58; its published
``run_infer.py``). Its types are numbers; their names stand beside them as ``type_names``. Its
contours run through the centres of the outermost pixels, ours along their edges; ``contours`` says
so, and ``read_nuclei`` heeds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.errors import CallError
from nucleoscope.io import guard
from nucleoscope.io.nuclei.outlined import PIXEL_EDGES

#: Micrometres per pixel of magnification 1, by the custom that 40x is 0.25.
MPP_OF_1X = 10.0


def type_numbers(types: Any) -> tuple[NDArray[np.int32], list[str]]:
    """Types as numbers from 1 in order of name, 0 = none; and the names, that of 0 first.

    >>> numbers, names = type_numbers(["b", "", "a"])
    >>> numbers.tolist(), names
    ([2, 0, 1], ['', 'a', 'b'])
    """
    names = ["", *sorted(set(types) - {""})]
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[t] for t in types], dtype=np.int32), names


def write_hovernet_json(
    path: Path | str, nuclei: Nuclei, *, mpp: float | None = None, overwrite: bool = False
) -> None:
    """Write ``{"mag": ..., "nuc": {id: {bbox, centroid, contour, type, type_prob}}}``.

    Parameters
    ----------
    path
        File to write.
    nuclei
        Of one image. A nucleus without an outline has an empty contour.
    mpp
        Micrometres per pixel, from which ``mag`` is told (0.25 is 40); None writes null.
    overwrite
        Replace a file that is there.

    Raises
    ------
    CallError
        The nuclei are of several images, or the file is there.
    """
    guard.write_stream(path, _parts(_one_image(nuclei), mpp), overwrite=overwrite)


def _one_image(nuclei: Nuclei) -> Nuclei:
    """The nuclei, if they are of one image: the format has no place for its name."""
    images = sorted(set(nuclei.table.frame["image"]))
    if len(images) > 1:
        raise CallError(
            f"this format holds one image; found {len(images)}, such as {images[0]!r} and "
            f"{images[1]!r}; write each to its own file."
        )
    return nuclei


def _parts(nuclei: Nuclei, mpp: float | None) -> Iterator[bytes]:
    frame = nuclei.table.frame
    numbers, names = type_numbers(frame["type"])
    mag = None if mpp is None else round(MPP_OF_1X / mpp, 4)
    head = {
        "mag": mag,
        "type_names": {str(i): name for i, name in enumerate(names)},
        "contours": PIXEL_EDGES,
    }
    yield json.dumps(head)[:-1].encode() + b', "nuc": {'
    columns = zip(frame["id"], frame["y"], frame["x"], frame["type_prob"], strict=True)
    for i, (ident, y, x, probability) in enumerate(columns):
        ring = np.empty((0, 2)) if nuclei.outlines is None else nuclei.outlines[i]
        nucleus = {
            "bbox": _box(ring),
            "centroid": [round(float(x), 3), round(float(y), 3)],
            "contour": np.round(ring[:, ::-1], 3).tolist(),
            "type_prob": None if np.isnan(probability) else round(float(probability), 6),
            "type": int(numbers[i]),
        }
        text = f"{',' if i else ''}\n{json.dumps(str(ident))}: {json.dumps(nucleus)}"
        yield text.encode()
    yield b"}}\n"


def _box(ring: NDArray[np.float64]) -> list[list[int]] | None:
    """``[[row, column], [row, column]]``, the second one past the end."""
    if not len(ring):
        return None
    low, high = np.floor(ring.min(axis=0) + 0.5), np.ceil(ring.max(axis=0) + 0.5)
    return [low.astype(int).tolist(), high.astype(int).tolist()]


def write_hovernet_mat(path: Path | str, nuclei: Nuclei, *, overwrite: bool = False) -> None:
    """Write ``inst_map, type_map, inst_type, inst_centroid, id`` as a MATLAB file (version 5).

    Raises
    ------
    CallError
        The instance map is not known or three-dimensional, or the file is there.
    """
    from scipy.io import savemat

    labels = _one_image(nuclei).labels
    if labels is None or labels.shape[0] != 1:
        raise CallError("a .mat file of HoVer-Net holds a 2D instance map, and there is none here.")
    frame = nuclei.table.frame
    numbers, _ = type_numbers(frame["type"])
    ids = frame["id"].to_numpy()
    lookup = np.zeros(int(max(ids.max(initial=0), labels.data.max(initial=0))) + 1, np.int32)
    lookup[ids] = numbers
    content = {
        "inst_map": labels.data[0], "type_map": lookup[labels.data[0]],
        "inst_type": numbers[:, None], "inst_centroid": frame[["x", "y"]].to_numpy(),
        "id": ids[:, None],
    }  # fmt: skip
    with guard.atomic_write(path, overwrite=overwrite) as temp:
        savemat(temp, content, appendmat=False, do_compression=True)
