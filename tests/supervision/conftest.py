"""A small stack with known nuclei, and the marker of other cells above and below them."""

from types import SimpleNamespace

import numpy as np
import pytest

CENTRES = [(2, 20, 20), (2, 22, 60), (5, 60, 24), (4, 58, 62), (3, 40, 42), (6, 84, 80)]


def build(shape=(8, 96, 96), radius=8.0, z_step=3.0, seed=0):
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    nuclei = rng.normal(20.0, 3.0, shape)
    truth = np.zeros(shape, np.int32)
    for j, (cz, cy, cx) in enumerate(CENTRES, start=1):
        inside = ((z - cz) * z_step) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        truth[inside] = j
        nuclei[inside] += 60.0 + 20.0 * j
    return SimpleNamespace(
        nuclei=np.clip(np.rint(nuclei), 0, 255).astype(np.uint8),
        marker=rng.integers(0, 200, shape).astype(np.uint8),
        truth=truth,
        clicks=np.array(CENTRES, dtype=np.float64),
        spacing=(z_step * 0.4, 0.4, 0.4),
        z_step=z_step,
        radius=radius,
    )


@pytest.fixture(scope="session")
def scene():
    return build()
