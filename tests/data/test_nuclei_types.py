"""Outlines, nuclei and crop stores: what they accept and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.data.crops import CropStore
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError

RINGS = st.lists(
    st.one_of(
        st.just([]),
        st.lists(
            st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)), min_size=3, max_size=8
        ),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(RINGS)
def test_rings_come_back_as_they_went_in(rings: list[list[tuple[float, float]]]) -> None:
    outlines = Outlines.from_rings(rings)
    assert len(outlines) == len(rings)
    assert outlines.is_known().tolist() == [bool(ring) for ring in rings]
    for i, ring in enumerate(rings):
        assert [tuple(v) for v in outlines[i]] == ring


@settings(max_examples=60, deadline=None)
@given(RINGS)
def test_areas_and_boxes_equal_shapely(rings: list[list[tuple[float, float]]]) -> None:
    outlines = Outlines.from_rings(rings)
    areas, boxes = outlines.areas(), outlines.boxes()
    for ring, area, box in zip(rings, areas, boxes, strict=True):
        if not ring:
            assert area == 0
            assert np.isnan(box).all()
            continue
        ring_area = abs(shapely.Polygon(ring).area)
        span = np.ptp(np.array(ring), axis=0).max()
        assert area == pytest.approx(ring_area, rel=1e-9, abs=1e-9 * max(1.0, span**2))
        assert box.tolist() == [*np.min(ring, axis=0), *np.max(ring, axis=0)]


@settings(deadline=None)
@given(RINGS, st.data())
def test_taking_rows_takes_their_rings(rings: list[Any], data: st.DataObject) -> None:
    outlines = Outlines.from_rings(rings)
    rows = data.draw(st.lists(st.integers(0, len(rings) - 1), max_size=8)) if rings else []
    taken = outlines.take(np.array(rows, dtype=np.int64))
    assert [taken[i].tolist() for i in range(len(taken))] == [outlines[r].tolist() for r in rows]


@pytest.mark.parametrize(
    ("vertices", "offsets", "said"),
    [
        (np.zeros((3, 3)), [0, 3], "(V, 2)"),
        (np.zeros((3, 2)), [1, 3], "start at 0"),
        (np.zeros((3, 2)), [0, 4], "rise to"),
        (np.zeros((3, 2)), [0, 3, 0, 3], "rise to"),
        (np.zeros((2, 2)), [0, 2], "needs three"),
        (np.full((3, 2), np.nan), [0, 0, 3], "outline 2 has a vertex"),
    ],
)
def test_damaged_outlines_are_refused(vertices: Any, offsets: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        Outlines(vertices, np.array(offsets))
    assert said in str(error.value)


def table(ids: list[int], image: str = "") -> NucleusTable:
    n = len(ids)
    return NucleusTable(pd.DataFrame({"id": ids, "image": image, "y": np.arange(n), "x": 1.0}))


def test_outlines_and_rows_go_together() -> None:
    outlines = Outlines.from_rings([[(0, 0), (0, 1), (1, 1)], []])
    nuclei = Nuclei(table([4, 9]), outlines).take(np.array([False, True]))
    assert len(nuclei) == 1
    assert nuclei.outlines is not None
    assert not nuclei.outlines.is_known().any()
    with pytest.raises(InputError, match="2 outlines were given for 3"):
        Nuclei(table([1, 2, 3]), outlines)


def store(n: int = 5, slides: tuple[str, ...] = ("a", "b")) -> CropStore:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, n, 64, 64, 3)).astype(np.uint8)
    mask = (pictures[0, ..., 0] > 99).astype(np.uint8)
    return CropStore(
        pictures[0], pictures[1], mask, np.arange(n) % 2 == 0, np.arange(n) % len(slides),
        slides, np.arange(n) * 10,
    )  # fmt: skip


def test_rows_are_taken_in_the_order_asked_for() -> None:
    crops = store()
    taken = crops.take([4, 0, 4])
    assert taken.id.tolist() == [40, 0, 40]
    assert np.array_equal(taken.morphology, crops.morphology[[4, 0, 4]])
    assert np.array_equal(taken.mask, crops.mask[[4, 0, 4]])
    assert taken.border.tolist() == [True, True, True]


def test_blocks_are_the_store_in_pieces() -> None:
    crops = store()
    pieces = list(crops.blocks(2))
    assert [(start, len(block)) for start, block in pieces] == [(0, 2), (2, 2), (4, 1)]
    joined = np.concatenate([block.context for _, block in pieces])
    assert np.array_equal(joined, crops.context)


def test_crops_find_their_rows_in_a_table() -> None:
    crops = store(4)  # ids 0, 10, 20, 30 of slides a, b, a, b
    frame = pd.concat([table([30, 10, 20], "b").frame, table([20, 0], "a").frame])
    assert crops.table_rows(NucleusTable(frame)).tolist() == [4, 1, 3, 0]
    alone = store(2, ("a",))
    assert alone.table_rows(table([10, 0])).tolist() == [1, 0]
    with pytest.raises(InputError, match="nucleus 10 of a is not in the table"):
        alone.table_rows(table([0]))


def test_stores_that_do_not_fit_are_refused() -> None:
    good = store()
    with pytest.raises(InputError, match="morphology"):
        CropStore(good.morphology[:, :32], good.context, good.mask, good.border, good.slide,
                  good.slides, good.id)  # fmt: skip
    with pytest.raises(InputError, match="mask"):
        CropStore(good.morphology, good.context, good.mask > 0, good.border, good.slide,
                  good.slides, good.id)  # fmt: skip
    with pytest.raises(InputError, match="slide index"):
        CropStore(good.morphology, good.context, good.mask, good.border, good.slide, ("a",),
                  good.id)  # fmt: skip
    with pytest.raises(InputError, match="one value for each"):
        CropStore(good.morphology, good.context, good.mask, good.border[:2], good.slide,
                  good.slides, good.id)  # fmt: skip


def test_an_empty_store_is_a_store() -> None:
    empty = store().take(np.zeros(5, dtype=bool))
    assert len(empty) == 0
    assert list(empty.blocks()) == []
    assert empty.table_rows(table([1], "a")).tolist() == []
