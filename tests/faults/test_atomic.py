"""An output name holds the old complete thing or the new one, wherever the process dies."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data import Labels, NucleusTable, Points, Region, Volume
from nucleoscope.errors import CallError, NucleoscopeError, ResourceError
from nucleoscope.io import guard
from nucleoscope.io.omezarr import write_labels, write_volume
from nucleoscope.io.outlines import write_region
from nucleoscope.io.points import write_points
from nucleoscope.io.tables import write_table
from nucleoscope.io.tiff import write_ome_tiff

VOLUME = Volume(np.ones((1, 2, 6, 6), np.uint8), ("a",), (1.0, 1.0, 1.0))
LABELS = Labels(np.ones((2, 6, 6), np.int32))
WRITERS = {
    "tiff": lambda p, **k: write_ome_tiff(p, VOLUME, **k),
    "labels": lambda p, **k: write_labels(p, LABELS, **k),
    "zarr": lambda p, **k: write_volume(p, VOLUME, **k),
    "points": lambda p, **k: write_points(p, Points([0.0], [1.0], [2.0]), **k),
    "region": lambda p, **k: write_region(p, Region(([[0, 0], [0, 3], [3, 3]],)), **k),
    "json": lambda p, **k: guard.write_json(p, {"a": 1}, **k),
}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


CHILD = """
import os
from pathlib import Path
from nucleoscope.io import guard
target = Path({target!r})
die = lambda *a, **k: os._exit(9)
point = {point!r}
if point == "fsync":
    os.fsync = die
elif point == "replace":
    Path.replace = die
    Path.rename = die
    guard._exchange = die
elif point == "folder-sync":
    real = guard._sync
    guard._sync = lambda p: die() if p == target.parent else real(p)
if {folder!r}:
    with guard.atomic_folder(target) as temp:
        (temp / "a").write_text("new")
        point == "write" and die()
else:
    with guard.atomic_write(target, overwrite=True) as temp:
        temp.write_text("new")
        point == "write" and die()
"""


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("point", ["write", "fsync", "replace", "folder-sync", "none"])
def test_death_at_any_step_leaves_old_or_new(point: str, folder: bool, tmp_path: Path) -> None:
    target = tmp_path / "out"
    file = target / "a" if folder else target
    if folder:
        with guard.atomic_folder(target) as temp:
            (temp / "a").write_text("old")
    else:
        target.write_text("old")
    code = CHILD.format(target=str(target), point=point, folder=folder)
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert child.returncode == (0 if point == "none" else 9)
    assert file.read_text() == ("new" if point in ("none", "folder-sync") else "old")
    guard.sweep_stale_temps(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_write_leaves_no_trace(error: type, tmp_path: Path) -> None:
    for opener in (guard.atomic_write, guard.atomic_folder):
        with pytest.raises(error), opener(tmp_path / "out") as temp:
            (temp if opener is guard.atomic_write else temp / "a").write_text("half")
            raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_never_replaces_what_is_not_ours(name: str, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    for make in (lambda: target.write_text("mine"), lambda: target.symlink_to("nowhere")):
        make()
        before = target.readlink() if target.is_symlink() else target.read_bytes()
        with pytest.raises(CallError, match="overwrite"):
            WRITERS[name](target)
        assert before == (target.readlink() if target.is_symlink() else target.read_bytes())
        target.unlink()
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(CallError, match="overwrite"):
        WRITERS[name](target)
    assert tree(target) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_replaces_its_own_and_what_it_is_told_to(name: str, tmp_path: Path) -> None:
    mine, own = tmp_path / "mine", tmp_path / "own"
    mine.write_text("mine")
    if name not in ("labels", "zarr"):
        WRITERS[name](mine, overwrite=True)
        assert mine.read_bytes() != b"mine"
    WRITERS[name](own)
    WRITERS[name](own)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "own"]


def test_a_table_in_a_users_folder_touches_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    table = NucleusTable(pd.DataFrame({"id": [1], "y": [0.0], "x": [0.0]}))
    write_table(table, tmp_path)
    write_table(table, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt", "nuclei.parquet", "nuclei.csv"}


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    code = f"""
        import resource, signal
        from nucleoscope.errors import ResourceError
        from nucleoscope.io import guard
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            guard.write_bytes({str(target)!r}, bytes(9000), overwrite=True)
        except ResourceError as error:
            print(error)
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert "disk is full" in child.stdout
    assert child.stdout.count("\n") == 1
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError, match="cannot be written"):
        guard.write_text(tmp_path / "a", "x")
    tmp_path.chmod(0o700)


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NucleoscopeError):
        guard.write_text(tmp_path / "file" / "a", "x")


def test_the_sweep_removes_only_temporaries_of_dead_processes_here(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    host = guard._HOST
    names = {
        f".a.partial-{host}-{dead}-00000000": True,
        f".a.partial-{host}-{os.getpid()}-00000000": False,
        f".a.partial-ffffff-{dead}-00000000": False,
        f".a.aside-{host}-{dead}-00000000": False,
        "a.partial": False,
        "user.txt": False,
    }
    for name in names:
        (tmp_path / name).write_text("x")
    assert {p.name for p in guard.sweep_stale_temps(tmp_path)} == {n for n, d in names.items() if d}
    assert {p.name for p in tmp_path.iterdir()} == {n for n, d in names.items() if not d}


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    guard.write_text(path, "x")
    assert path.read_text() == "x"


def test_an_exchange_also_works_without_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_exchange", lambda *_: False)
    for text in ("one", "two"):
        with guard.atomic_folder(tmp_path / "out") as temp:
            (temp / "a").write_text(text)
    assert (tmp_path / "out" / "a").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
