"""Colours of one picture brought to another."""

from __future__ import annotations

import numpy as np
from PIL import Image

# sRGB's primaries and white D65 (IEC 61966-2-1), and the constants of CIE 1976 L*a*b*.
TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = TO_XYZ.sum(axis=1)
KNEE = (6 / 29) ** 3
LUMINOSITY = np.array([0.3, 0.59, 0.11])


def corrected(image: Image.Image, target: Image.Image) -> Image.Image:
    """Return RGB ``image`` with the distribution of colours of ``target`` and its own brightness, as A1111 does.

    Histograms are matched in CIE L*a*b*, each channel by itself; then each pixel gets the luminosity that it had
    (W3C compositing, blend mode "luminosity").
    """
    own = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    wanted = to_lab(np.asarray(target.convert("RGB"), dtype=np.float64) / 255)
    lab = to_lab(own)
    matched = np.stack([matched_histogram(lab[..., index], wanted[..., index]) for index in range(3)], axis=-1)
    colours = with_luminosity(from_lab(matched).clip(0, 1), own @ LUMINOSITY)
    return Image.fromarray(np.rint(colours.clip(0, 1) * 255).astype(np.uint8))


def matched_histogram(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return ``values`` mapped so that their distribution becomes that of ``target``; their order is kept."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    levels, wanted = np.unique(target, return_counts=True)
    mapped = np.interp(np.cumsum(counts) / values.size, np.cumsum(wanted) / target.size, levels)
    return np.asarray(mapped[places].reshape(values.shape))


def with_luminosity(colours: np.ndarray, luminosity: np.ndarray) -> np.ndarray:
    """Return RGB ``colours`` [..., 3] in 0..1 shifted to ``luminosity`` [...], drawn to grey where out of range."""
    shifted = colours + (luminosity - colours @ LUMINOSITY)[..., None]
    grey = luminosity[..., None]
    low, high = shifted.min(-1, keepdims=True), shifted.max(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        shifted = np.where(low < 0, grey + (shifted - grey) * grey / (grey - low), shifted)
        shifted = np.where(high > 1, grey + (shifted - grey) * (1 - grey) / (high - grey), shifted)
    return np.asarray(shifted)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Return sRGB [..., 3] in 0..1 as L* in 0..100, a* and b*."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ TO_XYZ.T / WHITE
    x, y, z = np.moveaxis(np.where(xyz > KNEE, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def from_lab(lab: np.ndarray) -> np.ndarray:
    """Return L*, a* and b* as sRGB [..., 3], beyond 0..1 where there is no such colour on a screen."""
    y = (lab[..., 0] + 16) / 116
    roots = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29)) * WHITE
    linear = xyz @ np.linalg.inv(TO_XYZ).T
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)
