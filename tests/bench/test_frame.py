"""Runs are done once, written whole, gone on from, and listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nucleoscope.bench.frame import (
    WORK,
    Budget,
    Place,
    Run,
    do_run,
    do_runs,
    is_outdated,
    listing,
    provenance,
    read_records,
    record_path,
    selected,
)
from nucleoscope.errors import CallError, InputError, ResourceError
from nucleoscope.io import guard


def run_called(name: str, figures: Any = None, **more: Any) -> Run:
    work = figures or (lambda run, place: {"f1": 0.5})
    parameters = {"part": "p", "what": name, "seed": 0, "settings": {"steps": 3}}
    return Run(name, parameters | more.pop("parameters", {}), work, 10.0, **more)


def test_a_finished_run_is_never_repeated(tmp_path: Path) -> None:
    calls = []

    def figures(run: Run, place: Place) -> dict[str, Any]:
        calls.append(run.name)
        return {"f1": 1.0}

    runs = [run_called("a", figures), run_called("b", figures)]
    for _ in range(2):
        done, left, failed = do_runs(runs, tmp_path, tmp_path)
        assert (done, left, failed) == (["a", "b"], {}, {})
    assert calls == ["a", "b"]


def test_a_record_says_how_it_was_made_and_not_when(tmp_path: Path) -> None:
    record = do_run(run_called("a"), tmp_path, tmp_path)
    assert record == guard.read_json(tmp_path / "a.json")
    assert record["figures"] == {"f1": 0.5}
    assert record["parameters"]["settings"] == {"steps": 3}
    assert {"run", "versions", "machine", "minutes", "cpu_minutes"} <= set(record)
    assert not {"at", "date", "time", "host"} & set(record)


def test_a_failed_run_writes_nothing_and_the_next_one_is_done(tmp_path: Path) -> None:
    def fails(run: Run, place: Place) -> dict[str, Any]:
        (place.folder / "checkpoint").write_text("half", encoding="ascii")
        raise ResourceError("the disk is full.")

    done, left, failed = do_runs([run_called("a", fails), run_called("b")], tmp_path, tmp_path)
    assert (done, left, failed) == (["b"], {"a": "the disk is full."}, {"a": "the disk is full."})
    assert not (tmp_path / "a.json").exists()
    assert (tmp_path / WORK / "a" / "checkpoint").is_file()


def test_an_interrupted_run_finds_its_folder_again_and_leaves_none_behind(tmp_path: Path) -> None:
    def figures(run: Run, place: Place) -> dict[str, Any]:
        model = place.folder / "model"
        if not model.is_dir():
            model.mkdir()
            (model / "checkpoint").write_text("7", encoding="ascii")
            raise KeyboardInterrupt
        return {"step": int((model / "checkpoint").read_text(encoding="ascii"))}

    run = run_called("a", figures)
    with pytest.raises(KeyboardInterrupt):
        do_run(run, tmp_path, tmp_path)
    assert not record_path(tmp_path, run).exists()
    record = do_run(run, tmp_path, tmp_path)
    assert record["figures"] == {"step": 7}
    assert record["is_resumed"] is True
    assert not (tmp_path / WORK / "a").exists()
    assert (tmp_path / WORK / ".gitignore").read_text(encoding="ascii") == "*\n"


def test_emptying_a_folder_follows_no_link(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "kept").write_text("x", encoding="ascii")

    def figures(run: Run, place: Place) -> dict[str, Any]:
        (place.folder / "link").symlink_to(theirs)
        return {}

    do_run(run_called("a", figures), tmp_path / "results", tmp_path)
    assert (theirs / "kept").is_file()


def test_a_run_that_lacks_something_is_left_with_the_reason(tmp_path: Path) -> None:
    run = run_called("a", lacks=lambda data: "there is no recipe qu yet")
    assert do_runs([run], tmp_path, tmp_path)[:2] == ([], {"a": "there is no recipe qu yet"})


def test_what_failed_is_told_after_every_run_done_now(tmp_path: Path) -> None:
    def fails(run: Run, place: Place) -> dict[str, Any]:
        raise ResourceError("no room.")

    runs = [run_called("a"), run_called("b", fails), run_called("c")]
    do_run(runs[0], tmp_path, tmp_path)
    seen: list[dict[str, str]] = []
    do_runs(runs, tmp_path, tmp_path, after=lambda failed: seen.append(dict(failed)))
    assert seen == [{"b": "no room."}, {"b": "no room."}]


def test_a_record_of_another_run_is_refused(tmp_path: Path) -> None:
    guard.write_json(tmp_path / "a.json", {"run": "b"})
    with pytest.raises(InputError, match="not the record of this run"):
        read_records(tmp_path, [run_called("a")])


def test_a_record_is_outdated_when_a_setting_both_know_changed(tmp_path: Path) -> None:
    record = do_run(run_called("a"), tmp_path, tmp_path)
    assert not is_outdated(record, run_called("a"))
    assert not is_outdated(record, run_called("a", parameters={"later": 1}))
    assert is_outdated(record, run_called("a", parameters={"settings": {"steps": 4}}))


def test_tuples_read_back_as_lists_do_not_date_a_record() -> None:
    run = run_called("a", parameters={"betas": (0.9, 0.99), "phases": ({"share": 1.0},)})
    same = {"parameters": {"betas": [0.9, 0.99], "phases": [{"share": 1.0}]}}
    assert not is_outdated(same, run)
    assert is_outdated({"parameters": {"phases": [{"share": 0.5}]}}, run)
    assert is_outdated({"parameters": {"betas": [0.9]}}, run)


def test_only_takes_part_of_a_name_or_a_pattern() -> None:
    runs = [run_called(f"plaque.{name}.seed{seed}") for name in ("mip", "emip") for seed in (0, 1)]
    assert [r.name for r in selected(runs, ".mip.")] == ["plaque.mip.seed0", "plaque.mip.seed1"]
    assert len(selected(runs, "emip*seed0")) == 1
    assert len(selected(runs, None)) == 4
    with pytest.raises(CallError, match="no run is called"):
        selected(runs, "lecl")


def test_the_listing_says_what_is_done_what_is_left_and_how_long(tmp_path: Path) -> None:
    runs = [run_called("a"), run_called("b"), run_called("c", lacks=lambda data: "no data")]
    do_run(runs[0], tmp_path, tmp_path)
    left, text = listing(runs, read_records(tmp_path, runs), tmp_path)
    assert left == {"b": "not done yet", "c": "no data"}
    assert "1 of 3 runs are done; the rest takes about 0.2 hours." in text
    assert "(no data)" in text


@pytest.mark.parametrize(
    "wrong", [{"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (-1,)}, {"minutes": 0}, {"steps": 0}]
)
def test_an_impossible_budget_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CallError):
        Budget(**wrong)


def test_the_provenance_names_versions_once(tmp_path: Path) -> None:
    records = {n: do_run(run_called(n), tmp_path, tmp_path) for n in ("a", "b")}
    assert provenance(records).count("torch") == 1
    assert provenance({}).startswith("No run is finished")
