"""Pictures for people.

The folder has the name of a verb: ``nucleoscope.view(folder)`` opens ``view.browse.view``, whether
or not a module of the folder was imported before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType


class _Verb(ModuleType):
    """A module that is called as its verb."""

    def __call__(self, folder: str | Path, *, port: int = 0, browser: bool = True) -> None:
        """Look at results or an atlas; see ``nucleoscope.view.browse.view``."""
        from nucleoscope.view.browse import view

        view(folder, port=port, browser=browser)


sys.modules[__name__].__class__ = _Verb
