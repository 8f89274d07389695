"""Nuclei as AnnData and SpatialData, where scanpy and squidpy users look for them.

``X`` holds the interpretable features, ``obs`` the table, ``obsm["spatial"]`` the centres as
``(x, y)`` (``(x, y, z)`` for stacks), ``obsm["X_nuc2vec"]`` the embedding and ``obsm["X_umap"]``
the 2D map. anndata and spatialdata are extras.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.atlas import Atlas
from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, MissingExtraError
from nucleoscope.io import guard

#: Text columns that become categories.
CATEGORIES = ("image", "type", "subtype", "region")


def to_anndata(nuclei: NucleusTable | Nuclei | Atlas) -> Any:
    """An ``anndata.AnnData`` of nuclei.

    Parameters
    ----------
    nuclei
        A table, nuclei or an atlas.

    Returns
    -------
    AnnData
        One row per nucleus, named ``image:id``. Features are the columns ``f_*`` as float32;
        without any, ``X`` has no columns. Coordinates are micrometres where all are known, else
        pixels; ``uns["nucleoscope"]["unit"]`` says which.

    Raises
    ------
    MissingExtraError
        anndata is not installed.
    """
    try:
        import anndata  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtraError("AnnData", "spatial") from error
    atlas = nuclei if isinstance(nuclei, Atlas) else None
    frame = (nuclei if isinstance(nuclei, NucleusTable) else nuclei.table).frame
    extra = [] if atlas is None else [f for f in (atlas.subtypes, atlas.features) if f is not None]
    obs = pd.concat([frame, *extra], axis=1)
    features = [c for c in obs.columns if str(c).startswith("f_")]
    x = obs[features].to_numpy(dtype=np.float32)
    obs = obs.drop(columns=features)
    obs.index = pd.Index([f"{i}:{n}" for i, n in zip(obs["image"], obs["id"], strict=True)])
    for column in obs.columns:
        if column in CATEGORIES or str(column).startswith("subtype"):
            obs[column] = pd.Categorical(obs[column].astype(str))
    # Without rows and columns to name, AnnData wants the names as text.
    data = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(features, dtype=object)))
    places, unit = coordinates(frame)
    data.obsm["spatial"] = places
    data.uns["nucleoscope"] = {"unit": unit}
    if atlas is not None:
        data.obsm["X_nuc2vec"] = np.asarray(atlas.embedding, dtype=np.float32)
        if atlas.context is not None:
            data.obsm["X_nuc2vec_context"] = np.asarray(atlas.context, dtype=np.float32)
        if atlas.map2d is not None:
            data.obsm["X_umap"] = atlas.map2d[["map_x", "map_y"]].to_numpy(dtype=np.float32)
    return data


def coordinates(frame: pd.DataFrame) -> tuple[NDArray[np.float64], str]:
    """Centres ``(x, y[, z])`` and their unit: ``um`` where all are known, or ``px``."""
    is_3d = len(frame) > 0 and bool(frame["z"].notna().all())
    axes = ["x", "y", "z"] if is_3d else ["x", "y"]
    physical = [f"{axis}_um" for axis in axes]
    if all(c in frame.columns and frame[c].notna().all() for c in physical):
        return frame[physical].to_numpy(dtype=np.float64), "um"
    return frame[axes].to_numpy(dtype=np.float64), "px"


def write_anndata(
    path: Path | str, nuclei: NucleusTable | Nuclei | Atlas, *, overwrite: bool = False
) -> None:
    """Write ``to_anndata`` as ``.h5ad``.

    Raises
    ------
    MissingExtraError
        anndata is not installed.
    CallError
        The file is there.
    """
    data = to_anndata(nuclei)
    with guard.atomic_write(path, overwrite=overwrite) as temp:
        data.write_h5ad(temp)


def to_spatialdata(nuclei: Nuclei, *, image: Volume | None = None) -> Any:
    """A ``spatialdata.SpatialData`` of one image: image, instance map, outlines, table.

    Parameters
    ----------
    nuclei
        Nuclei of one image.
    image
        Their image, 2D or a stack.

    Returns
    -------
    SpatialData
        Elements ``image``, ``labels`` (where the instance map is known), ``nuclei`` (polygons, or
        circles without outlines) and ``table``, all in pixels counted from the corner of the first
        pixel, with a scale to micrometres as coordinate system ``um`` where it is known.

    Raises
    ------
    MissingExtraError
        spatialdata is not installed.
    CallError
        The nuclei are of several images.
    """
    try:
        import spatialdata  # type: ignore[import-not-found, unused-ignore]
        from spatialdata import models, transformations
    except ImportError as error:
        raise MissingExtraError("SpatialData", "spatialdata") from error
    frame = nuclei.table.frame
    if frame["image"].nunique() > 1:
        raise CallError(f"a SpatialData holds one image; found {frame['image'].nunique()}.")
    spacing = (image.spacing if image is not None else None) or (
        nuclei.labels.spacing if nuclei.labels is not None else None
    )
    placed: dict[str, Any] = {"global": transformations.Identity()}
    if spacing is not None:
        placed["um"] = transformations.Scale(list(spacing), axes=("z", "y", "x"))
    elements: dict[str, Any] = {}
    if image is not None:
        elements["image"] = _image(image, models, placed)
    if nuclei.labels is not None:
        elements["labels"] = _labels(nuclei.labels, models, placed)
    elements["nuclei"] = _shapes(nuclei, models, placed)
    table = to_anndata(nuclei)
    table.obs["region"] = pd.Categorical(["nuclei"] * len(table))
    table.obs["instance"] = frame["id"].to_numpy()
    elements["table"] = models.TableModel.parse(
        table, region="nuclei", region_key="region", instance_key="instance"
    )
    return spatialdata.SpatialData.init_from_elements(elements)


def _image(image: Volume, models: Any, placed: dict[str, Any]) -> Any:
    """The image as an element with its channel names."""
    names = list(image.channels)
    if image.is_2d:
        return models.Image2DModel.parse(
            image.data[:, 0], dims=("c", "y", "x"), c_coords=names, transformations=placed
        )
    return models.Image3DModel.parse(
        image.data, dims=("c", "z", "y", "x"), c_coords=names, transformations=placed
    )


def _labels(labels: Labels, models: Any, placed: dict[str, Any]) -> Any:
    """The instance map as an element with two or three axes."""
    if labels.shape[0] == 1:
        return models.Labels2DModel.parse(labels.data[0], dims=("y", "x"), transformations=placed)
    return models.Labels3DModel.parse(labels.data, dims=("z", "y", "x"), transformations=placed)


def _shapes(nuclei: Nuclei, models: Any, placed: dict[str, Any]) -> Any:
    """Outlines as polygons, or circles of one pixel around the centres."""
    import geopandas  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import shapely

    from nucleoscope.io.export.geojson import polygons

    frame = nuclei.table.frame
    index = pd.Index(frame["id"])
    if nuclei.outlines is not None and len(nuclei) and nuclei.outlines.is_known().all():
        shapes = geopandas.GeoDataFrame(geometry=list(polygons(nuclei.outlines)), index=index)
    else:
        centres = shapely.points(frame[["x", "y"]].to_numpy(dtype=np.float64) + 0.5)
        shapes = geopandas.GeoDataFrame({"radius": 1.0}, geometry=list(centres), index=index)
    return models.ShapesModel.parse(shapes, transformations=placed)


def write_spatialdata(
    path: Path | str, nuclei: Nuclei, *, image: Volume | None = None, overwrite: bool = False
) -> None:
    """Write ``to_spatialdata`` as a SpatialData Zarr store, all or nothing.

    Raises
    ------
    MissingExtraError
        spatialdata is not installed.
    CallError
        The folder is there and is not ours.
    """
    data = to_spatialdata(nuclei, image=image)
    with guard.atomic_folder(path, overwrite=overwrite) as temp:
        temp.rmdir()  # spatialdata writes into no folder that is there
        data.write(temp)
