"""The microscope: what blur, depth and the camera make of fluorescent light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from nucleoscope.units import Spacing

Light = NDArray[np.float32]

#: Camera read noise, electrons.
READ_NOISE = 2.0
#: Share of full scale that light of 1 reaches, and that no light reaches.
SCALE, OFFSET = 0.42, 0.02


def focus(light: Light, *, sigma_um: float, step_um: float, oversample: int) -> Light:
    """Blur along z by a Gaussian of ``sigma_um`` and keep every slice's centre plane.

    Parameters
    ----------
    light
        ``(Z * oversample, Y, X)``; nothing shines above or below the section.
    step_um
        Distance of slices, um.

    Returns
    -------
    Light
        ``(Z, Y, X)``. A section of uniform light 1 that went on for ever would stay 1.
    """
    planes = light.shape[0]
    source = (np.arange(planes) + 0.5) / oversample - 0.5
    target = np.arange(planes // oversample)
    gap = (target[:, None] - source) * step_um / max(sigma_um, 1e-6)
    weights = np.exp(-0.5 * gap**2)
    reach = int(np.ceil(6 * sigma_um / step_um * oversample)) + 1
    every = (np.arange(-reach, reach + 1) + (oversample % 2 == 0) * 0.5) / oversample
    weights /= np.exp(-0.5 * (every * step_um / max(sigma_um, 1e-6)) ** 2).sum()
    flat = weights.astype(np.float32) @ light.reshape(planes, -1)
    return flat.reshape(len(target), *light.shape[1:])


def blur(light: Light, *, sigma_px: tuple[float, float]) -> Light:
    """Blur along the last two axes by a Gaussian; the tissue goes on beyond the frame."""
    for axis, sigma in zip((-2, -1), sigma_px, strict=True):
        if sigma > 0:
            light = gaussian_filter1d(light, sigma, axis=axis, mode="nearest")
    return light


def image_through(light: Light, *, psf_um: Spacing, spacing: Spacing, oversample: int = 1) -> Light:
    """The image of ``light`` through a Gaussian point spread function.

    Parameters
    ----------
    light
        ``(Z * oversample, Y, X)``.
    psf_um
        Standard deviations (z, y, x) of the point spread function, um; z is the largest in any
        microscope.
    spacing
        Of the image, (z, y, x) um.
    oversample
        Planes of light per slice.

    Returns
    -------
    Light
        ``(Z, Y, X)`` float32.

    Examples
    --------
    >>> bead = np.zeros((9, 9, 9), np.float32)
    >>> bead[4, 4, 4] = 1
    >>> image = image_through(bead, psf_um=(1.0, 0.5, 0.5), spacing=(0.5, 0.5, 0.5))
    >>> bool(image[6, 4, 4] > image[4, 6, 4])
    True
    """
    sharp = focus(light, sigma_um=psf_um[0], step_um=spacing[0], oversample=oversample)
    return blur(sharp, sigma_px=(psf_um[1] / spacing[1], psf_um[2] / spacing[2]))


def attenuate(light: Light, *, length_um: float, step_um: float) -> Light:
    """Light lost with depth, ``exp(-depth / length)``; the first slice is at the surface."""
    depth = np.arange(light.shape[0]) * step_um
    dimmed: Light = light * np.exp(-depth / length_um).astype(np.float32)[:, None, None]
    return dimmed


def photons_at(snr: float, background: float = 0.0) -> float:
    """Photons per pixel of light 1 that give this signal-to-noise ratio.

    ``snr = N / sqrt(N (1 + background) + READ_NOISE^2)`` solved for N.

    >>> n = photons_at(8.0)
    >>> round(n / (n + READ_NOISE**2) ** 0.5, 6)
    8.0
    """
    b = snr**2 * (1 + background)
    return float((b + np.sqrt(b**2 + 4 * snr**2 * READ_NOISE**2)) / 2)


def expose(
    light: Light,
    *,
    snr: float,
    background: float,
    dtype: str,
    rng: np.random.Generator,
) -> NDArray[np.generic]:
    """Count photons: Poisson noise of signal and background, Gaussian read noise, whole numbers.

    Parameters
    ----------
    light
        1 = a typical bright structure.
    snr
        Signal over noise where light is 1.
    background
        Light that is everywhere, as a share of 1.
    dtype
        ``"uint8"`` or ``"uint16"``; brighter than about 2.3 saturates.

    Returns
    -------
    ndarray
        Same shape as ``light``.
    """
    photons = photons_at(snr, background)
    counts = rng.poisson(np.maximum(light + background, 0) * photons).astype(np.float32)
    counts += rng.normal(0, READ_NOISE, light.shape).astype(np.float32)
    top = float(np.iinfo(dtype).max)
    grey = (OFFSET + SCALE * counts / photons) * top
    image: NDArray[np.generic] = np.clip(np.rint(grey), 0, top).astype(dtype)
    return image
