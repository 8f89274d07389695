"""``python -m nucleoscope``, for where the command itself is not on the path."""

from nucleoscope.cli import main

if __name__ == "__main__":
    main()
