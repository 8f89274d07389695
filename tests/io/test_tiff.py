from __future__ import annotations

import itertools
import logging
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nucleoscope.data import Labels, Volume
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io.images import describe, read_labels, read_volume
from nucleoscope.io.tiff import write_ome_tiff

Z, C, Y, X = 3, 2, 20, 24
STACK = np.arange(C * Z * Y * X, dtype=np.uint16).reshape(C, Z, Y, X)
UM = {f"PhysicalSize{a}": v for a, v in zip("ZYX", (1.5, 0.4, 0.5), strict=True)}


def ordered(axes: str) -> np.ndarray:
    return STACK.transpose(["CZYX".index(a) for a in axes])


def save(path: Path, data: np.ndarray, **how: Any) -> Path:
    tifffile.imwrite(path, data, **({"photometric": "minisblack"} | how))
    return path


# Axes: right, or refused by name


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX"])
@pytest.mark.parametrize("writer", ["ome", "shaped"])
def test_axes_are_taken_from_the_file(axes: str, writer: str, tmp_path: Path) -> None:
    how = {"ome": True} if writer == "ome" else {}
    path = save(tmp_path / "a.tif", ordered(axes), metadata={"axes": axes}, **how)
    volume = read_volume(path)
    assert np.array_equal(volume.data, STACK)
    assert describe(path).axes == axes


def test_imagej_hyperstacks_are_slices_of_channels(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.tif", ordered("ZCYX"), imagej=True, resolution=(2, 2.5),
        metadata={"axes": "ZCYX", "spacing": 1.5, "unit": "um"},
    )  # fmt: skip
    volume = read_volume(path)
    assert np.array_equal(volume.data, STACK)
    assert volume.spacing == (1.5, 0.4, 0.5)
    assert describe(path).format == "ImageJ TIFF"


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX"])
def test_pages_without_axes_are_asked_for_and_then_taken(axes: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", ordered(axes), metadata=None)
    with pytest.raises(InputError, match=r"what its 6 pages are.*--axes.*--spacing"):
        read_volume(path)
    with pytest.raises(InputError, match="channels must be known"):
        read_volume(path, axes=axes)
    with pytest.raises(InputError, match="divide the pages"):
        read_volume(path, axes=axes, channels=["a", "b", "c", "d"])
    assert np.array_equal(read_volume(path, axes=axes, channels=["a", "b"]).data, STACK)
    for letters in ("ZYX", "CYX"):
        found = read_volume(path, axes=letters)
        assert np.array_equal(found.data.reshape(-1, Y, X), ordered(axes).reshape(-1, Y, X))
    with pytest.raises(CallError, match="axes"):
        read_volume(path, axes="TZCYX")
    with pytest.raises(InputError, match="ends with YX"):
        read_volume(path, axes="YXZ")


def test_the_callers_axes_win_over_a_files_wrong_ones(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ome.tif", ordered("ZCYX"), ome=True, metadata={"axes": "CZYX"})
    wrong = read_volume(path)
    assert wrong.data.shape == (Z, C, Y, X)
    assert np.array_equal(read_volume(path, axes="ZCYX").data, STACK)


def test_a_single_page_needs_no_axes_and_is_2d(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", STACK[0, 0], metadata=None)
    volume = read_volume(path)
    assert (volume.is_2d, volume.shape) == (True, (1, Y, X))
    assert np.array_equal(read_volume(path, axes="YX").data, volume.data)


@pytest.mark.parametrize("how", [{"ome": True}, {"imagej": True}, {}])
def test_a_time_series_is_refused_by_name(how: dict, tmp_path: Path) -> None:
    data = np.zeros((4, Y, X), np.uint8)
    path = save(tmp_path / "a.tif", data, metadata={"axes": "TYX"}, **how)
    with pytest.raises(InputError, match=r"4 time points \(axis T\)"):
        read_volume(path)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour_pages_become_three_channels(
    planar: str, compression: str | None, tmp_path: Path
) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (Y, X, 3)).astype(np.uint8)
    stored = rgb if planar == "contig" else rgb.transpose(2, 0, 1)
    path = save(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar,
                compression=compression, metadata=None)  # fmt: skip
    volume = read_volume(path)
    assert (volume.is_rgb, volume.channels) == (True, ("red", "green", "blue"))
    assert np.array_equal(volume.data[:, 0], rgb.transpose(2, 0, 1))


# Storage: ours equals tifffile for every layout

LAYOUTS = list(
    itertools.product([None, "zlib", "lzw", "zstd", "lzma", "packbits"], [None, (16, 16)], "<>")
)


@pytest.mark.parametrize(("compression", "tile", "order"), LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_storage_layout_reads_as_tifffile_reads_it(
    compression: str | None, tile: tuple | None, order: str, dtype: str, tmp_path: Path
) -> None:
    data = ordered("ZCYX").astype(dtype)
    predictors = [False, True] if compression in ("zlib", "lzw", "zstd") else [False]
    for predictor in predictors:
        kind = 3 if predictor and dtype == "float32" else predictor
        how = {"tile": tile} if tile else {"rowsperstrip": 7}
        path = save(tmp_path / f"{predictor}.tif", data, metadata={"axes": "ZCYX"}, **how,
                    compression=compression, byteorder=order, predictor=kind)  # fmt: skip
        volume = read_volume(path)
        assert volume.data.dtype == np.dtype(dtype)
        assert volume.data.dtype.isnative
        assert np.array_equal(volume.data.transpose(1, 0, 2, 3), tifffile.imread(path))


def test_reading_holds_little_more_than_the_image(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 60, (2, 16, 512, 512)).astype(np.uint16)
    path = tmp_path / "a.ome.tif"
    write_ome_tiff(path, Volume(data, ("a", "b")))
    read_volume(path)
    tracemalloc.start()
    volume = read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * volume.data.nbytes


# Scale


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("µm", 1), ("nm", 1000), ("mm", 1e-3), ("cm", 1e-4), ("Å", 1e4), ("m", 1e-6)],
)
def test_every_unit_of_ome_becomes_um(unit: str, factor: float, tmp_path: Path) -> None:
    metadata = {"axes": "CZYX"} | {k: v * factor for k, v in UM.items()}
    metadata |= {f"PhysicalSize{a}Unit": unit for a in "XYZ"}
    volume = read_volume(save(tmp_path / "a.ome.tif", STACK, ome=True, metadata=metadata))
    assert volume.spacing == pytest.approx((1.5, 0.4, 0.5))


def test_units_may_differ_between_axes(tmp_path: Path) -> None:
    metadata = {"axes": "CZYX"} | UM | {"PhysicalSizeZ": 1500.0, "PhysicalSizeZUnit": "nm"}
    volume = read_volume(save(tmp_path / "a.ome.tif", STACK, ome=True, metadata=metadata))
    assert volume.spacing == pytest.approx((1.5, 0.4, 0.5))


@pytest.mark.parametrize("size", [0.0, -1.0, 1e-9, 5000.0, float("nan")])
def test_an_absurd_scale_is_unknown_and_noted_never_used(size: float, tmp_path: Path) -> None:
    metadata = {"axes": "CZYX"} | UM | {"PhysicalSizeX": size}
    volume = read_volume(save(tmp_path / "a.ome.tif", STACK, ome=True, metadata=metadata))
    assert volume.spacing is None
    assert volume.notes


@pytest.mark.parametrize("missing", ["X", "Y", "Z"])
def test_a_missing_size_leaves_the_scale_unknown(missing: str, tmp_path: Path) -> None:
    metadata = {"axes": "CZYX"} | {k: v for k, v in UM.items() if not k.endswith(missing)}
    volume = read_volume(save(tmp_path / "a.ome.tif", STACK, ome=True, metadata=metadata))
    assert volume.spacing is None
    if missing == "Z":
        assert "no z step" in volume.notes[0]


def test_pixel_as_a_unit_is_no_scale(tmp_path: Path) -> None:
    metadata = {"axes": "CZYX"} | UM | {f"PhysicalSize{a}Unit": "pixel" for a in "XYZ"}
    assert read_volume(save(tmp_path / "a.tif", STACK, ome=True, metadata=metadata)).spacing is None
    path = save(tmp_path / "b.tif", STACK[0], imagej=True, metadata={"axes": "ZYX", "spacing": 2.0})
    assert read_volume(path).spacing is None


def test_ome_wins_over_resolution_tags_and_says_so(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.ome.tif", STACK, ome=True, metadata={"axes": "CZYX"} | UM,
        resolution=(1e4 / 0.9, 1e4 / 0.9), resolutionunit="CENTIMETER",
    )  # fmt: skip
    volume = read_volume(path)
    assert volume.spacing == (1.5, 0.4, 0.5)
    assert sum("the OME-XML is used" in note for note in volume.notes) == 2
    agree = save(
        tmp_path / "b.ome.tif", STACK, ome=True, metadata={"axes": "CZYX"} | UM,
        resolution=(1e4 / 0.5, 1e4 / 0.4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    assert read_volume(agree).notes == ()


def test_resolution_tags_count_only_in_centimetres_and_for_a_microscope(tmp_path: Path) -> None:
    cm = save(tmp_path / "a.tif", STACK[0, 0], metadata=None, resolution=(2e4, 2e4),
              resolutionunit="CENTIMETER")  # fmt: skip
    assert read_volume(cm).spacing == (1.0, 0.5, 0.5)
    assert "resolution tags" in read_volume(cm).notes[0]
    for resolution, unit in (((300, 300), "INCH"), ((118, 118), "CENTIMETER"), ((1, 1), "NONE")):
        path = save(tmp_path / "b.tif", STACK[0, 0], metadata=None, resolution=resolution,
                    resolutionunit=unit)  # fmt: skip
        assert read_volume(path).spacing is None


# Names


def test_channel_names_are_kept_and_made_unique(tmp_path: Path) -> None:
    for given, expected in (
        (["LT", "DAPI"], ("LT", "DAPI")),
        (["DAPI", "DAPI"], ("DAPI", "DAPI_2")),
        (["LT", ""], ("LT", "ch1")),
    ):
        metadata = {"axes": "CZYX", "Channel": {"Name": given}}
        volume = read_volume(save(tmp_path / "a.ome.tif", STACK, ome=True, metadata=metadata))
        assert volume.channels == expected
        assert bool(volume.notes) == ("DAPI_2" in expected)
    path = save(tmp_path / "b.ome.tif", STACK, ome=True, metadata={"axes": "CZYX"})
    assert read_volume(path).channels == ("ch0", "ch1")


# Contradictions


def ome_text(path: Path) -> str:
    with tifffile.TiffFile(path) as tif:
        return str(tif.pages[0].description)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('SizeZ="3"', 'SizeZ="4"', "page of its own"),
        ('SizeZ="3"', 'SizeZ="2"', "contradict"),
        ('SizeZ="3"', 'SizeZ="0"', "empty image"),
        ('SizeZ="3"', 'SizeZ="-3"', "count is expected"),
        ('SizeZ="3"', 'SizeZ="999999999999"', "limit"),
        ('SizeZ="3"', "", "count is expected"),
        ('SizeX="24"', 'SizeX="42"', "declares 20 x 42"),
        ('Type="uint16"', 'Type="int16"', "declares int16"),
        ('DimensionOrder="XYZCT"', 'DimensionOrder="XYZZT"', "DimensionOrder"),
        ("<TiffData", '<TiffData FirstC="7"', "outside the image"),
        ('PlaneCount="6"', 'PlaneCount="7"', "more planes than fit"),
        ('PlaneCount="6"', 'PlaneCount="5"', "page of its own"),
        ('IFD="0"', 'IFD="1"', "leave gaps"),
        ("</OME>", "</OMX>", "not well formed"),
        ("<Pixels", "<Pixelz", "not well formed"),
    ],
)
def test_text_that_contradicts_the_pages_is_refused(
    old: str, new: str, why: str, tmp_path: Path
) -> None:
    text = ome_text(save(tmp_path / "a.ome.tif", STACK, ome=True, metadata={"axes": "CZYX"} | UM))
    assert old in text
    path = save(tmp_path / "b.ome.tif", STACK.reshape(-1, Y, X), metadata=None,
                description=text.replace(old, new, 1).encode())  # fmt: skip
    with pytest.raises(Exception, match=why) as caught:
        read_volume(path)
    assert "b.ome.tif" in str(caught.value)


def test_planes_in_any_order_are_put_where_the_text_says(tmp_path: Path) -> None:
    text = ome_text(save(tmp_path / "a.ome.tif", STACK, ome=True, metadata={"axes": "CZYX"} | UM))
    start = text.index("<TiffData")
    blocks = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" IFD="{5 - (c * Z + z)}" PlaneCount="1"/>'
        for c in range(C)
        for z in range(Z)
    )
    text = text[:start] + blocks + text[text.index("</Pixels>") :]
    path = save(tmp_path / "b.ome.tif", STACK.reshape(-1, Y, X)[::-1], metadata=None,
                description=text.encode())  # fmt: skip
    assert np.array_equal(read_volume(path).data, STACK)


def test_planes_in_other_files_are_refused_by_name(tmp_path: Path) -> None:
    text = ome_text(save(tmp_path / "a.ome.tif", STACK, ome=True, metadata={"axes": "CZYX"}))
    inner = '<UUID FileName="../other.ome.tif">urn:uuid:1</UUID></TiffData>'
    text = text.replace('PlaneCount="6"/>', f'PlaneCount="6">{inner}')
    path = save(tmp_path / "b.ome.tif", STACK.reshape(-1, Y, X), metadata=None,
                description=text.encode())  # fmt: skip
    with pytest.raises(UnsafeInputError, match=r"'\.\./other\.ome\.tif' outside its folder"):
        read_volume(path)


def test_pages_of_different_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for n in (20, 24):
            tif.write(np.zeros((n, n), np.uint8), metadata=None, photometric="minisblack")
    with pytest.raises(InputError, match="differ in size"):
        read_volume(path, axes="ZYX")


@pytest.mark.parametrize(
    "text", ["images=6\nslices=4\nchannels=2", "images=0", "images=x", "images=-1"]
)
def test_imagejs_counts_must_agree(text: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", STACK.reshape(-1, Y, X), metadata=None,
                description=f"ImageJ=1.53\n{text}\n")  # fmt: skip
    with pytest.raises(InputError, match="ImageJ"):
        read_volume(path)


def test_a_stack_behind_a_single_directory_is_read_whole_or_refused(tmp_path: Path) -> None:
    # ImageJ writes stacks above 4 GB with one directory for all slices.
    path = save(tmp_path / "a.tif", STACK[0, 0], metadata=None,
                description=f"ImageJ=1.53\nimages={C * Z}\nchannels={C}\nslices={Z}\n")  # fmt: skip
    raw = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].dataoffsets[0]
    assert at + STACK[0, 0].nbytes == len(raw)
    whole = raw[:at] + ordered("ZCYX").tobytes()
    path.write_bytes(whole)
    assert np.array_equal(read_volume(path).data, STACK)
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="1 pages but its ImageJ TIFF text declares 6"):
        read_volume(path)


def test_a_palette_is_refused_and_inverted_greys_are_reported(tmp_path: Path) -> None:
    table = np.zeros((3, 256), np.uint16)
    path = save(tmp_path / "a.tif", np.eye(9, dtype=np.uint8), photometric="palette",
                colormap=table, metadata=None)  # fmt: skip
    with pytest.raises(InputError, match="palette"):
        read_volume(path)
    assert read_labels(path).ids().tolist() == [1]
    path = save(tmp_path / "b.tif", np.eye(9, dtype=np.uint8), photometric="miniswhite")
    assert "white as 0" in read_volume(path).notes[0]


def test_reading_leaves_the_logger_of_tifffile_as_it_was(tmp_path: Path) -> None:
    logger = logging.getLogger("tifffile")
    before = (logger.level, logger.propagate, list(logger.handlers))
    path = save(tmp_path / "a.tif", STACK[0, 0])
    read_volume(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError):
        read_volume(path)
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


# Writing


def test_what_we_write_is_what_tifffile_reads(tmp_path: Path) -> None:
    volume = Volume(STACK, ("LT", "DAPI µ"), (1.5, 0.4, 0.5))
    write_ome_tiff(tmp_path / "a.ome.tif", volume)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "CZYX"
        assert np.array_equal(tif.series[0].asarray(), STACK)
    assert read_volume(tmp_path / "a.ome.tif").channels == ("LT", "DAPI µ")


def test_colour_and_labels_survive_a_round_trip(tmp_path: Path) -> None:
    rgb = Volume(STACK.astype(np.uint8)[[0, 1, 0], :1], ("red", "green", "blue"), None,
                 is_rgb=True, is_2d=True)  # fmt: skip
    write_ome_tiff(tmp_path / "rgb.ome.tif", rgb)
    back = read_volume(tmp_path / "rgb.ome.tif")
    assert (back.is_rgb, back.is_2d, back.spacing) == (True, True, None)
    assert np.array_equal(back.data, rgb.data)
    labels = Labels((STACK[0] * 40).astype(np.int32), (1.5, 0.4, 0.5))
    write_ome_tiff(tmp_path / "l.ome.tif", labels)
    assert np.array_equal(read_labels(tmp_path / "l.ome.tif").data, labels.data)
