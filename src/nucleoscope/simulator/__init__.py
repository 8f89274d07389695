"""The simulator: images with exact truth, for tests, for the demo, and to see where methods fail.

The same seed and settings always give the same image. `simulate_plaque` makes immunofluorescence
stacks, `simulate_histology` H&E tiles, `simulate` several of either and, if asked, their files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from nucleoscope.data import NucleusTable
from nucleoscope.errors import CallError
from nucleoscope.seeds import generator
from nucleoscope.simulator.histology import HistologySettings, simulate_histology
from nucleoscope.simulator.plaque import PlaqueSettings, simulate_plaque
from nucleoscope.simulator.scene import Scene

__all__ = [
    "HistologySettings",
    "PlaqueSettings",
    "Scene",
    "simulate",
    "simulate_histology",
    "simulate_plaque",
    "write_scene",
]

#: Kind of image: its settings and the function that makes it.
KINDS: dict[str, tuple[type[Any], Callable[..., Scene]]] = {
    "plaque": (PlaqueSettings, simulate_plaque),
    "histology": (HistologySettings, simulate_histology),
}


def simulate(
    output: str | Path | None = None,
    *,
    kind: str = "plaque",
    n: int = 4,
    size: int = 512,
    seed: int = 0,
    **settings: Any,
) -> list[Scene]:
    """Images with exact truth; written to files when ``output`` is given.

    Parameters
    ----------
    output
        A folder, made if need be. Each image gives ``<kind>_01.ome.tif``, ``.points.csv``,
        ``.roi.geojson`` (where only a region is annotated), ``.labels.ome.zarr`` and
        ``.truth.csv``.
    kind
        ``"plaque"`` (immunofluorescence stack) or ``"histology"`` (H&E tile).
    n
        How many images, at least 1.
    size
        Rows and columns, pixels.
    seed
        Image ``k`` depends on the seed and on ``k`` only, not on ``n``.
    settings
        Fields of `PlaqueSettings` or `HistologySettings`.

    Returns
    -------
    list of Scene
        In order.

    Raises
    ------
    CallError
        Unknown kind or setting, a value out of range, or files that are there already.

    Examples
    --------
    >>> scenes = simulate(n=2, size=64, n_slices=4, rho=0.5)
    >>> [scene.volume.name for scene in scenes]
    ['plaque_01', 'plaque_02']
    """
    if kind not in KINDS:
        raise CallError(f"no kind of image {kind!r}; there are {', '.join(KINDS)}.")
    if n < 1:
        raise CallError(f"at least one image has to be asked for; found n={n}.")
    make, run = KINDS[kind]
    known = {field.name for field in fields(make)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise CallError(
            f"a {kind} image has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}."
        )
    chosen = make(size=size, **settings)
    scenes = []
    for number in range(1, n + 1):
        scene = run(chosen, int(generator(seed, number).integers(2**31)))
        named = replace(scene, volume=replace(scene.volume, name=f"{kind}_{number:02d}"))
        if output is not None:
            write_scene(named, output)
        scenes.append(named)
    return scenes


def write_scene(scene: Scene, folder: str | Path) -> list[Path]:
    """Write the image and its truth, named after the volume; return the paths.

    Raises
    ------
    CallError
        A file of that name is there already.

    Examples
    --------
    >>> import tempfile
    >>> scene = simulate(n=1, size=64, n_slices=3)[0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write_scene(scene, folder)][:2]
    ['plaque_01.ome.tif', 'plaque_01.points.csv']
    """
    from nucleoscope.io.omezarr import write_labels
    from nucleoscope.io.outlines import write_region
    from nucleoscope.io.points import write_points
    from nucleoscope.io.tables import write_csv
    from nucleoscope.io.tiff import write_ome_tiff

    folder, stem = Path(folder), scene.volume.name
    folder.mkdir(parents=True, exist_ok=True)
    truth = NucleusTable(scene.truth.assign(image=stem)).frame
    writers: list[tuple[str, Callable[[Path], object]]] = [
        ("ome.tif", lambda path: write_ome_tiff(path, scene.volume)),
        ("points.csv", lambda path: write_points(path, scene.points)),
        ("labels.ome.zarr", lambda path: write_labels(path, scene.labels)),
        ("truth.csv", lambda path: write_csv(truth, path)),
    ]
    if scene.region is not None:
        region = scene.region
        writers.insert(2, ("roi.geojson", lambda path: write_region(path, region)))
    paths = []
    for suffix, write in writers:
        path = folder / f"{stem}.{suffix}"
        write(path)
        paths.append(path)
    return paths
