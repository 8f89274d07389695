"""The embeddings' benchmark on tiny tiles: every kind of run ends in figures and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucleoscope.bench import nuc2vec
from nucleoscope.bench.frame import Budget, Place, Run
from nucleoscope.bench.nuc2vec import LABELS, judged, lacks, runs, sampled, take, tissue
from nucleoscope.bench.nuc2vec_page import claims, grouped, render
from nucleoscope.io.points import write_points
from nucleoscope.simulator import simulate
from nucleoscope.view.page import to_html, to_markdown

BUDGET = Budget((0,), steps=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight simulated H&E tiles under the names of the real ones."""
    import imagecodecs

    folder = tmp_path_factory.mktemp("data") / "crc_histophenotypes"
    folder.mkdir()
    for i, scene in enumerate(simulate(kind="histology", n=8, size=160, seed=3)):
        rgb = np.ascontiguousarray(scene.volume.data[:, 0].transpose(1, 2, 0))
        (folder / f"img{i + 1}.png").write_bytes(imagecodecs.png_encode(rgb))
        write_points(folder / f"img{i + 1}.points.csv", scene.points)
    return folder.parent


def one(what: str, layout: str = "interleaved") -> Run:
    return next(
        r for r in runs(BUDGET) if r.parameters["what"] == what and r.parameters["layout"] == layout
    )


@pytest.fixture(scope="module")
def records(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Figures of the runs that cost nothing, and of ours after two steps."""
    found = {}
    for what in ("features", "thumbnails", "random", "nuc2vec"):
        run = one(what)
        place = Place(data, tmp_path_factory.mktemp(what))
        found[run.name] = {
            "run": run.name, "parameters": dict(run.parameters), "figures": judged(run, place),
            "versions": {}, "machine": {},
        }  # fmt: skip
    return found


def test_every_seed_has_a_fold_of_its_own_and_names_are_unique() -> None:
    every = runs(Budget())
    assert len({run.name for run in every}) == len(every) == 3 * 2 * 7
    folds = {(r.parameters["seed"], r.parameters["fold"]) for r in every}
    assert folds == {(0, 0), (1, 1), (2, 2)}


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "is not there" in lacks(tmp_path)


def test_the_nuclei_of_all_tiles_stand_row_by_row(data: Path) -> None:
    found = tissue(data / "crc_histophenotypes")
    n = len(found.types)
    assert len(found.crops) == len(found.features) == len(found.tiles) == n
    names = np.array(found.crops.slides)[found.crops.slide]
    assert (names == found.tiles).all()
    # The mask of a crop and the measured area are of the same nucleus.
    area = np.asarray(found.crops.mask).sum(axis=(1, 2)) * 0.25**2
    known = found.features["f_area_um2"].notna().to_numpy() & (area > 0)
    assert known.mean() > 0.8
    correlation = np.corrcoef(area[known], found.features["f_area_um2"][known])[0, 1]
    assert correlation > 0.7


def test_a_run_tells_probes_structure_and_what_an_encoder_notices(records: dict[str, Any]) -> None:
    figures = records[one("nuc2vec").name]["figures"]
    assert set(figures["embeddings"]) == {"nuc2vec", "with features"}
    for row in figures["embeddings"].values():
        assert {"knn_f1", "linear_f1", *(f"linear_f1_{n}" for n in LABELS)} <= set(row)
        assert all(0 <= value <= 1 for value in row.values())
    assert set(figures["invariance"]) == {"rotation", "stain", "blur", "background", "size"}
    assert figures["training"]["steps"] == 2
    assert "sample" in figures
    assert records[one("features").name]["figures"]["invariance"] == {}


def test_a_finished_encoder_is_not_trained_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, place = one("nuc2vec"), Place(data, tmp_path)
    first = judged(run, place)
    monkeypatch.setattr(nuc2vec, "train_encoder", lambda *a, **k: pytest.fail("trained again"))
    assert judged(run, place)["embeddings"] == first["embeddings"]


def test_the_sample_is_typed_and_repeats(data: Path) -> None:
    all_of = tissue(data / "crc_histophenotypes")
    rows = sampled(all_of, 1)
    assert (all_of.types[rows] != "").all()
    assert (rows == sampled(all_of, 1)).all()
    some = take(all_of, rows[:5])
    assert some.crops.id.tolist() == all_of.crops.id[rows[:5]].tolist()


def test_the_page_shows_what_is_there_and_names_the_rest(records: dict[str, Any]) -> None:
    every = runs(BUDGET)
    left = {run.name: "" for run in every if run.name not in records}
    page = render(BUDGET, every, records, left)
    text = to_markdown(page, "pictures")
    assert "4 of 14 runs are finished" in text
    assert "nuc2vec + features" in text
    assert one("nuc2vec-paper").name in text
    assert "<table" in to_html(page)
    assert "nan" not in text.lower().replace("finance", "")


def test_claims_hold_or_not_and_none_is_made_without_figures(records: dict[str, Any]) -> None:
    every = runs(BUDGET)
    assert claims(grouped(every, {})).rows == ()
    table = claims(grouped(every, records))
    assert {row[-1] for row in table.rows} <= {"holds", "does not hold"}
    assert any("nuc2vec above random" in row[0] for row in table.rows)
