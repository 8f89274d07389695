"""Maps to instances to 3D nuclei to a table."""

from nucleoscope.nuclei.hover import (
    LECL,
    PUBLISHED,
    DecodeSettings,
    InstanceTypes,
    decode,
    hover_targets,
    instance_types,
    slopes,
)
from nucleoscope.nuclei.link import link, traces
from nucleoscope.nuclei.measure import Contours, Extents, contours, extents, measure
from nucleoscope.nuclei.tiles import Tile, cover, merge, owned, owns

__all__ = [
    "LECL",
    "PUBLISHED",
    "Contours",
    "DecodeSettings",
    "Extents",
    "InstanceTypes",
    "Tile",
    "contours",
    "cover",
    "decode",
    "extents",
    "hover_targets",
    "instance_types",
    "link",
    "measure",
    "merge",
    "owned",
    "owns",
    "slopes",
    "traces",
]
