"""The documents say what is there: links lead somewhere, examples import what exists."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WRITTEN_BY_HAND = [page for page in PAGES if page.name != "reference.md"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=name_of)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    broken = [
        link for link in links if "://" not in link and not (page.parent / link).resolve().exists()
    ]
    # Written by `make docs`; a fresh clone may not have it yet.
    assert [link for link in broken if not link.endswith("reference.md")] == []


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=name_of)
def test_every_name_imported_in_an_example_exists(page: Path) -> None:
    for block in re.findall(r"(?s)```python\n(.*?)```", page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nucleoscope"):
                module = importlib.import_module(node.module or "")
                assert [a.name for a in node.names if not hasattr(module, a.name)] == []


def test_the_picture_of_the_floors_is_the_one_that_is_tested() -> None:
    path = ROOT / "tests" / "test_architecture.py"
    spec = importlib.util.spec_from_file_location("architecture_rules", path)
    assert spec is not None
    assert spec.loader is not None
    rules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rules)
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = {
        folder: int(floor)
        for floor, folders in re.findall(r"(?m)^\| (\d) \| (.+?) \|", text)
        for folder in re.findall(r"`(\w+)`", folders)
    }
    assert drawn == rules.FLOOR_OF


def test_every_test_file_the_threat_table_names_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)`", text)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_make_target_contributors_are_told_exists() -> None:
    told = re.findall(r"(?m)^make (\w+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    targets = re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert set(told) <= set(targets)
    assert len(told) >= 6


def test_every_table_contributors_register_in_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    tables = {name for row in rows for name in re.findall(r"`([A-Z]{4,}_?[A-Z]*)`", row)}
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert {"READERS", "RULES", "PROJECTIONS"} <= tables
    assert [name for name in tables if not re.search(rf"(?m)^{name}\b.*=", source)] == []


def test_decisions_are_listed_in_order() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text("utf-8"))
    assert listed == sorted(path.name for path in folder.glob("0*.md"))
