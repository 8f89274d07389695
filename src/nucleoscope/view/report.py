"""One HTML file that shows what was found, to be opened by anyone, anywhere, without a network.

The page carries everything inside it and forbids itself the rest: its content security policy
allows pictures written into the page and the one style sheet and script it was built with, named
by their hashes. Names of files, channels, types and facts are data to it, never markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

import nucleoscope
from nucleoscope.io.guard import write_bytes
from nucleoscope.view.model import ReportImage, ReportRun
from nucleoscope.view.overlay import TINTS, type_colours
from nucleoscope.view.scoring import scores_of
from nucleoscope.view.sections import (
    MAX_IMAGES,
    anchor_of,
    headline,
    image_section,
    summary,
    training,
)
from nucleoscope.view.text import short, visible

__all__ = ["ReportImage", "ReportRun", "render_report", "write_report"]

#: Characters all pictures together may take; the page stays below 15 MB.
PICTURE_BUDGET = 12_000_000

POLICY = (
    "default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; "
    "base-uri 'none'; form-action 'none'"
)


def _asset(name: str) -> str:
    """A file of the template folder, with plain line ends so that its hash is the browser's."""
    folder = resources.files("nucleoscope.view") / "templates"
    return (folder / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    """The name a content security policy gives an inline style or script."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def render_report(run: ReportRun, images: Sequence[ReportImage]) -> str:
    """The page as text; ``write_report`` writes it to a file.

    Parameters
    ----------
    run
        What made the results.
    images
        What is shown; the first 24 with pictures, all in the summary.

    Returns
    -------
    str
        An HTML document below 15 million characters that makes no network request.

    Examples
    --------
    >>> render_report(ReportRun("nothing yet"), []).startswith("<!doctype html>")
    True
    """
    found = {str(t) for i in images for t in i.table.frame["type"].unique()}
    clicked = {str(t) for i in images if i.truth is not None for t in i.truth.types}
    colours = type_colours(found | clicked)
    scores = [scores_of(image) for image in images]
    shown = images[:MAX_IMAGES]
    budget = PICTURE_BUDGET // max(1, len(shown))
    css = _asset("report.css") + "".join(f".tint{t[1:]}{{background:{t}}}\n" for t in TINTS)
    js = _asset("report.js")
    notices = [] if images else ["This run holds no image, so there is nothing to show."]
    if len(images) > len(shown):
        notices.append(f"Pictures are shown for the first {len(shown)} images, figures for all.")
    page = _template().render(
        run=run,
        lead=headline(images),
        notices=notices,
        summary=summary(images, scores),
        training=training(run.history),
        images=[
            image_section(image, anchor_of(i), scores[i], colours, budget)
            for i, image in enumerate(shown)
        ],
        css=Markup(css),  # noqa: S704  our own file
        js=Markup(js),  # noqa: S704  our own file
        policy=POLICY.format(style=_hash(css), script=_hash(js)),
        footer=f"Made by nucleoscope {nucleoscope.__version__}. This file is complete: it can be "
        "moved, mailed and opened without a network.",
    )
    return page.strip() + "\n"


@cache
def _template() -> jinja2.Template:
    """The page's template; every value is escaped, text is made visible first."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=visible, trim_blocks=True
    )
    environment.filters["short"] = short
    return environment.from_string(_asset("report.html.j2"))


def write_report(
    path: str | Path,
    run: ReportRun,
    images: Sequence[ReportImage],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the report; the name holds the complete old page or the complete new one.

    Parameters
    ----------
    path
        The HTML file to write; its folder is made when absent.
    run, images
        As for ``render_report``.
    overwrite
        Replace a file that this process did not write itself.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    CallError
        The file exists and ``overwrite`` is False.
    ResourceError
        The disk is full or the place is not writable.
    """
    text = render_report(run, images)
    write_bytes(path, text.encode("utf-8", "backslashreplace"), overwrite=overwrite)
    return Path(path)
