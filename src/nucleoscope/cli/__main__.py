"""``python -m nucleoscope.cli``."""

from nucleoscope.cli import main

main()
