"""Spatial statistics from files to tables and a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from nucleoscope import cli
from nucleoscope.data.atlas import Atlas, unit_rows
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.io.atlas import write_atlas
from nucleoscope.io.guard import read_json, write_json
from nucleoscope.io.tables import read_csv, write_table
from nucleoscope.spatial import Settings
from nucleoscope.view.neighbours import analyse_files

FAST = Settings(reach="40um", n_bins=8, n_simulations=19, n_niches=2)


def nuclei(seed: int, image: str, *, depth: float = 8.0) -> NucleusTable:
    """Positive nuclei in the left half, negative in the right."""
    rng = np.random.default_rng(seed)
    n = 120
    y, x, z = rng.uniform(0, 100, n), rng.uniform(0, 200, n), rng.uniform(0, depth, n)
    frame = pd.DataFrame({"id": np.arange(1, n + 1), "image": image, "z": z, "y": y, "x": x})
    frame["type"] = np.where(x < 100, "positive", "negative")
    return NucleusTable(frame.assign(z_um=z, y_um=y, x_um=x))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What ``detect`` leaves behind for two images."""
    folder = tmp_path / "out"
    for seed, image in enumerate(("a", "<b>")):
        write_table(nuclei(seed, image), folder / f"image{seed}")
    write_json(folder / "run.json", {"inputs": []})
    return folder


def test_a_run_becomes_tables_and_a_page(run: Path, tmp_path: Path) -> None:
    result = analyse_files(run, tmp_path / "sp", settings=FAST)
    assert len(result.nuclei) == 240
    enrichment = read_csv(tmp_path / "sp" / "enrichment.csv")
    same = enrichment[enrichment["type_a"] == enrichment["type_b"]]
    assert (same["log2_ratio"].astype(float) > 0).all()  # the halves are planted
    assert read_json(tmp_path / "sp" / "run.json")["verb"] == "spatial"
    page = (tmp_path / "sp" / "spatial.html").read_text()
    assert page.count("<svg") >= 4
    assert page.count('href="data:image/png') == 4  # types and niches of two images
    assert "img-src data:" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_a_stack_thinner_than_the_reach_is_seen_from_above(run: Path, tmp_path: Path) -> None:
    result = analyse_files(run, tmp_path / "sp", settings=FAST)
    assert all(pattern.n_dims == 2 for pattern in result.patterns)
    assert "seen from above" in result.notes[0]


def test_a_deep_stack_is_analysed_in_three_dimensions(tmp_path: Path) -> None:
    write_table(nuclei(3, "deep", depth=60.0), tmp_path / "one")
    file = tmp_path / "one" / "nuclei.parquet"
    result = analyse_files(file, tmp_path / "sp", settings=FAST)
    assert all(pattern.n_dims == 3 for pattern in result.patterns)


def test_nothing_is_written_over_what_is_there(run: Path, tmp_path: Path) -> None:
    (tmp_path / "sp").mkdir()
    (tmp_path / "sp" / "mine.txt").write_text("mine")
    with pytest.raises(CallError, match="not empty"):
        analyse_files(run, tmp_path / "sp", settings=FAST)
    assert [p.name for p in (tmp_path / "sp").iterdir()] == ["mine.txt"]


def test_a_folder_without_tables_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="run detect first"):
        analyse_files(tmp_path / "empty", tmp_path / "sp", settings=FAST)
    assert not (tmp_path / "sp").exists()


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """An atlas whose subtypes and vectors follow the place, and whose types do not."""
    table = nuclei(3, "a")
    right = table.frame["x"].to_numpy() >= 100
    frame = table.frame.assign(type=np.where(np.arange(len(right)) % 2, "odd", "even"))
    vectors = unit_rows(np.column_stack([right + 0.1, 1.1 - right]))
    subtypes = pd.DataFrame({"subtype": np.where(right, "s2", "s1")})
    write_atlas(tmp_path / "atlas", Atlas(NucleusTable(frame), vectors, subtypes=subtypes))
    return tmp_path / "atlas"


def test_an_atlas_is_analysed_by_subtype_and_by_its_vectors(atlas: Path, tmp_path: Path) -> None:
    result = analyse_files(
        atlas, tmp_path / "sp", by="subtype", settings=FAST,
        statistics=("enrichment", "mark_correlation", "coupling"),
    )  # fmt: skip
    assert sorted(result.nuclei["subtype"].unique()) == ["s1", "s2"]
    frame = result.to_frame("enrichment")
    assert (frame.loc[frame["type_a"] == frame["type_b"], "z"] > 3).all()
    assert float(result.to_frame("mark_correlation")["p"].iloc[0]) == 0.05
    by_type = analyse_files(atlas, tmp_path / "by type", settings=FAST, statistics=("enrichment",))
    assert (by_type.to_frame("enrichment")["z"].abs() < 3).all()
    inputs = read_json(tmp_path / "sp" / "run.json")["inputs"]
    assert [Path(entry["path"]).name for entry in inputs] == ["nuclei.parquet"]


def test_embeddings_are_asked_for_by_name(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CallError, match="need an ATLAS folder"):
        analyse_files(run, tmp_path / "sp", statistics=("coupling",))


def called(*args: object) -> list[str]:
    """What the command line prints."""
    answer = CliRunner().invoke(cli.app, ["spatial", *map(str, args)])
    assert answer.exit_code == 0, answer.output
    return answer.output.splitlines()


def test_the_command_line_reaches_every_setting(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "sp"
    called(
        run, "-o", out, "--reach", "40um", "--statistics", "enrichment,k", "--strata", "density",
        "--simulations", 19, "--permutations", 39, "--deep", "--jobs", 2, "--quiet",
    )  # fmt: skip
    assert sorted(p.name for p in out.glob("*.csv")) == ["enrichment.csv", "k.csv", "nuclei.csv"]
    assert set(read_csv(out / "k.csv")["null"]) == {"labelling within strata"}
    p = read_csv(out / "enrichment.csv")["p"].astype(float)
    assert p.min() >= 1 / 40  # from 39 permutations, not in closed form
    record = read_json(out / "run.json")
    assert (record["flat"], record["n_simulations"], record["strata"]) == (False, 19, "density")


def test_an_unknown_statistic_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="no statistic 'likeness'"):
        analyse_files(tmp_path / "nowhere", tmp_path / "sp", statistics=("likeness",))


def test_of_many_curves_the_clearest_are_drawn_and_the_page_says_so(tmp_path: Path) -> None:
    table = nuclei(4, "a")
    types = np.where(table.frame["x"] < 60, "t0", [f"t{i % 5}" for i in range(120)])
    write_table(NucleusTable(table.frame.assign(type=types)), tmp_path / "many")
    result = analyse_files(
        tmp_path / "many" / "nuclei.parquet", tmp_path / "sp", settings=FAST, statistics=("k",)
    )
    page = (tmp_path / "sp" / "spatial.html").read_text()
    assert page.count("L(r) - r, ") == 2 * 9  # a heading and a title each
    assert "The 9 clearest of 15; all are in k.csv." in page
    assert "120 nuclei in 1 image," in page
    frame = result.to_frame("k").drop_duplicates(["type_a", "type_b"])
    best = frame.loc[frame["type_a"] <= frame["type_b"]].sort_values("p").iloc[0]
    assert f"L(r) - r, {best['type_a']} to {best['type_b']}, " in page
