from __future__ import annotations

import contextlib
import io
import json
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.errors import InputError, NucleoscopeError, ResourceError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.io.guard import Limits, parse_json, parse_xml, read_zip

LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'


# XML


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32",
                                      "latin-1", "utf-8-sig"])  # fmt: skip
def test_a_document_type_is_refused_in_any_encoding(encoding: str) -> None:
    with pytest.raises(UnsafeInputError):
        parse_xml(LAUGHS.encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "utf-8-sig"])
def test_plain_xml_is_read_in_usual_encodings(encoding: str) -> None:
    assert parse_xml("<a b='µm'/>".encode(encoding)).get("b") == "µm"


def test_a_declared_encoding_is_honoured_and_an_odd_one_refused() -> None:
    declared = '<?xml version="1.0" encoding="{}"?><a b="µ"/>'
    assert parse_xml(declared.format("ISO-8859-1").encode("latin-1")).get("b") == "µ"
    with pytest.raises(UnsafeInputError, match="utf-7"):
        parse_xml(declared.format("UTF-7").encode("ascii", "ignore"))


@pytest.mark.parametrize(
    "text", ["<!ENTITY a 'b'>", "<! DOCTYPE x>", "<!doctype x>", "<!ELEMENT a>"]
)
def test_every_spelling_of_a_declaration_is_refused(text: str) -> None:
    with pytest.raises(UnsafeInputError):
        parse_xml(f"<a/>{text}")


def test_deep_and_large_xml_is_refused_and_the_limit_named() -> None:
    with pytest.raises(UnsafeInputError, match="xml_depth"):
        parse_xml("<a>" * 100_000)
    with pytest.raises(UnsafeInputError, match=r"Limits\(xml_bytes="):
        parse_xml("<a/>", limits=Limits(xml_bytes=3))


def test_damaged_xml_names_the_file() -> None:
    with pytest.raises(InputError, match=r"x\.xml.*not well formed"):
        parse_xml("<a><b></a>", where="x.xml")
    with pytest.raises(InputError, match="not valid text"):
        parse_xml(b"<a>\xff\xfe</a>")


@settings(max_examples=50)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_text_makes_the_xml_gate_raise_anything_else(text: bytes | str) -> None:
    with contextlib.suppress(NucleoscopeError):
        parse_xml(text)


# JSON


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "-Infinity", "1e999", "[1e400]", "9" * 100_000]
)
def test_numbers_that_are_no_coordinates_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_json(text)


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_depth_is_limited_before_parsing(bracket: str) -> None:
    with pytest.raises(UnsafeInputError, match=r"65 json depth exceed the limit of 64"):
        parse_json(bracket * 65)
    with pytest.raises(UnsafeInputError):
        parse_json(bracket * 1_000_000)
    assert parse_json("[" * 64 + "]" * 64)


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    assert parse_json(json.dumps(["[" * 500, '\\"[[' * 99])) == ["[" * 500, '\\"[[' * 99]


def test_an_unfinished_string_takes_linear_time() -> None:
    with pytest.raises(InputError):
        parse_json('"' + "a\\" * 1_000_000)


def test_damaged_json_is_one_sentence() -> None:
    for raw in (b"", b"{", b"\xff", b"[1,]", b"nul"):
        with pytest.raises(InputError):
            parse_json(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=50)
@given(json_values)
def test_what_json_writes_is_read_back(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


def test_written_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(NucleoscopeError):
        guard.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []
    guard.write_json(tmp_path / "a.json", {"µ": [1]})
    assert guard.read_json(tmp_path / "a.json") == {"µ": [1]}


# Archives


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", "a/../../b", "C:\\a", "\\\\host\\a", "..\\a"]
)
def test_an_entry_that_leaves_the_archive_is_refused(name: str) -> None:
    with pytest.raises(UnsafeInputError, match="archive"):
        read_zip(archive((name, b"x")), "a.zip")


def test_links_and_repeated_names_are_refused() -> None:
    with pytest.raises(UnsafeInputError):
        read_zip(archive((link(), b"/etc/passwd")), "a.zip")
    with pytest.raises(UnsafeInputError):
        read_zip(archive(("a.roi", b"x"), ("A.ROI", b"y")), "a.zip")


def test_a_bomb_is_counted_while_it_inflates() -> None:
    with pytest.raises(UnsafeInputError, match="inflates"):
        read_zip(archive(("a.roi", bytes(30_000_000))), "a.zip")
    with pytest.raises(UnsafeInputError, match="entries"):
        read_zip(archive(("a", b""), ("b", b"")), "a.zip", Limits(entries=1))


def test_a_lying_size_or_a_cut_archive_is_refused() -> None:
    raw = bytearray(archive(("a.roi", b"x" * 1000)))
    at = raw.rfind(b"PK\x01\x02")
    raw[at + 24 : at + 28] = (10).to_bytes(4, "little")
    for data in (bytes(raw), bytes(raw[:40])):
        with pytest.raises(InputError):
            read_zip(data, "a.zip")


def test_only_files_of_the_suffix_are_inflated() -> None:
    data = archive(("a.roi", b"x"), ("b.tif", bytes(30_000_000)), ("__MACOSX/._a.roi", b"z"))
    assert read_zip(data, "a.zip", suffix=".roi") == {"a.roi": b"x"}


# The rest


def test_whatever_a_decoder_raises_becomes_ours(tmp_path: Path) -> None:
    for error, ours in (
        (ZeroDivisionError("x\ny"), InputError),
        (KeyError("x"), InputError),
        (MemoryError(), ResourceError),
        (FileNotFoundError(), InputError),
        (PermissionError(), InputError),
    ):
        with pytest.raises(ours) as caught, guard.reading("a.tif"):
            raise error
        assert "a.tif" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_limit_says_its_name_and_how_to_raise_it() -> None:
    with pytest.raises(UnsafeInputError, match=r"a\.tif: 12 pages exceed the limit of 5.*pages=12"):
        Limits(pages=5).check("pages", 12, "a.tif")


def test_memory_that_is_not_there_is_a_sentence() -> None:
    guard.check_memory(1000, "a")
    with pytest.raises(ResourceError, match="GiB"):
        guard.check_memory(1 << 60, "a")


def test_a_folders_hash_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    first = guard.sha256_file(tmp_path)
    (tmp_path / "b").write_text("3")
    second = guard.sha256_file(tmp_path)
    (tmp_path / "b").rename(tmp_path / "c")
    assert len({first, second, guard.sha256_file(tmp_path)}) == 3
    with pytest.raises(InputError):
        guard.sha256_file(tmp_path / "absent")
