"""Verbs from clicks to nuclei: simulate, train, detect, project, evaluate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from nucleoscope.cli.flags import (
    Axes,
    Device,
    Images,
    Json,
    Mpp,
    Overwrite,
    Quiet,
    Roi,
    SpacingText,
    say,
    spacing_of,
)


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
    say(f"{len(scenes)} images in {output}", facts, as_json=as_json, quiet=quiet)


def train(
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="Model folder.")],
    points: Annotated[
        list[Path] | None, typer.Option("--points", help="Points per image, where not beside it.")
    ] = None,
    roi: Roi = None,
    labels: Annotated[
        list[Path] | None, typer.Option("--labels", help="Instance maps, for recipe full.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="lecl, lecl-contrast, classical, lecl-paper, emip, mip, qu, full.")
    ] = "lecl",
    network: Annotated[str | None, typer.Option(help="light, hovernet or resunet.")] = None,
    start: Annotated[Path | None, typer.Option(help="Model to go on from.")] = None,
    nuclei: Annotated[str | None, typer.Option(help="Nuclear channel, name or number.")] = None,
    marker: Annotated[list[str] | None, typer.Option(help="Marker channel; repeatable.")] = None,
    partial: Annotated[
        bool | None,
        typer.Option("--partial/--complete", help="Only some nuclei were clicked, or all."),
    ] = None,
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
        images, output, points=points, roi=roi, labels=labels, recipe=recipe, network=network,
        start=start, nuclei=nuclei, marker=marker or [], partial=partial, minutes=minutes,
        steps=steps, seed=seed, resume=resume, axes=axes,
        spacing=spacing_of(spacing, mpp), device=device, overwrite=overwrite,
        quiet=quiet or as_json,
    )  # fmt: skip
    figures = {k: v for k, v in model.config.training.items() if k != "history"}
    held_out = figures["detection_f1_held_out"]
    judged = (
        f"detection F1 {held_out:.3f} on {figures['images_held_out']} held-out images"
        if held_out is not None
        else f"detection F1 {figures['detection_f1']:.3f} on its own training images"
    )
    say(f"model in {output}: {judged}", {"model": str(output)} | figures,
         as_json=as_json, quiet=quiet)  # fmt: skip


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
    rule: Annotated[
        str | None, typer.Option(help="Marker rule instead of the model's, such as ring.")
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
        marker=marker or [], rule=rule, axes=axes,
        spacing=spacing_of(spacing, mpp), device=device, overwrite=overwrite,
        quiet=quiet or as_json,
    )  # fmt: skip
    assert isinstance(found, Found)  # noqa: S101  an output was given
    lines = [f"{name}: {count} nuclei" for name, count in found.counts.items()]
    facts = {"output": str(output), "nuclei": found.counts, "failed": found.failed}
    if found.counts:
        lines.append(f"results in {output}")
    say("\n".join(lines), facts, as_json=as_json, quiet=quiet or not (lines or as_json))
    if found.failed:
        for name, why in found.failed.items():
            print(why if name in why else f"{name}: {why}", file=sys.stderr)
        raise typer.Exit(found.exit_code)


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
        axes=axes, spacing=spacing_of(spacing, None), overwrite=overwrite,
    )  # fmt: skip
    facts = {"output": str(output), "method": method, "shape": list(flat.data.shape)}
    say(f"{method} of {stack.name} in {output}", facts, as_json=as_json, quiet=quiet)


def evaluate(
    predicted: Annotated[Path, typer.Argument(help="OUT of detect, or a table.")],
    truth: Annotated[Path, typer.Argument(help="Folder of points, or a points file.")],
    radius: Annotated[str, typer.Option(help="15px or 4.5um.")] = "15px",
    radius_z: Annotated[float | None, typer.Option(help="Slices; matches in 3D.")] = None,
    roi: Annotated[Path | None, typer.Option(help="Region of a single image.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap over images.")] = 0,
    as_json: Json = False,
) -> None:
    """Score found nuclei against true ones."""
    from nucleoscope.flow.evaluate import evaluate as run
    from nucleoscope.metrics import format_table

    result = run(predicted, truth, radius=radius, radius_z=radius_z, roi=roi, seed=seed)
    print(json.dumps(result.to_dict()) if as_json else format_table(result))
