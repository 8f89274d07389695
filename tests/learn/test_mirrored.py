"""Maps averaged over mirror images."""

import numpy as np
import pytest

from nucleoscope.data.maps import StackMaps
from nucleoscope.data.volume import Volume
from nucleoscope.learn.mirrored import VIEWS, mirrored_maps


def picture(height=12, width=16) -> Volume:
    data = np.random.default_rng(0).integers(0, 255, size=(1, 1, height, width), dtype=np.uint8)
    return Volume(data, ("a",))


def looker(bias: float = 0.0):
    """Maps at half resolution by means of blocks; offsets point at the brightest pixel."""

    def look(volume: Volume) -> StackMaps:
        plane = volume.data[0, 0].astype(np.float32)
        pad = ((0, -plane.shape[0] % 2), (0, -plane.shape[1] % 2))
        plane = np.pad(plane, pad, mode="edge")
        small = plane.reshape(plane.shape[0] // 2, 2, -1, 2).mean((1, 3))
        y, x = np.indices(small.shape)
        top = np.unravel_index(small.argmax(), small.shape)
        offsets = np.stack([0 * y, top[0] - y, top[1] - x]).astype(np.float32)[:, None]
        leaning = (small + bias * x)[None].astype(np.float32)
        return StackMaps(leaning, leaning, offsets, leaning[None], 2)

    return look


@pytest.mark.parametrize("size", [(12, 16), (11, 15)])
@pytest.mark.parametrize("views", [1, 2, 4])
def test_a_network_without_preference_gives_the_same_maps(size, views):
    volume, look = picture(*size), looker()
    plain, mean = look(volume), mirrored_maps(look, volume, views=views, stride=2)
    for name in ("foreground", "centre", "offsets", "types"):
        assert np.allclose(getattr(mean, name), getattr(plain, name), atol=1e-3), name


def test_a_leaning_is_averaged_away():
    volume = picture()
    mean = mirrored_maps(looker(bias=3.0), volume, views=4, stride=2)
    plain = looker()(volume)
    assert np.allclose(mean.centre - plain.centre, 3.0 * 3.5, atol=1e-3)


def test_each_view_is_another():
    assert len(set(VIEWS)) == 4
    assert VIEWS[0] == (False, False)
