"""The command line: every verb is a thin call of the function of the same name."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleoscope import __version__
from nucleoscope.errors import CallError, NucleoscopeError, ResourceError

app = typer.Typer(
    name="nucleoscope",
    help="From clicks on nuclei to typed nuclei in 3D.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images to work on.")]
Axes = Annotated[str | None, typer.Option(help="Axes of a file that names none, such as ZCYX.")]
SpacingText = Annotated[
    str | None, typer.Option("--spacing", metavar="Z,Y,X", help="Voxel size in um.")
]
Mpp = Annotated[float | None, typer.Option(help="Pixel size of a 2D image in um.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="One machine-readable line at the end.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Roi = Annotated[
    list[Path] | None, typer.Option("--roi", help="Region per image, where not beside it.")
]


def _say(text: str, facts: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """The closing lines of a verb."""
    if as_json:
        print(json.dumps(facts, allow_nan=False, default=str))
    elif not quiet:
        print(text)


def _spacing(text: str | None, mpp: float | None) -> tuple[float, float, float] | None:
    if text is None:
        return None if mpp is None else (mpp, mpp, mpp)
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise CallError(f"--spacing is Z,Y,X in um, such as 1.0,0.3,0.3; found {text!r}.")
    return (values[0], values[1], values[2])


@app.command()
def simulate(
    output: Annotated[Path, typer.Argument(help="Folder to write to.")],
    kind: Annotated[str, typer.Option(help="plaque or histology.")] = "plaque",
    n: Annotated[int, typer.Option(help="How many images.")] = 4,
    size: Annotated[int, typer.Option(help="Rows and columns.")] = 512,
    seed: Annotated[int, typer.Option()] = 0,
    rho: Annotated[
        float | None, typer.Option(help="How often a marker lies above or below a negative.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make images with exact truth."""
    from nucleoscope.simulator import simulate as run

    more = {} if rho is None else {"rho": rho}
    scenes = run(output, kind=kind, n=n, size=size, seed=seed, **more)
    facts = {"output": str(output), "images": [scene.volume.name for scene in scenes]}
    _say(f"{len(scenes)} images in {output}", facts, as_json=as_json, quiet=quiet)


@app.command()
def train(
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="Model folder.")],
    points: Annotated[
        list[Path] | None, typer.Option("--points", help="Points per image, where not beside it.")
    ] = None,
    roi: Roi = None,
    recipe: Annotated[str, typer.Option(help="lecl, classical, emip, mip, lecl-paper.")] = "lecl",
    network: Annotated[str | None, typer.Option(help="light or hovernet.")] = None,
    nuclei: Annotated[str | None, typer.Option(help="Nuclear channel, name or number.")] = None,
    marker: Annotated[list[str] | None, typer.Option(help="Marker channel; repeatable.")] = None,
    minutes: Annotated[float, typer.Option(help="Longest training time.")] = 30.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    axes: Axes = None,
    spacing: SpacingText = None,
    mpp: Mpp = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model from one click per nucleus."""
    from nucleoscope.flow.lecl import train as run

    model = run(
        images, output, points=points, roi=roi, recipe=recipe, network=network, nuclei=nuclei,
        marker=marker or [], minutes=minutes, steps=steps, seed=seed, resume=resume, axes=axes,
        spacing=_spacing(spacing, mpp), device=device, overwrite=overwrite, quiet=quiet or as_json,
    )  # fmt: skip
    figures = {k: v for k, v in model.config.training.items() if k != "history"}
    held_out = figures["detection_f1_held_out"]
    judged = (
        f"detection F1 {held_out:.3f} on {figures['images_held_out']} held-out images"
        if held_out is not None
        else f"detection F1 {figures['detection_f1']:.3f} on its own training images"
    )
    _say(f"model in {output}: {judged}", {"model": str(output)} | figures,
         as_json=as_json, quiet=quiet)  # fmt: skip


@app.command()
def detect(
    images: Images,
    model: Annotated[Path, typer.Option("-m", "--model", help="Model folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Results folder.")],
    roi: Roi = None,
    jobs: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    cluster: Annotated[str | None, typer.Option(metavar="tcp://HOST:PORT")] = None,
    shard: Annotated[str | None, typer.Option(metavar="K/N", help="Do part K of N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished images.")] = False,
    nuclei_only: Annotated[
        bool, typer.Option("--nuclei-only", help="Ignore markers; leave types empty.")
    ] = False,
    nucleus_radius: Annotated[
        float | None, typer.Option(help="Typical radius in um, where it differs.")
    ] = None,
    nuclei: Annotated[
        str | None, typer.Option(help="Nuclear channel here, where called otherwise.")
    ] = None,
    marker: Annotated[
        list[str] | None, typer.Option(help="Marker channel here, where called otherwise.")
    ] = None,
    axes: Axes = None,
    spacing: SpacingText = None,
    mpp: Mpp = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find every nucleus in new images and say which carry the markers."""
    from nucleoscope.flow.lecl import Found
    from nucleoscope.flow.lecl import detect as run

    found = run(
        images, model, output, roi=roi, jobs=jobs, cluster=cluster, shard_of=shard, resume=resume,
        nuclei_only=nuclei_only, nucleus_radius=nucleus_radius, nuclei=nuclei,
        marker=marker or [], axes=axes,
        spacing=_spacing(spacing, mpp), device=device, overwrite=overwrite, quiet=quiet or as_json,
    )  # fmt: skip
    assert isinstance(found, Found)  # noqa: S101  an output was given
    lines = [f"{name}: {count} nuclei" for name, count in found.counts.items()]
    facts = {"output": str(output), "nuclei": found.counts, "failed": found.failed}
    if found.counts:
        lines.append(f"results in {output}")
    _say("\n".join(lines), facts, as_json=as_json, quiet=quiet or not (lines or as_json))
    if found.failed:
        for name, why in found.failed.items():
            print(why if name in why else f"{name}: {why}", file=sys.stderr)
        raise typer.Exit(found.exit_code)


@app.command()
def project(
    stack: Annotated[Path, typer.Argument(metavar="STACK")],
    output: Annotated[Path, typer.Option("-o", "--output", help="OME-TIFF to write.")],
    method: Annotated[str, typer.Option(help="mip or emip.")] = "emip",
    points: Annotated[Path | None, typer.Option(help="Annotated nuclei.")] = None,
    nuclei_table: Annotated[Path | None, typer.Option(help="Detected nuclei.")] = None,
    nuclei: Annotated[str | None, typer.Option(help="Nuclear channel.")] = None,
    axes: Axes = None,
    spacing: SpacingText = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Project a stack to one plane, each nucleus over its own slices (EMIP)."""
    from nucleoscope.flow.project import project as run

    flat = run(
        stack, output, method=method, points=points, nuclei_table=nuclei_table, nuclei=nuclei,
        axes=axes, spacing=_spacing(spacing, None), overwrite=overwrite,
    )  # fmt: skip
    facts = {"output": str(output), "method": method, "shape": list(flat.data.shape)}
    _say(f"{method} of {stack.name} in {output}", facts, as_json=as_json, quiet=quiet)


@app.command()
def evaluate(
    predicted: Annotated[Path, typer.Argument(help="OUT of detect, or a table.")],
    truth: Annotated[Path, typer.Argument(help="Folder of points, or a points file.")],
    radius: Annotated[str, typer.Option(help="15px or 4.5um.")] = "15px",
    radius_z: Annotated[float | None, typer.Option(help="Slices; matches in 3D.")] = None,
    roi: Annotated[Path | None, typer.Option(help="Region of a single image.")] = None,
    as_json: Json = False,
) -> None:
    """Score found nuclei against true ones."""
    from nucleoscope.flow.evaluate import evaluate as run
    from nucleoscope.metrics import format_table

    result = run(predicted, truth, radius=radius, radius_z=radius_z, roi=roi)
    print(json.dumps(result.to_dict()) if as_json else format_table(result))


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="OUT...", help="OUT of detect.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="HTML file.")] = None,
    title: Annotated[str | None, typer.Option()] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make one self-contained page of results."""
    from nucleoscope.view.results import report as run

    print(run(folders, output, title=title, overwrite=overwrite))


@app.command()
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
    _say(text, facts, as_json=as_json, quiet=quiet)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An image or a model folder.")],
    as_json: Json = False,
) -> None:
    """Say what a file is."""
    from nucleoscope.flow.about import info as run

    facts = run(file)
    _say("\n".join(f"{k}: {v}" for k, v in facts.items()), facts, as_json=as_json, quiet=False)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine and installation can do."""
    from nucleoscope.flow.about import doctor as run

    facts = run()
    _say("\n".join(f"{k}: {v}" for k, v in facts.items()), facts, as_json=as_json, quiet=False)


@app.command()
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


def _version(value: bool) -> None:
    if value:
        print(f"nucleoscope {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["NUCLEOSCOPE_DEBUG"] = "1"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every failure is one sentence and an exit code of the contract."""
    call: Callable[..., Any] = app
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    # The flag works wherever it stands, as people expect.
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code = call(args=arguments, standalone_mode=False)
    except NucleoscopeError as error:
        code = _fail(error, error.exit_code, debug)
    except typer.Abort:
        code = 130
    except KeyboardInterrupt:
        code = 130
    except MemoryError as error:
        code = _fail(ResourceError("out of memory; use smaller images."), 5, debug, error)
    except Exception as error:
        shown = getattr(error, "format_message", None)
        if shown is not None:
            code = _fail(CallError(shown()), 2, debug)
        elif debug:
            raise
        else:
            code = _fail(
                NucleoscopeError(
                    f"unexpected {type(error).__name__}: {error}; run again with --debug and "
                    "report it."
                ),
                1,
                debug,
            )
    sys.exit(code or 0)


def _fail(
    error: NucleoscopeError, code: int, debug: bool, cause: BaseException | None = None
) -> int:
    if debug:
        raise cause or error
    print(f"nucleoscope: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
