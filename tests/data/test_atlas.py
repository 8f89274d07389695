"""The atlas type checks itself at birth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nucleoscope.data.atlas import Atlas, unit_rows
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError


def table(n: int) -> NucleusTable:
    return NucleusTable(pd.DataFrame({"id": np.arange(n), "y": np.zeros(n), "x": np.arange(n)}))


def vectors(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d)))


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (5, 7), elements=st.floats(0.1, 1e6)))
def test_unit_rows_have_length_one_in_half_precision(raw: np.ndarray) -> None:
    length = np.linalg.norm(unit_rows(raw).astype(np.float64), axis=1)
    assert np.allclose(length, 1, atol=2e-3)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_row_that_has_no_direction_is_refused_and_named(bad: float) -> None:
    raw = np.ones((4, 3))
    raw[2] = bad
    with pytest.raises(InputError, match=r"1 rows .* row 2"):
        unit_rows(raw)


def test_a_flat_list_is_no_embedding() -> None:
    with pytest.raises(InputError, match="shape"):
        unit_rows([1.0, 2.0])


def test_an_atlas_refuses_rows_that_are_not_scaled() -> None:
    wrong = vectors(3).copy()
    wrong[1] *= 2
    with pytest.raises(InputError, match="row 1 is not of length 1"):
        Atlas(table(3), wrong)


def test_an_atlas_refuses_nan() -> None:
    wrong = vectors(3).copy()
    wrong[2, 0] = np.nan
    with pytest.raises(InputError, match="row 2"):
        Atlas(table(3), wrong)


@pytest.mark.parametrize("name", ["embedding", "context", "features", "subtypes", "map2d"])
def test_every_part_has_one_row_per_nucleus(name: str) -> None:
    parts = {
        "embedding": vectors(3),
        "context": vectors(4),
        "features": pd.DataFrame({"f_a": [1.0] * 4}),
        "subtypes": pd.DataFrame({"subtype": ["1"] * 4}),
        "map2d": pd.DataFrame({"map_x": [0.0] * 4, "map_y": [0.0] * 4}),
    }
    good = {"embedding": vectors(3)} if name != "embedding" else {}
    with pytest.raises(InputError, match=name):
        Atlas(table(4 if name == "embedding" else 3), **(good | {name: parts[name]}))


def test_whole_numbers_are_no_embedding() -> None:
    with pytest.raises(InputError, match="int64"):
        Atlas(table(2), np.eye(2, dtype=np.int64))


def test_columns_have_the_names_of_the_contract() -> None:
    with pytest.raises(InputError, match="begin with f_"):
        Atlas(table(1), vectors(1), features=pd.DataFrame({"area": [1.0]}))
    with pytest.raises(InputError, match="'subtype'"):
        Atlas(table(1), vectors(1), subtypes=pd.DataFrame({"cluster": ["1"]}))
    with pytest.raises(InputError, match="map_x"):
        Atlas(table(1), vectors(1), map2d=pd.DataFrame({"x": [1.0]}))


def test_the_frame_shows_subtypes_of_the_atlas_before_features() -> None:
    typed = NucleusTable(table(2).frame.assign(subtype="old"))
    atlas = Atlas(
        typed, vectors(2), features=pd.DataFrame({"f_a": [1.0, 2.0]}),
        subtypes=pd.DataFrame({"subtype": ["1", "2"]}),
    )  # fmt: skip
    frame = atlas.frame()
    assert frame["subtype"].tolist() == ["1", "2"]
    assert list(frame.columns)[-2:] == ["subtype", "f_a"]


def test_the_joint_vector_weighs_surroundings_by_alpha() -> None:
    atlas = Atlas(table(5), vectors(5), context=vectors(5, 4, 1))
    both = atlas.joint(0.5)
    assert np.allclose(np.linalg.norm(both, axis=1), 1, atol=2e-3)
    inner = both @ both.T
    expected = (
        atlas.embedding.astype(float) @ atlas.embedding.astype(float).T
        + 0.25 * atlas.context.astype(float) @ atlas.context.astype(float).T
    ) / 1.25
    assert np.allclose(inner, expected, atol=1e-5)
    assert np.array_equal(atlas.joint(0), atlas.embedding.astype(np.float32))


def test_without_surroundings_there_is_no_joint_vector() -> None:
    with pytest.raises(InputError, match="context"):
        Atlas(table(1), vectors(1)).joint()
