"""Points dropped, folds, clicks out of instance maps, and one small run of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.bench import lecl, trials
from nucleoscope.bench.frame import Budget, Place, Run, do_run
from nucleoscope.bench.judge import judge, judge_outlines, judge_types
from nucleoscope.data import Labels, NucleusTable
from nucleoscope.errors import InputError, ResourceError
from nucleoscope.flow import lecl as flow
from nucleoscope.flow.lecl import train
from nucleoscope.io import guard
from nucleoscope.io.omezarr import write_labels
from nucleoscope.io.points import read_points
from nucleoscope.io.tables import write_table
from nucleoscope.simulator import simulate

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(SIZES, st.integers(0, 5))
def test_a_smaller_draw_of_points_is_part_of_a_larger_one(sizes: list[int], seed: int) -> None:
    for few, many in ((0.1, 0.3), (1, sum(sizes))):
        small, large = (trials.choose(sizes, kept, seed) for kept in (few, many))
        assert all((b | ~a).all() for a, b in zip(small, large, strict=True))


@given(SIZES, st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_share_leaves_every_image_a_point(sizes: list[int], share: float, seed: int) -> None:
    for kept, n in zip(trials.choose(sizes, share, seed), sizes, strict=True):
        assert kept.sum() == max(1, round(share * n))


def test_another_seed_draws_other_points() -> None:
    one, other = (trials.choose([200], 20, seed)[0] for seed in (0, 1))
    assert one.sum() == other.sum() == 20
    assert (one != other).any()


def test_more_points_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(InputError, match="there are 3"):
        trials.choose([1, 2], 4, 0)


def test_reduced_points_keep_ids_and_types_and_leave_out_empty_images(tmp_path: Path) -> None:
    simulate(tmp_path / "in", n=3, size=96, n_slices=3, seed=3)
    images = sorted((tmp_path / "in").glob("*.ome.tif"))
    (tmp_path / "out").mkdir()
    taken, files = trials.reduced(images, 2, 0, tmp_path / "out")
    assert len(taken) == len(files) <= 2
    kept = [read_points(path) for path in files]
    assert sum(len(points) for points in kept) == 2
    for image, points in zip(taken, kept, strict=True):
        whole = read_points(image.with_name(image.name.replace(".ome.tif", ".points.csv")))
        rows = [whole.id.tolist().index(i) for i in points.id.tolist()]  # type: ignore[union-attr]
        assert whole.types[rows].tolist() == points.types.tolist()
        assert whole.y[rows].tolist() == points.y.tolist()


def test_a_click_lies_in_its_nucleus_even_when_the_centroid_does_not() -> None:
    labels = np.zeros((9, 9), np.int32)
    labels[1:8, 1:8] = 5
    labels[2:7, 2:7] = 0
    labels[4, 4] = 9
    points = trials.centres(labels)
    inside = labels[points.y.astype(int), points.x.astype(int)]
    assert sorted(inside.tolist()) == [5, 9]


def test_no_nucleus_gives_no_click() -> None:
    assert len(trials.centres(np.zeros((3, 3), np.int32))) == 0


def test_tiles_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / f"img{number}.png").touch()
    assert [p.stem for p in trials.tiles_of(tmp_path)] == ["img1", "img2", "img10"]


def test_outlines_equal_to_the_truth_score_one(tmp_path: Path) -> None:
    scene = simulate(tmp_path, n=1, size=64, n_slices=2, seed=4)[0]
    flat = Labels(scene.labels.data[:1])
    (tmp_path / "found" / "a").mkdir(parents=True)
    write_labels(tmp_path / "found" / "a" / "labels.ome.zarr", flat)
    write_labels(tmp_path / "a.labels.ome.zarr", flat)
    figures = judge_outlines(tmp_path / "found", [tmp_path / "a.labels.ome.zarr"])
    assert figures["aji"] == 1.0
    assert figures["images"][0]["image"] == "a"


def test_judging_the_truth_finds_no_error_and_gives_plain_values(tmp_path: Path) -> None:
    scene = simulate(tmp_path / "truth", n=1, size=96, n_slices=3, seed=5)[0]
    name = scene.volume.name
    place = tmp_path / "found" / name
    place.mkdir(parents=True)
    frame = scene.truth[scene.truth["in_region"]]
    columns = ["id", "z", "y", "x", "type"]
    write_table(NucleusTable(frame[columns].assign(image=name, type_prob=1.0)), place)
    guard.write_json(tmp_path / "found" / "run.json", {"inputs": []})
    figures = judge(tmp_path / "found", tmp_path / "truth")
    guard.write_json(tmp_path / "plain.json", figures)
    assert figures["f1"] == 1.0
    image = figures["images"][0]
    n = len(scene.points)
    assert image["optimal"]["nuclei"] == [n, 0, 0]
    assert image["z_error"] < 1
    assert sum(row[2] for row in image["confusion"]) == n


def small_run(part: str, what: str, **more: Any) -> Run:
    """A run of the plan of three steps, with parameters of a small one."""
    name = f"{part}.{what}.3steps.seed0"
    run = next(run for run in lecl.runs(Budget((0,), steps=3)) if run.name == name)
    return Run(run.name, dict(run.parameters) | more, run.figures, run.minutes)


def test_a_classical_run_on_simulated_stacks_ends_in_figures(tmp_path: Path) -> None:
    run = small_run(
        "simulator", "classical", stacks={"n": 1, "size": 128, "n_slices": 4, "seed": 1},
        judged={"n": 1, "size": 128, "n_slices": 4, "seed": 2}, conditions={"rho 0": {"rho": 0.0}},
    )  # fmt: skip
    record = do_run(run, tmp_path / "results", tmp_path)
    found = record["figures"]["rho 0"]["images"]
    assert [image["image"] for image in found] == ["plaque_01"]
    assert record["figures"]["train"]["steps"] == 0
    assert not (tmp_path / "results" / ".work" / run.name).exists()


def test_a_finished_training_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(tmp_path / "in", n=1, size=128, n_slices=4, seed=1)
    images = sorted((tmp_path / "in").glob("*.ome.tif"))
    run = small_run("plaque", "classical")
    place = Place(tmp_path, tmp_path / "work")
    first = trials.fit(run, place, images)

    def never(*given: Any, **named: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(trials, "train", never)
    again = trials.fit(run, place, images)
    assert again["points"] == first["points"] > 0


def test_an_interrupted_training_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(tmp_path / "in", n=1, size=96, n_slices=3, seed=1)
    images = sorted((tmp_path / "in").glob("*.ome.tif"))
    run, place = small_run("plaque", "lecl"), Place(tmp_path, tmp_path / "work")

    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flow, "save_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trials.fit(run, place, images)
    checkpoint = tmp_path / "work" / "model" / flow.CHECKPOINT
    assert checkpoint.is_file()
    asked = []

    def watched(*given: Any, **named: Any) -> Any:
        asked.append(named["resume"])
        return train(*given, **named)

    monkeypatch.setattr(trials, "train", watched)
    assert trials.fit(run, place, images)["steps"] == 3
    assert asked == [True]
    assert not checkpoint.exists()


def test_a_changed_recipe_is_trained_with_its_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(tmp_path / "in", n=1, size=96, kind="histology", seed=1)
    images = sorted((tmp_path / "in").glob("*.ome.tif"))
    seen = []

    def watched(
        lessons: Any, config: Any, chosen: Any, limits: Any, start: Any, report: Any
    ) -> Any:
        seen.append((chosen.contrast, chosen.crop, chosen.steps, limits.minutes, limits.seed))
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "train_model", watched)
    run = small_run("contrast", "with-interleaved-1of4")
    with pytest.raises(KeyboardInterrupt):
        trials.fit(run, Place(tmp_path, tmp_path / "work"), images)
    assert seen == [(0.1, 192, 3, float("inf"), 0)]


def test_instance_maps_are_given_to_the_recipe_that_learns_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(tmp_path / "in", n=2, size=64, n_slices=2, seed=1)
    images = sorted((tmp_path / "in").glob("*.ome.tif"))
    assert [p.name for p in trials.labels_of(images)] == [
        "plaque_01.labels.ome.zarr", "plaque_02.labels.ome.zarr"
    ]  # fmt: skip
    given: dict[str, Any] = {}

    def watched(*args: Any, labels: Any = None, **named: Any) -> None:
        given["labels"] = labels
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "train", watched)
    assert trials.labels_argument() == "labels"
    with pytest.raises(KeyboardInterrupt):
        trials.fit(
            small_run("plaque", "lecl"), Place(tmp_path, tmp_path / "work"), images,
            labels=trials.labels_of(images),
        )  # fmt: skip
    assert given["labels"] == trials.labels_of(images)


def test_an_image_that_fails_fails_the_run(tmp_path: Path) -> None:
    simulate(tmp_path / "in", n=1, size=128, n_slices=4, seed=1)
    images = sorted((tmp_path / "in").glob("*.ome.tif"))
    train(images, tmp_path / "work" / "model", recipe="classical", quiet=True)
    broken = tmp_path / "broken.ome.tif"
    broken.write_bytes(b"II*\0")
    with pytest.raises(ResourceError, match="broken"):
        trials.find([broken], Place(tmp_path, tmp_path / "work"), tmp_path / "found")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "what"),
    [("plaque", "lecl-paper"), ("points", "10pct"), ("contrast", "with-interleaved-1of4"),
     ("dsb2018", "lecl")],
)  # fmt: skip
def test_a_short_run_of_every_kind_ends_in_figures(
    part: str, what: str, data: Path, tmp_path: Path
) -> None:
    chosen = {
        "plaque": ("d1_train_01", "d1_train_02", "d1_test_01", "d2_dev_01"),
        "crc_histophenotypes": ("img1", "img2", "img3", "img4"),
        "dsb2018_fluorescence": [
            path.stem for path in sorted((data / "dsb2018_fluorescence").glob("*.png"))[:6]
        ],
    }
    for folder, names in chosen.items():
        (tmp_path / "data" / folder).mkdir(parents=True)
        for path in (data / folder).iterdir():
            if path.name.split(".")[0] in names:
                (tmp_path / "data" / folder / path.name).symlink_to(path)
    record = do_run(small_run(part, what), tmp_path / "results", tmp_path / "data")
    assert record["figures"]["train"]["steps"] == 3


def test_types_at_the_true_nuclei_are_scored_by_hand_count() -> None:
    true = np.array(["a", "a", "b", "", "b"])
    chance = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.5, 0.5], [0.3, 0.7]])
    found = judge_types(true, chance, ("a", "b"))
    assert found["n"] == 4
    assert found["confusion"] == [[1, 1], [0, 2]]
    assert found["accuracy"] == 0.75
    assert found["f1"] == pytest.approx({"a": 2 / 3, "b": 4 / 5})
    assert found["weighted_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert 0 <= found["calibration_error"] <= 1


def test_without_a_typed_nucleus_no_type_is_scored() -> None:
    found = judge_types(np.array(["", ""]), np.zeros((2, 2)), ("a", "b"))
    assert found["n"] == 0
    assert found["weighted_f1"] is found["macro_f1"] is found["calibration_error"] is None
