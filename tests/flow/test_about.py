"""What a file is, and what this machine can do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nucleoscope.errors import InputError
from nucleoscope.flow.about import doctor, info
from nucleoscope.io.guard import DEFAULT_LIMITS

Own = Callable[..., Path]


def test_an_image_is_described_from_its_header(stacks: list[Path]) -> None:
    facts = info(stacks[0])
    assert facts["kind"] == "image"
    text = json.dumps(facts, default=str)
    for piece in ("LT", "DAPI", "96", "uint8"):
        assert piece in text


@pytest.mark.parametrize("name", ["instant", "light"])
def test_a_model_is_described(request: pytest.FixtureRequest, name: str) -> None:
    facts = info(request.getfixturevalue(name))
    assert facts["kind"] == "model"
    assert facts["recipe"] == {"instant": "classical", "light": "lecl"}[name]
    assert facts["channels"] == "LT, DAPI"
    assert "history" not in facts
    assert facts["nucleus radius px"] > 1
    json.dumps(facts, allow_nan=False)


def test_what_is_no_image_is_one_sentence(tmp_path: Path, own: Own) -> None:
    (tmp_path / "note.txt").write_text("hello")
    half = own()
    half.write_bytes(half.read_bytes()[:700])
    for path in (tmp_path / "absent.tif", tmp_path / "note.txt", half, tmp_path):
        with pytest.raises(InputError, match=path.name) as caught:
            info(path)
        assert "\n" not in str(caught.value)


def test_the_doctor_tells_versions_resources_and_limits() -> None:
    facts = doctor()
    assert facts["cores"] >= 1
    assert facts["disk free here"].endswith("GiB")
    assert isinstance(facts["cuda"], bool)
    assert {"nucleoscope", "torch", "extra cluster"} <= set(facts)
    assert all(f"limit {k}" in facts for k in vars(DEFAULT_LIMITS))
    json.dumps(facts, default=str, allow_nan=False)
