"""What a picture that grows begins with in its margins."""

from __future__ import annotations

import numpy as np
from PIL import Image

from modules.imaging.color import LUMINOSITY, matched_histogram
from modules.imaging.masks import Box
from modules.imaging.resize import extended


def noisy_margins(
    image: Image.Image, margins: Box, exponent: float = 1.0, color_variation: float = 0.05, seed: int = 0
) -> Image.Image:
    """Return RGB ``image`` with margins (left, up, right, down) of noise that has its spectrum and its colours.

    White noise, of which the share ``color_variation`` (0 to 1) is coloured, is multiplied in the frequency domain by
    the picture's amplitudes to the power ``exponent`` (0 to 4; 0 leaves it white, more makes it smoother), and its
    histogram in each channel becomes the picture's. Margins that are 0 return the picture itself.
    """
    grown = np.array(extended(image, margins), dtype=np.float64)
    noise = np.random.default_rng(seed % 2**64).standard_normal(grown.shape)
    noise = color_variation * noise + (1 - color_variation) * noise.mean(-1, keepdims=True)
    picture = np.asarray(image, dtype=np.float64)
    amplitude = np.abs(np.fft.fft2(_tapered(picture @ LUMINOSITY), s=grown.shape[:2]))
    amplitude[0, 0] = 0
    shape = (amplitude / max(amplitude.max(), 1e-12)) ** exponent if exponent else np.ones_like(amplitude)
    shaped = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * shape[..., None], axes=(0, 1)).real
    coloured = np.stack([matched_histogram(shaped[..., channel], picture[..., channel]) for channel in range(3)], -1)
    left, up, right, down = margins
    coloured[up:grown.shape[0] - down, left:grown.shape[1] - right] = picture
    return Image.fromarray(np.rint(coloured).clip(0, 255).astype(np.uint8))


def grown_mask(mask: Image.Image, margins: Box, overlap: tuple[int, int] = (0, 0)) -> Image.Image:
    """Return ``mask`` with white margins (left, up, right, down).

    They reach into the picture by ``overlap`` pixels (across, down), at most a quarter of it, so that a mask blurred by
    as much is white enough over what the margins begin with.
    """
    left, up, right, down = margins
    across, along = (min(reach, side // 4) for reach, side in zip(overlap, mask.size, strict=True))
    kept = (across if left else 0, along if up else 0,
            mask.width - (across if right else 0), mask.height - (along if down else 0))
    result = Image.new("L", (mask.width + left + right, mask.height + up + down), 255)
    result.paste(mask.crop(kept), (left + kept[0], up + kept[1]))
    return result


def _tapered(picture: np.ndarray) -> np.ndarray:
    """Return the deviations from the mean under a Hann window, so that edges do not show in the spectrum."""
    rows, columns = (np.hanning(side + 2)[1:-1] for side in picture.shape)
    return np.asarray((picture - picture.mean()) * rows[:, None] * columns)
