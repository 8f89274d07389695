"""Charts as geometry: nothing is lost, nothing leaves the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.view import charts

COLOURS = {"positive": "#E69F00", "negative": "#56B4E9"}


@given(st.lists(st.floats(0, 1), max_size=60), st.lists(st.floats(0, 1), max_size=60))
def test_every_value_is_counted_once(first: list[float], second: list[float]) -> None:
    groups = {"positive": np.array(first, float), "negative": np.array(second, float)}
    chart = charts.histogram("score", groups, COLOURS)
    if not first and not second:
        assert chart is None
        return
    assert chart is not None
    counted = sum(int(bar.title.split(": ")[1].split()[0]) for bar in chart.bars)
    assert counted == chart.n == len(first) + len(second)
    assert all(bar.y >= charts.TOP - 0.01 for bar in chart.bars)


def test_values_that_are_missing_make_no_chart() -> None:
    assert charts.histogram("p", {"positive": np.array([np.nan, np.inf])}, COLOURS) is None


@pytest.mark.parametrize(
    ("value", "bin_"), [(0.0, "0.00-0.05"), (0.15, "0.15-0.20"), (1.0, "0.95-1.00")]
)
def test_an_edge_opens_its_bin_and_one_closes_the_last(value: float, bin_: str) -> None:
    chart = charts.histogram("p", {"positive": np.array([value])}, COLOURS)
    assert chart is not None
    assert chart.bars[0].title == f"{bin_}: 1 positive"


def test_curves_keep_their_first_and_last_points_when_thinned() -> None:
    history = [{"step": i, "loss": float(i % 7)} for i in range(5000)]
    chart = charts.line_chart("loss", history, ["loss"], max_points=50)
    assert chart is not None
    points = chart.curves[0].points.split()
    assert len(points) == 50
    assert points[0].startswith(f"{charts.LEFT:.1f},")
    assert points[-1].startswith(f"{charts.WIDTH - charts.RIGHT:.1f},")


def test_rows_without_a_value_are_left_out() -> None:
    history = [{"step": 0, "loss": 1.0}, {"step": 1}, {"step": 2, "loss": float("nan")}]
    chart = charts.line_chart("loss", history, ["loss", "val_loss"])
    assert chart is not None
    assert [c.name for c in chart.curves] == ["loss"]
    assert len(chart.curves[0].points.split()) == 1


@pytest.mark.parametrize("history", [[], [{"step": 1}], [{"loss": None}], [{"loss": "high"}]])
def test_nothing_to_draw_makes_no_chart(history: list[dict[str, object]]) -> None:
    assert charts.line_chart("loss", history, ["loss"]) is None


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_lie_inside_and_are_few(low: float, span: float) -> None:
    found = charts.ticks(low, low + span)
    slack = 1e-6 * max(abs(low), span)
    assert all(low - slack <= v <= low + span + slack for v in found)
    assert len(found) <= 8
