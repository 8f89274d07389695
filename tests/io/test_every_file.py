"""Every real file: read right, or refused in one sentence. A new or changed file fails here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nucleoscope.errors import NucleoscopeError
from nucleoscope.io.images import describe, read_labels, read_volume
from nucleoscope.io.nuclei import read_nuclei
from nucleoscope.io.outlines import read_region
from nucleoscope.io.points import read_points
from nucleoscope.io.qupath import read_project
from nucleoscope.io.slides import read_slide


class Row(NamedTuple):
    """Files of one pattern that are read in one way.

    ``expected`` is what the reader says of each file (equal files of a folder: of all together);
    without the package of ``extra`` it is one sentence that names the extra.
    """

    pattern: str
    n_files: int
    digest: str
    read: str
    expected: str
    extra: str = ""


# What each reader says, in one line --------------------------------------------------------------


def image(path: Path) -> str:
    info = describe(path)
    scale = "-" if info.spacing is None else ",".join(f"{v:.4g}" for v in info.spacing)
    names = ",".join(info.channels)
    shape = "x".join(map(str, info.shape))
    return f"{info.format} {shape} {info.axes} {info.dtype} [{names}] {scale} um"


def kind(path: Path) -> str:
    """As ``image``, without what differs between the files of a folder."""
    info = describe(path)
    scale = "no scale" if info.spacing is None else "scale"
    return f"{info.format} {info.axes} {info.dtype} [{','.join(info.channels)}] {scale}"


def slide(path: Path) -> str:
    found = read_slide(path)
    levels = " ".join(f"{y}x{x}" for y, x in found.level_shapes)
    return f"{levels} {'-' if found.mpp is None else f'{found.mpp:.4g}'} um"


def slide_pixels(path: Path) -> str:
    return str(read_slide(path).read((0, 0, 8, 8)).shape)


def volume(path: Path) -> str:
    found = read_volume(path)
    return f"{found.data.shape} {found.data.dtype} sum {int(found.data.sum(dtype='f8'))}"


def project(path: Path) -> str:
    return "; ".join(f"{i.name} {i.shape} {i.path is not None} {i.mpp}" for i in read_project(path))


def nuclei(path: Path) -> str:
    found = read_nuclei(path)
    n_known = 0 if found.outlines is None else int(found.outlines.is_known().sum())
    types = sorted(set(found.table.frame["type"]) - {""})
    listed = ",".join(types) if len(types) < 6 else str(len(types))
    return f"{len(found)} nuclei, {n_known} outlines, types {listed or '-'}"


def points(path: Path) -> str:
    found = read_points(path)
    return " ".join(f"{k or '-'}:{n}" for k, n in sorted(Counter(found.types.tolist()).items()))


def region(path: Path) -> str:
    return f"{len(read_region(path).rings)} rings"


def labels(path: Path) -> str:
    return f"{len(read_labels(path).ids())} nuclei"


def text(path: Path) -> str:
    return "not data"


READERS: dict[str, Callable[[Path], str]] = {
    "image": image, "kind": kind, "slide": slide, "slide pixels": slide_pixels, "volume": volume,
    "project": project, "nuclei": nuclei, "points": points, "region": region, "labels": labels,
    "text": text,
}  # fmt: skip

#: A package by which it is known that an extra is there.
EXTRAS = {"bio": "bioio_czi", "wsi": "wsidicom"}

#: A file may have several rows: each says what another reader makes of it.
ROWS = (
    Row("README.md", 1, "9ad01238cab5", "text",
        "not data"),
    Row("plaque/README.md", 1, "afb72aa4b674", "text",
        "not data"),
    Row("plaque/*.ome.tif", 17, "bd3f9c9f4c29", "kind",
        "OME-TIFF ZCYX uint8 [LT,DAPI] scale"),
    Row("plaque/d1_train_01.ome.tif", 1, "1acedeae58a6", "image",
        "OME-TIFF 2x11x512x512 ZCYX uint8 [LT,DAPI] 1.053,0.3177,0.3177 um"),
    Row("plaque/d1_train_01.ome.tif", 1, "1acedeae58a6", "volume",
        "(2, 11, 512, 512) uint8 sum 26244203"),
    Row("plaque/*.labels.tif", 6, "fae6cb2bed5a", "labels",
        "1018 nuclei"),
    Row("plaque/*.points.csv", 17, "6778ead5f5ce", "points",
        "negative:1989 positive:767"),
    Row("plaque/*.truth.csv", 6, "c232e8c0af12", "points",
        "negative:724 positive:294"),
    Row("plaque/*.roi.geojson", 17, "fb656a8bd035", "region",
        "1 rings"),
    Row("crc_histophenotypes/*.png", 80, "f08e9e58db3b", "image",
        "PNG 3x1x500x500 YXS uint8 [red,green,blue] - um"),
    Row("crc_histophenotypes/*.points.csv", 80, "18f6bfc078c9", "points",
        "-:5500 epithelial:6229 fibroblast:4536 inflammatory:5199 others:1837"),
    Row("kumar/*.png", 16, "33eaba27cf41", "image",
        "PNG 3x1x1000x1000 YXS uint8 [red,green,blue] - um"),
    Row("kumar/*.labels.tif", 16, "cad56eed1506", "labels",
        "9949 nuclei"),
    Row("dsb2018_fluorescence/*.png", 240, "588853efcb09", "kind",
        "PNG YX uint8 [ch0] no scale"),
    Row("dsb2018_fluorescence/*.labels.tif", 240, "4b2a192a4601", "labels",
        "10487 nuclei"),
    Row("dsb2018_stained/*.png", 75, "3710e3dcac43", "kind",
        "PNG YXS uint8 [red,green,blue] no scale"),
    Row("dsb2018_stained/*.labels.tif", 75, "aac9b9f8b89e", "labels",
        "3242 nuclei"),
    Row("codex_spleen/*.ome.tif", 1, "cc466bd86805", "image",
        "OME-TIFF 8x1x1008x1344 CYX uint16 "
        "[nucleus,cytoplasm,membrane,CH_7,CH_11,CH_19,CH_20,CH_24] - um"),
    Row("codex_spleen/*.expert1.labels.tif", 1, "678c84d4d768", "labels",
        "3431 nuclei"),
    Row("codex_spleen/*.expert2.labels.tif", 1, "82200c8f63b9", "labels",
        "2094 nuclei"),
    Row("cells3d/nuclei.tif", 1, "d23b79f589bd", "image",
        "TIFF 1x60x256x256 ?YX uint16 [ch0] - um"),
    Row("cells3d/nuclei.tif", 1, "d23b79f589bd", "volume",
        "! the file does not say what its 60 pages are"),
    Row("cells3d/nuclei_label.tif", 1, "58e35556fd69", "labels",
        "20 nuclei"),
    Row("cells3d/napari_points.csv", 1, "2d10ff273b3d", "points",
        "-:15"),
    Row("lightsheet_brain/*.ome.tif", 1, "c81d29fede34", "image",
        "OME-TIFF 2x30x384x384 ZCYX uint16 [signal,background] 5,2,2 um"),
    Row("lightsheet_brain/cell_counter.xml", 1, "cf360e84b60d", "points",
        "2:46"),
    Row("stardist_samples/histo.jpg", 1, "ab20b04088c6", "image",
        "JPEG 3x1x300x500 YXS uint8 [red,green,blue] - um"),
    Row("stardist_samples/img2d.tif", 1, "1594afde6665", "image",
        "TIFF 1x1x512x512 YX uint16 [ch0] - um"),
    Row("stardist_samples/img3d.tif", 1, "ecca340d9c23", "volume",
        "! the file does not say what its 31 pages are"),
    Row("stardist_samples/mask2d.tif", 1, "6a4ba0a859e5", "nuclei",
        "125 nuclei, 0 outlines, types -"),
    Row("stardist_samples/mask3d.tif", 1, "642532777afa", "labels",
        "51 nuclei"),
    Row("slides/cmu-1-small-region.svs", 1, "4658bc0f2a5a", "slide",
        "2967x2220 0.499 um"),
    Row("slides/tcga-cr-7395-01a-01-ts1.svs", 1, "3fba35e5a0da", "slide",
        "3567x4443 1783x2221 - um"),
    Row("slides/small_vectra.qptiff", 1, "80717e5189bf", "slide",
        "! it holds 3 grey channels and no colour; a slide is RGB, so read it with "
        "read_volume and detect its nuclei by channel."),
    Row("slides/small_vectra.qptiff", 1, "80717e5189bf", "image",
        "qptiff 3x1x1440x1920 CYX uint8 [DAPI,FITC,Cy3] 1,0.4965,0.4965 um"),
    Row("slides/small_vectra.qptiff", 1, "80717e5189bf", "volume",
        "(3, 1, 1440, 1920) uint8 sum 65986776"),
    Row("slides/small_dicom.dcm", 1, "d425180883bb", "slide",
        "! it holds no level of a DICOM slide (VOLUME image); give the folder that "
        "holds the whole series.",
        "wsi"),
    Row("slides/small_dicom.dcm", 1, "d425180883bb", "image",
        "! it is a DICOM file, which is read by region as a slide (read_slide)."),
    Row("formats/blobs_image_v04.ome.zarr", 1, "c946b369d0ed", "image",
        "OME-Zarr 3x1x12x12 CYX float64 [0,1,2] - um"),
    Row("formats/blobs_image_v05.ome.zarr", 1, "c724aa6987e7", "image",
        "OME-Zarr 3x1x12x12 CYX float64 [0,1,2] - um"),
    Row("formats/blobs_image_v04.ome.zarr", 1, "c946b369d0ed", "volume",
        "(3, 1, 12, 12) float64 sum 234"),
    Row("formats/blobs_image_v05.ome.zarr", 1, "c724aa6987e7", "volume",
        "(3, 1, 12, 12) float64 sum 234"),
    Row("formats/multi-channel.ome.tif", 1, "1b70773adbd9", "image",
        "OME-TIFF 3x1x167x439 CYX int8 [ch0,ch1,ch2] - um"),
    Row("formats/multi-channel.ome.tif", 1, "1b70773adbd9", "volume",
        "(3, 1, 167, 439) float32 sum 10445323"),
    Row("formats/multifile-Z[1-5].ome.tiff", 5, "4af61259a721", "image",
        "OME-TIFF of several files 1x5x24x18 ZYX uint8 [ch0] - um"),
    Row("formats/multifile.companion.ome", 1, "73ad40c3d881", "image",
        "OME-TIFF of several files 1x5x24x18 ZYX uint8 [ch0] - um"),
    Row("formats/multifile.companion.ome", 1, "73ad40c3d881", "volume",
        "(1, 5, 24, 18) uint8 sum 314466"),
    Row("formats/multifile-Z3.ome.tiff", 1, "d1a600a75a6f", "volume",
        "(1, 5, 24, 18) uint8 sum 314466"),
    Row("formats/CellDivision_T3_Z5_CH2_X240_Y170.czi", 1, "c6ad918f4eb1", "image",
        "Zeiss CZI 2x5x170x240 TCZYX uint16 [LED555,LED470] 0.32,0.09058,0.09058 um",
        "bio"),
    Row("formats/CellDivision_T3_Z5_CH2_X240_Y170.czi", 1, "c6ad918f4eb1", "volume",
        "! it holds 3 time points (axis T) and nucleoscope reads one",
        "bio"),
    Row("formats/DAPI_GFP.czi", 1, "e2e680ffca8b", "image",
        "Zeiss CZI 2x1x640x640 TCYX uint8 [ch0,ch1] - um",
        "bio"),
    Row("formats/DAPI_GFP.czi", 1, "e2e680ffca8b", "volume",
        "(2, 1, 640, 640) uint8 sum 17075726",
        "bio"),
    Row("formats/QuPath_Annotations_wo_calibs.geojson", 1, "2839d604c70e", "nuclei",
        "51 nuclei, 43 outlines, types 44"),
    Row("formats/QuPath_Annotations_wo_calibs.geojson", 1, "2839d604c70e", "points",
        "calibpoints:8"),
    Row("formats/QuPath_Annotations_wo_calibs.geojson", 1, "2839d604c70e", "region",
        "43 rings"),
    Row("formats/imagej_rois/TCGA-DE-A4MA.zip", 1, "3f1f6d487cab", "nuclei",
        "59 nuclei, 59 outlines, types -"),
    Row("formats/imagej_rois/TCGA-S4-A8RO.zip", 1, "aa804c936a5d", "nuclei",
        "116 nuclei, 116 outlines, types -"),
    Row("formats/openDVP_quant.csv", 1, "8d1b2aaa0796", "nuclei",
        "9711 nuclei, 0 outlines, types -"),
    Row("formats/qupath_project", 1, "d301c9e370ca", "project",
        "Edu+_RFP+_(3).tif (3, 1, 512, 512) True (0.41513292348643577, "
        "0.41513292348643577); Edu+_RFP+_(4).tif (3, 1, 512, 512) True "
        "(0.41513292348643577, 0.41513292348643577)"),
    Row("formats/qupath_project/project.qpproj", 1, "d8ce822a95b3", "project",
        "Edu+_RFP+_(3).tif (3, 1, 512, 512) True (0.41513292348643577, "
        "0.41513292348643577); Edu+_RFP+_(4).tif (3, 1, 512, 512) True "
        "(0.41513292348643577, 0.41513292348643577)"),
    Row("formats/qupath_project/data/*/data.qpdata", 2, "c12cb3876a82", "image",
        "! Java's own serialisation (QuPath's .qpdata), which is not read"),
    Row("formats/qupath_project/images/*.tif", 2, "d7b288f3d11a", "image",
        "ImageJ TIFF 3x1x512x512 CYX uint8 [ch0,ch1,ch2] 1,0.4151,0.4151 um"),
    Row("formats/qupath_project/data/*/thumbnail.jpg", 2, "5dd5defb12b6", "image",
        "JPEG 3x1x512x512 YXS uint8 [red,green,blue] - um"),
    Row("formats/qupath_project/data/*/summary.json", 2, "12c546b39ffc", "nuclei",
        "! it holds no nuclei that are read"),
    Row("formats/qupath_project/classifiers/classes.json", 1, "f8822e29bfb5", "nuclei",
        "! it holds no nuclei that are read"),
    Row("formats/boxes.tiff", 1, "53fe02722ad4", "slide",
        "250x300 125x150 62x75 31x37 - um"),
    Row("formats/boxes.tiff", 1, "53fe02722ad4", "image",
        "TIFF 3x1x250x300 YXS uint8 [red,green,blue] - um"),
    Row("formats/boxes_0.dcm", 1, "0fbbb8f14341", "slide",
        "16x16 0.499 um",
        "wsi"),
    Row("formats/boxes_1.dcm", 1, "ed25a1599b5b", "slide",
        "! it holds no level of a DICOM slide (VOLUME image); give the folder that "
        "holds the whole series.",
        "wsi"),
    Row("formats/unopenable.tiff", 1, "318e6540e062", "slide",
        "! level 0 is packed with a codec that is not read (52479)."),
    Row("formats/unopenable.tiff", 1, "318e6540e062", "image",
        "! page 1 is packed with a codec that is not read (52479)."),
    Row("formats/unreadable.svs", 1, "abb490dc9b78", "slide",
        "16x16 0.499 um"),
    Row("formats/unreadable.svs", 1, "abb490dc9b78", "slide pixels",
        "! it cannot be decoded (Jpeg8Error: Bogus marker length); the file looks "
        "damaged."),
    Row("formats/unreadable.svs", 1, "abb490dc9b78", "volume",
        "! it cannot be decoded (Jpeg8Error: Bogus marker length); the file looks "
        "damaged."),
)  # fmt: skip


def sums(lines: list[str]) -> str:
    """Lines of equal files as one: equal ones once, counts of points and nuclei added up."""
    if len(set(lines)) == 1:
        return lines[0]
    if all(line.endswith(" nuclei") for line in lines):
        return f"{sum(int(line.split()[0]) for line in lines)} nuclei"
    total: Counter[str] = Counter()
    for line in lines:
        for part in line.split():
            key, _, n = part.rpartition(":")
            total[key] += int(n)
    return " ".join(f"{k}:{n}" for k, n in sorted(total.items()))


def says(path: Path, read: str) -> str:
    try:
        return READERS[read](path)
    except NucleoscopeError as error:
        sentence = str(error)
        assert "\n" not in sentence, sentence
        return "! " + sentence.replace(str(path), "FILE")


def files_of(data: Path, row: Row) -> tuple[list[Path], list[Path]]:
    """What is read, and the files it consists of."""
    found = sorted(data.glob(row.pattern))
    parts = [p for f in found for p in ([f] if f.is_file() else sorted(f.rglob("*")))]
    return found, [part for part in parts if part.is_file()]


def digest_of(files: list[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0" + file.read_bytes())
    return total.hexdigest()[:12]


def fits(said: str, expected: str) -> bool:
    """Equal, or for a refusal: its words are in the sentence."""
    if expected.startswith("! "):
        return said.startswith("! ") and expected[2:] in said
    return said == expected


def test_every_file_has_a_row(data: Path) -> None:
    listed = {file for row in ROWS for file in files_of(data, row)[1]}
    there = {path for path in data.rglob("*") if path.is_file()}
    assert {str(p.relative_to(data)) for p in there - listed} == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.pattern}: {row.read}")
@pytest.mark.filterwarnings("ignore")
def test_a_file_is_read_right_or_refused_in_one_sentence(data: Path, row: Row) -> None:
    found, files = files_of(data, row)
    assert len(found) == row.n_files
    assert digest_of(files) == row.digest
    expected = row.expected
    if row.extra and find_spec(EXTRAS[row.extra]) is None:
        expected = f"! needs an extra: pip install 'nucleoscope[{row.extra}]'"
    said = sums([says(path, row.read) for path in found])
    assert fits(said, expected), f"{said!r} where {expected!r} is expected"


def listing(data: Path, asked: Any) -> str:
    """The rows as they should read, for whoever adds files: ``asked`` is ``(pattern, read)``s."""
    lines = []
    for pattern, read in asked:
        row = Row(pattern, 0, "", read, "")
        found, files = files_of(data, row)
        said = sums([says(path, read) for path in found])
        lines.append(f"    Row({pattern!r}, {len(found)}, {digest_of(files)!r}, {read!r},\n"
                     f"        {said!r}),")  # fmt: skip
    return "\n".join(lines)
