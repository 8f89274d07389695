"""PNG and JPEG: brightfield tiles and single fluorescence planes."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs

from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.raw import RGB, ImageInfo, RawImage, Request, to_um

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


def is_raster(path: Path, head: bytes) -> bool:
    """True for the first bytes of a PNG or a JPEG file."""
    return head.startswith((PNG, JPEG))


def _png_header(data: bytes, where: str) -> tuple[int, int, int, int]:
    """Height, width, samples and bits from IHDR, after walking the chunks to IEND.

    PNG specification (ISO/IEC 15948), section 5: length, name, data, checksum.
    """
    at, names = len(PNG), []
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        names.append(data[at + 4 : at + 8])
        at += 12 + length
        if names[-1] == b"IEND":
            break
    if not names or names[0] != b"IHDR" or names[-1] != b"IEND" or at > len(data):
        raise InputError(f"{where}: the PNG ends before its last chunk; it looks cut short.")
    width, height, bits, color = struct.unpack(">IIBB", data[16:26])
    if color not in _PNG_SAMPLES or not width or not height:
        raise InputError(f"{where}: the PNG header is damaged.")
    return height, width, _PNG_SAMPLES[color], bits


def _jpeg_header(data: bytes, where: str) -> tuple[int, int, int, int]:
    """Height, width, samples and bits from the start-of-frame marker (ITU-T T.81, B.2.2)."""
    if data.rstrip(b"\x00")[-2:] != b"\xff\xd9":
        raise InputError(f"{where}: the JPEG has no end marker; it looks cut short.")
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, samples = struct.unpack(">BHHB", data[at + 4 : at + 10])
            if height and width:
                return height, width, samples, bits
            break
        at += 2 + length
    raise InputError(f"{where}: the JPEG has no frame header; it is damaged.")


def _png_scale(data: bytes) -> tuple[float, float, float] | None:
    """Pixel size from the pHYs chunk where it can be a microscope's (10 um or less)."""
    at = data.find(b"pHYs", 0, 4096)
    if at < 0 or at + 13 > len(data):
        return None
    x, y, unit = struct.unpack(">IIB", data[at + 4 : at + 13])
    if unit != 1 or not x or not y:
        return None
    um = (to_um(1 / y, "m") or 0.0, to_um(1 / x, "m") or 0.0)
    return (1.0, *um) if min(um) >= 0.02 and max(um) <= 10.0 else None


def _header(data: bytes, where: str) -> tuple[int, int, int, int]:
    """Height, width, samples and bits of either format."""
    return _png_header(data, where) if data.startswith(PNG) else _jpeg_header(data, where)


def read(path: Path, request: Request) -> RawImage:
    """Read a PNG or JPEG as one slice: RGB colour, or one grey channel.

    Raises
    ------
    InputError
        Cut short, damaged, or neither grey nor colour.
    """
    where = str(path)
    data = guard.read_bytes(path, limits=request.limits)
    with guard.reading(path):
        height, width, samples, _ = _header(data, where)
        request.limits.check("pixels", height * width * samples, where)
        decode = imagecodecs.png_decode if data.startswith(PNG) else imagecodecs.jpeg_decode
        pixels = decode(data)
        if pixels.shape[:2] != (height, width):
            raise InputError(f"{where}: it decodes to another size than it claims.")
    pixels = pixels.reshape(height, width, -1)
    is_rgb = pixels.shape[2] >= 3
    notes = (f"{where}: its alpha channel is left out.",) if pixels.shape[2] in (2, 4) else ()
    kept = pixels[:, :, : 3 if is_rgb else 1].transpose(2, 0, 1)[:, None]
    names = RGB if is_rgb else None
    return RawImage(kept, names, _png_scale(data), is_rgb, is_2d=True, notes=notes)


def describe(path: Path, request: Request) -> ImageInfo:
    """What the header of a PNG or JPEG says."""
    data = guard.read_bytes(path, limits=request.limits)
    with guard.reading(path):
        height, width, samples, bits = _header(data, str(path))
    names = RGB if samples >= 3 else ("ch0",)
    kind = "PNG" if data.startswith(PNG) else "JPEG"
    return ImageInfo(
        kind, (len(names), 1, height, width), "YXS" if samples >= 3 else "YX", names,
        _png_scale(data), "uint16" if bits > 8 else "uint8",
    )  # fmt: skip
