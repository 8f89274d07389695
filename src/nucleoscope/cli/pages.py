"""Verbs that make something to look at: report, view, annotate, bench and demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nucleoscope.cli.flags import (
    Axes,
    Json,
    Overwrite,
    Quiet,
    SpacingText,
    numbers_of,
    say,
    spacing_of,
)

Port = Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")]
Browser = Annotated[
    bool, typer.Option("--browser/--no-browser", help="Open the page, or only say its address.")
]


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="OUT...", help="OUT of detect.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="HTML file.")] = None,
    title: Annotated[str | None, typer.Option()] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make one self-contained page of results."""
    from nucleoscope.view.results import report as run

    path = run(folders, output, title=title, overwrite=overwrite)
    say(str(path), {"report": str(path)}, as_json=as_json, quiet=False)


def view(
    folder: Annotated[Path, typer.Argument(metavar="OUT|ATLAS", help="What to look at.")],
    port: Port = 0,
    browser: Browser = True,
) -> None:
    """Look at results or an atlas in a page on this machine; Ctrl-C ends it."""
    from nucleoscope.view.browse import view as run

    run(folder, port=port, browser=browser)


def annotate(
    image: Annotated[Path, typer.Argument(metavar="IMAGE|ATLAS", help="What to annotate.")],
    points: Annotated[
        Path | None, typer.Option("--points", help="CSV to go on from and to write.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="Says where clicks would teach it most.")
    ] = None,
    types: Annotated[
        str | None, typer.Option("--types", metavar="A,B", help="Types of the keys 1 to 9.")
    ] = None,
    roi: Annotated[Path | None, typer.Option("--roi", help="Region, where not beside it.")] = None,
    axes: Axes = None,
    spacing: SpacingText = None,
    port: Port = 0,
    browser: Browser = True,
) -> None:
    """Click nuclei of an image, or give types to nuclei of an atlas; Ctrl-C ends it."""
    from nucleoscope.view.annotate import annotate as run

    names = [name.strip() for name in (types or "").split(",") if name.strip()]
    run(
        image, points, model=model, types=names, roi=roi, axes=axes,
        spacing=spacing_of(spacing, None), port=port, browser=browser,
    )  # fmt: skip


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


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="lecl or nuc2vec.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the figures.")] = Path(
        "bench/results"
    ),
    docs: Annotated[Path | None, typer.Option(help="Also write the page as Markdown here.")] = None,
    only: Annotated[str | None, typer.Option(help="Only runs whose name holds this.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds to do now, such as 0,1,2.")] = "0,1,2",
    minutes: Annotated[float, typer.Option(help="Training time of a run.")] = 10.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps instead.")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the runs and do none.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Do what is left of a benchmark and render its page."""
    from nucleoscope.bench import Budget
    from nucleoscope.bench import bench as run

    outcome = run(
        name, data=data, output=output, docs=docs, only=only, list_only=list_only,
        budget=Budget(numbers_of(seeds, "--seeds"), minutes, steps),
        tell=None if quiet or as_json else print,
    )  # fmt: skip
    facts = {"done": list(outcome.done), "left": outcome.left, "failed": outcome.failed}
    say(outcome.text, facts, as_json=as_json, quiet=quiet)
    if outcome.failed:
        for run_name, why in outcome.failed.items():
            print(f"{run_name}: {why}", file=sys.stderr)
        raise typer.Exit(outcome.exit_code)
