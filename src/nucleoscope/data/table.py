"""One row per nucleus: the table that every later step reads, and where A and B meet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nucleoscope.errors import InputError

#: Columns every table has, with their dtypes. Others are optional: z_um, y_um, x_um, area_um2,
#: volume_um3 (or _px), <marker>_prob, <marker>_positive, subtype, f_*.
REQUIRED = {
    "id": "int64",
    "image": "str",
    "z": "float64",
    "y": "float64",
    "x": "float64",
    "z_min": "int64",
    "z_max": "int64",
    "n_slices": "int64",
    "score": "float64",
    "type": "str",
    "type_prob": "float64",
}


@dataclass(frozen=True, eq=False)
class NucleusTable:
    """A table of nuclei with the columns of the public contract.

    Parameters
    ----------
    frame
        At least the columns ``id, image, y, x``; the other required ones are filled with their
        neutral value when absent (z NaN, score 1, type "", type_prob NaN). Column order is kept,
        required ones first.

    Raises
    ------
    InputError
        A column is missing, ids repeat within an image, or a coordinate is not finite.
    """

    frame: pd.DataFrame

    def __post_init__(self) -> None:
        frame = self.frame.reset_index(drop=True)
        for column in ("id", "y", "x"):
            if column not in frame.columns:
                raise InputError(f"a nucleus table needs a column {column!r}.")
        neutral = {
            "image": "", "z": np.nan, "z_min": 0, "z_max": 0, "n_slices": 1,
            "score": 1.0, "type": "", "type_prob": np.nan,
        }  # fmt: skip
        filled = {
            column: frame[column] if column in frame.columns else neutral[column]
            for column in REQUIRED
        }
        rest = [column for column in frame.columns if column not in REQUIRED]
        columns = {c: pd.Series(v, index=frame.index) for c, v in filled.items()}
        columns |= {c: frame[c] for c in rest}
        table = pd.DataFrame(columns, index=frame.index)
        for column, dtype in REQUIRED.items():
            if dtype == "str":
                table[column] = table[column].fillna("").astype(str).astype(object)
            else:
                table[column] = table[column].to_numpy(dtype=np.dtype(dtype))
        if not np.isfinite(table[["y", "x"]].to_numpy()).all():
            raise InputError("a nucleus table has a y or x that is not finite.")
        if table.duplicated(["image", "id"]).any():
            raise InputError("nucleus ids repeat within an image.")
        object.__setattr__(self, "frame", table)

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def empty(cls) -> NucleusTable:
        """A well-typed table without nuclei."""
        return cls(pd.DataFrame({c: pd.Series(dtype=object) for c in REQUIRED}))
