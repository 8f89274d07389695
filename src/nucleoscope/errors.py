"""Every error nucleoscope raises on purpose.

::

    NucleoscopeError (Exception)
    ├── CallError (ValueError)       wrong call: an option or argument         exit code 2
    ├── InputError (ValueError)      bad input: a file or value we were given  exit code 3
    ├── UnsafeInputError             refused for safety: limits, DTD, pickle   exit code 4
    ├── ResourceError (OSError)      out of space, memory or time              exit code 5
    └── MissingExtraError (ImportError)  an optional dependency is missing     exit code 2

Each message is one sentence: where, what was found, what was expected, what to do.
"""

from __future__ import annotations


class NucleoscopeError(Exception):
    """Base of all errors a user can cause; ``exit_code`` is what the command line returns."""

    exit_code = 1


class CallError(NucleoscopeError, ValueError):
    """An argument is impossible whatever the data."""

    exit_code = 2


class InputError(NucleoscopeError, ValueError):
    """A file or value we were given is wrong, incomplete or ambiguous."""

    exit_code = 3


class UnsafeInputError(NucleoscopeError):
    """A file was refused before it was read, because reading it could do harm."""

    exit_code = 4


class ResourceError(NucleoscopeError, OSError):
    """Disk space, memory or time ran out."""

    exit_code = 5


class MissingExtraError(NucleoscopeError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 2

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra: pip install 'nucleoscope[{extra}]'.")
