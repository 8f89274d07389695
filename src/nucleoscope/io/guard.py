"""The one gate between nucleoscope and files: limits, XML, JSON, archives, safe writing.

No other module opens a file for writing, parses XML or JSON, loads an array file, opens an archive
or removes a folder; a test walks the source and fails where one does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import gzip
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import socket
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from nucleoscope.errors import (
    CallError,
    InputError,
    NucleoscopeError,
    ResourceError,
    UnsafeInputError,
)

Element = ET.Element

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How much a file may ask of us before it is refused.

    Parameters
    ----------
    file_bytes
        Size of an image file that is read whole.
    text_bytes
        Size of a JSON, GeoJSON, CSV or ROI file.
    xml_bytes
        Size of an XML text.
    json_depth, xml_depth
        Nesting of JSON and of XML.
    pixels
        Values in one image, channels and slices together.
    pages
        Pages of a TIFF file.
    rows
        Rows of a point or nucleus table.
    vertices
        Vertices in an outline file.
    entries
        Files in an archive.

    Examples
    --------
    >>> Limits(json_depth=8).json_depth
    8
    """

    file_bytes: int = 256 << 30
    text_bytes: int = 2 << 30
    xml_bytes: int = 64 * MIB
    json_depth: int = 64
    xml_depth: int = 256
    pixels: int = 1 << 36
    pages: int = 1_000_000
    rows: int = 20_000_000
    vertices: int = 100_000_000
    entries: int = 100_000

    def check(self, name: str, found: int, where: str) -> None:
        """Raise UnsafeInputError when ``found`` exceeds the limit called ``name``."""
        allowed = getattr(self, name)
        if found > allowed:
            raise UnsafeInputError(
                f"{where}: {found:,} {name.replace('_', ' ')} exceed the limit of {allowed:,}; "
                f"if you trust the file, pass limits=Limits({name}={found})."
            )


DEFAULT_LIMITS = Limits()


# Reading ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn whatever a decoder raises while it reads ``path`` into one of our errors.

    Damaged files make TIFF, Zarr and codec libraries raise more than a dozen unrelated classes,
    so everything that is not ours is translated here.

    Raises
    ------
    InputError
        The file is absent, is not readable, or cannot be decoded.
    ResourceError
        Memory ran out.
    """
    try:
        yield
    except NucleoscopeError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except PermissionError:
        raise InputError(f"{path}: it may not be read by this user; check its rights.") from None
    except MemoryError:
        raise ResourceError(
            f"{path}: it does not fit into memory; use a smaller image or a machine with more."
        ) from None
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(
            f"{path}: it cannot be decoded ({what}); the file looks damaged."
        ) from error


def read_bytes(
    path: Path | str, *, limits: Limits = DEFAULT_LIMITS, kind: str = "text_bytes"
) -> bytes:
    """Read a whole file after checking its size against the limit called ``kind``.

    Raises
    ------
    InputError
        The file is absent or not a file.
    UnsafeInputError
        It is larger than the limit.
    """
    path = Path(path)
    with reading(path):
        limits.check(kind, path.stat().st_size, str(path))
        return path.read_bytes()


def check_memory(n_bytes: int, where: str) -> None:
    """Raise ResourceError when ``n_bytes`` more do not fit into the memory that is free."""
    free = available_memory()
    if free is not None and n_bytes > free:
        raise ResourceError(
            f"{where}: it needs {n_bytes / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are "
            "free; close other programs or cut the image."
        )


def available_memory() -> int | None:
    """Free memory in bytes, or None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else None


# XML --------------------------------------------------------------------------------------------

_BOMS = {
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_BARE = {b"<\x00": "utf-16-le", b"\x00<": "utf-16-be"}
_ENCODINGS = {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252"}
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")


def _decode_xml(data: bytes, where: str) -> str:
    """Bytes to text by byte order mark, by pattern, or by the declared encoding."""
    for bom, encoding in sorted(_BOMS.items(), key=lambda item: -len(item[0])):
        if data.startswith(bom):
            return data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    if data[:2] in _BARE:
        return data.decode(_BARE[data[:2]])
    declared = re.match(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)", data[:300])
    encoding = declared[1].decode("ascii").lower() if declared else "utf-8"
    if encoding not in _ENCODINGS:
        raise UnsafeInputError(f"{where}: XML in the encoding {encoding!r} is not read; use UTF-8.")
    return data.decode(encoding)


class _BoundedBuilder(ET.TreeBuilder):
    """A tree builder that counts nesting."""

    def __init__(self, depth: int, where: str) -> None:
        super().__init__()
        self._left, self._depth, self._where = depth, depth, where

    def start(self, tag: Any, attrs: Any, /) -> Element:
        """Open an element; refuse one nested too deeply."""
        self._left -= 1
        if self._left < 0:
            raise UnsafeInputError(
                f"{self._where}: XML nested deeper than {self._depth} levels is refused; "
                "if you trust the file, raise Limits(xml_depth=...)."
            )
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        """Close an element."""
        self._left += 1
        return super().end(tag)


def parse_xml(text: str | bytes, *, where: str = "XML", limits: Limits = DEFAULT_LIMITS) -> Element:
    """Parse XML that came with a file, after refusing every document type and entity declaration.

    Parameters
    ----------
    text
        The document; bytes may be UTF-8, UTF-16, ASCII or Latin-1.
    where
        Named in the message.

    Raises
    ------
    UnsafeInputError
        A DTD, an entity, an unusual encoding, more than ``limits.xml_bytes``, or too deep.
    InputError
        Not well formed.

    Examples
    --------
    >>> parse_xml("<a><b/></a>")[0].tag
    'b'
    """
    limits.check("xml_bytes", len(text), where)
    try:
        decoded = _decode_xml(text, where) if isinstance(text, bytes) else text.lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: the XML is not valid text ({error.reason}).") from None
    if re.search(r"<!\s*(DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", decoded, re.IGNORECASE):
        raise UnsafeInputError(
            f"{where}: XML with a document type or entities is refused; remove the <!DOCTYPE ...>."
        )
    parser = ET.XMLParser(target=_BoundedBuilder(limits.xml_depth, where))  # noqa: S314
    try:
        parser.feed(_DECLARATION.sub("", decoded.strip("\x00 \r\n\t")))
        root: Element = parser.close()
    except ET.ParseError as error:
        raise InputError(f"{where}: the XML is not well formed ({error}).") from None
    return root


# JSON -------------------------------------------------------------------------------------------

#: Digits as 0, the sign of an exponent as e, all else as a blank.
_DIGITS = bytes(
    ord("0") if chr(code) in "0123456789" else ord("e") if chr(code) in "eE" else ord(" ")
    for code in range(256)
)
_STRING = re.compile(rb'"(?>[^"\\]+|\\.)*+"', re.DOTALL)


def _json_depth(bare: bytes) -> int:
    """Deepest nesting of brackets of a document without its strings."""
    codes = np.frombuffer(bare, dtype=np.uint8)
    opens = (codes == ord("[")) | (codes == ord("{"))
    closes = (codes == ord("]")) | (codes == ord("}"))
    at = np.flatnonzero(opens | closes)
    return int(np.cumsum(np.where(opens[at], 1, -1)).max(initial=0))


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Without Python's search for cycles: JSON has none, and looking takes twice the parsing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def parse_json(data: bytes | str, *, where: str = "JSON", limits: Limits = DEFAULT_LIMITS) -> Any:
    """Parse JSON strictly: bounded depth, finite numbers, integers of at most 20 digits.

    Raises
    ------
    UnsafeInputError
        Too large or nested too deeply.
    InputError
        Not JSON, not UTF-8, NaN, Infinity, or a number too large.

    Examples
    --------
    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    raw = data.encode("utf-8") if isinstance(data, str) else data
    limits.check("text_bytes", len(raw), where)
    bare = _STRING.sub(b"", raw)  # brackets and numbers stand outside strings
    limits.check("json_depth", _json_depth(bare), where)

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise InputError(f"{where}: the number {text[:30]} is not finite.")
        return value

    def integer(text: str) -> int:
        if len(text) > 20:
            raise InputError(f"{where}: an integer of {len(text)} digits is not a coordinate.")
        return int(text)

    # A call for every number is slow, and only these can be infinite or too long.
    hooks: dict[str, Any] = {}
    digits = bare.translate(_DIGITS, b"+")
    if b"0" * 21 in digits or b"e000" in digits:
        hooks = {"parse_float": number, "parse_int": integer}
    try:
        with collection_paused():
            return json.loads(raw.decode("utf-8-sig"), parse_constant=number, **hooks)
    except UnicodeDecodeError:
        raise InputError(f"{where}: it is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: it is not valid JSON ({error}).") from None


def read_json(path: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Read and strictly parse a JSON file; see ``parse_json``."""
    return parse_json(read_bytes(path, limits=limits), where=str(path), limits=limits)


#: First bytes of what Java wrote with its own serialisation, which runs code when it is read.
JAVA = b"\xac\xed\x00\x05"


def refuse_java(head: bytes, where: str) -> None:
    """Say what to do instead of reading QuPath's ``.qpdata``.

    Raises
    ------
    InputError
        The first bytes are Java's serialisation.
    """
    if head.startswith(JAVA):
        raise InputError(
            f"{where}: it is Java's own serialisation (QuPath's .qpdata), which is not read; "
            "export the objects in QuPath with File > Export objects as GeoJSON."
        )


# Archives ---------------------------------------------------------------------------------------

ZIP = b"PK\x03\x04"


def read_zip(
    data: bytes, where: str, limits: Limits = DEFAULT_LIMITS, *, suffix: str = ""
) -> dict[str, bytes]:
    """The files of a zip archive that end in ``suffix``, read in memory, never put on disk.

    Announced sizes are the sender's words, so bytes are counted while they inflate.

    Raises
    ------
    UnsafeInputError
        Names that leave the archive, links, repeated names, encryption, too many or too large
        files.
    InputError
        Not a zip archive, or damaged.
    """
    members: dict[str, bytes] = {}
    seen: set[str] = set()
    left = min(limits.text_bytes, 100 * len(data) + MIB)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            limits.check("entries", len(entries), where)
            for entry in entries:
                _check_entry(entry, seen, where)
                name = entry.filename.casefold()
                seen.add(name)
                if entry.is_dir() or not name.endswith(suffix) or name.startswith("__macosx/"):
                    continue
                with archive.open(entry) as file:
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise UnsafeInputError(f"{where}: the archive inflates beyond its limit.")
                members[entry.filename] = content
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError) as error:
        raise InputError(f"{where}: the zip archive is damaged ({error}).") from None
    return members


def _check_entry(entry: zipfile.ZipInfo, seen: Container[str], where: str) -> None:
    """Refuse an entry of an archive that is not a plain file inside it."""
    name = entry.filename
    parts = name.replace("\\", "/").split("/")
    kind = entry.external_attr >> 16 & 0o170000
    is_plain = kind in (0, 0o100000, 0o040000)
    leaves = ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0]
    if leaves or not is_plain or entry.flag_bits & 1 or name.casefold() in seen:
        raise UnsafeInputError(
            f"{where}: the archive entry {name[:80]!r} is refused (it leaves the archive, is a "
            "link, is encrypted, or repeats a name)."
        )


def zip_names(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """Names of the entries of a zip archive; none where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            limits.check("entries", len(archive.infolist()), str(path))
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


@contextlib.contextmanager
def unpacked(
    path: Path | str, *, limits: Limits = DEFAULT_LIMITS, only: Container[str] | None = None
) -> Iterator[Path]:
    """Unpack a zip archive into a temporary folder that is removed afterwards.

    Parameters
    ----------
    path
        The archive. Its bytes are counted while they inflate, up to 100 times its size.
    limits
        ``file_bytes`` and ``entries`` count.
    only
        File names whose content is wanted; the others become empty files.

    Raises
    ------
    UnsafeInputError
        As of ``read_zip``.
    InputError
        Damaged.
    ResourceError
        The disk is full.
    """
    path = Path(path)
    left = min(limits.file_bytes, 100 * path.stat().st_size + MIB)
    with tempfile.TemporaryDirectory(prefix="nucleoscope-") as name:
        folder = Path(name)
        seen: set[str] = set()
        try:
            with zipfile.ZipFile(path) as archive:
                limits.check("entries", len(archive.infolist()), str(path))
                for entry in archive.infolist():
                    _check_entry(entry, seen, str(path))
                    seen.add(entry.filename.casefold())
                    if not entry.is_dir():
                        wanted = only is None or PurePath(entry.filename).name in only
                        left = _unpack(archive, entry, folder, left, is_wanted=wanted)
                        if left < 0:
                            raise UnsafeInputError(
                                f"{path}: the archive inflates beyond its limit."
                            )
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
            raise InputError(f"{path}: the zip archive is damaged ({error}).") from None
        yield folder


def _unpack(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int, *, is_wanted: bool
) -> int:
    """One entry to disk, empty unless wanted; returns what is left of the allowed bytes."""
    target = folder.joinpath(*entry.filename.replace("\\", "/").split("/"))
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("wb") as out:
            while is_wanted and left >= 0 and (piece := source.read(MIB)):
                left -= len(piece)
                out.write(piece)
    return left


# Databases --------------------------------------------------------------------------------------

SQLITE = b"SQLite format 3\x00"


@contextlib.contextmanager
def sqlite(path: Path | str) -> Iterator[sqlite3.Connection]:
    """Open a SQLite database to read it: nothing in it may write, load or run anything.

    Views and triggers run without trust, no other database can be attached, and the file is
    opened as unchangeable, so that no journal is made beside it.

    Raises
    ------
    InputError
        Not a database, or damaged.
    """
    path = Path(path)
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    allowed = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_authorizer(
                lambda action, *_: sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY
            )
            yield connection
    except sqlite3.Error as error:
        raise InputError(f"{path}: the database cannot be read ({error}).") from None


# Writing ----------------------------------------------------------------------------------------

#: A folder that holds this file was written by us and may be replaced by us.
MARKER = ".written-by-nucleoscope"
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
_TEMP = re.compile(r"^\.(?P<name>.+)\.partial-(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-[0-9a-f]{8}$")
_written: set[Path] = set()  # what this process wrote: it may write those again


def _temp_beside(path: Path, kind: str = "partial") -> Path:
    """A hidden name in the same folder that carries host and process."""
    mark = f"{kind}-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name[:40]}.{mark}")


def _sync(path: Path) -> None:
    """Force a file or folder to disk."""
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) if path.is_dir() else os.O_RDONLY
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one sentence."""
    try:
        yield
    except NucleoscopeError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full:
            free = shutil.disk_usage(path.parent).free
            raise ResourceError(
                f"{path}: the disk is full ({free / 2**20:.0f} MiB free); make room and run again."
            ) from error
        raise ResourceError(
            f"{path}: it cannot be written ({error.strerror or error}); choose another place."
        ) from error


def _claim(path: Path, overwrite: bool, is_ours: bool) -> Path:
    """The absolute path, after refusing what belongs to the user."""
    path = path.absolute()
    target = path.resolve() if overwrite else path
    if os.path.lexists(target) and not (overwrite or is_ours or target in _written):
        raise CallError(
            f"{path}: it exists and was not written by this run; choose another name or pass "
            "overwrite=True (--overwrite)."
        )
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    return target


@contextlib.contextmanager
def atomic_write(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write; at the end it becomes ``path`` at once.

    Whatever stops the process, ``path`` holds either the old complete file or the new one: the
    new file is forced to disk, renamed over the old, and the folder is forced to disk.

    Parameters
    ----------
    path
        The file to write; its folder is made when absent.
    overwrite
        Replace a file that this process did not write itself.

    Raises
    ------
    CallError
        ``path`` exists, was not written by this process, and ``overwrite`` is False.
    ResourceError
        The disk is full or the place is not writable.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("complete")
    >>> [p.name for p in folder.iterdir()]
    ['a.txt']
    """
    target = _claim(Path(path), overwrite, is_ours=False)
    temp = _temp_beside(target)
    try:
        with _writing(target):
            yield temp
            _sync(temp)
            temp.replace(target)
            _written.add(target)
            _sync(target.parent)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def write_bytes(path: Path | str, data: bytes, *, overwrite: bool = False) -> None:
    """Write ``data`` to ``path`` through ``atomic_write``."""
    with atomic_write(path, overwrite=overwrite) as temp:
        temp.write_bytes(data)


def write_stream(
    path: Path | str, parts: Iterable[bytes], *, compress: bool = False, overwrite: bool = False
) -> None:
    """Write ``parts`` one after the other to ``path`` through ``atomic_write``, or as gzip."""
    with atomic_write(path, overwrite=overwrite) as temp, temp.open("wb") as plain:
        # Without a name and a time the same content gives the same file.
        packed = gzip.GzipFile("", "wb", 6, plain, mtime=0) if compress else None
        for part in parts:
            (packed or plain).write(part)
        if packed is not None:
            packed.close()


def write_zip(
    path: Path | str, entries: Iterable[tuple[str, bytes]], *, overwrite: bool = False
) -> None:
    """Write named entries as a zip archive through ``atomic_write``, without times."""
    with (
        atomic_write(path, overwrite=overwrite) as temp,
        zipfile.ZipFile(temp, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def write_text(path: Path | str, text: str, *, overwrite: bool = False) -> None:
    """Write UTF-8 ``text`` to ``path`` through ``atomic_write``."""
    write_bytes(path, text.encode("utf-8"), overwrite=overwrite)


def write_json(path: Path | str, value: Any, *, overwrite: bool = False) -> None:
    """Write ``value`` as indented JSON; NaN and infinity are refused."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise CallError(f"{path}: the value has no JSON form ({error}).") from None
    write_text(path, text + "\n", overwrite=overwrite)


@contextlib.contextmanager
def atomic_folder(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; at the end it becomes ``path`` in one step.

    The finished folder holds a marker file, by which a later run knows that it is ours.

    Raises
    ------
    CallError
        ``path`` exists, we did not write it, and ``overwrite`` is False.
    ResourceError
        The disk is full or the place is not writable.
    """
    path = Path(path)
    ours = (path / MARKER).is_file() and not path.is_symlink()
    target = _claim(path, overwrite, is_ours=ours)
    temp = _temp_beside(target)
    try:
        with _writing(target):
            temp.mkdir()
            yield temp
            (temp / MARKER).write_text("nucleoscope\n", encoding="ascii")
            for folder, _, files in os.walk(temp, topdown=False):
                for name in files:
                    _sync(Path(folder, name))
                _sync(Path(folder))
            _swap_in(temp, target)
            _written.add(target)
            _sync(target.parent)
    finally:
        _remove(temp)


def _remove(path: Path) -> None:
    """Remove a temporary of ours, file or folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _swap_in(temp: Path, target: Path) -> None:
    """Put ``temp`` at ``target``; what was there ends up at ``temp``."""
    if not os.path.lexists(target):
        temp.rename(target)
        return
    if _exchange(temp, target):
        return
    aside = _temp_beside(target, "aside")
    target.rename(aside)
    temp.rename(target)
    _remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically where the kernel can (Linux renameat2); False elsewhere."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here = -100  # AT_FDCWD
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), 2) == 0)


def sweep_stale_temps(folder: Path | str) -> list[Path]:
    """Remove temporaries that dead processes of this machine left in ``folder``.

    Only names that ``atomic_write`` and ``atomic_folder`` make are touched, never a complete
    output that was set aside.

    Returns
    -------
    list of Path
        What was removed.
    """
    removed = []
    for entry in Path(folder).iterdir():
        found = _TEMP.match(entry.name)
        if found and found["host"] == _HOST and not _is_alive(int(found["pid"])):
            _remove(entry)
            removed.append(entry)
    return removed


def _is_alive(pid: int) -> bool:
    """True when a process of that number exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file, or of a folder's files in name order, as hexadecimal.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "a")
    >>> _ = file.write_bytes(b"")
    >>> sha256_file(file)[:8]
    'e3b0c442'
    """
    path = Path(path)
    with reading(path):
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256()
        for entry in sorted(p for p in path.rglob("*") if p.is_file()):
            name = entry.relative_to(path).as_posix()
            total.update(f"{name}\0{sha256_file(entry)}\n".encode())
        return total.hexdigest()
