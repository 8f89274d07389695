"""One file to another: images, instance maps, nuclei, points and atlases in the formats of labs."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError, MissingExtraError
from nucleoscope.io import guard
from nucleoscope.io.atlas import read_atlas
from nucleoscope.io.export import Writer, writer_for
from nucleoscope.io.images import as_volume, describe, is_image, read_labels, read_volume
from nucleoscope.io.nuclei import read_nuclei
from nucleoscope.io.omezarr import write_labels, write_volume
from nucleoscope.io.points import read_points
from nucleoscope.io.slides import read_slide
from nucleoscope.io.tables import read_table
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.nuclei.measure import measure
from nucleoscope.nuclei.outline import outlines_of
from nucleoscope.units import Spacing


def convert(
    source: str | Path | Volume | Labels | Nuclei | Points,
    output: str | Path,
    *,
    to: str | None = None,
    image: str | None = None,
    axes: str | None = None,
    spacing: Spacing | None = None,
    simplify: float = 0.0,
    slide: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write what a file holds in another format.

    Parameters
    ----------
    source
        A file or folder of any format that is read (images, instance maps, nuclei, points, OUT of
        ``detect``, ATLAS), or the object itself.
    output
        File or folder to write; its ending says the format (``.ome.tif``, ``.ome.zarr``,
        ``.geojson``, ``.json``, ``.h5ad``, ...).
    to
        Name of the format, where the ending does not say; see ``nucleoscope.io.export.WRITERS``.
    image
        Which image of a source that holds several.
    axes, spacing
        Of an image that does not say, and of formats in micrometres.
    simplify
        Most pixels by which an outline may be simplified; 0 keeps every vertex.
    slide
        Image that the nuclei are of, for formats that name it (TissUUmaps) or take its patient
        and frame of reference (DICOM).
    overwrite
        Replace a file that is there.

    Returns
    -------
    dict
        ``output``, ``format``, ``opens_in`` and how many nuclei or points were written.

    Raises
    ------
    CallError
        No such format, or the source does not hold what the format takes.
    InputError
        The source cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> facts = convert(Points(z=[0], y=[1.5], x=[2.0]), folder / "a.xml")
    >>> facts["format"], facts["points"]
    ('cell-counter', 1)
    """
    writer = writer_for(output, to)
    content, n = _content(source, writer, image=image, axes=axes, spacing=spacing)
    more = _options(writer, tolerance=simplify, spacing=spacing, slide=slide)
    if writer.name == "spatialdata" and isinstance(source, str | Path):
        more["image"] = _image_of(source)
    _write_of(writer, content)(output, content, overwrite=overwrite, **more)
    facts = {"output": str(output), "format": writer.name, "opens_in": writer.opens_in}
    return facts | ({} if n is None else {writer.takes: n})


def _options(writer: Writer, **given: Any) -> dict[str, Any]:
    """Of the options given, those that this format's function knows."""
    known = inspect.signature(writer.write).parameters
    return {name: value for name, value in given.items() if name in known and value is not None}


def _write_of(writer: Writer, content: Any) -> Any:
    """The function that writes; an instance map has its own for a container of images."""
    if writer.takes == "image" and isinstance(content, Labels):
        return {write_volume: write_labels}.get(writer.write, write_ome_tiff)
    return writer.write


def _content(
    source: Any, writer: Writer, *, image: str | None, axes: str | None, spacing: Spacing | None
) -> tuple[Any, int | None]:
    """What the source holds, as the format takes it, and how many things that is."""
    if writer.takes in ("image", "labels"):
        found = _as_image(source, writer, image, axes, spacing)
        return found, None
    if writer.takes == "points":
        points = _as_points(source, image, spacing)
        return points, len(points)
    if writer.takes == "atlas" or (writer.name == "anndata" and _is_atlas(source)):
        atlas = read_atlas(source)
        return atlas, len(atlas)
    nuclei = _as_nuclei(source, image)
    return nuclei, len(nuclei)


def _is_atlas(source: Any) -> bool:
    return isinstance(source, str | Path) and (Path(source) / "embedding.zarr").is_dir()


def _as_image(
    source: Any, writer: Writer, image: str | None, axes: str | None, spacing: Spacing | None
) -> Volume | Labels:
    """An image, or the instance map of nuclei."""
    if isinstance(source, Volume | Labels):
        return source
    if isinstance(source, Nuclei):
        return _map_of(source, "the nuclei")
    if isinstance(source, Points):
        raise CallError("points are no image; give a points format with --to.")
    if writer.takes == "labels":
        return read_labels(source)
    if (Path(source) / "nuclei.parquet").is_file():
        return _map_of(_read(Path(source), image), str(source))
    try:
        return read_volume(source, axes=axes, spacing=spacing)
    except InputError as not_whole:
        try:
            return _whole_slide(Path(source), spacing)
        except (InputError, MissingExtraError):
            raise not_whole from None


def _whole_slide(path: Path, spacing: Spacing | None) -> Volume:
    """A slide that is else read by region, such as DICOM, at full resolution."""
    slide = read_slide(path)
    height, width = slide.shape
    guard.check_memory(2 * 3 * height * width, str(path))
    size = spacing or (None if slide.mpp is None else (1.0, slide.mpp, slide.mpp))
    return as_volume(slide.read((0, 0, height, width)), axes="YXS", spacing=size, name=slide.name)


def _map_of(nuclei: Nuclei, where: str) -> Labels:
    if nuclei.labels is None:
        raise CallError(f"{where}: there is no instance map to write as an image.")
    return nuclei.labels


def _as_points(source: Any, image: str | None, spacing: Spacing | None) -> Points:
    """Points, or the centres of nuclei."""
    if isinstance(source, Points):
        return source
    if isinstance(source, str | Path) and Path(source).is_file():
        try:
            return read_points(source, image=image, spacing=spacing)
        except InputError as not_points:
            try:
                return _centres(_read(Path(source), image))
            except InputError as not_nuclei:
                raise (not_nuclei if is_image(source) else not_points) from None
    return _centres(_as_nuclei(source, image))


def _centres(nuclei: Nuclei) -> Points:
    frame = nuclei.table.frame
    return Points(
        z=frame["z"].fillna(0.0).to_numpy(), y=frame["y"].to_numpy(), x=frame["x"].to_numpy(),
        type=frame["type"].to_numpy(dtype=np.str_), id=frame["id"].to_numpy(),
    )  # fmt: skip


def _as_nuclei(source: Any, image: str | None) -> Nuclei:
    """Nuclei with their outlines, traced where there is an instance map only."""
    if isinstance(source, Volume | Points):
        raise CallError("an image or points hold no nuclei with outlines; run detect first.")
    if isinstance(source, Labels):
        nuclei = Nuclei(measure(source), None, source)
    elif isinstance(source, Nuclei):
        nuclei = source
    else:
        nuclei = _read(Path(source), image)
    if nuclei.outlines is not None or nuclei.labels is None:
        return nuclei
    outlines, _ = outlines_of(nuclei.labels, nuclei.table.frame["id"])
    return Nuclei(nuclei.table, outlines, nuclei.labels, nuclei.notes)


def _read(path: Path, image: str | None) -> Nuclei:
    """Nuclei of a file, or of an image's folder in OUT, which may be a stack."""
    for folder in (path, path / (image or "")):
        if (folder / "nuclei.parquet").is_file() and (folder / "labels.ome.zarr").is_dir():
            return Nuclei(read_table(folder), None, read_labels(folder / "labels.ome.zarr"))
    if is_image(path) and (n := describe(path).shape[0]) > 1:
        raise InputError(
            f"{path}: it is an image of {n} channels, not an instance map; find its nuclei with "
            "detect first."
        )
    return read_nuclei(path, image=image)


def _image_of(source: str | Path) -> Volume | None:
    """The image that nuclei of OUT were found in, where its manifest names one that is there."""
    manifest = Path(source) / "image.json"
    if not manifest.is_file():
        return None
    found = Path(str(guard.read_json(manifest).get("image", "")))
    return read_volume(found) if found.is_file() else None
