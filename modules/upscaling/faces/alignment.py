"""Faces brought to where the networks expect them, and back into the picture along a soft edge.

facexlib's and so AUTOMATIC1111's way, but for pictures of 8 and 16 bits, computed in the part around a face alone, and
rounded where facexlib cuts off.
"""

from __future__ import annotations

import cv2
import numpy as np

# Where a face of FFHQ, 512 pixels wide, has eyes, nose and the corners of the mouth (x, y).
TEMPLATE_SIDE = 512
TEMPLATE = np.array([[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043],
                     [313.08905, 371.15118]])
# What a network sees of a face beyond the picture's border, RGB.
BEYOND = (132 / 255, 133 / 255, 135 / 255)
# The edge of the mask of a face's parts: twice blurred so far, and none of it so near to the border, of 512 pixels.
PARTS_BLUR, PARTS_BORDER = (101, 11), 10
# What a face brings with it around its square, in pixels of the picture.
_MARGIN = 2

Box = tuple[int, int, int, int]


def alignment(landmarks: np.ndarray, side: int) -> np.ndarray | None:
    """Return the similarity [2, 3] from a picture to a face of ``side`` by ``side`` pixels, None where there is none.

    ``landmarks`` [5, 2] are x and y in pixels. The least median of squares leaves one that is far off out.
    """
    matrix, _ = cv2.estimateAffinePartial2D(landmarks, TEMPLATE, method=cv2.LMEDS)
    # Landmarks on top of one another have no size.
    if matrix is None or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) < 1e-12:
        return None
    return np.asarray(matrix) * (side / TEMPLATE_SIDE)


def surroundings(matrix: np.ndarray, side: int, size: tuple[int, int]) -> Box | None:
    """Return the part of a picture of ``size`` (width, height) that a face covers, None where it is outside."""
    corners = np.array([[0, 0, side, side], [0, side, 0, side], [1, 1, 1, 1]], np.float64)
    covered = cv2.invertAffineTransform(matrix) @ corners
    low = np.maximum(np.floor(covered.min(1)) - _MARGIN, 0)
    high = np.minimum(np.ceil(covered.max(1)) + _MARGIN + 1, size)
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def taken(pixels: np.ndarray, box: Box, matrix: np.ndarray, side: int) -> np.ndarray:
    """Return the face that ``matrix`` places: float32, 0 to 1, [side, side, 3]; ``pixels`` are whole numbers."""
    left, top, right, bottom = box
    part = pixels[top:bottom, left:right].astype(np.float32) / np.iinfo(pixels.dtype).max
    return np.asarray(cv2.warpAffine(part, _moved(matrix, box), (side, side), borderValue=BEYOND))


def put_back(pixels: np.ndarray, box: Box, matrix: np.ndarray, face: np.ndarray, mask: np.ndarray | None) -> None:
    """Change ``pixels`` inside ``box`` to ``face`` (0 to 1, [side, side, 3]), as far as ``mask`` says.

    ``mask`` [side, side] is 1 where the face takes the picture's place; without one its square does, but for the edge.
    """
    left, top, right, bottom = box
    size = right - left, bottom - top
    back = cv2.invertAffineTransform(_moved(matrix, box))
    placed = cv2.warpAffine(face, back, size)
    opacity = soft_square(cv2.warpAffine(np.ones(face.shape[:2], np.float32), back, size)) if mask is None else (
        cv2.warpAffine(mask, back, size))
    part = pixels[top:bottom, left:right]
    full = np.iinfo(pixels.dtype).max
    mixed = part + (placed * full - part) * opacity[:, :, None]
    part[:] = np.rint(mixed).clip(0, full)


def soft_square(square: np.ndarray) -> np.ndarray:
    """Return the mask of a face's square, 1 inside, smaller and with an edge a twentieth of its side wide."""
    inside = cv2.erode(square, np.ones((2, 2), np.uint8))
    edge = int(inside.sum() ** 0.5) // 20
    if edge:
        inside = cv2.erode(inside, np.ones((2 * edge, 2 * edge), np.uint8))
    return np.asarray(cv2.GaussianBlur(inside, (2 * edge + 1, 2 * edge + 1), 0))


def soft_parts(inside: np.ndarray, side: int) -> np.ndarray:
    """Return the mask of the parts of a face (bool, [512, 512]) with a soft edge: float32, 0 to 1, [side, side]."""
    kernel, sigma = PARTS_BLUR
    mask: np.ndarray = inside.astype(np.float32)
    for _ in range(2):
        mask = cv2.GaussianBlur(mask, (kernel, kernel), sigma)
    soft = np.zeros_like(mask)
    middle = np.s_[PARTS_BORDER:-PARTS_BORDER, PARTS_BORDER:-PARTS_BORDER]
    soft[middle] = mask[middle]
    return np.asarray(cv2.resize(soft, (side, side)))


def _moved(matrix: np.ndarray, box: Box) -> np.ndarray:
    """Return ``matrix`` for the part ``box`` of the picture, whose corner is its origin."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ np.array(box[:2], np.float64)
    return moved
