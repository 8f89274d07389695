"""Results out: one file per family of formats, one row of ``WRITERS`` per format."""

from nucleoscope.io.export.writers import WRITERS, Writer, writer_for

__all__ = ["WRITERS", "Writer", "writer_for"]
