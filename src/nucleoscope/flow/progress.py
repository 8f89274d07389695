"""A progress bar on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Sets how much is done (of 1) and what to say beside the bar.
Tell = Callable[[float, str], None]


@contextmanager
def bar(title: str, *, quiet: bool = False) -> Iterator[Tell]:
    """Show a bar with a percentage and the time left; nothing when quiet or not on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda fraction, text: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=1.0, note="")
        yield lambda fraction, text: progress.update(task, completed=fraction, note=text)
