"""The error tree and its exit codes."""

from __future__ import annotations

import inspect
import re

import pytest

from nucleoscope import errors
from nucleoscope.errors import (
    CallError,
    InputError,
    MissingExtraError,
    NucleoscopeError,
    ResourceError,
    UnsafeInputError,
)

CLASSES = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
]


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (CallError, 2, ValueError),
        (InputError, 3, ValueError),
        (UnsafeInputError, 4, Exception),
        (ResourceError, 5, OSError),
        (MissingExtraError, 2, ImportError),
        (NucleoscopeError, 1, Exception),
    ],
)
def test_every_class_has_its_exit_code_and_its_kin(
    error: type[NucleoscopeError], code: int, kind: type[Exception]
) -> None:
    assert error.exit_code == code
    assert issubclass(error, NucleoscopeError)
    assert issubclass(error, kind)


def test_the_tree_at_the_top_is_the_tree() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) \((\w+)\)|(?!)", errors.__doc__ or ""))
    plain = set(re.findall(r"[├└]── (\w+) ", errors.__doc__ or ""))
    assert plain == {c.__name__ for c in CLASSES} - {"NucleoscopeError"}
    for name, base in drawn.items():
        assert base in {b.__name__ for b in getattr(errors, name).__mro__}
    codes = re.findall(r"[├└]── (\w+) .*exit code (\d)", errors.__doc__ or "")
    assert {name: getattr(errors, name).exit_code for name, _ in codes} == {
        name: int(code) for name, code in codes
    }


def test_a_missing_extra_says_how_to_get_it() -> None:
    error = MissingExtraError("running on a cluster", "cluster")
    assert str(error) == "running on a cluster needs an extra: pip install 'nucleoscope[cluster]'."


def test_a_message_is_kept_as_it_is() -> None:
    for error in (CallError, InputError, UnsafeInputError, ResourceError):
        assert str(error("a.tif: odd.")) == "a.tif: odd."
