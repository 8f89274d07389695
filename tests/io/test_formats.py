"""Images of makers and containers: several files, zips, LSM, qptiff, CZI; each right or refused."""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError, MissingExtraError, UnsafeInputError
from nucleoscope.io import guard, omezarr
from nucleoscope.io.images import describe, image_stem, read_labels, read_volume
from nucleoscope.io.qupath import read_project
from nucleoscope.testing import ReaderContract

RNG = np.random.default_rng(0)


# OME-TIFF of several files -----------------------------------------------------------------------


def ome_xml(blocks: str, sizes: str = 'SizeC="2" SizeZ="2" SizeT="1"', physical: str = "") -> str:
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
        f'SizeX="8" SizeY="6" {sizes} {physical}><Channel ID="c0" Name="DAPI"/>'
        f'<Channel ID="c1" Name="LT"/>{blocks}</Pixels></Image></OME>'
    )


def block(c: int, z: int, name: str, page: int = 0) -> str:
    return (
        f'<TiffData FirstC="{c}" FirstZ="{z}" FirstT="0" IFD="{page}" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
    )


def write_set(folder: Path, *, physical: str = "") -> NDArray[np.uint8]:
    """Each channel in its own file of two slices, a companion beside them."""
    data = RNG.integers(0, 255, (2, 2, 6, 8), dtype=np.uint8)
    pointer = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:2">'
        '<BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:1"/></OME>'
    )
    for c in range(2):
        with tifffile.TiffWriter(folder / f"c{c}.ome.tif") as tif:
            for z in range(2):
                tif.write(data[c, z], description=pointer if z == 0 else None, metadata=None)
    blocks = "".join(block(c, z, f"c{c}.ome.tif", z) for c in range(2) for z in range(2))
    (folder / "a.companion.ome").write_text(ome_xml(blocks, physical=physical))
    return data


@pytest.mark.parametrize("name", ["a.companion.ome", "c0.ome.tif", "c1.ome.tif"])
def test_any_file_of_a_set_gives_the_whole_image(tmp_path: Path, name: str) -> None:
    data = write_set(tmp_path, physical='PhysicalSizeX="0.3" PhysicalSizeY="0.3" PhysicalSizeZ="1"')
    volume = read_volume(tmp_path / name)
    assert (volume.data == data).all()
    assert volume.channels == ("DAPI", "LT")
    assert volume.spacing == (1.0, 0.3, 0.3)
    info = describe(tmp_path / name)
    assert info.shape == (2, 2, 6, 8)
    assert "in 2 files" in info.notes[-1]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda f: (f / "c1.ome.tif").unlink(), InputError, "1 of the 2 files of its planes"),
        (lambda f: (f / "a.companion.ome").unlink(), InputError, "a.companion.ome, which is not"),
        (lambda f: tifffile.imwrite(f / "c1.ome.tif", np.zeros((6, 8), np.uint8)), InputError,
         "page 2 is listed and it has 1"),
        (lambda f: tifffile.imwrite(f / "c1.ome.tif", np.zeros((2, 5, 8), np.uint8),
                                    photometric="minisblack"), InputError, "another size"),
        (lambda f: tifffile.imwrite(f / "c1.ome.tif", np.zeros((2, 6, 8), np.uint16),
                                    photometric="minisblack"), InputError, "another type"),
    ],
)  # fmt: skip
def test_an_incomplete_set_is_refused(
    tmp_path: Path, change: object, error: type[Exception], said: str
) -> None:
    write_set(tmp_path)
    change(tmp_path)  # type: ignore[operator]
    with pytest.raises(error, match=said):
        read_volume(tmp_path / "c0.ome.tif")


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (ome_xml(block(0, 0, "c0.ome.tif")), "3 of 4 planes no file"),
        (ome_xml(block(0, 0, "c0.ome.tif") * 2), "more planes than fit"),
        (ome_xml(block(5, 0, "c0.ome.tif")), "outside the image"),
        (ome_xml("", 'SizeC="2" SizeZ="1" SizeT="3"'), "3 time points"),
        ("<OME></OME>", "describes no image"),
        ('<OME><BinaryOnly MetadataFile="a.companion.ome"/></OME>', "points to another list"),
    ],
)
def test_a_contradictory_list_is_refused(tmp_path: Path, xml: str, said: str) -> None:
    (tmp_path / "a.companion.ome").write_text(xml)
    with pytest.raises(InputError, match=said):
        read_volume(tmp_path / "a.companion.ome")


def test_a_list_may_not_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.companion.ome").write_text(ome_xml(block(0, 0, "../secret.tif")))
    with pytest.raises(UnsafeInputError, match="outside its folder"):
        read_volume(tmp_path / "a.companion.ome")


# Zipped OME-Zarr ---------------------------------------------------------------------------------


def zipped(folder: Path, target: Path, prefix: str = "") -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(folder).as_posix())


class TestZippedOmeZarr(ReaderContract):
    suffix = ".ome.zarr.zip"

    def read(self, path: Path) -> Volume:
        return read_volume(path)

    def write(self, path: Path, volume: Volume) -> None:
        folder = path.with_name("store.ome.zarr")
        omezarr.write_volume(folder, volume)
        zipped(folder, path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_store_one_folder_into_the_zip_is_found(tmp_path: Path, version: str) -> None:
    volume = Volume(np.arange(24, dtype=np.uint8).reshape(1, 1, 4, 6), ("a",), (1.0, 0.5, 0.5),
                    is_2d=True)  # fmt: skip
    omezarr.write_volume(tmp_path / "a.ome.zarr", volume, version=version)  # type: ignore[arg-type]
    zipped(tmp_path / "a.ome.zarr", tmp_path / "a.ozx", "a.ome.zarr/")
    found = read_volume(tmp_path / "a.ozx")
    assert (found.data == volume.data).all()
    assert found.name == "a"
    info = describe(tmp_path / "a.ozx")
    assert info.shape == (1, 1, 4, 6)
    assert info.spacing == (1.0, 0.5, 0.5)


def test_what_is_wrong_in_a_zip_is_said_of_the_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("zarr.json", '{"attributes": {"ome": {}}}')
    with pytest.raises(InputError, match=r"a\.zip: it is a Zarr folder without an OME-Zarr"):
        read_volume(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("zarr.json", "{}")
        archive.writestr("../out", "x")
    with pytest.raises(UnsafeInputError, match="leaves the archive"):
        read_volume(tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zarr.json", "{}")
        archive.writestr("0", bytes(300 << 20))
    with pytest.raises(UnsafeInputError, match="inflates beyond"):
        read_volume(tmp_path / "c.zip")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(InputError, match="zip archive without an OME-Zarr"):
        read_volume(tmp_path / "d.zip")
    assert not list(tmp_path.parent.glob("nucleoscope-*"))


# LSM ---------------------------------------------------------------------------------------------


def write_lsm(path: Path, data: NDArray[np.uint8], voxel: tuple[float, float, float]) -> None:
    """A small LSM: pages of ``(C, Y, X)``, each followed by its thumbnail."""
    z, c, y, x = data.shape
    header = struct.pack("<Ii7i", 0x00400494C, 500, x, y, z, c, 1, 1, 0) + struct.pack("<i", 0)
    header += struct.pack("<3d3d", *(v * 1e-6 for v in voxel[::-1]), 0, 0, 0)
    header = header.ljust(500, b"\0")
    with tifffile.TiffWriter(path, byteorder="<") as tif:
        for n in range(z):
            extra = [(34412, 1, len(header), header, True)] if n == 0 else []
            tif.write(data[n], photometric="minisblack", planarconfig="separate", metadata=None,
                      extratags=extra)  # fmt: skip
            tif.write(data[n, :, ::2, ::2], photometric="minisblack", planarconfig="separate",
                      metadata=None, subfiletype=1)  # fmt: skip


def test_lsm_gives_slices_channels_and_scale(tmp_path: Path) -> None:
    data = RNG.integers(0, 255, (3, 3, 8, 10), dtype=np.uint8)
    write_lsm(tmp_path / "a.lsm", data, (1.5, 0.2, 0.2))
    volume = read_volume(tmp_path / "a.lsm")
    assert (volume.data == data.transpose(1, 0, 2, 3)).all()
    assert volume.spacing == pytest.approx((1.5, 0.2, 0.2))
    info = describe(tmp_path / "a.lsm")
    assert (info.format, info.shape) == ("Zeiss LSM", (3, 3, 8, 10))


# qptiff ------------------------------------------------------------------------------------------


def write_qptiff(path: Path, kinds: list[tuple[str, str]]) -> NDArray[np.uint8]:
    data = RNG.integers(0, 255, (len(kinds), 16, 16), dtype=np.uint8)
    with tifffile.TiffWriter(path) as tif:
        for page, (kind, name) in zip(data, kinds, strict=True):
            text = (
                '<?xml version="1.0" encoding="utf-16"?><PerkinElmer-QPI-ImageDescription>'
                f"<ImageType>{kind}</ImageType><Name>{name}</Name>"
                "</PerkinElmer-QPI-ImageDescription>"
            )
            pixels = page if kind == "FullResolution" else page[::2, ::2]
            tif.write(pixels, description=text, metadata=None, resolution=(20000, 20000),
                      resolutionunit="CENTIMETER")  # fmt: skip
    return data


def test_full_resolution_pages_of_a_qptiff_are_its_channels(tmp_path: Path) -> None:
    data = write_qptiff(
        tmp_path / "a.qptiff",
        [("FullResolution", "DAPI"), ("FullResolution", "CD8"), ("Thumbnail", ""),
         ("ReducedResolution", "DAPI"), ("ReducedResolution", "CD8")],
    )  # fmt: skip
    volume = read_volume(tmp_path / "a.qptiff")
    assert (volume.data[:, 0] == data[:2]).all()
    assert volume.channels == ("DAPI", "CD8")
    assert volume.spacing is not None
    assert volume.spacing[1:] == pytest.approx((0.5, 0.5))
    write_qptiff(tmp_path / "b.qptiff", [("Thumbnail", "")])
    with pytest.raises(InputError, match="without a page of full resolution"):
        read_volume(tmp_path / "b.qptiff")


# Pixels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "low", "kept"),
    [(np.int8, 0, np.uint8), (np.int16, 0, np.uint16), (np.int16, -3, np.float32)],
)
def test_signed_pixels_keep_their_values(tmp_path: Path, dtype: type, low: int, kept: type) -> None:
    data = np.arange(low, low + 20).reshape(4, 5).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", data)
    volume = read_volume(tmp_path / "a.tif")
    assert volume.data.dtype == kept
    assert (volume.data[0, 0] == data).all()
    assert "are read as" in volume.notes[-1]


def test_an_unknown_codec_is_refused_from_the_header(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9), np.uint8), compression="zlib")
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    at = raw.index(struct.pack("<HHI", 259, 3, 1))
    raw[at + 8 : at + 10] = struct.pack("<H", 52479)
    (tmp_path / "a.tif").write_bytes(raw)
    with pytest.raises(InputError, match=r"codec that is not read \(52479\)"):
        describe(tmp_path / "a.tif")


# CZI, ND2, LIF -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "module"),
    [(b"ZISRAWFILE", "bioio_czi"), (b"\xda\xce\xbe\x0a", "bioio_nd2"),
     (b"\x70\0\0\0\x10\0\0\0\x2a", "bioio_lif")],
)  # fmt: skip
def test_without_its_reader_a_makers_file_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.bin").write_bytes(head + bytes(200))
    for read in (read_volume, describe, read_labels):
        with pytest.raises(MissingExtraError, match=r"nucleoscope\[bio\]"):
            read(tmp_path / "a.bin")  # type: ignore[operator]


def test_seventy_alone_is_no_leica_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x70\0\0\0" + bytes(200))
    with pytest.raises(InputError, match="no image format we read"):
        read_volume(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.ome.zarr.zip", "a"), ("a.ozx", "a"), ("a.companion.ome", "a"), ("a.lsm", "a")],
)
def test_stems_of_the_new_formats(name: str, stem: str) -> None:
    assert image_stem(name) == stem


# QuPath ------------------------------------------------------------------------------------------


def test_a_qupath_project_lists_its_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a b.tif").write_bytes(b"x")
    size = {"value": 0.5, "unit": "µm"}
    meta = {
        "name": "a b.tif", "width": 9, "height": 8, "sizeZ": 1, "channels": [{"name": "DAPI"}],
        "pixelCalibration": {"pixelWidth": size, "pixelHeight": size},
    }  # fmt: skip
    entry = {"serverBuilder": {"uri": "file:///gone/images/a%20b.tif", "metadata": meta}}
    other = {"serverBuilder": {"uri": "file:///gone/c.tif", "metadata": {}}, "imageName": "c"}
    guard.write_json(tmp_path / "project.qpproj", {"images": [entry, other]})
    first, second = read_project(tmp_path)
    assert first.path == tmp_path / "images" / "a b.tif"
    assert (first.shape, first.mpp, first.channels) == ((1, 1, 8, 9), (0.5, 0.5), ("DAPI",))
    assert (second.path, second.mpp, second.name) == (None, None, "c")
    guard.write_json(
        tmp_path / "b.qpproj", {"images": [{"serverBuilder": {"metadata": []}, "x": 1}, 5]}
    )
    with pytest.raises(InputError, match="not described as expected"):
        read_project(tmp_path / "b.qpproj")
    guard.write_json(tmp_path / "c.qpproj", [1])
    with pytest.raises(InputError, match="no QuPath project"):
        read_project(tmp_path / "c.qpproj")
