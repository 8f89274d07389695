"""Verbs about files and this machine: convert, info and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucleoscope.cli.flags import Axes, Json, Overwrite, Quiet, SpacingText, say, spacing_of


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Any file or folder that is read.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Its ending says the format.")],
    to: Annotated[str | None, typer.Option(help="Format, where the ending does not say.")] = None,
    image: Annotated[str | None, typer.Option(help="Which image, of several.")] = None,
    axes: Axes = None,
    spacing: SpacingText = None,
    slide: Annotated[Path | None, typer.Option(help="The slide, for formats that name it.")] = None,
    simplify: Annotated[float, typer.Option(min=0.0, help="Pixels an outline may change.")] = 0.0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write what a file holds in another format."""
    from nucleoscope.flow.convert import convert as run

    facts = run(
        source, output, to=to, image=image, axes=axes, spacing=spacing_of(spacing, None),
        slide=slide, simplify=simplify, overwrite=overwrite,
    )  # fmt: skip
    text = f"{facts['format']} in {output}, opens in {facts['opens_in']}"
    say(text, facts, as_json=as_json, quiet=quiet)


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
