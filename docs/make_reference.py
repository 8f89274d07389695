"""Write docs/reference.md from the docstrings: every public name, floor by floor.

Run as ``make docs``; ``--check`` only says whether the file is current (exit code 1 when not).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

TARGET = Path(__file__).with_name("reference.md")
FOLDERS = (
    "errors", "units", "seeds", "data", "io", "supervision", "nuclei", "atlas", "spatial",
    "metrics", "learn", "flow", "view", "simulator", "testing",
)  # fmt: skip
HEAD = """# Reference

Every public name, in the order in which things are built on each other. Written by `make docs`
from the docstrings; change those, not this file. Coordinates are `(z, y, x)` in pixels with the
centre of the first pixel at 0; sizes that end in `_um` are micrometres.
"""


def modules_of(folder: str) -> Iterator[ModuleType]:
    """The module ``nucleoscope.<folder>`` and the public modules inside it."""
    try:
        top = importlib.import_module(f"nucleoscope.{folder}")
    except ModuleNotFoundError:
        return
    yield top
    for found in pkgutil.walk_packages(getattr(top, "__path__", []), f"{top.__name__}."):
        if not found.name.rsplit(".", 1)[-1].startswith("_"):
            yield importlib.import_module(found.name)


def public(module: ModuleType, top: ModuleType) -> list[str]:
    """What a module defines and offers, in order of the file.

    Where the folder lists its names, that list is the offer; else the module's own list is, and
    else every name without an underscore.
    """
    tree = ast.parse(inspect.getsource(module))
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    offered = getattr(top, "__all__", None) or getattr(module, "__all__", names)
    return [name for name in names if name in offered]


def as_markdown(doc: str) -> str:
    """A numpy docstring as Markdown: headings in bold, entries as a list, examples as code."""
    out: list[str] = []
    lines = inspect.cleandoc(doc).splitlines()
    section = ""
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if re.fullmatch(r"-{3,}|::", line):
            continue
        if re.fullmatch(r"-{3,}", following):
            section = line
            out += ["", f"**{line}**", ""]
        elif section in ("Parameters", "Raises", "Returns", "Attributes"):
            is_entry = bool(line) and not line.startswith(" ")
            out.append(f"- `{line}`" if is_entry and section != "Returns" else line)
        else:
            out.append(line)
    return fence("\n".join(out))


def fence(text: str) -> str:
    """Doctests in fences, so that they are shown as typed."""
    block = re.compile(r"(?m)(^>>> .*(?:\n(?!\n).*)*)")
    return block.sub(lambda found: f"```pycon\n{found[1].rstrip()}\n```", text)


def signature(thing: object) -> str:
    """The call as it is written, without module paths."""
    try:
        text = str(inspect.signature(thing))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>", "...", text)
    return text.replace("'", "")


def entry(module: ModuleType, name: str) -> str:
    """One name with its signature and docstring."""
    thing = getattr(module, name)
    doc = as_markdown(inspect.getdoc(thing) or "")
    return f"#### `{name}`\n\n```text\n{name}{signature(thing)}\n```\n\n{doc}\n"


def pages() -> Iterator[str]:
    """The document piece by piece."""
    yield HEAD
    for folder in FOLDERS:
        inner: list[str] = []
        top: ModuleType | None = None
        for module in modules_of(folder):
            top = top or module
            names = public(module, top)
            doc = as_markdown((module.__doc__ or "").strip())
            if module is top:
                yield f"## `{module.__name__}`\n\n{doc}\n"
            elif names:
                yield f"### `{module.__name__}`\n\n{doc}\n"
            else:
                inner.append(f"- `{module.__name__}`: {doc.splitlines()[0]}")
            yield from (entry(module, name) for name in names)
        if inner:
            yield "Inside, for whoever changes it:\n\n" + "\n".join(inner) + "\n"


def main() -> int:
    """Write the reference, or compare with it."""
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(pages())).rstrip() + "\n"
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if "--check" in sys.argv[1:]:
        is_current = TARGET.exists() and TARGET.read_text(encoding="utf-8") == text
        sys.stdout.write("current\n" if is_current else "docs/reference.md is stale: make docs\n")
        return 0 if is_current else 1
    TARGET.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{TARGET}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
