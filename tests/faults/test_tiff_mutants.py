"""Damaged TIFF files: refused in one sentence, or read with the right shape and scale."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError, NucleoscopeError, UnsafeInputError
from nucleoscope.io.images import describe, read_volume
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.testing import refusal

COUNT = int(os.environ.get("NUCLEOSCOPE_MUTANTS", "1000"))
OME = {
    "axes": "ZCYX", "Channel": {"Name": ["LT", "DAPI"]}, "PhysicalSizeX": 0.5,
    "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm",
    "PhysicalSizeZ": 1.5, "PhysicalSizeZUnit": "µm",
}  # fmt: skip


def test_no_mutant_crashes_hangs_or_comes_back_as_another_image(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("mutate.py")), "0", str(COUNT), tmp_path],
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert child.returncode == 0, child.stderr[-2000:]
    results = json.loads(child.stdout)
    counts = Counter(result["what"] for result in results)
    odd = [r for r in results if r["what"] not in ("refused", "accepted", "declared scale")]
    assert not odd, odd[:3]
    assert len(results) > 0.95 * COUNT
    # The mutator must bite, and must leave something to accept.
    assert counts["refused"] > 0.5 * COUNT
    assert counts["accepted"] > 0.05 * COUNT


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.ome.tif"
    data = np.random.default_rng(0).integers(0, 99, (4, 2, 24, 30)).astype(np.uint8)
    tifffile.imwrite(
        path, data, ome=True, metadata=OME, compression="zlib", photometric="minisblack"
    )
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped"])
def test_a_file_cut_at_every_percent_is_refused(kind: str, tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(0, 999, (4, 2, 24, 30)).astype(np.uint16)
    how = {
        "ome": {"ome": True, "metadata": OME, "compression": "zlib"},
        "imagej": {"imagej": True, "metadata": {"axes": "ZCYX", "spacing": 1.5, "unit": "um"}},
        "shaped": {"metadata": {"axes": "ZCYX"}},
    }[kind]
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, data, photometric="minisblack", **how)
    raw = path.read_bytes()
    for percent in range(100):
        path.write_bytes(raw[: len(raw) * percent // 100])
        assert isinstance(refusal(lambda: read_volume(path)), InputError), percent


def last_pointer(raw: bytes) -> int:
    """Where the last directory of a classic little-endian TIFF keeps its next pointer."""
    at = struct.unpack_from("<I", raw, 4)[0]
    while True:
        n = struct.unpack_from("<H", raw, at)[0]
        place = at + 2 + 12 * n
        at = struct.unpack_from("<I", raw, place)[0]
        if not at:
            return place


@pytest.mark.parametrize("target", ["self", "first", "beyond", "odd"])
def test_a_broken_chain_of_pages_is_refused_at_once(
    whole: bytes, target: str, tmp_path: Path
) -> None:
    raw = bytearray(whole)
    place = last_pointer(whole)
    first = struct.unpack_from("<I", whole, 4)[0]
    value = {"self": place - 100, "first": first, "beyond": len(raw) + 10, "odd": len(raw) - 3}
    raw[place : place + 4] = struct.pack("<I", value[target])
    path = tmp_path / "cycle.tif"
    path.write_bytes(raw)
    start = time.perf_counter()
    error = refusal(lambda: read_volume(path))
    assert isinstance(error, NucleoscopeError)
    assert time.perf_counter() - start < 1.0
    if target == "first":
        assert "circle" in str(error)


def test_a_directory_that_points_at_itself_in_14_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.tif"
    path.write_bytes(b"II\x2a\x00" + struct.pack("<IHI", 8, 0, 8))
    assert isinstance(refusal(lambda: read_volume(path)), InputError)


def test_a_chain_that_ends_early_names_both_counts(whole: bytes, tmp_path: Path) -> None:
    raw = bytearray(whole)
    at = struct.unpack_from("<I", whole, 4)[0]
    for _ in range(4):  # follow to the fifth page and end the chain there
        at = struct.unpack_from("<I", whole, at + 2 + 12 * struct.unpack_from("<H", whole, at)[0])[
            0
        ]
    place = at + 2 + 12 * struct.unpack_from("<H", whole, at)[0]
    raw[place : place + 4] = bytes(4)
    path = tmp_path / "short.ome.tif"
    path.write_bytes(raw)
    with pytest.raises(
        InputError, match=r"5 pages but its OME-TIFF text declares 8.*--allow-short"
    ):
        read_volume(path)
    volume = read_volume(path, allow_short=True)
    assert volume.shape == (2, 24, 30)
    assert any("first 2 slices" in note for note in volume.notes)


def test_a_plain_stack_that_lost_its_tail_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    data = np.random.default_rng(2).integers(0, 255, (6, 64, 64)).astype(np.uint8)
    tifffile.imwrite(path, data, metadata=None, compression="zlib", photometric="minisblack")
    raw = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", raw, 4)[0]
    place = first + 2 + 12 * struct.unpack_from("<H", raw, first)[0]
    raw[place : place + 4] = bytes(4)
    path.write_bytes(raw)
    with pytest.raises(InputError, match="chain of pages is broken"):
        read_volume(path, axes="YX")


def claim(path: Path, width: int, height: int, samples: int = 1, compression: int = 8) -> None:
    """A small file whose only page claims to be huge."""
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression),
        (262, 3, 1, 1), (273, 4, 1, 200), (277, 3, 1, samples), (278, 4, 1, height or 1),
        (279, 4, 1, 28_000),
    ]  # fmt: skip
    raw = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    raw += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    path.write_bytes(raw.ljust(200, b"\0") + bytes(28_000))


@pytest.mark.parametrize(
    ("width", "height", "samples", "compression"),
    [
        (60_000, 60_000, 1, 8),
        (60_000, 60_000, 1, 1),
        (60_000, 60_000, 1, 5),
        (60_000, 60_000, 1, 32773),
        (1 << 31, 1 << 31, 1, 50000),
        (60_000, 60_000, 65_535, 8),
        (0, 100, 1, 8),
        (100, 0, 1, 8),
        (100, 100, 0, 8),
    ],
)
def test_a_huge_or_empty_claim_is_refused_before_allocation(
    width: int, height: int, samples: int, compression: int, tmp_path: Path
) -> None:
    path = tmp_path / "claim.tif"
    claim(path, width, height, samples, compression)
    tracemalloc.start()
    try:
        error = refusal(lambda: read_volume(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, InputError | UnsafeInputError)
    assert peak < 50e6


@pytest.mark.parametrize("codec", [None, "zlib", "lzw", "zstd", "lzma", "packbits"])
def test_a_strip_that_inflates_to_more_than_its_page_claims_is_refused(
    codec: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "narrow.tif"
    data = np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)
    tifffile.imwrite(path, data, metadata=None, compression=codec, photometric="minisblack")
    raw = bytearray(path.read_bytes())
    at = struct.unpack_from("<I", raw, 4)[0] + 2
    for i in range(struct.unpack_from("<H", raw, at - 2)[0]):
        if struct.unpack_from("<H", raw, at + 12 * i)[0] == 256:
            raw[at + 12 * i + 8 : at + 12 * i + 12] = struct.pack("<I", 39)
    path.write_bytes(raw)
    assert isinstance(refusal(lambda: read_volume(path)), InputError)


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE x [<!ENTITY a "b">]>',
        "<!DOCTYPE OME SYSTEM 'http://evil.test/x.dtd'>",
        '<!doctype x [<!entity % a "b">]>',
    ],
)
def test_an_ome_file_with_a_document_type_is_refused(
    declaration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    path = tmp_path / "laughs.ome.tif"
    write_ome_tiff(path, Volume(np.zeros((1, 2, 8, 8), np.uint8), ("a",)))
    with tifffile.TiffFile(path) as tif:
        text = tif.pages[0].description
    evil = text.replace("<OME", declaration + "<OME", 1)
    data = np.zeros((2, 8, 8), np.uint8)
    tifffile.imwrite(path, data, description=evil.encode(), metadata=None, photometric="minisblack")
    for read in (read_volume, describe):
        assert isinstance(refusal(lambda read=read: read(path)), UnsafeInputError)
