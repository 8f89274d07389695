"""The published pseudo labels, step by step, slow and in float64: the oracle of this folder.

After Moradinasab et al. 2023, algorithm 1, with the plane of slice ``i`` read at ``11 i``.
"""

import numpy as np
from scipy import ndimage
from skimage.morphology import ball, disk
from sklearn.cluster import KMeans


def nearest(shape, voxel, z_step=1.0):
    """Index (from 1) of the nearest click and its distance, over all clicks, voxel by voxel."""
    grid = np.stack(np.indices(shape), axis=-1).astype(np.float64)
    scale = np.ones(len(shape))
    if len(shape) == 3:
        scale[0] = z_step
    square = (((grid[..., None, :] - np.asarray(voxel)) * scale) ** 2).sum(axis=-1)
    return square.argmin(axis=-1) + 1, np.sqrt(square.min(axis=-1))


def padded_distance(shape, voxel, planes=10, clip=20.0):
    """Distance in a volume with ten empty planes between slices, read back at the right ones."""
    n_z = shape[0]
    padded = np.ones(((n_z - 1) * (planes + 1) + 1, *shape[1:]), dtype=bool)
    for z, y, x in voxel:
        padded[z * (planes + 1), y, x] = False
    away = ndimage.distance_transform_edt(padded)
    return np.minimum(away[:: planes + 1], clip)


def cluster(nuclei, distance, voxel, seed=0):
    """Three clusters of all voxels; 0 background, 1 between, 2 nucleus."""
    rows = np.column_stack([nuclei.ravel() / 10.0, distance.ravel()])
    kmeans = KMeans(3, n_init=10, random_state=seed, tol=0).fit(rows)
    labels = kmeans.labels_.reshape(nuclei.shape)
    clicks = np.zeros(nuclei.shape, dtype=bool)
    clicks[tuple(np.asarray(voxel).T)] = True
    nucleus = int(np.argmax([clicks[labels == c].sum() for c in range(3)]))
    near = ndimage.binary_dilation(clicks, ball(4).astype(bool))
    others = [c for c in range(3) if c != nucleus]
    back = min(others, key=lambda c: (near[labels == c].sum(), kmeans.cluster_centers_[c, 0]))
    return np.where(labels == nucleus, 2, np.where(labels == back, 0, 1))


def emip(marker, binary, cells):
    """Cell by cell: the slices with any foreground, then the maximum of the marker over them."""
    kept = np.zeros_like(marker)
    ranges = np.zeros((cells.max(), len(marker)), dtype=bool)
    for j in range(1, cells.max() + 1):
        for z in range(len(marker)):
            if (binary[z] & (cells == j)).sum() > 0:
                ranges[j - 1, z] = True
                kept[z][cells == j] = marker[z][cells == j]
    return kept.max(axis=0), ranges


def plane_labels(nuclei, voxel, cells):
    """Training masks of a projection: published sizes, whole-frame morphology for every cell."""
    distance = np.minimum(nearest(nuclei.shape, voxel)[1], 20.0)
    rows = np.column_stack([nuclei.ravel() / 10.0, distance.ravel()])
    kmeans = KMeans(3, n_init=10, random_state=0, tol=0).fit(rows)
    labels = kmeans.labels_.reshape(nuclei.shape)
    clicks = np.zeros(nuclei.shape, dtype=bool)
    clicks[tuple(np.asarray(voxel).T)] = True
    nucleus = int(np.argmax([clicks[labels == c].sum() for c in range(3)]))
    near = ndimage.binary_dilation(clicks, disk(5))
    others = [c for c in range(3) if c != nucleus]
    back = min(others, key=lambda c: (near[labels == c].sum(), kmeans.cluster_centers_[c, 0]))
    parts, n = ndimage.label(labels == nucleus, np.ones((3, 3)))
    found = np.zeros(nuclei.shape, dtype=bool)
    for k in range(1, n + 1):
        if (parts == k).sum() >= 30:
            found |= parts == k
    out = np.zeros(nuclei.shape, dtype=bool)
    for j in range(1, cells.max() + 1):
        part = np.pad(found & (cells == j), 20)
        part = ndimage.binary_fill_holes(ndimage.binary_dilation(part, disk(5)))
        out |= ndimage.binary_erosion(part, disk(7))[20:-20, 20:-20]
    background = (labels == back) & ~out & ~ndimage.binary_dilation(clicks, disk(10))
    return out, ~out & ~background
