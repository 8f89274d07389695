"""nucleoscope: from clicks on nuclei to typed nuclei in 3D, and on to an atlas of the tissue.

Every verb of the command line is a function here with the same name and the same defaults:
``nucleoscope.train(...)``, ``nucleoscope.detect(...)``. They are loaded on first use, so that
``import nucleoscope`` costs milliseconds and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> the module that holds it. This table is the whole public top level.
_HOMES = {
    "Labels": "nucleoscope.data.labels",
    "NucleoscopeError": "nucleoscope.errors",
    "NucleusTable": "nucleoscope.data.table",
    "Points": "nucleoscope.data.points",
    "Region": "nucleoscope.data.region",
    "Volume": "nucleoscope.data.volume",
}

__all__ = [
    "Labels",
    "NucleoscopeError",
    "NucleusTable",
    "Points",
    "Region",
    "Volume",
    "__version__",
]

if TYPE_CHECKING:
    from nucleoscope.data.labels import Labels
    from nucleoscope.data.points import Points
    from nucleoscope.data.region import Region
    from nucleoscope.data.table import NucleusTable
    from nucleoscope.data.volume import Volume
    from nucleoscope.errors import NucleoscopeError


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'nucleoscope' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
