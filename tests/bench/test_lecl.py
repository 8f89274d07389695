"""The plan of ``bench lecl``, its figures out of records, and its page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucleoscope.bench import BENCHES, Budget, bench, lecl, lecl_claims, lecl_page, trials
from nucleoscope.bench import lecl_read as read
from nucleoscope.bench.frame import Record, Run, record_path
from nucleoscope.bench.lecl_claims import claims, ranked, verdict
from nucleoscope.bench.lecl_page import render
from nucleoscope.bench.lecl_read import Results
from nucleoscope.errors import CallError, InputError
from nucleoscope.io import guard
from nucleoscope.learn.recipes import RECIPES
from nucleoscope.metrics.detection import PairCounts
from nucleoscope.metrics.detection import f_type as f_type_of_counts
from nucleoscope.view.page import to_html, to_markdown

BINS = 10


def image(name: str, positive: tuple[int, int, int], **more: Any) -> dict[str, Any]:
    """An image with ten times as many negative nuclei, all found."""
    tp, fp, fn = positive
    rule = {"nuclei": [10 * tp, fp, fn], "types": {"positive": [tp, fp, fn]}}
    return {
        "image": name, "optimal": rule, "greedy": rule, "z_error": 0.25,
        "pair_counts": {"positive": [tp, fp, fn, 0, 0], "negative": [9 * tp, fn, fp, 0, 0]},
        "confusion": [["negative", "negative", 9 * tp], ["positive", "positive", tp]], **more,
    }  # fmt: skip


def group(*positives: tuple[int, int, int]) -> dict[str, Any]:
    filled = [None] * (BINS - 1)
    return {
        "images": [image(f"i{n}", counts) for n, counts in enumerate(positives)],
        "calibration_error": 0.02, "z_within_one_slice": 0.9, "seconds_per_image": 1.5,
        "reliability": {"confidence": [*filled, 0.97], "accuracy": [*filled, 0.95],
                        "n": [0] * (BINS - 1) + [40]},
    }  # fmt: skip


def figures_of(run: Run, good: int) -> dict[str, Any]:
    """Figures of a run whose recall is ``good`` of 100."""
    found = group((good, 0, 100 - good), (good, 0, 100 - good))
    train = {"steps": 9, "points": 1000, "minutes": 1.0}
    part = run.parameters["part"]
    if part in ("histology", "contrast"):
        typed = {"weighted_f1": good / 100, "macro_f1": 0.7, "accuracy": 0.8,
                 "calibration_error": 0.02, "f1": {"negative": 0.9, "positive": 0.8}}  # fmt: skip
        radii = dict.fromkeys(trials.HISTOLOGY_RADII, found)
        return {"train": train, "at_true_nuclei": typed, **radii}
    if part == "dsb2018":
        images = [{"image": "a", "aji": good / 100, "pq": 0.5, "dice": 0.8}]
        return {"train": train, "images": images, "aji": good / 100}
    names = trials.conditions() if part == "simulator" else trials.COHORTS
    figures = {"train": train, **dict.fromkeys(names, found)}
    if part == "plaque" and run.parameters["recipe"] in ("emip", "lecl-paper"):
        fewer = group((good - 5, 0, 105 - good), (good - 5, 0, 105 - good))
        figures[trials.UNITED] = dict.fromkeys(names, fewer)
    return figures


GOOD = {"mip": 60, "emip": 70, "lecl-paper": 80, "lecl": 99, "contrast": 99, "full": 100}


def record_of(run: Run) -> Record:
    good = GOOD.get(str(run.parameters["what"]), 90)
    return {
        "run": run.name, "parameters": dict(run.parameters), "versions": {"nucleoscope": "0"},
        "machine": {"cores": 2, "machine": "m"}, "minutes": 3.0, "cpu_minutes": 3.0,
        "is_resumed": False, "figures": figures_of(run, good),
    }  # fmt: skip


@pytest.fixture(scope="module")
def plan() -> tuple[Run, ...]:
    return lecl.runs(Budget())


@pytest.fixture(scope="module")
def whole(plan: tuple[Run, ...]) -> Results:
    return Results(plan, {run.name: record_of(run) for run in plan})


# The plan ---------------------------------------------------------------------------------------


def test_names_are_unique_and_files(plan: tuple[Run, ...]) -> None:
    names = [run.name for run in plan]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for name in names)


def test_parameters_are_plain_values(plan: tuple[Run, ...], tmp_path: Path) -> None:
    for number, run in enumerate(plan[:25]):
        guard.write_json(tmp_path / f"{number}.json", dict(run.parameters))


def test_the_most_important_runs_come_first(plan: tuple[Run, ...]) -> None:
    place = {run.name: i for i, run in enumerate(plan)}
    assert plan[0].name == "plaque.lecl.10min.seed0"
    first = [place[f"plaque.{recipe}.10min.seed0"] for recipe in lecl.TABLE_1]
    assert max(first) < place["plaque.lecl.10min.seed1"] < place["plaque.lecl.10min.seed2"]
    assert place["simulator.mip.10min.seed0"] < place["points.10.10min.seed0"]
    # Tables have every seed, the curves after them the first.
    for part, seeds in {
        "plaque": 3,
        "points": 3,
        "contrast": 3,
        "histology": 4,
        "dsb2018": 3,
        "ablation": 3,
        "simulator": 3,
    }.items():
        found = [run.parameters["seed"] for run in plan if run.parameters["part"] == part]
        assert sorted(set(found)) == list(range(seeds))


def test_every_network_of_the_table_is_the_same_and_trains_as_long(plan: tuple[Run, ...]) -> None:
    for run in plan:
        assert run.parameters["network"] in ("light", None)
        is_long = run.name.startswith(("default", "histology"))
        assert run.parameters["minutes"] == (30.0 if is_long else 10.0)


def test_steps_replace_minutes_but_not_in_the_default_run() -> None:
    runs = {run.name: run for run in lecl.runs(Budget((4,), 10.0, steps=50))}
    assert runs["plaque.lecl.50steps.seed4"].parameters["steps"] == 50
    assert runs["plaque.lecl.50steps.seed4"].parameters["minutes"] is None
    assert runs["default.lecl.30min.seed4"].parameters["steps"] is None


def test_a_recipe_that_does_not_exist_is_missing(tmp_path: Path) -> None:
    assert lecl.lacks(tmp_path, "simulator", "telepathy") == "there is no recipe telepathy yet"
    assert "is not there" in lecl.lacks(tmp_path, "plaque", "lecl")
    assert lecl.lacks(tmp_path, "simulator", "lecl") == ""


def test_every_tile_judges_in_one_fold(plan: tuple[Run, ...]) -> None:
    for layout in ("interleaved", "blocks"):
        folds = np.array([trials.fold(80, k, 4, layout) for k in range(4)])
        assert (folds.sum(axis=0) == 1).all()
        assert (folds.sum(axis=1) == 20).all()
        there = [
            run.parameters["fold"]
            for run in plan
            if run.parameters["part"] == "histology" and run.parameters["layout"] == layout
        ]
        assert there == [0, 1, 2, 3]


def test_contrast_is_the_only_difference_between_the_short_runs_of_a_fold(
    plan: tuple[Run, ...],
) -> None:
    short = [run.parameters for run in plan if run.parameters["part"] == "contrast"]
    without, with_ = short[0], short[1]
    changed = {key for key in without if without[key] != with_[key]}
    assert changed == {"what", "variant", "changes"}
    assert (without["changes"], with_["changes"]) == ({}, {"contrast": 0.1})


# Figures ----------------------------------------------------------------------------------------


def test_figures_are_taken_by_seed_and_image(whole: Results) -> None:
    counts = read.counts_of(whole.groups("plaque", "mip", "d2_dev"), "positive")
    assert counts.shape == (3, 2, 3)
    assert read.scored(whole.groups("plaque", "mip", "d2_dev"), "positive").mean == pytest.approx(
        2 * 60 / (2 * 60 + 40)
    )
    assert read.scored([], "positive") is read.UNKNOWN


def test_a_network_judged_twice_has_two_rows(whole: Results) -> None:
    linked, united = (
        read.scored(whole.groups("plaque", what, "d2_dev"), "positive", "recall").mean
        for what in ("emip", "emip+united")
    )
    assert united == pytest.approx(linked - 0.05)
    assert whole.groups("plaque", "lecl+united", "d2_dev") == []


def test_f_c_is_that_of_the_metrics() -> None:
    counts = {"a": [5, 1, 2, 3, 4]}
    spread = read.f_type([[image("i", (1, 0, 0), pair_counts=counts)]], "a")
    assert spread.mean == pytest.approx(f_type_of_counts(PairCounts(5, 1, 2, 3, 4)))


def test_finished_folds_are_read_in_their_order(plan: tuple[Run, ...]) -> None:
    some = {
        run.name: record_of(run)
        for run in reversed(plan)
        if run.parameters["part"] == "histology" and run.parameters["fold"] != 1
    }
    folds = Results(plan, some).folds("histology", "lecl", "blocks")
    assert len(folds) == 3
    assert [len(images) for images in read.images_in(folds, "6px")] == [2, 2, 2]
    assert Results(plan, {}).folds("contrast", "with", "interleaved") == []


def test_bins_of_several_seeds_are_weighed_by_their_nuclei() -> None:
    groups = [
        {"reliability": {"confidence": [0.5, None], "accuracy": [1.0, None], "n": [30, 0]}},
        {"reliability": {"confidence": [0.3, 0.9], "accuracy": [0.0, 0.8], "n": [10, 5]}},
    ]
    confidence, accuracy, n = read.reliability_of(groups)
    assert confidence.tolist() == pytest.approx([0.45, 0.9])
    assert accuracy.tolist() == pytest.approx([0.75, 0.8])
    assert n.tolist() == [40, 5]


# Claims -----------------------------------------------------------------------------------------


def test_nothing_is_claimed_without_runs(plan: tuple[Run, ...]) -> None:
    table = claims(Results(plan, {}))
    assert {row[-1] for row in table.rows} == {"not measured yet"}
    assert {row[-2] for row in table.rows} == {"0"}


def test_claims_follow_the_figures(whole: Results) -> None:
    rows = {row[0]: row for row in claims(whole).rows}
    assert rows["emip above mip, positive F1, d2_dev"][3:] == ("3", "holds")
    order = rows["order on harder simulated stacks, dim, of recipes told apart on d2_dev"]
    assert order[2:] == ("lecl > lecl-paper > emip > mip", "3", "holds")
    assert order[1].startswith("lecl > lecl-paper, lecl > emip, lecl > mip, lecl-paper > emip")
    assert rows["expected calibration error of lecl's types at equal minutes, d2_dev"][4] == "holds"
    kept = "share of its positive F1 kept with 30% of the points, d2_dev"
    assert rows[kept][4] == "does not hold"
    assert rows["AJI from points over AJI from instance maps, DSB 2018"][2] == "0.990"


def test_a_claim_about_two_recipes_has_the_seeds_of_the_fewer(plan: tuple[Run, ...]) -> None:
    names = [f"plaque.emip.10min.seed{seed}" for seed in (0, 1)] + ["plaque.mip.10min.seed0"]
    records = {run.name: record_of(run) for run in plan if run.name in names}
    rows = {row[0]: row for row in claims(Results(plan, records)).rows}
    assert rows["emip above mip, positive F1, d2_dev"][3:] == ("1", "holds")
    assert rows["lecl above lecl-paper, positive F1, d2_dev"][3:] == ("0", "not measured yet")


def test_an_order_that_changes_does_not_hold(plan: tuple[Run, ...]) -> None:
    records = {run.name: record_of(run) for run in plan}
    for seed in range(3):
        worse = next(run for run in plan if run.name == f"simulator.lecl.10min.seed{seed}")
        records[worse.name]["figures"] = figures_of(worse, 10)
    rows = {row[0]: row for row in claims(Results(plan, records)).rows}
    dense = rows["order on harder simulated stacks, dense, of recipes told apart on d2_dev"]
    assert dense[2:] == ("lecl-paper > emip > mip > lecl", "3", "does not hold")


def test_recipes_that_are_not_told_apart_have_no_order_to_keep(plan: tuple[Run, ...]) -> None:
    records = {run.name: record_of(run) for run in plan}
    for seed, emip, paper in ((0, 60, 70), (1, 70, 72), (2, 78, 74)):
        for what, good in (("emip", emip), ("lecl-paper", paper)):
            run = next(r for r in plan if r.name == f"plaque.{what}.10min.seed{seed}")
            records[run.name]["figures"] = figures_of(run, good)
        run = next(r for r in plan if r.name == f"simulator.lecl-paper.10min.seed{seed}")
        records[run.name]["figures"] = figures_of(run, 65)
    rows = {row[0]: row for row in claims(Results(plan, records)).rows}
    dense = rows["order on harder simulated stacks, dense, of recipes told apart on d2_dev"]
    assert "lecl-paper > emip" not in dense[1]
    assert dense[2:] == ("lecl > emip > lecl-paper > mip", "3", "holds")


def test_an_order_compares_the_same_seeds(plan: tuple[Run, ...]) -> None:
    records = {run.name: record_of(run) for run in plan}
    del records["simulator.emip.10min.seed1"], records["simulator.emip.10min.seed2"]
    first = next(r for r in plan if r.name == "simulator.lecl-paper.10min.seed0")
    records[first.name]["figures"] = figures_of(first, 50)
    rows = {row[0]: row for row in claims(Results(plan, records)).rows}
    dense = rows["order on harder simulated stacks, dense, of recipes told apart on d2_dev"]
    assert dense[2:] == ("lecl > emip > mip > lecl-paper", "1", "does not hold")


def test_one_seed_tells_nothing_apart(plan: tuple[Run, ...]) -> None:
    records = {run.name: record_of(run) for run in plan if run.parameters["seed"] == 0}
    rows = {row[0]: row for row in claims(Results(plan, records)).rows}
    dense = rows["order on harder simulated stacks, dense, of recipes told apart on d2_dev"]
    assert dense[4] == "not measured yet"


def test_calibration_that_is_too_poor_does_not_hold(plan: tuple[Run, ...]) -> None:
    run = plan[0]
    record = record_of(run)
    record["figures"]["d2_dev"]["calibration_error"] = 0.051
    rows = {row[0]: row for row in claims(Results(plan, {run.name: record})).rows}
    error = rows["expected calibration error of lecl's types at equal minutes, d2_dev"]
    assert error[1:] == ("at most 0.050", "0.051", "1", "does not hold")


def test_a_figure_that_is_short_by_less_than_is_shown_shows_more() -> None:
    assert lecl_claims._row("x", 0.97977, 0.98, 3)[2:] == ("0.9798", "3", "does not hold")
    assert lecl_claims._row("x", 0.98, 0.98, 3)[2:] == ("0.980", "3", "holds")


def test_a_verdict_needs_a_value() -> None:
    assert verdict(float("nan"), 0) == "not measured yet"
    assert ranked({}) == []


# The page ---------------------------------------------------------------------------------------


def test_a_page_without_runs_names_all_of_them_and_draws_nothing(plan: tuple[Run, ...]) -> None:
    page = render(Budget(), plan, {}, {"plaque.qu.10min.seed0": "there is no recipe qu yet"})
    text = to_markdown(page, "pictures")
    assert f"0 of {len(plan)} runs are finished" in text
    assert list(page.pictures()) == []
    assert "there is no recipe qu yet" in text
    assert "| plaque lecl | 0, 1, 2 | not done yet |" in text


def test_a_whole_page_misses_nothing(plan: tuple[Run, ...], whole: Results) -> None:
    page = render(Budget(), plan, whole.records, {})
    text = to_markdown(page, "pictures")
    names = {picture.name for picture in page.pictures()}
    assert names == {"recipes", "reliability", "points", "markers"}
    assert text.rstrip().endswith("Nothing.")
    assert "nan" not in text
    assert all("nan" not in picture.svg for picture in page.pictures())
    assert "| lecl | NC | 1.000 ± 0.000 | 0.990 ± 0.000 | 0.995 ± 0.000 |" in text
    assert to_html(page) == to_html(render(Budget(), plan, whole.records, {}))


def test_an_ablation_takes_one_choice_back_and_is_shown_beside_the_default(
    plan: tuple[Run, ...], whole: Results
) -> None:
    default = asdict(RECIPES["lecl"])
    for what, changes in lecl.ABLATIONS.items():
        assert all(default[key] != value for key, value in changes.items()), what
    assert [what for what, *_ in lecl_page.ABLATED] == list(lecl.ABLATIONS)
    name = "ablation.one-slice.10min.seed1"
    kept = [name, "ablation.contrast.10min.seed1"]
    some = {k: v for k, v in whole.records.items() if "ablation" not in k or k in kept}
    text = to_markdown(render(Budget(), plan, some, {}), "p")
    steps = whole.records[name]["figures"]["train"]["steps"]
    cells = f"0.994 | 0.994 | -0.005 | 0.947 | 0.947 | -0.048 | {steps} | 1"
    row = f"| with it, without the neighbouring slices | {cells} |"
    assert row in text
    assert "| with it, published pseudo labels | - | - | - | - | - | - | - | 0 |" in text


def test_one_seed_is_shown_without_a_deviation(plan: tuple[Run, ...]) -> None:
    records = {run.name: record_of(run) for run in plan if run.parameters["seed"] == 0}
    text = to_markdown(render(Budget(), plan, records, {}), "p")
    assert "| lecl | NC | 1.000 | 0.990 | 0.995 |" in text
    assert "±" not in text


def test_records_of_other_settings_are_named(plan: tuple[Run, ...]) -> None:
    run = plan[0]
    record = record_of(run)
    record["parameters"] = {**record["parameters"], "settings": {"steps": -1}}
    text = to_markdown(render(Budget(), plan, {run.name: record}, {}), "p")
    assert f"to do the run again: {run.name}." in text


def test_the_page_says_the_command_that_made_it(plan: tuple[Run, ...]) -> None:
    plain = to_markdown(render(Budget(), plan, {}, {}), "p")
    assert "\nnucleoscope bench lecl --data DIR --docs docs\n" in plain
    other = Budget((0, 7), steps=20)
    text = to_markdown(render(other, lecl.runs(other), {}, {}), "p")
    assert "--docs docs --steps 20 --seeds 0,7\n" in text
    assert "trained for 20 steps" in text


def test_points_are_drawn_where_they_were_taught(plan: tuple[Run, ...], whole: Results) -> None:
    records = dict(whole.records)
    for name, taught in (("10pct", 170), ("30pct", 500)):
        for seed in (0, 1, 2):
            key = f"points.{name}.10min.seed{seed}"
            figures = {**records[key]["figures"], "train": {"steps": 1, "points": taught}}
            records[key] = {**records[key], "figures": figures}
    page = render(Budget(), plan, records, {})
    text = to_markdown(page, "p")
    assert "| 10% | 170 |" in text
    assert "| all | 1000 |" in text
    picture = next(picture for picture in page.pictures() if picture.name == "points")
    assert ">170</text>" in picture.svg
    assert ">500</text>" in picture.svg


def test_a_record_without_types_leaves_dashes(plan: tuple[Run, ...]) -> None:
    run = next(run for run in plan if run.name == "plaque.mip.10min.seed0")
    record = record_of(run)
    for name in trials.COHORTS:
        found = group((0, 0, 0))
        found |= {"calibration_error": None, "z_within_one_slice": None}
        found["reliability"] = {"confidence": [None], "accuracy": [None], "n": [0]}
        found["images"][0]["z_error"] = None
        record["figures"][name] = found
    page = render(Budget(), plan, {run.name: record}, {})
    text = to_markdown(page, "p")
    assert "| mip | NC | - | - | - | - | 1 |" in text
    assert "| mip | d2_dev | - | - | - |" in text
    assert "reliability" not in {picture.name for picture in page.pictures()}


# The verb ---------------------------------------------------------------------------------------


def test_listing_does_and_writes_nothing(tmp_path: Path) -> None:
    outcome = bench(
        "lecl", data=tmp_path, output=tmp_path / "results", only="plaque.*seed0", list_only=True
    )
    assert "0 of 7 runs are done" in outcome.text
    assert outcome.files == ()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_rendered_and_what_lacks_data_is_left(tmp_path: Path) -> None:
    results = tmp_path / "results"
    run = lecl.runs(Budget())[0]
    guard.write_json(record_path(results / "lecl", run), record_of(run))
    told: list[str] = []
    outcome = bench(
        "lecl", data=tmp_path, output=results, docs=tmp_path / "docs", only="plaque",
        budget=Budget((0,)), tell=told.append,
    )  # fmt: skip
    assert outcome.done == (run.name,)
    assert told == []
    assert outcome.exit_code == 0
    assert (tmp_path / "docs" / "results.md").is_file()
    assert (tmp_path / "docs" / "pictures" / "results" / "recipes.svg").is_file()
    assert "is not there" in outcome.left["plaque.mip.10min.seed0"]
    before = (results / "lecl" / "results.html").read_bytes()
    bench("lecl", data=tmp_path, output=results, only="plaque")
    assert (results / "lecl" / "results.html").read_bytes() == before


def test_unknown_benchmarks_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="no benchmark 'x'; there are lecl"):
        bench("x")
    with pytest.raises(InputError, match="no such folder"):
        bench("lecl", data=tmp_path / "absent")
    assert all(name == one.name for name, one in BENCHES.items())
