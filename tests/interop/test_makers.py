"""Leica's LIF through bioio's reader: no small real file may be passed on, so one is written here.

The container is Leica's: blocks of ``0x70, size, 0x2A``, the first an XML header in UTF-16, the
others pixels under a name. Of Nikon's ND2 there is no file to test with: its chunks are not public.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nucleoscope.errors import NucleoscopeError
from nucleoscope.io.images import describe, read_volume

pytestmark = pytest.mark.filterwarnings("default")

#: Micrometres per voxel, z, y, x.
SPACING = (0.5, 0.25, 0.2)
LUTS = ("Blue", "Green")


def _block(content: bytes) -> bytes:
    return struct.pack("<ii", 0x70, len(content)) + content


def _text(text: str) -> bytes:
    return b"\x2a" + struct.pack("<i", len(text)) + text.encode("utf-16-le")


def _xml(shape: tuple[int, int, int, int], itemsize: int) -> str:
    """Pixels as Leica stores them: the channels of a slice one after the other."""
    n_c, n_z, n_y, n_x = shape
    row, plane = n_x * itemsize, n_y * n_x * itemsize
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * itemsize}" '
        f'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="{LUTS[c]}" '
        f'IsLUTInverted="0" BytesInc="{c * plane}" BitInc="0"/>'
        for c in range(n_c)
    )
    sizes = [(1, n_x, SPACING[2], itemsize), (2, n_y, SPACING[1], row)]
    if n_z > 1:
        sizes.append((3, n_z, SPACING[0], n_c * plane))
    dimensions = "".join(
        f'<DimensionDescription DimID="{number}" NumberOfElements="{n}" Origin="0" '
        f'Length="{(n - 1) * um * 1e-6!r}" Unit="m" BytesInc="{step}" BitInc="0"/>'
        for number, n, um, step in sizes
    )
    size = n_c * n_z * plane
    return (
        '<LMSDataContainerHeader Version="2"><Element Name="set" Visibility="1" '
        'CopyOption="1" UniqueID="a"><Data/><Memory Size="0" MemoryBlockID="MemBlock_0"/><Children>'
        '<Element Name="plaque" Visibility="1" CopyOption="1" UniqueID="b"><Data><Image '
        f'TextDescription=""><ImageDescription><Channels>{channels}</Channels><Dimensions>'
        f"{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{size}" MemoryBlockID="MemBlock_1"/></Element>'
        "</Children></Element></LMSDataContainerHeader>"
    )


def lif(data: NDArray[np.generic]) -> bytes:
    """A LIF file of one image ``(C, Z, Y, X)``."""
    pixels = np.ascontiguousarray(np.moveaxis(data, 0, 1)).tobytes()
    head = _block(_text(_xml(data.shape, data.dtype.itemsize)))  # type: ignore[arg-type]
    empty = b"\x2a" + struct.pack("<q", 0) + _text("MemBlock_0")
    name = b"\x2a" + struct.pack("<q", len(pixels)) + _text("MemBlock_1")
    return head + _block(empty) + _block(name) + pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("n_z", [1, 4])
def test_a_lif_is_read_with_its_axes_and_scale(tmp_path: Path, dtype: type, n_z: int) -> None:
    pytest.importorskip("bioio_lif")
    data = np.random.default_rng(0).integers(0, 250, (2, n_z, 5, 7)).astype(dtype)
    path = tmp_path / "a.lif"
    path.write_bytes(lif(data))
    volume = read_volume(path)
    assert (volume.data == data).all()
    assert volume.data.dtype == dtype
    assert volume.spacing is not None
    assert volume.spacing[1:] == pytest.approx(SPACING[1:], rel=1e-6)
    if n_z > 1:
        assert volume.spacing[0] == pytest.approx(SPACING[0], rel=1e-6)
    info = describe(path)
    assert info.format == "Leica LIF"
    assert info.shape == data.shape
    assert info.channels == volume.channels


@pytest.mark.parametrize("cut", [20, 200, 1500, -3])
def test_a_lif_cut_short_is_one_sentence(tmp_path: Path, cut: int) -> None:
    pytest.importorskip("bioio_lif")
    path = tmp_path / "a.lif"
    whole = lif(np.zeros((2, 4, 5, 7), np.uint16))
    path.write_bytes(whole[:cut])
    with pytest.raises(NucleoscopeError) as caught:
        read_volume(path)
    assert "a.lif" in str(caught.value)
    assert "\n" not in str(caught.value)
