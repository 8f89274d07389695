"""A benchmark as a frozen list of runs, each done once, its figures kept in a file of its own.

A run is a name, parameters and a function that returns figures. Its record is written when it is
finished, at once and as a whole, so whatever stops the process no figure is lost and none is
half there. Nothing in a record says when it was made: the same runs give the same pages.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nucleoscope import __version__
from nucleoscope.errors import CallError, InputError, NucleoscopeError
from nucleoscope.flow.run import versions
from nucleoscope.io import guard

#: Where unfinished runs keep what they need to go on; inside the results, never committed.
WORK = ".work"


@dataclass(frozen=True)
class Budget:
    """How long a run trains, and how often it is repeated.

    Parameters
    ----------
    seeds
        One training per seed.
    minutes
        Training time of every run that is compared at equal time.
    steps
        Training steps instead; such runs are exactly repeatable.

    Raises
    ------
    CallError
        No seed, a seed twice, or a budget that is not positive.

    Examples
    --------
    >>> Budget().label, Budget(steps=200).label
    ('10min', '200steps')
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    minutes: float = 10.0
    steps: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise CallError(f"seeds are different numbers from 0; found {list(self.seeds)}.")
        if not self.minutes > 0 or (self.steps is not None and self.steps < 1):
            raise CallError(
                f"a training takes more than 0 minutes and at least 1 step; found "
                f"{self.minutes:g} minutes, {self.steps} steps."
            )

    @property
    def label(self) -> str:
        """The part of a run's name that tells its budget."""
        return f"{self.minutes:g}min" if self.steps is None else f"{self.steps}steps"


@dataclass(frozen=True)
class Place:
    """Where a run works.

    Parameters
    ----------
    data
        Folder of the data sets.
    folder
        The run's own; it survives an interruption and is emptied when the run is finished.
    quiet
        True: no progress bar.
    """

    data: Path
    folder: Path
    quiet: bool = True


def _nothing(data: Path) -> str:
    """Nothing is lacking."""
    return ""


@dataclass(frozen=True, eq=False)
class Run:
    """One training and its judgement.

    Parameters
    ----------
    name
        ``part.what.budget.seedN``; names its file.
    parameters
        Plain values that decide the figures; kept in the record.
    figures
        Does the run; returns plain values.
    minutes
        Estimate of the whole run.
    lacks
        Says of a data folder what keeps the run from being done, ``""`` if nothing.
    """

    name: str
    parameters: Mapping[str, Any]
    figures: Callable[[Run, Place], dict[str, Any]]
    minutes: float
    lacks: Callable[[Path], str] = _nothing


Record = dict[str, Any]
Records = Mapping[str, Record]


@dataclass(frozen=True)
class Benchmark:
    """A named benchmark.

    Parameters
    ----------
    name
        ``lecl`` for ``nucleoscope bench lecl``.
    runs
        Its runs for a budget, the most important first.
    page
        What its records show: the page to render.
    document
        Stem of its Markdown file.
    """

    name: str
    runs: Callable[[Budget], Sequence[Run]]
    page: Callable[[Budget, Sequence[Run], Records, Mapping[str, str]], Any]
    document: str


@dataclass(frozen=True)
class Outcome:
    """What ``bench`` did: runs done and left (name, why), what failed, files written."""

    done: tuple[str, ...]
    left: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    text: str = ""

    @property
    def exit_code(self) -> int:
        """1 when a run failed."""
        return 1 if self.failed else 0


def machine() -> dict[str, Any]:
    """What the figures of time depend on."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def record_path(folder: Path, run: Run) -> Path:
    """The file that holds a run's record."""
    return folder / f"{run.name}.json"


def read_records(folder: Path, runs: Sequence[Run]) -> dict[str, Record]:
    """The records of the finished runs among ``runs``.

    Raises
    ------
    InputError
        A file that is not a record of its run.
    """
    found = {}
    for run in runs:
        path = record_path(folder, run)
        if path.is_file():
            record = guard.read_json(path)
            if not isinstance(record, dict) or record.get("run") != run.name:
                raise InputError(f"{path}: not the record of this run; remove it to do it again.")
            found[run.name] = record
    return found


def is_outdated(record: Record, run: Run) -> bool:
    """True when the record was made with other parameters than the run has today.

    Only what both know is compared: a setting that came later does not date a record.
    """
    return _differs(record.get("parameters", {}), dict(run.parameters))


def _differs(one: Any, other: Any) -> bool:
    """Whether two plain values differ in what both of them name."""
    if isinstance(one, dict) and isinstance(other, dict):
        return any(_differs(one[key], other[key]) for key in one.keys() & other.keys())
    listed = (list, tuple)
    if isinstance(one, listed) and isinstance(other, listed):
        pairs = zip(one, other, strict=False)
        return len(one) != len(other) or any(_differs(a, b) for a, b in pairs)
    return bool(one != other)


def selected(runs: Sequence[Run], only: str | None) -> list[Run]:
    """The runs whose name holds ``only``, which may have ``*`` and ``?``.

    Raises
    ------
    CallError
        No run is of that name.
    """
    if only is None:
        return list(runs)
    chosen = [run for run in runs if fnmatchcase(run.name, f"*{only}*")]
    if not chosen:
        raise CallError(f"no run is called {only!r}; --list shows their names.")
    return chosen


def do_run(run: Run, results: Path, data: Path, *, quiet: bool = True) -> Record:
    """Do a run and write its record.

    Raises
    ------
    NucleoscopeError
        What the run raises; its folder is kept, so that it can go on.
    """
    folder = results / WORK / run.name
    folder.mkdir(parents=True, exist_ok=True)
    guard.write_text(results / WORK / ".gitignore", "*\n", overwrite=True)
    is_resumed = any(folder.iterdir())
    wall, cpu = time.perf_counter(), time.process_time()
    figures = run.figures(run, Place(data, folder, quiet))
    record = {
        "run": run.name,
        "parameters": dict(run.parameters),
        "versions": versions(),
        "machine": machine(),
        "minutes": round((time.perf_counter() - wall) / 60, 2),
        "cpu_minutes": round((time.process_time() - cpu) / 60, 2),
        "is_resumed": is_resumed,
        "figures": figures,
    }
    guard.write_json(record_path(results, run), record, overwrite=True)
    empty(folder)
    return record


def empty(folder: Path) -> None:
    """Remove a run's own folder and what is in it."""
    for entry in list(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            empty(entry)
        else:
            entry.unlink()
    folder.rmdir()


def do_runs(
    runs: Sequence[Run],
    results: Path,
    data: Path,
    *,
    tell: Callable[[str], None] | None = None,
    after: Callable[[dict[str, str]], object] | None = None,
) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Do the runs that are neither done nor impossible, in order.

    Parameters
    ----------
    runs, results, data
        What to do, where records go, where images are.
    tell
        Called with a line about each run as it begins.
    after
        Called after each run that was done now, with what has failed so far.

    Returns
    -------
    done, left, failed
        Names of finished runs; why the others are left; what went wrong.
    """
    say = tell or (lambda text: None)
    done: list[str] = []
    left: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, run in enumerate(runs, start=1):
        why = run.lacks(data)
        if record_path(results, run).is_file():
            done.append(run.name)
        elif why:
            left[run.name] = why
        else:
            say(f"[{number}/{len(runs)}] {run.name}, about {run.minutes:.0f} min")
            try:
                do_run(run, results, data, quiet=tell is None)
                done.append(run.name)
            except NucleoscopeError as error:
                left[run.name] = failed[run.name] = str(error)
                say(f"  failed: {error}")
            if after is not None:
                after(failed)
    return done, left, failed


def listing(runs: Sequence[Run], records: Records, data: Path) -> tuple[dict[str, str], str]:
    """Why runs are left, by name, and a table of all runs for people."""
    left: dict[str, str] = {}
    lines, minutes = [], 0.0
    for run in runs:
        if run.name in records:
            note = (
                "made with other settings than today's"
                if is_outdated(records[run.name], run)
                else ""
            )
            state = f"done   {records[run.name]['minutes']:>5.0f} min"
        else:
            note = run.lacks(data)
            left[run.name] = note or "not done yet"
            state = f"{'lacks' if note else 'to do':<6} {run.minutes:>5.0f} min"
            minutes += 0 if note else run.minutes
        lines.append(f"{state}  {run.name}" + (f"  ({note})" if note else ""))
    lines.append(
        f"{len(runs) - len(left)} of {len(runs)} runs are done; the rest takes about "
        f"{minutes / 60:.1f} hours."
    )
    return left, "\n".join(lines)


def provenance(records: Records) -> str:
    """Versions and machines behind the records, in one sentence."""
    if not records:
        return f"No run is finished (nucleoscope {__version__})."
    packages = ("nucleoscope", "torch", "numpy")
    made = sorted(
        {", ".join(f"{p} {r['versions'].get(p, '?')}" for p in packages) for r in records.values()}
    )
    where = sorted(
        {
            f"{r['machine'].get('cores')} cores ({r['machine'].get('machine')})"
            for r in records.values()
        }
    )
    return f"Made with {'; '.join(made)} on {'; '.join(where)}."
