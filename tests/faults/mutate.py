"""Reads damaged copies of small TIFF files and prints, as JSON, what came of each.

Run as a child process: ``python mutate.py SEED COUNT FOLDER``. It limits its own memory and the
time of each read, so that a hang or an allocation shows as a finding and not as a stuck test.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import struct
import sys
import traceback
from pathlib import Path

import numpy as np
import tifffile

from nucleoscope.errors import NucleoscopeError
from nucleoscope.io.images import read_volume

SECONDS, BYTES = 10, 3 << 30
Z, C, Y, X = 6, 2, 40, 36

#: Texts whose value nothing else in the file repeats: an edit there is another declaration.
VALUES = re.compile(
    rb'PhysicalSize[XYZ](?:Unit)?="[^"]*"|spacing=[^\n]*\n|unit=[^\n]*\n|"shape": \[[^\]]*\]'
    rb'|"axes": "[A-Z]*"'
)


def stack(dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(7)
    smooth = np.add.outer(np.arange(Y), np.arange(X))[None, None] + rng.integers(0, 9, (Z, C, Y, X))
    return smooth.astype(dtype)


def write_seeds(folder: Path) -> list[tuple[str, bytes, dict]]:
    ome = {
        "axes": "ZCYX", "Channel": {"Name": ["LT", "DAPI"]}, "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 1.5, "PhysicalSizeZUnit": "µm",
    }  # fmt: skip
    nm = {k: v * 1000 if isinstance(v, float) else v for k, v in ome.items()}
    nm |= {f"PhysicalSize{a}Unit": "nm" for a in "XYZ"}
    ij = {"axes": "ZCYX", "spacing": 1.5, "unit": "um"}
    rgb = stack()[:, :1, :, :, None].repeat(3, axis=4)[:, 0]
    plans = {
        "ome-zlib": (stack(), {"ome": True, "metadata": ome, "compression": "zlib"}, {}),
        "ome-none": (stack("uint16"), {"ome": True, "metadata": ome}, {}),
        "ome-big": (stack(), {"ome": True, "metadata": ome, "bigtiff": True}, {}),
        "ome-be": (
            stack("uint16"),
            {"ome": True, "metadata": ome, "byteorder": ">", "compression": "zlib"},
            {},
        ),
        "ome-lzw": (stack(), {"ome": True, "metadata": nm, "compression": "lzw"}, {}),
        "ome-zstd-tiles": (
            stack("uint16"),
            {"ome": True, "metadata": ome, "compression": "zstd", "tile": (16, 16)},
            {},
        ),
        "ome-predictor": (
            stack("uint16"),
            {"ome": True, "metadata": ome, "compression": "zlib", "predictor": True},
            {},
        ),
        "ome-rgb": (
            rgb,
            {"ome": True, "metadata": ome | {"axes": "ZYXS", "Channel": {}}, "photometric": "rgb"},
            {},
        ),
        "imagej": (stack("uint16"), {"imagej": True, "metadata": ij, "resolution": (2, 2)}, {}),
        "imagej-z": (
            stack()[:, 0],
            {"imagej": True, "metadata": ij | {"axes": "ZYX"}, "resolution": (2, 2)},
            {},
        ),
        "shaped": (stack(), {"metadata": {"axes": "ZCYX"}, "compression": "zlib"}, {}),
        "plain": (
            stack()[:, 0],
            {"metadata": None, "compression": "zlib"},
            {"axes": "ZYX", "spacing": (1.5, 0.5, 0.5)},
        ),
    }
    seeds = []
    for name, (data, how, call) in plans.items():
        path = folder / f"{name}.tif"
        how = {"photometric": "minisblack", "rowsperstrip": 16} | how
        if "tile" in how:
            del how["rowsperstrip"]
        tifffile.imwrite(path, data, **how)
        seeds.append((name, path.read_bytes(), call))
        path.unlink()
    return seeds


def directories(data: bytes) -> list[tuple[int, int, int]]:
    """Offset, number of entries and entry size of each directory."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    head, count, entry, pointer = (8, "Q", 20, "Q") if big else (4, "H", 12, "I")
    at = struct.unpack_from(order + pointer, data, head)[0]
    found = []
    while at:
        n = struct.unpack_from(order + count, data, at)[0]
        found.append((at + struct.calcsize(count), n, entry))
        at = struct.unpack_from(order + pointer, data, at + struct.calcsize(count) + n * entry)[0]
    return found


def mutate(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    raw = bytearray(data)
    kind = str(rng.choice(["flip", "header", "tag", "cut", "splice", "chain", "zero"]))
    if kind in ("flip", "header"):
        top = len(raw) if kind == "flip" else min(len(raw), 2200)
        for _ in range(int(rng.integers(1, 5))):
            raw[int(rng.integers(top))] ^= 1 << int(rng.integers(8))
    elif kind == "tag":
        at, n, size = directories(data)[int(rng.integers(len(directories(data))))]
        start = at + int(rng.integers(n)) * size
        width = int(rng.choice([1, 2, 4]))
        place = start + int(rng.integers(0, size - width + 1))
        value = int(rng.choice([0, 1, 2, 255, 65535, int(rng.integers(1 << 31)), (1 << 32) - 1]))
        raw[place : place + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    elif kind == "cut":
        raw = raw[: int(rng.integers(len(raw)))]
    elif kind == "splice":
        a, b, n = (int(v) for v in rng.integers(0, [len(raw), len(raw), 400]))
        chunk = raw[a : a + n]
        if rng.random() < 0.5:
            del raw[b : b + n]
        else:
            raw[b:b] = chunk
    elif kind == "chain":
        at, n, size = directories(data)[int(rng.integers(len(directories(data))))]
        width = 8 if size == 20 else 4
        other = directories(data)[int(rng.integers(len(directories(data))))][0]
        value = int(rng.choice([0, other - 2, len(raw), len(raw) * 2]))
        order = "little" if data[:2] == b"II" else "big"
        raw[at + n * size : at + n * size + width] = value.to_bytes(width, order)
    else:
        a, n = int(rng.integers(len(raw))), int(rng.integers(1, 300))
        raw[a : a + n] = bytes(len(raw[a : a + n]))
    return kind, bytes(raw)


def declares_anew(before: bytes, after: bytes) -> bool:
    """True when a value that nothing repeats reads differently: its text, or a resolution tag."""
    texts = VALUES.findall(before) != VALUES.findall(after)
    return texts or resolution(before) != resolution(after)


def resolution(data: bytes) -> list[bytes]:
    """Entries and values of the resolution tags (282, 283, 296) of the first page."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        at, n, size = directories(data)[0]
    except (struct.error, IndexError):
        return []
    found = []
    for i in range(n):
        entry = data[at + i * size : at + (i + 1) * size]
        if struct.unpack_from(order + "H", entry)[0] in (282, 283, 296):
            place = struct.unpack_from(order + ("Q" if size == 20 else "I"), entry, size // 2 + 2)
            found.append(entry + data[place[0] : place[0] + 8])
    return found


def outcome(path: Path, call: dict, whole: tuple, before: bytes, after: bytes) -> dict:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        volume = read_volume(path, **call)
    except NucleoscopeError as error:
        one_line = "\n" not in str(error) and len(str(error)) < 600
        return {"what": "refused" if one_line else "long message", "text": str(error)}
    except BaseException:
        return {"what": "crash", "text": traceback.format_exc()[-1500:]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    shape = (volume.data.shape, str(volume.data.dtype), volume.is_rgb)
    if shape != whole[0]:
        return {"what": "other shape", "text": f"{shape} for {whole[0]}"}
    if volume.spacing not in (whole[1], None) and not np.allclose(volume.spacing, whole[1]):
        declared = declares_anew(before, after)
        return {
            "what": "declared scale" if declared else "other scale",
            "text": f"{volume.spacing} for {whole[1]}",
        }
    return {"what": "accepted", "text": ""}


def main() -> None:
    seed, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    seeds = write_seeds(folder)
    path = folder / "mutant.ome.tif"
    wholes = []
    for name, data, call in seeds:
        path.write_bytes(data)
        volume = read_volume(path, **call)
        wholes.append(((volume.data.shape, str(volume.data.dtype), volume.is_rgb), volume.spacing))
        assert volume.shape[0] == Z, name
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("10 s")))
    results = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        at = number % len(seeds)
        name, data, call = seeds[at]
        kind, raw = mutate(data, rng)
        if raw == data:
            continue
        path.write_bytes(raw)
        result = outcome(path, call, wholes[at], data, raw)
        results.append({"number": number, "seed": name, "kind": kind, **result})
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
