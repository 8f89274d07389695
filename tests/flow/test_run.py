"""The manifest and the hashes it rests on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from nucleoscope import __version__
from nucleoscope.flow.run import MANIFEST, Run, hash_of, versions


def test_a_manifest_holds_what_was_run_on_what_with_which_outcome(tmp_path: Path) -> None:
    run = Run("train", {"recipe": "lecl", "minutes": None, "seed": 0})
    run.inputs = [{"path": "a.tif"}]
    run.figures = {"f1": 0.5}
    run.finish(tmp_path, history=[1, 2])
    raw = json.loads((tmp_path / MANIFEST).read_text())
    assert (raw["verb"], raw["recipe"], raw["seed"]) == ("train", "lecl", 0)
    assert "minutes" not in raw
    assert raw["inputs"] == [{"path": "a.tif"}]
    assert raw["figures"] == {"f1": 0.5}
    assert raw["history"] == [1, 2]
    assert raw["seconds"] >= 0
    assert raw["at"].endswith("+00:00")


def test_versions_are_of_what_can_change_a_result() -> None:
    found = versions()
    assert found["nucleoscope"] == __version__
    assert found["numpy"] == np.__version__
    assert {"python", "torch", "scipy", "numba"} <= set(found)


def test_manifests_do_not_share_their_lists() -> None:
    one, other = Run("a", {}), Run("b", {})
    one.inputs.append({})
    one.figures["x"] = 1
    assert (other.inputs, other.figures) == ([], {})


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    assert hash_of(path) == hashlib.sha256(b"hello").hexdigest()


def tree(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_hash_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    base = hash_of(tree(tmp_path / "a", x="1", sub__y="2"))
    assert hash_of(tree(tmp_path / "b", sub__y="2", x="1")) == base
    others = [
        tree(tmp_path / "c", x="1", sub__y="3"),
        tree(tmp_path / "d", x="1", sub__z="2"),
        tree(tmp_path / "e", x="1"),
        tree(tmp_path / "f", x="1", sub__y="2", w=""),
        tree(tmp_path / "g", x="1", y="2"),
    ]
    assert base not in {hash_of(o) for o in others}
    assert len({hash_of(o) for o in others}) == 5
