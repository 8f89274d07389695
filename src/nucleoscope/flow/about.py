"""What a file is, and what this machine can do."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nucleoscope.flow.run import versions
from nucleoscope.io import guard
from nucleoscope.io.images import describe

#: Extra -> a module that tells whether it is installed.
EXTRAS = {"cluster": "distributed", "spatial": "anndata"}


def info(file: str | Path) -> dict[str, Any]:
    """What an image or a model folder holds, from its header alone.

    Raises
    ------
    InputError
        Absent, damaged, or of no known kind.
    """
    path = Path(file)
    if (path / "model.json").is_file():
        from nucleoscope.learn.model import load_model

        config = load_model(path).config
        figures = {k: v for k, v in config.training.items() if k != "history"}
        return {
            "kind": "model",
            "recipe": config.recipe,
            "channels": ", ".join(config.channels),
            "types": ", ".join(config.types),
            "spacing (z, y, x) um": config.spacing,
            "nucleus radius px": round(config.radius_px, 2),
            **figures,
        }
    found = describe(path)
    return {"kind": "image", **vars(found)}


def doctor() -> dict[str, Any]:
    """Versions, cores, memory, disk, accelerators, installed extras, and the reading limits."""
    from nucleoscope.learn.infer import accelerators

    free = guard.available_memory()
    return {
        **versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory free": "unknown" if free is None else f"{free / 2**30:.1f} GiB",
        "disk free here": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB",
        **accelerators(),
        **{
            f"extra {name}": "installed" if find_spec(module) else "not installed"
            for name, module in EXTRAS.items()
        },
        **{f"limit {k}": v for k, v in vars(guard.DEFAULT_LIMITS).items()},
    }
