"""What a PerkinElmer or Akoya qptiff says: full-resolution pages are channels with names.

Every page carries its own XML, ``PerkinElmer-QPI-ImageDescription``, whose ``ImageType`` is
FullResolution, ReducedResolution, Thumbnail, Overview or Label.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nucleoscope.errors import InputError
from nucleoscope.io.guard import Limits, parse_xml
from nucleoscope.io.tiffmeta import Declared, children

MARK = "PerkinElmer-QPI-ImageDescription"


def parse_qptiff(pages: list[Any], where: str, limits: Limits) -> Declared:
    """The channels among the pages of a qptiff.

    Raises
    ------
    InputError
        No page of full resolution.
    """
    names: list[str | None] = []
    at: list[int] = []
    for n, page in enumerate(pages):
        text = str(page.description or "")
        if MARK not in text:
            continue
        root = parse_xml(text, where=f"{where}: page {n + 1}", limits=limits)
        kind = "".join(child.text or "" for child in children(root, "ImageType"))
        if kind == "FullResolution":
            at.append(n)
            named = [child.text for child in children(root, "Name")]
            names.append(named[0] if named else None)
    if not at:
        raise InputError(f"{where}: it is a qptiff without a page of full resolution.")
    left_out = len(pages) - len(at)
    note = f"{where}: {left_out} smaller copies, overviews and labels are left out."
    axes, sizes = ("C", (len(at),)) if len(at) > 1 else ("", ())
    return Declared(
        "qptiff", axes, sizes, np.array(at), None, channels=tuple(names),
        notes=(note,) if left_out else (),
    )  # fmt: skip
