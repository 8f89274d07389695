"""A page of results as sections of text, tables and pictures; rendered as Markdown or as HTML."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib import resources

from nucleoscope.errors import CallError


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first column is a name, the others are figures."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise CallError(f"a row of {len(row)} cells under {len(self.columns)} headings.")


@dataclass(frozen=True)
class Picture:
    """A drawing: the stem of its file, the SVG, what it shows."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Code:
    """A command."""

    text: str


Block = str | Table | Picture | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A title, a lead sentence, sections."""

    title: str
    lead: str
    sections: tuple[Section, ...]

    def pictures(self) -> Iterator[Picture]:
        """Every picture, in order."""
        for section in self.sections:
            yield from (block for block in section.blocks if isinstance(block, Picture))


def to_markdown(page: Page, pictures: str) -> str:
    """The page as Markdown; ``pictures`` is the folder of its SVG files, relative to it.

    >>> page = Page("T", "Lead.", (Section("S", (Table(("a", "b"), (("x", "1"),)),)),))
    >>> print(to_markdown(page, "pictures"))
    # T
    <BLANKLINE>
    Lead.
    <BLANKLINE>
    ## S
    <BLANKLINE>
    | a | b |
    |---|---:|
    | x | 1 |
    <BLANKLINE>
    """
    parts = [f"# {page.title}", page.lead]
    for section in page.sections:
        parts.append(f"## {section.title}")
        parts += [_block_markdown(block, pictures) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block_markdown(block: Block, pictures: str) -> str:
    """One block as Markdown."""
    if isinstance(block, Table):
        rule = "|---" + "|---:" * (len(block.columns) - 1) + "|"
        lines = [_line(block.columns), rule, *(_line(row) for row in block.rows)]
        return "\n".join(lines) + (f"\n\n{block.note}" if block.note else "")
    if isinstance(block, Picture):
        return f"![{block.caption}]({pictures}/{block.name}.svg)\n\n{block.caption}"
    return f"```\n{block.text}\n```" if isinstance(block, Code) else block


def _line(cells: tuple[str, ...]) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def to_html(page: Page) -> str:
    """The page as one HTML document in the report's style, complete and without a network.

    >>> to_html(Page("a < b", "", ())).count("a &lt; b")
    2
    """
    folder = resources.files("nucleoscope.view") / "templates"
    css = (folder / "report.css").read_text(encoding="utf-8").replace("\r\n", "\n")
    css += "section h2 { margin-bottom: 10px; } section .scroll { max-height: none; }\n"
    digest = base64.b64encode(hashlib.sha256(css.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = escape(page.title)
    sections = "\n".join(_section_html(section) for section in page.sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
<p class="soft">{escape(page.lead)}</p>
</header>
{sections}
<footer>This file is complete: it can be moved, mailed and opened without a network.</footer>
</main>
</body>
</html>
"""


def _section_html(section: Section) -> str:
    """One section."""
    blocks = "\n".join(_block_html(block) for block in section.blocks)
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>"


def _block_html(block: Block) -> str:
    """One block as HTML; everything but the drawings is escaped."""
    if isinstance(block, Table):
        head = "".join(_cell("th", i, text) for i, text in enumerate(block.columns))
        body = "".join(
            "<tr>" + "".join(_cell("td", i, text) for i, text in enumerate(row)) + "</tr>\n"
            for row in block.rows
        )
        note = f'<p class="soft small">{escape(block.note)}</p>' if block.note else ""
        return (
            f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>{body}</tbody></table></div>{note}"
        )
    if isinstance(block, Picture):
        return f"<figure>{block.svg}<figcaption>{escape(block.caption)}</figcaption></figure>"
    if isinstance(block, Code):
        return f"<pre><code>{escape(block.text)}</code></pre>"
    return f"<p>{escape(block)}</p>"


#: Cells longer than this are broken into lines; unbroken, they would squeeze the first column.
_LONG = 40


def _cell(tag: str, column: int, text: str) -> str:
    """One cell; the first of a row is text, and so is what is too long to be a figure."""
    kind = ' class="text"' if column == 0 or len(text) > _LONG else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"
