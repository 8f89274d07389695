"""Verbs that make something to look at: report and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucleoscope.cli.flags import (
    Overwrite,
    Quiet,
)


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="OUT...", help="OUT of detect.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="HTML file.")] = None,
    title: Annotated[str | None, typer.Option()] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make one self-contained page of results."""
    from nucleoscope.view.results import report as run

    print(run(folders, output, title=title, overwrite=overwrite))


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")] = Path(
        "demo"
    ),
    minutes: Annotated[float, typer.Option(help="Longest training time.")] = 4.0,
    quiet: Quiet = False,
) -> None:
    """Run the whole story on small data; ends by printing the report's path."""
    from nucleoscope.showcase import demo as run

    print(run(output, minutes=minutes, quiet=quiet))
