"""Images annotated in part: what was not clicked is unknown, and later asked of the network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.data.maps import UNLABELLED
from nucleoscope.data.points import Points
from nucleoscope.flow.inputs import Example
from nucleoscope.flow.lessons import prepare
from nucleoscope.learn.fit import THRESHOLDS, detection_f1, extrapolated, look, working_point
from nucleoscope.learn.lecl import train_model
from nucleoscope.learn.lesson import Lesson
from nucleoscope.learn.model import Model
from nucleoscope.learn.partial import (
    COMPLETE,
    ROUNDS,
    clicked_share,
    judged,
    otsu,
    propose,
    relearnt,
    taught_with,
)
from nucleoscope.learn.recipes import Recipe
from nucleoscope.learn.train import TrainSettings, train_network
from nucleoscope.metrics.detection import match_points
from nucleoscope.simulator import PlaqueSettings, Scene, simulate_plaque
from nucleoscope.units import z_step_px

FOREVER = float("inf")


@pytest.fixture(scope="module")
def wide() -> Scene:
    """A scene of enough nuclei to be counted."""
    made = simulate_plaque(PlaqueSettings(size=192, n_slices=5, roi=False, density=0.15), 3)
    return replace(made, volume=replace(made.volume, name="wide"))


def some(points: Points, share: float, seed: int = 0) -> Points:
    keep = np.random.default_rng(seed).permutation(len(points)) < max(2, share * len(points))
    return points.where(keep)


def example(scene: Scene, share: float) -> Example:
    return Example(scene.volume, some(scene.points, share), None, {})


@pytest.fixture(scope="module")
def third(wide: Scene, small: Recipe) -> Lesson:
    """The lesson of a scene of which a third was clicked."""
    return prepare([example(wide, 0.33)], small)[1][0]


# ---------------------------------------------------------------- finding out


@pytest.mark.parametrize("share", [1.0, 0.6, 0.3])
def test_the_share_of_clicked_nuclei_is_estimated(wide: Scene, share: float) -> None:
    clicks = some(wide.points, share).zyx()
    area = np.ones(wide.volume.shape[1:], bool)
    found = propose(wide.volume.data[-1], clicks, z_step_px(wide.volume.spacing, 11.0), area)
    assert found.share == pytest.approx(share, abs=0.17)
    assert (found.share >= COMPLETE) == (share == 1.0)


def test_sparse_clicks_do_not_make_nuclei_look_larger(wide: Scene) -> None:
    area, step = np.ones(wide.volume.shape[1:], bool), z_step_px(wide.volume.spacing, 11.0)
    few, all_of_them = (
        propose(wide.volume.data[-1], some(wide.points, share).zyx(), step, area).radius
        for share in (0.15, 1.0)
    )
    assert few == pytest.approx(all_of_them, rel=0.15)


@pytest.mark.parametrize("seed", range(4))
def test_one_click_is_enough_to_know_nuclei_from_noise(wide: Scene, seed: int) -> None:
    one = np.random.default_rng(seed).integers(len(wide.points), size=1)
    clicks = wide.points.zyx()[one]
    area = np.ones(wide.volume.shape[1:], bool)
    found = propose(wide.volume.data[-1], clicks, z_step_px(wide.volume.spacing, 11.0), area)
    likely, truth = found.zyx[found.is_likely], np.delete(wide.points.zyx(), one, axis=0)
    right = len(match_points(likely, truth, radius=(2, 16, 16)).truth_index)
    assert right > 0.75 * len(truth)
    assert right > 0.8 * len(likely)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=30, unique=True))
def test_no_other_height_parts_the_blobs_better(heights: list[int]) -> None:
    x = np.sort(np.log(np.array(heights, dtype=float)))

    def apart(n: int) -> float:
        return n * (len(x) - n) * (x[:n].mean() - x[n:].mean()) ** 2

    best = max(apart(n) for n in range(1, len(x)))
    found = int((x <= np.log(otsu(np.exp(x)))).sum())
    assert apart(found) == pytest.approx(best)


def test_nothing_outside_the_area_is_proposed(wide: Scene) -> None:
    area = np.zeros(wide.volume.shape[1:], bool)
    area[:, :96] = True
    clicks = wide.points.zyx()[wide.points.x < 90][:5]
    found = propose(wide.volume.data[-1], clicks, z_step_px(wide.volume.spacing, 11.0), area)
    assert len(found.zyx)
    assert found.zyx[:, 2].max() < 96


def test_images_are_weighed_by_their_nuclei() -> None:
    assert clicked_share([0.5, 1.0], [50, 100]) == pytest.approx(150 / 200)
    assert clicked_share([], []) == 1.0


def test_complete_images_are_left_as_they_were(wide: Scene, small: Recipe) -> None:
    found, told = (
        prepare([example(wide, 1.0)], small, partial=partial)[1][0] for partial in (None, False)
    )
    assert found.partial is None
    assert np.array_equal(found.foreground, told.foreground)


def test_it_can_be_said_instead(wide: Scene, small: Recipe) -> None:
    assert prepare([example(wide, 0.3)], small, partial=False)[1][0].partial is None
    assert prepare([example(wide, 1.0)], small, partial=True)[1][0].partial is not None


# ---------------------------------------------------------------- the first lesson


def truth_at(lesson: Lesson, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """What is taught at the centres of clicked and of unclicked nuclei."""
    assert lesson.partial is not None
    zyx = scene.points.zyx()
    near = np.linalg.norm(zyx[:, None, 1:] - lesson.partial.clicks[None, :, 1:], axis=2).min(1) < 1
    z, y, x = np.rint(zyx).astype(int).T
    taught = lesson.foreground[z, y, x]
    return taught[near], taught[~near]


def test_unclicked_nuclei_are_not_background(third: Lesson, wide: Scene, small: Recipe) -> None:
    clicked, others = truth_at(third, wide)
    assert (clicked == 1).mean() > 0.9
    assert (others == 0).mean() < 0.06
    # Most of them look like the clicked ones and are taught as nuclei.
    assert (others == 1).mean() > 0.6
    # Nor is everything unknown: most of what is dark is still background.
    dark = wide.labels.data == 0
    assert (third.foreground[dark] == 0).mean() > 0.5


def test_likely_proposals_are_nuclei_without_a_type_and_the_others_unknown(third: Lesson) -> None:
    partial = third.partial
    assert partial is not None
    n = len(partial.clicks)
    assert 0 < partial.is_likely.sum() < len(partial.is_likely)
    assert len(third.centres) == len(third.types) == n + partial.is_likely.sum()
    assert (third.types[:n] >= 0).all()
    assert (third.types[n:] == -1).all()
    z, y, x = np.rint(partial.proposals[~partial.is_likely]).astype(int).T
    assert (third.foreground[z, y, x] == UNLABELLED).all()
    assert (third.instances[z, y, x] == 0).all()


def test_likely_proposals_are_nuclei(third: Lesson, wide: Scene) -> None:
    partial = third.partial
    assert partial is not None
    likely = partial.proposals[partial.is_likely]
    reach = (2.0, 1.5 * partial.radius, 1.5 * partial.radius)
    right = match_points(likely, wide.points.zyx(), radius=reach)
    assert len(right.predicted_index) > 0.9 * len(likely)


# ---------------------------------------------------------------- asking


def test_answers_become_nuclei_unknown_places_and_background(third: Lesson) -> None:
    assert third.partial is not None
    sure, doubtful, none = np.array_split(third.partial.proposals, 3)
    made = relearnt(third, sure, doubtful)
    n = len(third.partial.clicks)
    assert len(made.centres) == n + len(sure)
    assert (made.types[n:] == -1).all()
    assert np.array_equal(made.types[:n], third.types[:n])

    def taught(places: np.ndarray) -> np.ndarray:
        z, y, x = np.rint(places).astype(int).T
        return made.foreground[z, y, x]

    assert (taught(sure) == 1).mean() > 0.8
    assert (taught(doubtful) == UNLABELLED).all()
    assert (taught(none) != 1).mean() > 0.8


def test_peaks_are_sorted_by_height_and_clicked_ones_left_out(third: Lesson) -> None:
    partial = third.partial
    assert partial is not None
    peaks = np.concatenate([partial.clicks + 0.3, partial.proposals[:4]])
    score = np.concatenate([np.full(len(partial.clicks), 0.9), [0.5, 0.3, 0.9, 0.2]])
    sure, doubtful = judged(partial, peaks, score, 0.4)
    assert np.array_equal(sure, partial.proposals[[0, 2]])
    assert np.array_equal(doubtful, partial.proposals[[1, 3]])
    # Before the last round a proposal without a peak is not ruled out.
    assert len(judged(partial, peaks, score, 0.4, is_last=False)[1]) == len(partial.proposals) - 2


def test_the_network_alone_is_not_believed(third: Lesson) -> None:
    partial = third.partial
    assert partial is not None
    places = np.concatenate([partial.clicks, partial.proposals])
    grid = np.stack(np.meshgrid([2.0], range(8, 184, 8), range(8, 184, 8)), -1).reshape(-1, 3)
    apart = np.linalg.norm(grid[:, None, 1:] - places[None, :, 1:], axis=2).min(1)
    lone = grid[apart > 2.5 * partial.radius][:3]
    if not len(lone):
        pytest.skip("this scene is too full for a lone place")
    sure, doubtful = judged(partial, lone, np.full(len(lone), 0.99), 0.4)
    assert len(sure) == 0
    assert np.array_equal(doubtful, lone)


def test_a_lesson_in_full_is_not_asked_about(lessons: list[Lesson]) -> None:
    with pytest.raises(ValueError, match="in full"):
        relearnt(lessons[0], np.zeros((0, 3)), np.zeros((0, 3)))


def test_no_answer_at_all_is_no_special_case(third: Lesson) -> None:
    assert third.partial is not None
    made = taught_with(third.volume, third.partial, np.zeros((0, 3)), np.zeros((0, 3)))
    assert len(made.centres) == len(third.partial.clicks)


# ---------------------------------------------------------------- judging


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(40, 400), share=st.floats(0.2, 1.0), recall=st.floats(0.1, 1.0),
    false=st.integers(0, 200),
)  # fmt: skip
def test_counts_are_extrapolated_to_all_nuclei(
    n: int, share: float, recall: float, false: int
) -> None:
    clicks = share * n
    counts = np.array([recall * clicks, recall * n + false, clicks])
    right, found, nuclei = extrapolated(counts, float(n))
    assert right == pytest.approx(recall * n)
    assert (found, nuclei) == (pytest.approx(recall * n + false), n)


def test_no_more_is_right_than_was_found_and_nothing_is_nothing() -> None:
    assert extrapolated(np.array([10, 30, 10]), 100.0).tolist() == [30, 30, 100]
    assert extrapolated(np.zeros((3, 3), np.int64), 0.0).tolist() == [[0, 0, 0]] * 3


def test_the_working_point_is_that_of_the_whole_annotation(wide: Scene, small: Recipe) -> None:
    classical = replace(small, network=None, name="classical")
    points, scores = [], []
    for share in (1.0, 0.35):
        config, lessons = prepare([example(wide, share)], classical)
        seen = look(Model(config), lessons)
        chosen = working_point(seen, config)
        points.append(chosen.threshold)
        scores.append(detection_f1(seen, chosen))
    assert points[1] == pytest.approx(points[0], abs=0.12)
    assert scores[1] == pytest.approx(scores[0], abs=0.12)
    assert min(THRESHOLDS) <= points[1] <= max(THRESHOLDS)


# ---------------------------------------------------------------- training


def test_the_network_is_asked_and_a_resumed_run_ends_bit_equal(
    scenes: list[Scene], small: Recipe, tmp_path
) -> None:
    config, lessons = prepare([example(scenes[0], 0.4)], small, partial=True)
    spec = train_model(lessons, config, replace(small, steps=1), TrainSettings(FOREVER)).config
    told: list[float] = []

    class Killed(Exception):
        pass

    def stop(progress) -> None:
        told.append(progress.fraction)
        if progress.step == 5:
            raise Killed

    def settings_for(name: str, *, resume: bool = False) -> TrainSettings:
        return TrainSettings(FOREVER, checkpoint=tmp_path / name, resume=resume)

    eight = replace(small, steps=8)
    straight, _ = train_network(lessons, [], spec, eight, settings_for("a"))
    with pytest.raises(Killed):
        train_network(lessons, [], spec, eight, settings_for("b"), report=stop)
    assert told[-1] > ROUNDS[0]
    again, _ = train_network(lessons, [], spec, eight, settings_for("b", resume=True))
    for name, value in straight.network.state_dict().items():
        assert value.equal(again.network.state_dict()[name]), name


def test_the_model_says_how_much_was_annotated(scenes: list[Scene], small: Recipe) -> None:
    config, lessons = prepare([example(scenes[0], 0.4)], small, partial=True)
    quick = replace(small, steps=2)
    model = train_model(lessons, config, quick, TrainSettings(FOREVER))
    assert 0 < model.config.training["annotated_share"] < 1
    assert model.config.training["points"] == len(lessons[0].partial.clicks)
