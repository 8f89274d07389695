"""The notebooks of the documentation, run from top to bottom."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("default")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "docs" / "notebooks"


def test_the_squidpy_notebook_runs() -> None:
    pytest.importorskip("squidpy")
    names = runpy.run_path(str(NOTEBOOKS / "squidpy.py"))
    assert names["unit"] == "um"
    assert names["facts"]["format"] == "anndata"
    zscore = names["zscore"]
    assert zscore.shape == (4, 4)
    assert np.isfinite(zscore).all()
