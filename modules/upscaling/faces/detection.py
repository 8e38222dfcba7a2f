"""The faces of a picture by RetinaFace, found at one size whatever the picture's."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from modules.upscaling.faces.retinaface import MEAN, RetinaFace, anchors, placed_boxes, placed_landmarks

# The shorter side that a picture is brought to, and how long the longer one may become, in pixels.
SHORTER, LONGEST = 640, 2560
SURE = 0.97
# Of two boxes that share more than this of what they cover together, the less likely one is no face of its own.
OVERLAP = 0.4
# Faces whose eyes are nearer to each other, in pixels, are too small or seen from the side.
EYES_APART = 5.0


def faces(network: RetinaFace, pixels: np.ndarray, device: torch.device) -> list[np.ndarray]:
    """Return landmarks [5, 2] (x, y in pixels: eyes, nose, corners of the mouth) of every face, the surest first.

    ``pixels`` are whole numbers of 8 or 16 bits, RGB, [height, width, 3].
    """
    small, scale = _at_size(pixels)
    height, width = small.shape[:2]
    x = small[:, :, ::-1].astype(np.float32) * (255 / np.iinfo(pixels.dtype).max) - np.array(MEAN, np.float32)
    batch = torch.from_numpy(x.transpose(2, 0, 1).copy())[None].to(device)
    with torch.inference_mode():
        likely, boxes, landmarks = (part[0].float().cpu() for part in network(batch))
    sure = likely > SURE
    around = anchors(width, height)[sure]
    order = likely[sure].argsort(descending=True, stable=True)
    placed = placed_boxes(boxes[sure], around)[order].numpy()
    found = placed_landmarks(landmarks[sure], around)[order].numpy().astype(np.float64) * scale
    return [found[i] for i in distinct(placed) if np.linalg.norm(found[i, 0] - found[i, 1]) >= EYES_APART]


def distinct(boxes: np.ndarray) -> list[int]:
    """Return the indices of the boxes [n, 4] that overlap no earlier one that is kept (non-maximum suppression)."""
    kept: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    remaining = np.arange(len(boxes))
    while len(remaining):
        first, others = remaining[0], remaining[1:]
        kept.append(int(first))
        low = np.maximum(boxes[first, :2], boxes[others, :2])
        high = np.minimum(boxes[first, 2:], boxes[others, 2:])
        shared = np.clip(high - low, 0, None).prod(1)
        remaining = others[shared <= OVERLAP * (areas[first] + areas[others] - shared)]
    return kept


def _at_size(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a picture at the size to look at, and by what that is to be multiplied to be as before."""
    height, width = pixels.shape[:2]
    scale = max(min(height, width) / SHORTER, max(height, width) / LONGEST)
    size = max(1, int(width / scale)), max(1, int(height / scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LANCZOS4), scale
