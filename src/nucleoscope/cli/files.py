"""Verbs about files and this machine: info and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucleoscope.cli.flags import (
    Json,
    say,
)


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An image or a model folder.")],
    as_json: Json = False,
) -> None:
    """Say what a file is."""
    from nucleoscope.flow.about import info as run

    facts = run(file)
    say("\n".join(f"{k}: {v}" for k, v in facts.items()), facts, as_json=as_json, quiet=False)


def doctor(as_json: Json = False) -> None:
    """Say what this machine and installation can do."""
    from nucleoscope.flow.about import doctor as run

    facts = run()
    say("\n".join(f"{k}: {v}" for k, v in facts.items()), facts, as_json=as_json, quiet=False)
