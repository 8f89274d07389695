"""Nucleus tables in and out: Parquet for programs, CSV for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits

_TEXT = ("image", "type", "subtype")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def guard_cells(values: pd.Series[str]) -> pd.Series[str]:
    """Prefix texts that a spreadsheet would run as a formula with an apostrophe.

    ``restore_cells`` undoes exactly this, so a round trip changes nothing.

    >>> guard_cells(pd.Series(["=1+1", "positive", "'=x"])).tolist()
    ["'=1+1", 'positive', "''=x"]
    """
    text = values.astype(str)
    return text.where(~text.str.startswith((*_FORMULA, "'")), "'" + text)


def restore_cells(values: pd.Series[str]) -> pd.Series[str]:
    """Undo ``guard_cells``.

    >>> restore_cells(pd.Series(["'=1+1", "''=x"])).tolist()
    ['=1+1', "'=x"]
    """
    text = values.astype(str)
    guarded = text.str.startswith(tuple("'" + mark for mark in (*_FORMULA, "'")))
    return text.where(~guarded, text.str.slice(1))


def _text_columns(frame: pd.DataFrame) -> list[str]:
    """Columns that hold text."""
    return [c for c in frame.columns if frame[c].dtype.kind == "O" or str(frame[c].dtype) == "str"]


def write_csv(frame: pd.DataFrame, path: Path | str, *, overwrite: bool = False) -> None:
    """Write a frame as CSV, all or nothing, with formulas made harmless.

    Raises
    ------
    CallError
        The file exists and is not from this run.
    """
    import pyarrow as pa
    import pyarrow.csv as pacsv

    safe = frame.copy()
    for column in _text_columns(frame):
        safe[column] = guard_cells(frame[column].fillna("").astype(str))
    safe.columns = pd.Index(guard_cells(pd.Series([str(c) for c in frame.columns], dtype=str)))
    table = pa.Table.from_pandas(safe, preserve_index=False)
    with guard.atomic_write(path, overwrite=overwrite) as temp:
        pacsv.write_csv(table, temp, pacsv.WriteOptions(quoting_style="needed"))


def write_table(table: NucleusTable, folder: Path | str, *, overwrite: bool = False) -> None:
    """Write ``nuclei.parquet`` and ``nuclei.csv`` into ``folder``, each all or nothing.

    Parameters
    ----------
    table
        The nuclei; both files hold the same columns in the same order.
    folder
        Made when absent.
    overwrite
        Replace files that are not from this run.

    Raises
    ------
    CallError
        A file exists that this run did not write.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_table(NucleusTable(pd.DataFrame({"id": [4], "y": [1.5], "x": [2.0]})), folder)
    >>> read_table(folder).frame["id"].tolist()
    [4]
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    frame = table.frame.copy()
    for column in _text_columns(frame):
        frame[column] = frame[column].fillna("").astype(str).astype(object)
    schema = pa.Table.from_pandas(frame, preserve_index=False)
    for name in _TEXT:  # an empty column of text has no type of its own
        if name in frame.columns and not len(frame):
            at = schema.schema.get_field_index(name)
            schema = schema.set_column(at, name, pa.array([], pa.string()))
    with guard.atomic_write(folder / "nuclei.parquet", overwrite=overwrite) as temp:
        pq.write_table(schema, temp, compression="zstd")
    write_csv(frame, folder / "nuclei.csv", overwrite=overwrite)


def read_table(path: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> NucleusTable:
    """Read a nucleus table from Parquet, CSV, or a folder that holds one.

    Raises
    ------
    InputError
        No table there, damaged, a column is missing, or a coordinate is not a number.
    UnsafeInputError
        More rows than the limit.
    """
    path = Path(path)
    if path.is_dir():
        names = ("nuclei.parquet", "nuclei.csv")
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise InputError(f"{path}: it holds neither {names[0]} nor {names[1]}.")
        path = found
    with guard.reading(path):
        limits.check("file_bytes", path.stat().st_size, str(path))
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        frame = _from_parquet(path, limits) if is_parquet else read_csv(path, limits=limits)
        try:
            return NucleusTable(frame)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def _from_parquet(path: Path, limits: Limits) -> pd.DataFrame:
    """A Parquet file as a frame, after a look at its row count."""
    import pyarrow.parquet as pq

    limits.check("rows", pq.ParquetFile(path).metadata.num_rows, str(path))
    frame: pd.DataFrame = pq.read_table(path).to_pandas(ignore_metadata=True)
    return frame


def read_csv(path: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> pd.DataFrame:
    """Read a CSV that ``write_csv`` or a person wrote; empty numbers become NaN.

    Raises
    ------
    InputError
        Not a CSV with a header.
    """
    import io

    import pyarrow as pa
    import pyarrow.csv as pacsv

    data = guard.read_bytes(path, limits=limits)
    limits.check("rows", data.count(b"\n"), str(path))
    with guard.reading(path):
        convert = pacsv.ConvertOptions(
            column_types={name: pa.string() for name in _TEXT}, null_values=["", "nan", "NaN"]
        )
        parse = pacsv.ParseOptions(newlines_in_values=True)
        read = pacsv.read_csv(io.BytesIO(data), parse_options=parse, convert_options=convert)
        for i, column in enumerate(read.schema):  # a column without any value is of numbers
            if pa.types.is_null(column.type):
                read = read.set_column(i, column.name, read.column(i).cast(pa.float64()))
        frame: pd.DataFrame = read.to_pandas()
    frame.columns = pd.Index(restore_cells(pd.Series(list(frame.columns), dtype=str)))
    for column in _text_columns(frame):
        frame[column] = restore_cells(frame[column].fillna("").astype(str))
    return frame


def types_of(
    table: NucleusTable, path: Path | str, *, limits: Limits = DEFAULT_LIMITS
) -> NDArray[np.object_]:
    """The type that a file gives each nucleus of a table, ``""`` where it gives none.

    Parameters
    ----------
    table
        The nuclei.
    path
        CSV or Parquet with ``id, type`` and, of several images, ``image``.

    Raises
    ------
    InputError
        A column is missing or an id repeats.
    """
    path = Path(path)
    with guard.reading(path), path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    told = _from_parquet(path, limits) if is_parquet else read_csv(path, limits=limits)
    needed = ["id", "type"] + (["image"] if table.frame["image"].nunique() > 1 else [])
    missing = [c for c in needed if c not in told.columns]
    if missing:
        raise InputError(f"{path}: a table of types needs a column {missing[0]!r} here.")
    keys = ["image", "id"] if "image" in told.columns else ["id"]
    if told.duplicated(keys).any():
        raise InputError(f"{path}: an id repeats.")
    joined = table.frame[["image", "id"]].merge(told[[*keys, "type"]], on=keys, how="left")
    types: NDArray[np.object_] = joined["type"].fillna("").astype(str).to_numpy(dtype=object)
    return types
