"""What the verbs of the command line share: flags, and how they close."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleoscope.errors import CallError

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


def say(text: str, facts: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """The closing lines of a verb."""
    if as_json:
        print(json.dumps(_plain(facts), allow_nan=False, default=str))
    elif not quiet:
        print(text)


def _plain(value: Any) -> Any:
    """A value that JSON can hold: unknown numbers are null, numpy's numbers plain ones."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spacing_of(text: str | None, mpp: float | None) -> tuple[float, float, float] | None:
    """Voxel size from ``--spacing`` or ``--mpp``; None where neither is given."""
    if text is None:
        return None if mpp is None else (mpp, mpp, mpp)
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise CallError(f"--spacing is Z,Y,X in um, such as 1.0,0.3,0.3; found {text!r}.")
    return (values[0], values[1], values[2])


def numbers_of(text: str, flag: str) -> tuple[int, ...]:
    """Whole numbers separated by commas; an empty text has none."""
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise CallError(f"{flag} is numbers such as 0,1,2; found {text!r}.") from None
