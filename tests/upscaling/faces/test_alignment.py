import cv2
import numpy as np
import pytest

from modules.upscaling.faces.alignment import (
    TEMPLATE,
    alignment,
    put_back,
    soft_parts,
    soft_square,
    surroundings,
    taken,
)
from modules.upscaling.faces.restorer import with_faces
from tests.upscaling.faces.small import landmarks
from tests.upscaling.small import picture

# Means of facexlib's result in parts of 60 by 60 pixels, whose own rounding is down: with the mask of parts, without.
PASTED = {
    True: [[127.51, 128.2, 128.88, 127.93, 127.33, 127.49], [126.99, 133.61, 135.08, 126.75, 126.95, 127.51],
           [127.26, 134.93, 134.77, 127.91, 128.17, 134.31], [127.48, 128.14, 127.53, 127.51, 127.79, 137.96]],
    False: [[127.51, 131.05, 129.88, 127.92, 127.33, 127.49], [125.58, 138.77, 140.31, 126.53, 126.95, 127.51],
            [129.91, 137.6, 139.39, 128.49, 132.96, 135.93], [127.48, 128.15, 128.59, 127.51, 130.31, 140.06]],
}


def ignored(done, total):
    pass


def no_mask(face):
    return None


@pytest.mark.parametrize("side, size, angle", [(512, 512, 0.0), (512, 90, 0.7), (64, 300, -1.2)])
def test_a_similarity_is_found_again(side, size, angle):
    matrix = alignment(landmarks(200, 150, size, angle), side)
    at_landmarks = np.c_[landmarks(200, 150, size, angle), np.ones(5)] @ matrix.T
    np.testing.assert_allclose(at_landmarks, TEMPLATE * side / 512, atol=1e-3)


def test_landmarks_on_one_another_or_without_a_place_are_no_face():
    assert alignment(np.full((5, 2), 7.0), 512) is None
    assert alignment(np.full((5, 2), np.nan), 512) is None


def test_one_landmark_that_is_far_off_is_left_out():
    points = landmarks(100, 100, 200, 0.2)
    points[2] += 60
    expected, found = alignment(landmarks(100, 100, 200, 0.2), 512), alignment(points, 512)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_face_is_taken_with_grey_beyond_the_border():
    pixels = np.zeros((60, 80, 3), np.uint8)
    matrix = alignment(landmarks(0, 0, 40), 64)
    box = surroundings(matrix, 64, (80, 60))
    assert box[:2] == (0, 0) and 20 < box[2] < 26 and 20 < box[3] < 26
    face = taken(pixels, box, matrix, 64)
    np.testing.assert_allclose(face[5, 5] * 255, (132, 133, 135), atol=1e-3)
    assert face[50, 50].max() == 0.0
    assert surroundings(alignment(landmarks(-100, -100, 40), 64), 64, (80, 60)) is None


@pytest.mark.parametrize("with_parts", [True, False])
def test_faces_are_put_back_as_facexlib_does(with_parts):
    pixels = cv2.GaussianBlur(picture(360, 240), (0, 0), 2)
    inside = np.zeros((512, 512), bool)
    inside[60:460, 100:400] = True
    made = with_faces(
        pixels, [landmarks(120, 110, 150, 0.3), landmarks(330, 190, 120, -0.4)], 512,
        lambda face: np.ascontiguousarray((face[:, ::-1] * 0.7 + 50 / 255).clip(0, 1)),
        lambda face: soft_parts(inside, 512) if with_parts else None, ignored)
    means = made.reshape(4, 60, 6, 60, 3).mean((1, 3, 4))
    np.testing.assert_allclose(means, PASTED[with_parts], atol=1.0)
    assert np.abs(pixels.reshape(4, 60, 6, 60, 3).mean((1, 3, 4)) - PASTED[with_parts]).max() > 10


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_face_given_back_as_it_was_changes_hardly_anything(dtype):
    pixels = cv2.GaussianBlur(picture(200, 160, dtype=dtype), (0, 0), 6)
    made = with_faces(pixels, [landmarks(100, 80, 120, 0.3)], 512, lambda face: face, no_mask, ignored)
    full = np.iinfo(dtype).max
    assert made.dtype == dtype and np.abs(made.astype(float) - pixels).max() <= full / 255
    assert dtype == np.uint8 or len(np.unique(made)) > 5000


def test_only_the_face_is_changed_and_neighbours_are_taken_as_they_were():
    pixels = np.full((100, 200, 3), 50, np.uint8)
    seen, told = [], []

    def restored(face):
        seen.append(float(face.max()))
        return np.ones_like(face)

    places = [landmarks(50, 50, 60), landmarks(70, 50, 60), landmarks(900, 900, 60), np.zeros((5, 2))]
    made = with_faces(pixels, places, 64, restored, no_mask, lambda done, total: told.append((done, total)))
    assert made[50, 50:70].min() == 255 and (made[:, 110:] == 50).all() and (pixels == 50).all()
    assert seen == [pytest.approx(50 / 255)] * 2 and told == [(i, 4) for i in range(5)]


def test_a_hundred_faces_are_restored_and_can_be_stopped():
    pixels = picture(400, 400)
    places = [landmarks(20 + 40 * (i % 10), 20 + 40 * (i // 10), 40) for i in range(100)]
    made = with_faces(pixels, places, 32, lambda face: 1 - face, no_mask, ignored)
    changed = (made != pixels).any(2).reshape(10, 40, 10, 40).mean((1, 3))
    assert changed.min() > 0.4

    def stop(done, total):
        if done == 3:
            raise InterruptedError

    count = []
    with pytest.raises(InterruptedError):
        with_faces(pixels, places, 32, lambda face: count.append(1) or face, no_mask, stop)
    assert len(count) == 3


def test_masks_are_soft_and_end_before_the_border():
    square = np.zeros((100, 120), np.float32)
    square[20:80, 30:90] = 1
    soft = soft_square(square)
    assert soft[50, 60] == pytest.approx(1) and soft[20, 60] == 0 and 0 < soft[23, 60] < 1
    assert soft_square(square[:, :0 + 31]).shape == (100, 31)
    tiny = soft_square(np.ones((3, 3), np.float32))
    assert tiny.shape == (3, 3) and tiny.max() <= 1
    parts = soft_parts(np.ones((512, 512), bool), 64)
    assert parts.shape == (64, 64) and parts[0].max() == 0 and parts[32, 32] == pytest.approx(1)


def test_a_mask_says_where_the_face_is_put():
    pixels = np.zeros((64, 64, 3), np.uint8)
    matrix = alignment(landmarks(32, 32, 64), 64)
    mask = np.zeros((64, 64), np.float32)
    mask[:32] = 1
    put_back(pixels, surroundings(matrix, 64, (64, 64)), matrix, np.ones((64, 64, 3), np.float32), mask)
    assert pixels[5:28, 5:60].min() >= 254 and pixels[36:, :].max() == 0
