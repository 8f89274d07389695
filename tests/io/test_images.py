from __future__ import annotations

import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.data import Labels, Volume
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io.guard import Limits
from nucleoscope.io.images import (
    as_volume,
    describe,
    find_beside,
    image_stem,
    read_labels,
    read_volume,
)
from nucleoscope.io.omezarr import write_volume
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.testing import ReaderContract, refusal


class TestOmeTiff(ReaderContract):
    suffix = ".ome.tif"

    def read(self, path: Path) -> Volume:
        return read_volume(path)

    def write(self, path: Path, volume: Volume) -> None:
        write_ome_tiff(path, volume)


class TestOmeZarr05(ReaderContract):
    suffix = ".ome.zarr"
    version = "0.5"

    def read(self, path: Path) -> Volume:
        return read_volume(path)

    def write(self, path: Path, volume: Volume) -> None:
        write_volume(path, volume, version=self.version)


class TestOmeZarr04(TestOmeZarr05):
    version = "0.4"


class TestPng(ReaderContract):
    suffix = ".png"
    keeps_names = keeps_scale = False

    @property
    def volume(self) -> Volume:
        data = np.arange(30 * 20, dtype=np.uint16).reshape(1, 1, 30, 20)
        return Volume(data, ("ch0",), None, "example", is_2d=True)

    def read(self, path: Path) -> Volume:
        return read_volume(path)

    def write(self, path: Path, volume: Volume) -> None:
        path.write_bytes(imagecodecs.png_encode(volume.data[0, 0]))


# Which format


@pytest.mark.parametrize("name", ["a.txt", "a", "a.svs", "a.png"])
def test_the_format_is_known_by_content_and_not_by_name(name: str, tmp_path: Path) -> None:
    write_ome_tiff(tmp_path / name, Volume(np.ones((1, 2, 6, 6), np.uint8), ("a",)))
    assert read_volume(tmp_path / name).shape == (2, 6, 6)


@pytest.mark.parametrize(
    ("head", "what"),
    [(b"SQLite format 3", "database"), (b"\x89HDF\r\n\x1a\n", "HDF5"), (b"PK\x03\x04", "zip"),
     (b"\x93NUMPY", "as_volume"), (b"hello", "we read LSM, TIFF"),
     (b"", "we read LSM, TIFF")],
)  # fmt: skip
def test_another_format_is_named_and_refused(head: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(head + bytes(20 if head else 0))
    with pytest.raises(InputError, match=what):
        read_volume(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder without OME-Zarr"):
        read_volume(tmp_path / "folder")


@pytest.mark.parametrize(
    ("name", "stem"),
    [("plaque.ome.tif", "plaque"), ("a.b.tiff", "a.b"), ("A.OME.TIF", "A"), ("x.svs", "x"),
     ("x.ome.zarr", "x"), (".tif", ".tif"), ("noend", "noend"), ("a.points.csv", "a.points.csv")],
)  # fmt: skip
def test_the_stem_is_the_name_without_its_image_suffix(name: str, stem: str) -> None:
    assert image_stem(Path("folder") / name) == stem


@given(st.text(st.characters(categories=["L", "N"]), min_size=1))
def test_the_stem_of_a_suffixed_name_is_the_name(name: str) -> None:
    assert image_stem(f"{name}.ome.tif") == name


def test_the_first_file_beside_an_image_is_found(tmp_path: Path) -> None:
    image = tmp_path / "plaque.ome.tif"
    assert find_beside(image, [".points.csv", ".points.xml"]) is None
    (tmp_path / "plaque.points.xml").touch()
    assert find_beside(image, [".points.csv", ".points.xml"]).name == "plaque.points.xml"
    (tmp_path / "plaque.points.csv").touch()
    assert find_beside(image, [".points.csv", ".points.xml"]).name == "plaque.points.csv"


# What the caller says


def test_the_caller_may_name_channels_and_scale(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome_tiff(path, Volume(np.ones((2, 2, 6, 6), np.uint8), ("a", "b"), (1.0, 0.5, 0.5)))
    volume = read_volume(path, spacing=(2.0, 0.5, 0.5), channels=["LT", "DAPI"])
    assert volume.spacing == (2.0, 0.5, 0.5)
    assert volume.channels == ("LT", "DAPI")
    assert any("replaces the scale" in note for note in volume.notes)
    with pytest.raises(CallError, match="3 channel names"):
        read_volume(path, channels=["a", "b", "c"])
    with pytest.raises(InputError, match="spacing"):
        read_volume(path, spacing=(2000.0, 0.5, 0.5))


def test_pixels_above_the_limit_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome_tiff(path, Volume(np.ones((2, 2, 6, 6), np.uint8), ("a", "b")))
    write_volume(tmp_path / "a.ome.zarr", Volume(np.ones((2, 2, 6, 6), np.uint8), ("a", "b")))
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((20, 20), np.uint8)))
    for file in (path, tmp_path / "a.ome.zarr", tmp_path / "a.png"):
        with pytest.raises(UnsafeInputError, match=r"pass limits=Limits\(pixels="):
            read_volume(file, limits=Limits(pixels=100))


# Arrays

AXES = {"C": 2, "Z": 3, "Y": 5, "X": 7}


@given(st.permutations("CZYX"), st.integers(0, 2))
def test_an_array_with_any_order_of_axes_gives_the_same_volume(order: list[str], n: int) -> None:
    kept = [a for a in order if a in "YX" or a in "CZ"[:n]]
    full = np.arange(210, dtype=np.uint16).reshape(2, 3, 5, 7)
    small = full[tuple(slice(None) if a in kept else slice(1) for a in "CZYX")]
    squeezed = small.reshape([s for a, s in zip("CZYX", small.shape, strict=True) if a in kept])
    standard = [a for a in "CZYX" if a in kept]
    volume = as_volume(squeezed.transpose([standard.index(a) for a in kept]), axes="".join(kept))
    assert np.array_equal(volume.data, small)
    assert volume.is_2d == ("Z" not in kept)


def test_colour_arrays_become_three_channels() -> None:
    data = np.arange(5 * 7 * 4, dtype=np.uint8).reshape(5, 7, 4)
    volume = as_volume(data, axes="yxs", name="tile")
    assert (volume.channels, volume.is_rgb) == (("red", "green", "blue"), True)
    assert np.array_equal(volume.data[:, 0], data[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("axes", "shape", "error"),
    [("ZYX", (3, 3), CallError), ("YY", (3, 3), CallError), ("QYX", (3, 3, 3), CallError),
     ("ZY", (3, 3), CallError), ("TYX", (3, 3, 3), InputError), ("YXS", (3, 3, 5), InputError),
     ("CYXS", (2, 3, 3, 3), InputError)],
)  # fmt: skip
def test_axes_that_do_not_fit_are_refused(axes: str, shape: tuple, error: type) -> None:
    with pytest.raises(error):
        as_volume(np.zeros(shape, np.uint8), axes=axes)


@pytest.mark.parametrize("dtype", [np.int32, bool, np.complex64, np.float16])
def test_other_pixel_types_are_refused_by_name(dtype: type) -> None:
    with pytest.raises(InputError, match="nucleoscope reads uint8"):
        as_volume(np.zeros((3, 3), dtype), axes="YX")


# PNG and JPEG


def test_png_and_jpeg_colour_grey_and_alpha(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 255, (20, 30, 4)).astype(np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(rgba))
    volume = read_volume(path)
    assert np.array_equal(volume.data[:, 0], rgba[..., :3].transpose(2, 0, 1))
    assert "alpha" in volume.notes[0]
    assert describe(path).shape == (3, 1, 20, 30)
    smooth = np.full((20, 30, 3), (200, 100, 150), np.uint8)
    (tmp_path / "b.jpg").write_bytes(imagecodecs.jpeg_encode(smooth, level=95))
    volume = read_volume(tmp_path / "b.jpg")
    assert np.abs(volume.data[:, 0, 5, 5].astype(int) - (200, 100, 150)).max() < 4
    assert (volume.is_rgb, volume.is_2d, volume.spacing) == (True, True, None)
    (tmp_path / "c.jpg").write_bytes(imagecodecs.jpeg_encode(smooth[..., 0].copy(), level=95))
    assert read_volume(tmp_path / "c.jpg").data.shape == (1, 1, 20, 30)
    assert describe(tmp_path / "c.jpg").format == "JPEG"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damaged_pngs_and_jpegs_are_refused_or_whole(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    data = np.add.outer(np.arange(40), np.arange(30)).astype(np.uint8)[..., None].repeat(3, 2)
    encode = imagecodecs.png_encode if suffix == "png" else imagecodecs.jpeg_encode
    raw = encode(data)
    path = tmp_path / f"a.{suffix}"
    for percent in range(0, 100, 3):
        path.write_bytes(raw[: len(raw) * percent // 100])
        assert refusal(lambda: read_volume(path)) is not None, percent
    for _ in range(60):
        mutant = bytearray(raw)
        mutant[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(mutant)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            refusal(lambda: read_volume(path))


# Instance maps


def test_instance_maps_are_read_from_any_format(tmp_path: Path) -> None:
    labels = Labels(np.arange(2 * 6 * 5, dtype=np.int32).reshape(2, 6, 5) * 1000, (1.0, 0.5, 0.5))
    write_ome_tiff(tmp_path / "a.ome.tif", labels)
    back = read_labels(tmp_path / "a.ome.tif")
    assert np.array_equal(back.data, labels.data)
    assert back.spacing == (1.0, 0.5, 0.5)
    flat = np.arange(30, dtype=np.uint16).reshape(6, 5)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(flat))
    assert np.array_equal(read_labels(tmp_path / "a.png").data[0], flat)
    write_ome_tiff(tmp_path / "c.ome.tif", Volume(np.ones((2, 2, 6, 6), np.uint8), ("a", "b")))
    with pytest.raises(InputError, match="one channel"):
        read_labels(tmp_path / "c.ome.tif")


# Real files


def test_every_real_image_is_read_or_refused_in_one_sentence(data: Path) -> None:
    expected = {
        "plaque/d1_test_01.ome.tif": ((2, 8, 512, 512), "uint8", (1.0461, 0.3138, 0.3138)),
        "lightsheet_brain/signal_background.ome.tif": ((2, 30, 384, 384), "uint16", (5, 2, 2)),
        "codex_spleen/R001_X003_Y004.ome.tif": ((8, 1, 1008, 1344), "uint16", None),
        "stardist_samples/img2d.tif": ((1, 1, 512, 512), "uint16", None),
        "stardist_samples/histo.jpg": ((3, 1, 300, 500), "uint8", None),
        "crc_histophenotypes/img1.png": ((3, 1, 500, 500), "uint8", None),
        "slides/cmu-1-small-region.svs": ((3, 1, 2967, 2220), "uint8", (1.0, 0.499, 0.499)),
        "formats/blobs_image_v04.ome.zarr": ((3, 1, 12, 12), "float64", None),
        "formats/blobs_image_v05.ome.zarr": ((3, 1, 12, 12), "float64", None),
        "formats/boxes.tiff": ((3, 1, 250, 300), "uint8", None),
    }
    for name, (shape, dtype, spacing) in expected.items():
        volume = read_volume(data / name)
        assert (volume.data.shape, volume.data.dtype) == (shape, dtype), name
        assert volume.spacing == spacing, name
        info = describe(data / name)
        assert (info.shape, info.dtype, info.channels) == (shape, dtype, volume.channels), name
        assert info.spacing == spacing, name
    for name, why in {
        "cells3d/nuclei.tif": "--axes",
        "formats/unopenable.tiff": "codec that is not read",
        "formats/unreadable.svs": "damaged",
        "slides/small_dicom.dcm": "a DICOM file",
        "formats/qupath_project": "folder without",
    }.items():
        error = refusal(lambda name=name: read_volume(data / name))
        assert error is not None and why in str(error), (name, error)


def test_a_real_stack_without_axes_is_read_once_they_are_named(data: Path) -> None:
    path = data / "cells3d" / "nuclei.tif"
    volume = read_volume(path, axes="ZYX", spacing=(0.29, 0.26, 0.26))
    assert (volume.shape, volume.channels) == ((60, 256, 256), ("ch0",))
    labels = read_labels(data / "cells3d" / "nuclei_label.tif")
    assert labels.shape == volume.shape
    assert len(labels.ids()) == 20
    assert describe(path).axes == "?YX"


def test_our_pixels_are_those_of_tifffile_on_real_stacks(data: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for name in ("plaque/d1_test_01.ome.tif", "lightsheet_brain/signal_background.ome.tif"):
        theirs = tifffile.imread(data / name)
        assert np.array_equal(read_volume(data / name).data, theirs.transpose(1, 0, 2, 3))
    slide = data / "slides" / "cmu-1-small-region.svs"
    assert np.array_equal(read_volume(slide).data[:, 0], tifffile.imread(slide).transpose(2, 0, 1))
