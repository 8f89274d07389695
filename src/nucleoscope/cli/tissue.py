"""Verbs from nuclei to tissue: spatial."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucleoscope.cli.flags import (
    Json,
    Quiet,
    say,
)


def spatial(
    results: Annotated[Path, typer.Argument(metavar="OUT|TABLE", help="OUT of detect, or table.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    by: Annotated[str, typer.Option(help="Column that types the nuclei.")] = "type",
    tissue: Annotated[Path | None, typer.Option(help="Outline of the tissue.")] = None,
    reach: Annotated[str, typer.Option(help="Longest distance, 100um or 200px.")] = "100um",
    null: Annotated[
        str, typer.Option(help="What chance means: labelling, csr, shift.")
    ] = "labelling",
    seed: Annotated[int, typer.Option()] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure who stands next to whom."""
    from nucleoscope.spatial import Settings
    from nucleoscope.view.neighbours import analyse_files as run

    result = run(
        results, output, by=by, tissue=tissue, settings=Settings(reach=reach, null=null), seed=seed,
        jobs=jobs,
    )  # fmt: skip
    facts = {"output": str(output), "nuclei": len(result.nuclei), "notes": list(result.notes)}
    text = "\n".join([*result.notes, f"tables and spatial.html in {output}"])
    say(text, facts, as_json=as_json, quiet=quiet)
