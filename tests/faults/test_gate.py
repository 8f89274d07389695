"""Nothing in the source writes, unpickles or unpacks past ``io/guard.py``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "nucleoscope"
WRITERS = {"to_csv", "to_parquet", "to_pickle", "to_json", "savez", "tofile", "imwrite",
           "save_file", "savemat", "create_group", "read_pickle"}  # fmt: skip
OPENERS = {"atomic_write", "atomic_folder"}


def name_of(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def mode_of(call: ast.Call) -> str:
    """The mode of ``open(path, mode)`` or ``path.open(mode)``."""
    at = 1 if isinstance(call.func, ast.Name) else 0
    values = [*call.args[at : at + 1], *(k.value for k in call.keywords if k.arg == "mode")]
    texts = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return texts[0] if texts else "r"


def findings(tree: ast.AST, inside: bool = False) -> Iterator[str]:
    """Calls that write a file outside ``with atomic_write(...)``, and calls that run data."""
    for node in ast.iter_child_nodes(tree):
        held = inside
        if isinstance(node, ast.With):
            held |= any(
                isinstance(item.context_expr, ast.Call) and name_of(item.context_expr) in OPENERS
                for item in node.items
            )
        if isinstance(node, ast.Call):
            name = name_of(node)
            if name == "open" and set(mode_of(node)) & set("wax+"):
                yield f"line {node.lineno}: open for writing"
            if name in WRITERS and not held:
                yield f"line {node.lineno}: {name} outside an atomic write"
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", True):
                    yield f"line {node.lineno}: allow_pickle"
        yield from findings(node, held)


@pytest.mark.parametrize(
    ("code", "n"),
    [
        ("open(p, 'w')", 1), ("p.open('ab')", 1), ("p.open(mode='r+')", 1), ("open(p)", 0),
        ("p.open('rb')", 0), ("tifffile.imwrite(p, d)", 1), ("np.load(p, allow_pickle=True)", 1),
        ("np.load(p, allow_pickle=False)", 0),
        ("with guard.atomic_write(p) as t:\n    tifffile.imwrite(t, d)", 0),
        ("with atomic_folder(p) as t:\n    if x:\n        imwrite(t / 'a', d)", 0),
    ],
)  # fmt: skip
def test_the_walk_finds_what_it_is_for(code: str, n: int) -> None:
    assert len(list(findings(ast.parse(code)))) == n


def test_no_file_is_written_past_the_gate() -> None:
    found = {
        str(path.relative_to(SOURCE)): list(findings(ast.parse(path.read_text(encoding="utf-8"))))
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name != "guard.py"
    }
    assert {name: lines for name, lines in found.items() if lines} == {}
