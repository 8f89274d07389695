import numpy as np
import pytest

from nucleoscope.simulator import optics


def width(profile, step):
    """Standard deviation of a bead's profile."""
    at = np.arange(len(profile)) * step
    weight = profile / profile.sum()
    return np.sqrt((weight * (at - (weight * at).sum()) ** 2).sum())


@pytest.mark.parametrize(
    ("psf", "spacing", "oversample"),
    [((1.1, 0.3, 0.3), (2.0, 0.5, 0.5), 3), ((0.8, 0.2, 0.4), (0.3, 0.1, 0.1), 1)],
)
def test_a_beads_width_is_that_of_the_point_spread_function(psf, spacing, oversample):
    n = 41
    bead = np.zeros((n * oversample, n, n), np.float32)
    bead[n * oversample // 2, n // 2, n // 2] = 1
    image = optics.image_through(bead, psf_um=psf, spacing=spacing, oversample=oversample)
    for axis in range(3):
        profile = image.sum(axis=tuple(a for a in range(3) if a != axis)).astype(float)
        assert abs(width(profile, spacing[axis]) / psf[axis] - 1) < 0.1


@pytest.mark.parametrize("oversample", [1, 2, 3, 4])
def test_uniform_light_stays_uniform_deep_inside(oversample):
    light = np.ones((30 * oversample, 8, 8), np.float32)
    image = optics.image_through(
        light, psf_um=(1.5, 0.5, 0.5), spacing=(2.0, 0.5, 0.5), oversample=oversample
    )
    assert np.allclose(image[10:20], 1, atol=1e-3)
    assert (image[0] < 1).all()


def test_a_slice_sees_its_own_centre_plane_best():
    light = np.zeros((9, 3, 3), np.float32)
    light[4] = 1  # centre plane of slice 1
    image = optics.image_through(
        light, psf_um=(1.0, 0.1, 0.1), spacing=(2.0, 0.5, 0.5), oversample=3
    )
    assert image[1].mean() > image[0].mean()
    assert np.allclose(image[0], image[2])


def test_light_falls_by_e_over_the_attenuation_length():
    image = optics.attenuate(np.ones((11, 2, 2), np.float32), length_um=20.0, step_um=2.0)
    assert np.isclose(image[10, 0, 0], np.exp(-1))
    assert np.allclose(optics.attenuate(image, length_um=np.inf, step_um=2.0), image)


@pytest.mark.parametrize("snr", [3.0, 8.0, 25.0])
def test_the_camera_has_the_signal_to_noise_asked_for(snr):
    rng = np.random.default_rng(0)
    flat = np.ones((200, 200), np.float32)
    image, dark = (
        optics.expose(light, snr=snr, background=0.05, dtype="uint16", rng=rng).astype(float)
        for light in (flat, 0 * flat)
    )
    assert abs((image.mean() - dark.mean()) / image.std() / snr - 1) < 0.05


def test_bright_light_saturates_instead_of_wrapping():
    image = optics.expose(
        np.full((9, 9), 50, np.float32),
        snr=8,
        background=0,
        dtype="uint8",
        rng=np.random.default_rng(0),
    )
    assert (image == 255).all()
