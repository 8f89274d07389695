"""Intensities to the network's scale: one constant per stack and channel, never per slice.

Per-slice scaling blows noise at the ends of a stack up to full range (LECL's published inference
does that). A square root follows, which makes shot noise even over the range.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.volume import Volume

#: Values are cut off above this multiple of the 99.8th percentile.
CEILING = 4.0
#: The range is never taken smaller than this many noise widths, so pure noise stays dark.
NOISE_WIDTHS = 8.0


def levels(volume: Volume) -> NDArray[np.float64]:
    """Low end and span of every channel, ``(C, 2)``.

    Low is the first percentile and the span ends at the 99.8th. The noise of the background is
    read off the darker half of the image; colour images are taken as they are, 0 to the dtype's
    maximum.
    """
    if volume.is_rgb:
        top = float(volume.data.max())
        # A resampled 8-bit image is float; its white is still 255.
        top = 255.0 if volume.data.dtype == np.uint8 or 1 < top <= 255 else top
        return np.tile([0.0, max(top, 1e-6)], (volume.data.shape[0], 1))
    rows = []
    for channel in volume.data:
        sample = channel[:, ::2, ::2]
        low, dark, middle, high = np.percentile(sample, [1, 16, 50, 99.8])
        noise = float(middle - dark)
        span = max(float(high - low), float(middle - low) + NOISE_WIDTHS * noise)
        if span <= 0:
            span = max(float(sample.max()) - float(low), 1.0)
        rows.append((float(low), span))
    return np.array(rows)


def normalise(block: NDArray[np.generic], level: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale ``(C, ...)`` pixels: 0 is dark, 1 the 99.8th percentile, at most 2.

    >>> normalise(np.array([[0, 25, 100]], np.uint8), np.array([[0.0, 100.0]])).tolist()
    [[0.0, 0.5, 1.0]]
    """
    shape = (-1,) + (1,) * (block.ndim - 1)
    out = block.astype(np.float32)
    out -= level[:, 0].astype(np.float32).reshape(shape)
    out /= level[:, 1].astype(np.float32).reshape(shape)
    np.clip(out, 0.0, CEILING, out=out)
    np.sqrt(out, out=out)
    return out
