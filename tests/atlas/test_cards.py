"""Cards say what is different, by how much, in words."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.atlas.cards import NEGLIGIBLE, cliffs_delta, write_cards
from nucleoscope.errors import InputError


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=30))
def test_cliffs_delta_is_that_of_all_pairs(pairs: list[tuple[int, int]]) -> None:
    values = np.array([p[0] for p in pairs], float)
    code = np.array([p[1] for p in pairs])
    found = cliffs_delta(values, code, 3)
    for group in range(3):
        own, rest = values[code == group], values[code != group]
        signs = np.sign(own[:, None] - rest[None])
        assert found[group] == pytest.approx(signs.mean() if signs.size else 0)


def table(n: int = 400) -> tuple[np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(0)
    code = np.repeat([0, 1], n // 2)
    frame = pd.DataFrame(
        {
            "f_area_um2": np.where(code == 0, 48, 31) + rng.normal(size=n),
            "f_perimeter_um": np.where(code == 0, 25, 20) + rng.normal(size=n),
            "f_hematoxylin_mean_od": np.where(code == 0, 0.3, 0.4) + 0.05 * rng.normal(size=n),
            "f_solidity": rng.random(n),
            "f_ring_eosin_mean_od": np.nan,
        }
    )
    return np.array(["1", "2"])[code], frame


def test_a_card_names_the_largest_differences_one_per_family() -> None:
    names, frame = table()
    card = write_cards(names, features=frame)["1"]
    found = (
        r"larger \(area 4\S+ vs 3\S+ um2, 1\.[56]x\); paler \(hematoxylin, mean .* OD, 0\.7\dx\)"
    )
    assert re.fullmatch(found, card.text)
    assert [d.feature for d in card.differences] == ["f_area_um2", "f_hematoxylin_mean_od"]
    assert card.n == 200 and card.share == 0.5
    assert "smaller (area 3" in write_cards(names, features=frame)["2"].text


def test_what_is_negligible_is_not_named() -> None:
    names, frame = table()
    card = write_cards(names, features=frame[["f_solidity"]])["1"]
    assert card.text == "like the others in all features" and card.differences == ()
    assert all(
        abs(d.delta) >= NEGLIGIBLE for d in write_cards(names, features=frame)["1"].differences
    )


def test_slides_and_types_are_summed_up() -> None:
    names = np.array(["1"] * 4 + ["2"] * 4)
    slides = ["a", "b", "a", "b", "a", "a", "a", "a"]
    types = ["tumour", "tumour", "tumour", "immune", "", "", "", "immune"]
    cards = write_cards(names, images=slides, types=types)
    assert cards["1"].slide_entropy == pytest.approx(1) and cards["2"].slide_entropy == 0
    assert list(cards["1"].types.items()) == [("tumour", 0.75), ("immune", 0.25)]
    assert cards["2"].types == {"immune": 1.0}
    assert np.isnan(write_cards(names, images=["a"] * 8)["1"].slide_entropy)


def test_a_card_has_a_json_form() -> None:
    names, frame = table()
    for card in write_cards(names, features=frame).values():
        assert json.loads(json.dumps(card.plain(), allow_nan=False))["name"] == card.name


def test_one_subtype_alone_is_like_the_others() -> None:
    _, frame = table(10)
    assert write_cards(["1"] * 10, features=frame)["1"].differences == ()


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match="images: 1 rows for 2"):
        write_cards(["1", "2"], images=["a"])
