import numpy as np
import pytest
import torch

from modules.upscaling.faces.detection import LONGEST, SHORTER, distinct, faces

CPU = torch.device("cpu")


class Finder:
    """Stands for the network: sees a face at given anchors, and notes the sizes of what it was shown."""

    def __init__(self, sure):
        self.sure, self.shown = sure, []

    def __call__(self, x):
        self.shown.append(tuple(x.shape[-2:]))
        height, width = x.shape[-2:]
        count = sum(2 * -(-height // step) * -(-width // step) for step in (8, 16, 32))
        likely, landmarks = torch.zeros(1, count), torch.zeros(1, count, 10)
        for anchor, score in self.sure.items():
            likely[0, anchor] = score
            # Eyes, nose and corners of the mouth, in tenths of the anchor's side.
            landmarks[0, anchor] = torch.tensor([-2.0, -2, 2, -2, 0, 0, -1.5, 2, 1.5, 2])
        return likely, torch.zeros(1, count, 4), landmarks


def test_faces_are_placed_in_the_picture_s_own_pixels_the_surest_first():
    finder = Finder({1: 0.98, 201: 0.99, 203: 0.5})
    found = faces(finder, np.zeros((320, 640, 3), np.uint8), CPU)
    assert finder.shown == [(640, 1280)] and len(found) == 2
    # Anchor 201 is the second of place 100 in the first row of the finest level: 8 pixels apart, 32 wide.
    centre = np.array([(100 + 0.5) * 8, 4.0]) / 2
    offsets = np.array([[-2, -2], [2, -2], [0, 0], [-1.5, 2], [1.5, 2]]) * 0.1 * 32 / 2
    np.testing.assert_allclose(found[0], centre + offsets, atol=1e-4)
    np.testing.assert_allclose(found[1], np.array([4.0, 4.0]) / 2 + offsets, atol=1e-4)


def test_eyes_that_are_close_to_each_other_are_no_face_to_restore():
    small, large = (faces(Finder({1: 0.99}), np.zeros((side, side, 3), np.uint8), CPU) for side in (128, 512))
    assert (len(small), len(large)) == (0, 1)


@pytest.mark.parametrize("width, height", [(8192, 8192), (30_000, 64), (64, 20_000), (1, 1), (3, 900)])
def test_what_is_looked_at_is_bounded(width, height):
    finder = Finder({})
    assert faces(finder, np.zeros((height, width, 3), np.uint8), CPU) == []
    shown = finder.shown[0]
    assert max(shown) <= LONGEST and min(shown) <= SHORTER and min(shown) >= 1


def test_the_picture_is_shown_in_the_order_of_the_training():
    class Watcher(Finder):
        def __call__(self, x):
            self.values = x[0, :, 0, 0]
            return super().__call__(x)

    pixels = np.empty((640, 640, 3), np.uint8)
    pixels[:] = (10, 20, 30)
    for picture in (pixels, pixels.astype(np.uint16) * 257):
        watcher = Watcher({})
        faces(watcher, picture, CPU)
        torch.testing.assert_close(watcher.values, torch.tensor([30.0 - 104, 20 - 117, 10 - 123]), atol=1e-3, rtol=0)


def test_of_boxes_that_overlap_the_first_is_kept():
    noise = np.random.default_rng(0)
    corner = noise.random((300, 2)) * 200
    boxes = np.c_[corner, corner + noise.random((300, 2)) * 60 + 5]
    kept = []
    for i, (left, top, right, bottom) in enumerate(boxes):
        for j in kept:
            width = min(right, boxes[j, 2]) - max(left, boxes[j, 0])
            height = min(bottom, boxes[j, 3]) - max(top, boxes[j, 1])
            shared = max(0, width) * max(0, height)
            own, other = (right - left) * (bottom - top), np.prod(boxes[j, 2:] - boxes[j, :2])
            if shared / (own + other - shared) > 0.4:
                break
        else:
            kept.append(i)
    assert distinct(boxes) == kept and 50 < len(kept) < 290
    assert distinct(np.empty((0, 4))) == []
