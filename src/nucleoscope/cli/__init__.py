"""The command line: every verb is a thin call of the function of the same name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nucleoscope import __version__
from nucleoscope.cli import clicks, files, pages, tissue
from nucleoscope.errors import CallError, NucleoscopeError, ResourceError

__all__ = ["VERBS", "app", "main"]

app = typer.Typer(
    name="nucleoscope",
    help="From clicks on nuclei to typed nuclei in 3D, and on to an atlas of the tissue.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

#: Every verb, in the order of ``nucleoscope --help``.
VERBS: tuple[Callable[..., None], ...] = (
    clicks.simulate,
    clicks.train,
    clicks.detect,
    clicks.project,
    clicks.evaluate,
    tissue.train_encoder,
    tissue.embed,
    tissue.subtypes,
    tissue.transfer,
    tissue.search,
    tissue.certify,
    tissue.spatial,
    pages.report,
    pages.view,
    pages.annotate,
    pages.bench,
    pages.demo,
    files.convert,
    files.info,
    files.doctor,
)
for _verb in VERBS:
    app.command()(_verb)


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
