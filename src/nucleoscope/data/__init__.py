"""The frozen types that flow from stage to stage, each checked once, at construction."""

from nucleoscope.data.labels import Labels
from nucleoscope.data.maps import HoverMaps, Projection, PseudoLabels, StackMaps
from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume

__all__ = [
    "HoverMaps",
    "Labels",
    "NucleusTable",
    "Points",
    "Projection",
    "PseudoLabels",
    "Region",
    "StackMaps",
    "Volume",
]
