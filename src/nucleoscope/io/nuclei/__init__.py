"""Nuclei of any origin to ``Nuclei``: a table, outlines and an instance map where there is one."""

from nucleoscope.io.nuclei.read import NUCLEI_READERS, NucleiFormat, read_nuclei

__all__ = ["NUCLEI_READERS", "NucleiFormat", "read_nuclei"]
