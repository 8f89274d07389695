"""Pages as Markdown and HTML: nothing lost, nothing run, the same from the same."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from nucleoscope.errors import CallError
from nucleoscope.view.curves import Dot, Series, curves_svg, dots_svg
from nucleoscope.view.page import Code, Page, Picture, Section, Table, to_html, to_markdown

SVG = dots_svg("F1", [Dot("lecl", 0.9, 0.8, 0.95)], x_label="F1")
PAGE = Page(
    "Results <1>",
    "Lead & more.",
    (
        Section("One", ("Text <b>.", Code("bench lecl --data DIR"), Picture("dots", SVG, "Dots."))),
        Section("Two", (Table(("a", "b"), (("x|y", "<script>"),), "A note."),)),
    ),
)


def test_markdown_holds_every_block() -> None:
    text = to_markdown(PAGE, "pictures/results")
    assert "![Dots.](pictures/results/dots.svg)" in text
    assert "```\nbench lecl --data DIR\n```" in text
    assert "| x\\|y | <script> |" in text
    assert text.endswith("A note.\n")


def test_the_web_page_escapes_text_and_asks_for_nothing() -> None:
    html = to_html(PAGE)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert SVG in html
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert links == []
    assert "default-src 'none'" in html


def test_the_web_page_closes_what_it_opens() -> None:
    stack: list[str] = []

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                stack.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert stack.pop() == tag

    Check().feed(to_html(PAGE))
    assert stack == []


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(CallError, match="1 cells under 2"):
        Table(("a", "b"), (("x",),))


def test_the_same_page_gives_the_same_text() -> None:
    assert to_html(PAGE) == to_html(PAGE)
    assert to_markdown(PAGE, "p") == to_markdown(PAGE, "p")


def test_a_curve_leaves_out_values_that_are_not_known() -> None:
    nan = float("nan")
    series = Series("a", (1.0, 2.0, 3.0), (0.5, nan, 0.7), (0.4, nan, 0.6), (0.6, nan, 0.8))
    svg = curves_svg("t", [series], x_label="x", y_label="y", diagonal=True)
    assert svg.count("<circle") == 2
    assert "nan" not in svg


def test_a_curve_of_one_point_and_names_with_marks_are_drawn() -> None:
    svg = curves_svg("a < b", [Series("<x>", (2.0,), (0.5,))], x_label="x", y_label="y")
    assert "&lt;x&gt;" in svg
    assert "a &lt; b" in svg
    assert "nan" not in svg


def test_points_on_a_logarithmic_axis_are_evenly_spaced_by_factor() -> None:
    svg = curves_svg(
        "t", [Series("a", (1.0, 10.0, 100.0), (0, 0, 0))], x_label="", y_label="", is_log=True
    )
    at = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    assert at[2] - at[1] == pytest.approx(at[1] - at[0], abs=0.2)


def test_dots_without_an_interval_have_no_line() -> None:
    assert dots_svg("t", [Dot("a", 0.5)], x_label="").count('stroke-width="3"') == 0
    with_goal = dots_svg("t", [Dot("a", 0.5)], x_label="", goal=0.6)
    assert with_goal.count("stroke-dasharray") == 1


def test_impossible_drawings_are_refused() -> None:
    with pytest.raises(CallError, match="different lengths"):
        Series("a", (1.0, 2.0), (1.0,))
    with pytest.raises(CallError, match="nothing to draw"):
        curves_svg("t", [], x_label="", y_label="")
    with pytest.raises(CallError, match="logarithmic"):
        curves_svg("t", [Series("a", (0.0,), (1.0,))], x_label="", y_label="", is_log=True)
    with pytest.raises(CallError, match="nothing to draw"):
        dots_svg("t", [], x_label="")


def test_the_longest_name_of_a_row_fits_before_the_axis() -> None:
    name = "lecl-paper, united as published"
    svg = dots_svg("F1", [Dot(name, 0.5), Dot("mip", 0.6)], x_label="F1")
    found = re.search(rf'<text x="([\d.]+)"[^>]*>{name}<', svg)
    assert found and float(found[1]) >= 6 * len(name)
