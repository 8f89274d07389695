"""``nucleoscope bench NAME``: do what is left of a benchmark, then render what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nucleoscope.bench.frame import (
    Benchmark,
    Budget,
    Outcome,
    do_runs,
    listing,
    read_records,
    selected,
)
from nucleoscope.bench.lecl import LECL
from nucleoscope.bench.nuc2vec import NUC2VEC
from nucleoscope.errors import CallError, InputError
from nucleoscope.io import guard
from nucleoscope.view.page import Page, to_html, to_markdown

#: A new benchmark is one row here.
BENCHES: dict[str, Benchmark] = {LECL.name: LECL, NUC2VEC.name: NUC2VEC}


def bench(
    name: str,
    *,
    data: str | Path | None = None,
    output: str | Path = "bench/results",
    docs: str | Path | None = None,
    only: str | None = None,
    budget: Budget | None = None,
    list_only: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Do the runs of a benchmark that are not done yet, and write its pages.

    A finished run is never repeated and an interrupted one goes on from its checkpoint, so the
    same call can be stopped and given again. The pages are written after every run: they show
    what is finished and name the rest.

    Parameters
    ----------
    name
        A row of ``BENCHES``: ``lecl``, ``nuc2vec``.
    data
        Folder of the data sets; default ``$NUCLEOSCOPE_DATA``, else ``../shared/data``.
    output
        Each run's figures go to ``<output>/<name>/<run>.json``, the web page beside them.
    docs
        Also write ``<docs>/<document>.md`` and its pictures, ``docs/results.md`` say.
    only
        Do only runs whose name holds this; may have ``*`` and ``?``. The pages show all.
    budget
        Seeds to do now, and minutes or steps of training. The pages show three seeds and these.
    list_only
        Do and write nothing; ``Outcome.text`` lists the runs, done and left.
    tell
        Called with a line about each run as it begins; None is quiet.

    Returns
    -------
    Outcome
        ``done``, ``left`` (why, by name), ``failed``, ``files`` and ``text``.

    Raises
    ------
    CallError
        No such benchmark, or no run is of that name.
    InputError
        The data folder is not there, or a record is damaged.

    Examples
    --------
    >>> outcome = bench("lecl", data=".", output="nowhere", only="lecl.10min.seed0", list_only=True)
    >>> len(outcome.done)
    0
    """
    if name not in BENCHES:
        raise CallError(f"no benchmark {name!r}; there are {', '.join(BENCHES)}.")
    chosen, limits = BENCHES[name], budget or Budget()
    place, results = data_folder(data), Path(output) / name
    asked = selected(chosen.runs(limits), only)
    if list_only:
        records = read_records(results, asked)
        left, text = listing(asked, records, place)
        return Outcome(tuple(records), left, text=text)
    # The pages are about all that is there, whatever was asked for this time.
    shown = replace(limits, seeds=tuple(sorted({*Budget().seeds, *limits.seeds})))
    runs = chosen.runs(shown)

    def show(failed: dict[str, str]) -> tuple[tuple[Path, ...], dict[str, str], str]:
        records = read_records(results, runs)
        left = listing(runs, records, place)[0] | failed
        page = chosen.page(shown, runs, records, left)
        files = write_pages(chosen, page, results, None if docs is None else Path(docs))
        return files, left, f"{len(records)} of {len(runs)} runs are done; page in {files[0]}"

    done, _, failed = do_runs(asked, results, place, tell=tell, after=show)
    files, left, text = show(failed)
    return Outcome(tuple(done), left, failed, files, text)


def data_folder(data: str | Path | None) -> Path:
    """The folder of data sets: the one given, the environment's, or the one beside the project.

    Raises
    ------
    InputError
        It is not there.
    """
    folder = Path(data or os.environ.get("NUCLEOSCOPE_DATA") or "../shared/data")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images; give it with --data.")
    return folder


def write_pages(
    chosen: Benchmark, page: Page, results: Path, docs: Path | None
) -> tuple[Path, ...]:
    """The web page beside the records, and the Markdown with its pictures if asked."""
    html = results / f"{chosen.document}.html"
    guard.write_text(html, to_html(page), overwrite=True)
    if docs is None:
        return (html,)
    folder = Path("pictures") / chosen.document
    text = docs / f"{chosen.document}.md"
    guard.write_text(text, to_markdown(page, folder.as_posix()), overwrite=True)
    pictures = [docs / folder / f"{picture.name}.svg" for picture in page.pictures()]
    for path, picture in zip(pictures, page.pictures(), strict=True):
        guard.write_text(path, picture.svg + "\n", overwrite=True)
    return (html, text, *pictures)
