"""Fixtures every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images, which never is part of the repository."""
    folder = Path(os.environ.get("NUCLEOSCOPE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are not on this machine ({folder}); set NUCLEOSCOPE_DATA")
    return folder
