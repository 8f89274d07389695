"""The manifest: what was run on what, with which outcome. It is written last."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nucleoscope import __version__
from nucleoscope.io import guard

MANIFEST = "run.json"


def versions() -> dict[str, str]:
    """Versions of what can change a result."""
    from importlib.metadata import version

    packages = ("torch", "numpy", "scipy", "scikit-learn", "numba", "tifffile", "zarr")
    found = {"nucleoscope": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in packages}


@dataclass
class Run:
    """Collects a manifest while a verb runs."""

    verb: str
    settings: Mapping[str, Any]
    inputs: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def manifest(self, **more: Any) -> dict[str, Any]:
        """The manifest as plain values."""
        return {
            "verb": self.verb,
            "at": self.at,
            "seconds": round(time.monotonic() - self.started, 2),
            **{k: v for k, v in self.settings.items() if v is not None},
            "versions": versions(),
            "inputs": self.inputs,
            "figures": self.figures,
            **more,
        }

    def finish(self, folder: Path, name: str = MANIFEST, **more: Any) -> None:
        """Write the manifest; from then on the folder counts as finished."""
        guard.write_json(folder / name, self.manifest(**more), overwrite=True)


def hash_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files by name and content."""
    if path.is_file():
        return guard.sha256_file(path)
    import hashlib

    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode())
        digest.update(guard.sha256_file(file).encode())
    return digest.hexdigest()
