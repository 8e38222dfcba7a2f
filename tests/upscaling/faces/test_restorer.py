import numpy as np
import pytest
import torch
from PIL import Image

from modules.core.errors import InvalidModel, InvalidRequest
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.upscaling.faces.networks import COMPONENT, FaceShelf
from modules.upscaling.faces.restorer import find_restorer
from modules.upscaling.pixels import Picture
from tests.upscaling.faces.small import codeformer, parsenet, retinaface, seeded
from tests.upscaling.small import needs, picture

pytestmark = needs("spandrel")
PARSER = "parsing_parsenet.pth"


def detector(sees: float) -> dict[str, torch.Tensor]:
    """Return a detector that takes one of the largest anchors for a face, where ``sees`` is above 0."""
    state = seeded(retinaface())
    for i in range(3):
        for head in ("ClassHead", "BboxHead", "LandmarkHead"):
            state[f"{head}.{i}.conv1x1.weight"].zero_()
            state[f"{head}.{i}.conv1x1.bias"].zero_()
        state[f"ClassHead.{i}.conv1x1.bias"][1::2] = -9.0
    state["ClassHead.2.conv1x1.bias"][3] = sees
    # Boxes so large that they are all the same face.
    state["BboxHead.2.conv1x1.bias"][6:] = 20.0
    state["LandmarkHead.2.conv1x1.bias"][10:] = torch.tensor([-1.2, -0.1, 1.2, -0.1, 0, 1, -1, 2, 1, 2])
    return state


@pytest.fixture
def place(tmp_path):
    """The folder of an installation with a restorer, a detector that sees faces and a parser."""
    folder = tmp_path / "models" / "GFPGAN"
    folder.mkdir(parents=True)
    torch.save(detector(9.0), folder / "detection_Resnet50_Final.pth")
    torch.save(seeded(parsenet()), folder / PARSER)
    (tmp_path / "models" / "Codeformer").mkdir()
    torch.save({"params_ema": seeded(codeformer())}, tmp_path / "models" / "Codeformer" / "codeformer-v0.1.0.pth")
    return folder


@pytest.fixture
def models():
    return Models(1 << 30)


@pytest.fixture
def find(tmp_path, models):
    library = Library(folders(tmp_path, {}), HashCache(tmp_path / "hashes.sqlite3"))
    return lambda name="CodeFormer": find_restorer(library, FaceShelf(models, Placement()), name)


def ignored(done, total):
    pass


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_faces_are_restored_in_the_picture_s_depth_and_alpha_stays(place, find, models, dtype):
    before = Picture(picture(96, 80, dtype=dtype), picture(96, 80, 1, dtype)[:, :, :1])
    told = []
    after = find().restored(before, 0.5, lambda done, total: told.append((done, total)))
    assert after.alpha is before.alpha and after.pixels.dtype == dtype and after.pixels.shape == (80, 96, 3)
    assert (after.pixels != before.pixels).any(2).mean() > 0.05
    assert told == [(0, 1), (1, 1)]
    assert [key[0] for key in tuple(models.keys())] == [COMPONENT] * 3
    again = find().restored(before, 0.5, ignored)
    np.testing.assert_array_equal(again.pixels, after.pixels)
    assert (find().restored(before, 1.0, ignored).pixels != after.pixels).any()


def test_without_a_parser_the_square_is_put_back(place, find, models):
    pixels = Image.fromarray(picture(96, 80))
    with_parser = find().restore(pixels, 0.5, ignored)
    (place / PARSER).unlink()
    without = find().restore(pixels, 0.5, ignored)
    assert without.mode == "RGB" and np.any(np.asarray(without) != np.asarray(with_parser))
    assert np.any(np.asarray(without) != np.asarray(pixels))


def test_a_picture_without_a_face_is_left_alone_and_the_restorer_not_loaded(place, find, models):
    torch.save(detector(-9.0), place / "detection_Resnet50_Final.pth")
    told, before = [], Picture(picture(96, 80))
    assert find().restored(before, 0.5, lambda *progress: told.append(progress)) is before
    assert told == [(1, 1)] and len(models.keys()) == 1


def test_what_is_missing_is_named(place, find):
    with pytest.raises(InvalidRequest, match="GFPGANv1.4.pth"):
        find("GFPGAN")
    (place / "detection_Resnet50_Final.pth").unlink()
    with pytest.raises(InvalidRequest, match="CodeFormer needs detection_Resnet50_Final.pth"):
        find()


def test_a_file_that_is_no_restorer_is_named_and_the_next_picture_works(place, find):
    file = place.parent / "Codeformer" / "codeformer-v0.1.0.pth"
    content = file.read_bytes()
    file.write_bytes(b"text")
    with pytest.raises(InvalidModel, match="codeformer-v0.1.0.pth"):
        find().restore(Image.fromarray(picture(96, 80)), 0.5, ignored)
    file.write_bytes(content)
    assert find().restore(Image.fromarray(picture(96, 80)), 0.5, ignored).size == (96, 80)
