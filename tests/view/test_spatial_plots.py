"""Pictures of spatial statistics: valid SVG, with the numbers in it and names made harmless."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial import Settings, analyse
from nucleoscope.view.spatial import (
    curve_plot,
    diverging,
    enrichment_map,
    figures,
    niche_map,
)

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["a & b", "<script>", "tumour"]


def result_of(n: int = 120, images=("tile",)):
    rng = np.random.default_rng(0)
    tables = []
    for image in images:
        at = rng.random((n, 2)) * [200, 400]
        frame = pd.DataFrame({"id": np.arange(n), "image": image, "y": at[:, 0], "x": at[:, 1]})
        frame["type"] = rng.choice(NAMES, n)
        tables.append(NucleusTable(frame))
    settings = Settings(reach="40px", n_bins=6, n_simulations=19, n_niches=3)
    return analyse(tables, statistics=("enrichment", "k", "g", "niches"), settings=settings)


@pytest.fixture(scope="module")
def result():
    return result_of()


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314  our own output


def test_the_heat_map_has_a_cell_per_pair_and_escapes_names(result):
    svg = enrichment_map(result)
    assert "<script>" not in svg
    assert len(parsed(svg).findall(f"{SVG}rect")) == 9
    assert "a &amp; b" in svg


def test_nothing_written_on_a_drawing_reaches_over_its_edge(result):
    for drawing in figures(result):
        width = float(re.search(r'<svg [^>]*?width="([\d.]+)"', drawing)[1])
        for x, anchor, text in re.findall(
            r'<text x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)"[^>]*>([^<]*)</text>', drawing
        ):
            right = {"start": 1.0, "middle": 0.5, "end": 0.0}[anchor] * 6 * len(text)
            assert float(x) + right <= width, text


def test_colours_diverge_and_gaps_are_grey():
    assert diverging(-2.0, 2.0) == "#2166ac"
    assert diverging(5.0, 2.0) == diverging(2.0, 2.0)
    assert diverging(float("nan"), 1.0) == "#dddddd"


@pytest.mark.parametrize("statistic", ["k", "g"])
def test_a_curve_has_its_envelope_its_theory_and_its_p(result, statistic):
    svg = curve_plot(result, statistic, "a & b", "tumour")
    root = parsed(svg)
    assert len(root.findall(f"{SVG}polyline")) == 2
    assert len(root.findall(f"{SVG}polygon")) == 1
    assert re.search(r"p = 0\.\d+|p = 1", root.find(f"{SVG}title").text)


def test_the_map_shows_every_niche_in_its_colour_over_the_image(result):
    background = np.full((200, 400, 3), 100, np.uint8)
    svg = niche_map(result, background=background)
    image = parsed(svg).find(f"{SVG}image")
    from imagecodecs import png_decode

    rows = png_decode(base64.b64decode(image.get("href").split(",")[1]))
    assert rows.shape == (200, 400, 3)
    colours = {tuple(c) for c in rows.reshape(-1, 3).tolist()}
    assert (178, 178, 178) in colours
    assert (0x00, 0x72, 0xB2) in colours
    at = np.rint(result.patterns[0].at[0]).astype(int)
    assert tuple(rows[min(at[0], 199), min(at[1], 399)].tolist()) != (178, 178, 178)


def test_a_map_without_an_image_is_drawn_on_white_by_any_column(result):
    svg = niche_map(result, column="type", side=100)
    image = parsed(svg).find(f"{SVG}image")
    assert max(int(image.get("width")), int(image.get("height"))) == 101


def test_figures_are_what_there_is_to_show(result):
    assert len(figures(result, n_curves=2)) == 2 + 2 + 2
    only = analyse([], statistics=())
    assert figures(only) == []


def test_an_image_must_be_named_when_there_are_several():
    several = result_of(40, ("a", "b"))
    with pytest.raises(CallError, match="there are a, b"):
        enrichment_map(several)
    assert "b: log2" in enrichment_map(several, image="b")


def test_what_is_not_there_is_refused(result):
    with pytest.raises(CallError, match="no curve from 'x'"):
        curve_plot(result, "k", "x", "tumour")
    with pytest.raises(CallError, match="no 'zone'"):
        niche_map(result, column="zone")
    with pytest.raises(InputError, match=r"\(Y, X, 3\) uint8"):
        niche_map(result, background=np.zeros((4, 4), np.uint8))


def test_few_nuclei_and_gaps_are_drawn_too():
    few = result_of(3)
    assert parsed(enrichment_map(few)) is not None
    names = few.patterns[0].names
    assert "p" in curve_plot(few, "k", names[0], names[0])
    assert parsed(niche_map(few)) is not None
