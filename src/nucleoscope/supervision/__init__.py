"""Points to pseudo labels to projections."""

from nucleoscope.supervision.clusters import cluster_foreground, to_uint8, weighted_kmeans
from nucleoscope.supervision.halfmax import half_maximum, median_radius
from nucleoscope.supervision.plane import projected_labels, voronoi_labels
from nucleoscope.supervision.project import PROJECTIONS, emip, mip, project
from nucleoscope.supervision.pseudo import nuclei_channel, pseudo_labels, z_step_of
from nucleoscope.supervision.voronoi import (
    cell_edges,
    distance_map,
    nearest_point,
    nearest_within,
)
from nucleoscope.supervision.zrange import slice_areas, z_ranges

__all__ = [
    "PROJECTIONS",
    "cell_edges",
    "cluster_foreground",
    "distance_map",
    "emip",
    "half_maximum",
    "median_radius",
    "mip",
    "nearest_point",
    "nearest_within",
    "nuclei_channel",
    "project",
    "projected_labels",
    "pseudo_labels",
    "slice_areas",
    "to_uint8",
    "voronoi_labels",
    "weighted_kmeans",
    "z_ranges",
    "z_step_of",
]
