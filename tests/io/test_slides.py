"""Slides: read right, or refused in one sentence."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from nucleoscope.errors import (
    CallError,
    InputError,
    MissingExtraError,
    NucleoscopeError,
    UnsafeInputError,
)
from nucleoscope.io import slides, slidetiff
from nucleoscope.io.guard import Limits
from nucleoscope.io.slides import read_slide


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    return small.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].astype(np.uint8)


def pyramid(path: Path, image: NDArray[np.uint8], um: float | None = 0.25, **more: Any) -> None:
    """Three levels, each half of the one before."""
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"} | more
    with tifffile.TiffWriter(path) as tif:
        for level in range(3):
            step = 2**level
            if um is not None:
                options |= {"resolution": (1e4 / um / step,) * 2, "resolutionunit": "CENTIMETER"}
            tif.write(image[::step, ::step], subfiletype=int(level > 0), **options)


def test_a_tiled_pyramid_is_read_by_region_at_every_level(tmp_path: Path) -> None:
    image = picture(500, 700)
    pyramid(tmp_path / "a.tif", image)
    slide = read_slide(tmp_path / "a.tif")
    assert (slide.name, slide.shape, slide.levels) == ("a", (500, 700), (1.0, 2.0, 4.0))
    assert slide.mpp == pytest.approx(0.25, rel=1e-4)
    for box in ((0, 0, 500, 700), (63, 64, 65, 129), (499, 699, 500, 700), (100, 3, 300, 650)):
        y0, x0, y1, x1 = box
        assert np.array_equal(slide.read(box), image[y0:y1, x0:x1])
    assert np.array_equal(slide.reader(2, (10, 20, 90, 160)), image[::4, ::4][10:90, 20:160])


@pytest.mark.parametrize("compression", ["jpeg", "none", "lzw", "zstd", "jpeg2000"])
def test_tiles_equal_what_tifffile_decodes(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    pyramid(path, picture(300, 200), compression=compression)
    whole = tifffile.imread(path)
    slide = read_slide(path)
    assert np.array_equal(slide.read((0, 0, 300, 200)), whole)
    assert np.array_equal(slide.read((0, 0, 300, 200)), whole)  # now from the tiles kept


def test_a_channel_of_transparency_is_left_out(tmp_path: Path) -> None:
    image = np.dstack([picture(100, 90), np.full((100, 90), 7, np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64), photometric="rgb")
    slide = read_slide(tmp_path / "a.tif")
    assert np.array_equal(slide.read((5, 5, 100, 90)), image[5:, 5:, :3])


def test_tiles_that_were_never_stored_are_white(tmp_path: Path) -> None:
    def tiles() -> Any:
        for i in range(4):
            yield None if i == 1 else np.full((64, 64, 3), 10 * i, np.uint8)

    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, tiles(), shape=(128, 128, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb",
        compression="zlib",
    )  # fmt: skip
    slide = read_slide(path)
    assert (slide.read((0, 64, 64, 128)) == 255).all()
    assert (slide.read((64, 64, 128, 128)) == 30).all()
    assert any("1 tiles are not stored" in note for note in slide.notes)


def test_regions_of_many_tiles_equal_those_read_tile_by_tile(tmp_path: Path) -> None:
    image = picture(640, 640)
    pyramid(tmp_path / "a.tif", image)
    slide = read_slide(tmp_path / "a.tif")
    assert np.array_equal(slide.read((1, 1, 639, 639)), image[1:639, 1:639])


def test_decoded_tiles_are_kept_only_up_to_a_number_of_bytes() -> None:
    kept = slidetiff._Tiles(1000)
    for n in range(10):
        kept.put((0, n), np.zeros(300, np.uint8))
    assert [n for n in range(10) if kept.get((0, n)) is not None] == [7, 8, 9]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_plain_images_are_slides_too(tmp_path: Path, suffix: str) -> None:
    image, path = picture(40, 30), tmp_path / f"tile.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, image, photometric="rgb")
    else:
        encode = imagecodecs.png_encode if suffix == "png" else imagecodecs.jpeg8_encode
        path.write_bytes(encode(image))
    slide = read_slide(path, mpp=0.5)
    assert (slide.name, slide.shape, slide.mpp) == ("tile", (40, 30), 0.5)
    difference = np.abs(slide.read((0, 0, 40, 30)).astype(int) - image)
    assert difference.max() == 0 if suffix != "jpg" else difference.mean() < 9


# Scale ------------------------------------------------------------------------------------------


def test_a_given_scale_that_contradicts_the_file_wins_and_is_reported(tmp_path: Path) -> None:
    pyramid(tmp_path / "a.tif", picture(99, 99), um=0.5)
    assert read_slide(tmp_path / "a.tif", mpp=0.504).notes == ()
    slide = read_slide(tmp_path / "a.tif", mpp=0.25)
    assert slide.mpp == 0.25
    assert "--mpp 0.25 replaces the 0.5 um per pixel" in slide.notes[0]


@pytest.mark.parametrize("um", [None, 352.8])
def test_a_screen_resolution_is_no_scale(tmp_path: Path, um: float | None) -> None:
    pyramid(tmp_path / "a.tif", picture(99, 99), um=um)
    slide = read_slide(tmp_path / "a.tif")
    assert slide.mpp is None
    with pytest.raises(InputError, match="--mpp"):
        slide.read((0, 0, 9, 9), mpp=0.25)


def test_an_aperio_scale_is_read_and_an_absurd_one_is_unknown(tmp_path: Path) -> None:
    for text, expected in (("0.4990", 0.499), ("499", None)):
        pyramid(tmp_path / "a.svs", picture(99, 99), None, description=f"Aperio |MPP = {text}|x")
        slide = read_slide(tmp_path / "a.svs")
        assert slide.mpp == expected
        assert bool(slide.notes) == (expected is None)


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", picture(99, 99), tile=(64, 64), photometric="rgb",
        resolution=(4e4, 2e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    with pytest.raises(InputError, match="not square"):
        read_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("mpp", [0.01, 51, -1, float("nan")])
def test_an_absurd_scale_is_a_wrong_call(mpp: float) -> None:
    with pytest.raises(CallError, match="--mpp"):
        read_slide("whatever.svs", mpp=mpp)


# Damage -----------------------------------------------------------------------------------------


def test_what_is_no_slide_is_said_in_one_sentence(tmp_path: Path) -> None:
    for name, content in (("a.svs", b""), ("b.svs", b"hello"), ("c.svs", b"II*\0")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            read_slide(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_slide(tmp_path / "absent.svs")
    tifffile.imwrite(tmp_path / "grey.tif", np.zeros((99, 99), np.uint8), tile=(64, 64))
    with pytest.raises(InputError, match="no colour"):
        read_slide(tmp_path / "grey.tif")
    deep = np.zeros((99, 99, 3), np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, tile=(64, 64), photometric="rgb")
    with pytest.raises(InputError, match="8 bits"):
        read_slide(tmp_path / "deep.tif")


def test_a_slide_cut_short_is_never_read_as_something_else(tmp_path: Path) -> None:
    pyramid(tmp_path / "a.tif", picture(300, 300))
    whole = (tmp_path / "a.tif").read_bytes()
    path = tmp_path / "cut.tif"
    for part in (0.2, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(NucleoscopeError):
            slide = read_slide(path)
            for level, (height, width) in enumerate(slide.level_shapes):
                slide.reader(level, (0, 0, height, width))
            raise InputError("every level was read whole")


def test_a_tile_of_another_size_than_claimed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pyramid(path, picture(128, 128), compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        start, count = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0", start, start + count)
    data[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="cannot be decoded"):
        read_slide(path).read((0, 0, 64, 64))


def test_limits_hold(tmp_path: Path) -> None:
    pyramid(tmp_path / "a.tif", picture(99, 99))
    with pytest.raises(UnsafeInputError):
        read_slide(tmp_path / "a.tif", limits=Limits(pixels=9999))
    with pytest.raises(UnsafeInputError):
        read_slide(tmp_path / "a.tif", limits=Limits(pages=2))


def test_a_file_that_vanishes_is_one_sentence(tmp_path: Path) -> None:
    pyramid(tmp_path / "a.tif", picture(99, 99))
    slide = read_slide(tmp_path / "a.tif")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(InputError, match="no such file"):
        slide.read((0, 0, 9, 9))


@pytest.mark.parametrize("module", ["wsidicom", "openslide"])
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(128) + b"DICM")
    if module == "openslide":
        path = tmp_path / "a.mrxs"
        path.write_bytes(imagecodecs.jpeg8_encode(picture(8, 8)))
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "Slidedat.ini").write_text("")
    with pytest.raises(MissingExtraError, match=r"nucleoscope\[wsi\]"):
        read_slide(path)


# Real slides ------------------------------------------------------------------------------------


def test_real_slides_have_their_size_scale_and_levels(data: Path) -> None:
    cmu = read_slide(data / "slides" / "cmu-1-small-region.svs")
    assert (cmu.shape, cmu.mpp, cmu.levels) == ((2967, 2220), 0.499, (1.0,))
    whole = tifffile.imread(data / "slides" / "cmu-1-small-region.svs")
    assert np.array_equal(cmu.read((1000, 500, 1300, 900)), whole[1000:1300, 500:900])
    tcga = read_slide(data / "slides" / "tcga-cr-7395-01a-01-ts1.svs")
    assert (tcga.shape, tcga.mpp, len(tcga.levels)) == ((3567, 4443), None, 2)
    half = tcga.with_mpp(0.25).read((1000, 1000, 1400, 1400), mpp=0.5).astype(int)
    full = tcga.read((1000, 1000, 1400, 1400)).reshape(200, 2, 200, 2, 3).mean(axis=(1, 3))
    # The scanner halves with a filter of its own, but at the same place.
    assert np.corrcoef(half.ravel(), full.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("slides/small_vectra.qptiff", "3 grey channels and no colour"),
        ("formats/unopenable.tiff", "codec that is not read"),
        ("formats/DAPI_GFP.czi", "no slide format"),
    ],
)
def test_real_files_that_are_no_slides_are_refused(data: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_slide(data / name)


def test_a_real_slide_with_a_broken_tile_is_refused_when_it_is_read(data: Path) -> None:
    slide = read_slide(data / "formats" / "unreadable.svs")
    with pytest.raises(InputError, match="looks damaged"):
        slide.read((0, 0, 16, 16))


@pytest.mark.filterwarnings("ignore")
def test_dicom_slides_are_read_or_refused(data: Path) -> None:
    pytest.importorskip("wsidicom")
    slide = read_slide(data / "formats" / "boxes_0.dcm")
    assert (slide.shape, slide.mpp) == ((16, 16), 0.499)
    assert slide.read((-4, 0, 16, 16), mpp=1.0).shape == (10, 8, 3)
    with pytest.raises(InputError, match="no level of a DICOM slide"):
        read_slide(data / "slides" / "small_dicom.dcm")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["tiffslide", "openslide"])
def test_other_libraries_give_the_same_slide(data: Path, way: str) -> None:
    pytest.importorskip(way)
    path = data / "slides" / "cmu-1-small-region.svs"
    ours = read_slide(path)
    theirs = getattr(slides, f"_{way}")(path, Limits())
    assert (theirs.shape, theirs.mpp, theirs.levels) == (ours.shape, ours.mpp, ours.levels)
    box = (300, 411, 777, 900)
    assert np.array_equal(theirs.read(box), ours.read(box))


def test_a_reader_keeps_no_file_open(tmp_path: Path) -> None:
    pyramid(tmp_path / "a.tif", picture(99, 99))
    slide = read_slide(tmp_path / "a.tif")
    slide.read((0, 0, 99, 99))
    fds = Path("/proc/self/fd")
    if fds.is_dir():
        names = [str(link.resolve()) for link in fds.iterdir()]
        assert str((tmp_path / "a.tif").resolve()) not in names
