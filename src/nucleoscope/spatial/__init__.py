"""Who stands next to whom, with honest nulls and edge correction.

``analyse`` does it all for tables of nuclei; the functions it is made of work on a ``Pattern`` (the
nuclei of one image), a ``Graph`` (their neighbours) and a ``Window`` (their tissue).
"""

from nucleoscope.spatial.analysis import STATISTICS, Settings, analyse
from nucleoscope.spatial.autocorrelation import moran
from nucleoscope.spatial.centrality import centrality
from nucleoscope.spatial.cohort import compare_groups
from nucleoscope.spatial.cooccurrence import co_occurrence
from nucleoscope.spatial.enrichment import edge_sums, enrichment
from nucleoscope.spatial.envelope import curve_test, global_envelope
from nucleoscope.spatial.graph import GRAPHS, Graph, delaunay, nearest, within
from nucleoscope.spatial.marks import coupling, mark_correlation
from nucleoscope.spatial.niches import composition, niches
from nucleoscope.spatial.nulls import NULLS, density_strata
from nucleoscope.spatial.pairs import Bins
from nucleoscope.spatial.pattern import Pattern, patterns_of
from nucleoscope.spatial.results import SpatialResult
from nucleoscope.spatial.ripley import cross_k, nearest_g
from nucleoscope.spatial.tissue import tissue_of
from nucleoscope.spatial.window import Window

__all__ = [
    "GRAPHS",
    "NULLS",
    "STATISTICS",
    "Bins",
    "Graph",
    "Pattern",
    "Settings",
    "SpatialResult",
    "Window",
    "analyse",
    "centrality",
    "co_occurrence",
    "compare_groups",
    "composition",
    "coupling",
    "cross_k",
    "curve_test",
    "delaunay",
    "density_strata",
    "edge_sums",
    "enrichment",
    "global_envelope",
    "mark_correlation",
    "moran",
    "nearest",
    "nearest_g",
    "niches",
    "patterns_of",
    "tissue_of",
    "within",
]
