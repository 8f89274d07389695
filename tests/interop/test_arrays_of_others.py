"""dask, xarray and SpatialData images where a Volume is wanted; bioio's readers on real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nucleoscope.data.volume import Volume
from nucleoscope.io.export.scverse import to_spatialdata
from nucleoscope.io.images import as_volume, describe, read_volume

from .test_openers import nuclei

pytestmark = pytest.mark.filterwarnings("default")

DATA = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)


def test_dask_and_xarray_become_volumes() -> None:
    dask = pytest.importorskip("dask.array")
    xarray = pytest.importorskip("xarray")
    lazy = dask.from_array(DATA, chunks=2)
    assert (as_volume(lazy, axes="CZYX").data == DATA).all()
    named = xarray.DataArray(lazy, dims=("c", "z", "y", "x"), coords={"c": ["DAPI", "LT"]})
    volume = as_volume(named)
    assert (volume.data == DATA).all()
    assert volume.channels == ("DAPI", "LT")


@pytest.mark.parametrize("scales", [None, [2]])
def test_an_image_of_spatialdata_becomes_a_volume(scales: list[int] | None) -> None:
    models = pytest.importorskip("spatialdata.models")
    image = Volume(DATA[:, :1], ("DAPI", "LT"), (0.5, 0.5, 0.5), "a", is_2d=True)
    data = to_spatialdata(nuclei(), image=image)
    volume = as_volume(data)
    assert (volume.data == image.data).all()
    assert volume.channels == ("DAPI", "LT")
    assert volume.spacing == image.spacing
    if scales:
        tree = models.Image2DModel.parse(
            DATA[:, 0], dims=("c", "y", "x"), c_coords=["DAPI", "LT"], scale_factors=scales
        )
        assert (as_volume(tree).data == image.data).all()


def test_bioio_reads_the_real_czi_files(data: Path) -> None:
    pytest.importorskip("bioio_czi")
    folder = data / "formats"
    info = describe(folder / "CellDivision_T3_Z5_CH2_X240_Y170.czi")
    assert (info.shape, info.channels) == ((2, 5, 170, 240), ("LED555", "LED470"))
    assert info.spacing == pytest.approx((0.32, 0.0905767, 0.0905767), rel=1e-4)
    volume = read_volume(folder / "DAPI_GFP.czi")
    assert volume.data.shape == (2, 1, 640, 640)
    assert volume.spacing is None
    assert "not given" in volume.notes[0]
