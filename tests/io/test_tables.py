from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.data import NucleusTable
from nucleoscope.errors import InputError, UnsafeInputError
from nucleoscope.io.guard import Limits
from nucleoscope.io.tables import guard_cells, read_table, restore_cells, types_of, write_table

ODD = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "'quoted",
    "''",
    "NA",
    "nan",
    "a,b",
    'say "x"',
    "µ",
    "",
]


def example(n: int = 13) -> NucleusTable:
    rng = np.random.default_rng(0)
    return NucleusTable(
        pd.DataFrame(
            {
                "id": np.arange(n) * 7 + 1,
                "image": [ODD[i % len(ODD)] for i in range(n)],
                "z": np.where(rng.random(n) < 0.3, np.nan, 2.5),
                "y": rng.random(n) * 1e4,
                "x": rng.random(n) / 3,
                "type": [ODD[-1 - i % len(ODD)] for i in range(n)],
                "LT_prob": rng.random(n),
                "LT_positive": rng.random(n) < 0.5,
                "subtype": [str(i % 3) for i in range(n)],
                "f_area": rng.random(n).astype(np.float32),
            }
        )
    )


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("n", [0, 1, 13])
def test_a_round_trip_keeps_every_value_and_type(kind: str, n: int, tmp_path: Path) -> None:
    table = example(n)
    write_table(table, tmp_path)
    back = read_table(tmp_path / f"nuclei.{kind}").frame
    assert list(back.columns) == list(table.frame.columns)
    for column in table.frame:
        before, after = table.frame[column], back[column]
        if before.dtype.kind == "f":
            assert np.array_equal(before.to_numpy(np.float32), after.to_numpy(np.float32), True)
        else:
            assert before.tolist() == after.tolist(), column
    if kind == "parquet":
        assert np.array_equal(back["y"], table.frame["y"])


def test_a_folder_is_read_by_its_parquet_or_else_its_csv(tmp_path: Path) -> None:
    write_table(example(), tmp_path)
    (tmp_path / "nuclei.csv").write_text("id,y,x\n1,2,3\n")
    assert len(read_table(tmp_path)) == 13
    (tmp_path / "nuclei.parquet").unlink()
    assert len(read_table(tmp_path)) == 1
    (tmp_path / "nuclei.csv").unlink()
    with pytest.raises(InputError, match="neither"):
        read_table(tmp_path)


def test_no_cell_of_the_csv_is_a_formula(tmp_path: Path) -> None:
    write_table(example(), tmp_path)
    raw = pd.read_csv(tmp_path / "nuclei.csv", dtype=str, keep_default_na=False)
    for column in ("image", "type"):
        assert not raw[column].str.startswith(("=", "+", "-", "@", "\t", "\r")).any()


@settings(max_examples=50)
@given(st.lists(st.text(max_size=6) | st.sampled_from(ODD), max_size=6))
def test_guarding_cells_is_undone_exactly(texts: list[str]) -> None:
    values = pd.Series(texts, dtype=str)
    assert restore_cells(guard_cells(values)).tolist() == texts


def test_a_type_of_digits_stays_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [1, 2], "y": [0.0, 1], "x": [0.0, 1], "type": ["01", "12"]})
    write_table(NucleusTable(frame), tmp_path)
    assert read_table(tmp_path / "nuclei.csv").frame["type"].tolist() == ["01", "12"]


@pytest.mark.parametrize(
    "text", ["", "a\n1\n", "id,y\n1,2\n", "id,y,x\n1,b,3\n", "id,y,x\n1,,3\n",
             "id,y,x\n1,2,3\n1,4,5\n", "PAR1 and nothing", "id,y,x\n1,2\n", "\x00"],
)  # fmt: skip
def test_a_wrong_table_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert "t.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    write_table(example(), tmp_path)
    raw = (tmp_path / "nuclei.parquet").read_bytes()
    path = tmp_path / "cut.parquet"
    for percent in range(1, 100, 9):
        path.write_bytes(raw[: len(raw) * percent // 100])
        with pytest.raises(InputError):
            read_table(path)
    with pytest.raises(InputError):
        read_table(tmp_path / "absent.parquet")


def test_rows_above_the_limit_are_refused(tmp_path: Path) -> None:
    write_table(example(), tmp_path)
    for name in ("nuclei.parquet", "nuclei.csv"):
        with pytest.raises(UnsafeInputError, match="rows"):
            read_table(tmp_path / name, limits=Limits(rows=5))


def test_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    write_table(example(), tmp_path)
    one, two = (read_table(tmp_path / f"nuclei.{k}").frame for k in ("parquet", "csv"))
    assert np.allclose(one["y"], two["y"], rtol=1e-15)
    assert one["type"].tolist() == two["type"].tolist()


def test_types_are_told_by_id_or_by_image_and_id(tmp_path: Path) -> None:
    table = NucleusTable(
        pd.DataFrame({"id": [1, 2, 1], "image": ["a", "a", "b"], "y": 0.0, "x": [0.0, 1.0, 2.0]})
    )
    (tmp_path / "t.csv").write_text("image,id,type\nb,1,fib\na,2,epi\n")
    assert types_of(table, tmp_path / "t.csv").tolist() == ["", "epi", "fib"]
    (tmp_path / "u.csv").write_text("id,type\n1,fib\n")
    with pytest.raises(InputError, match="column 'image'"):
        types_of(table, tmp_path / "u.csv")
    one = NucleusTable(table.frame[table.frame["image"] == "a"])
    assert types_of(one, tmp_path / "u.csv").tolist() == ["fib", ""]
    (tmp_path / "v.csv").write_text("id,type\n1,fib\n1,epi\n")
    with pytest.raises(InputError, match="repeats"):
        types_of(one, tmp_path / "v.csv")
