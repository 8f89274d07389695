"""Names of files, channels and types as text that cannot mislead or fill the page."""

from __future__ import annotations

import unicodedata

from markupsafe import Markup

__all__ = ["MAX_NAME", "short", "visible"]

#: Names longer than this are cut.
MAX_NAME = 200


def visible(value: object) -> object:
    r"""Text with control and direction characters spelt out; anything else as it is.

    A name with U+202E would otherwise be shown backwards, and so pass for another.

    >>> visible("evil" + chr(0x202E) + "fdp.exe")
    'evil\\u202efdp.exe'
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if _is_plain(c) else ascii(c)[1:-1] for c in value)


def _is_plain(character: str) -> bool:
    """False for control, format, surrogate, private and line-breaking characters."""
    category = unicodedata.category(character)
    return category[0] != "C" and category not in ("Zl", "Zp")


def short(text: str) -> str:
    """A name cut to a length that fits a page.

    >>> len(short("x" * 100_000))
    200
    """
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"
