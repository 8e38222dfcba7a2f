"""Faces of generated pictures: when they are restored, by what, and what the infotext says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import Interrupted, InvalidRequest
from modules.core.settings import Settings
from modules.engine.engine import Engine
from modules.engine.entries import parameters
from modules.imaging.faces import FaceRestorer
from modules.library.files import Library
from modules.library.inputs import Inputs
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from tests.engine.conftest import REQUEST, Recorder

FACES = dataclasses.replace(REQUEST, restore_faces=True)
NAMES = {"Model": "m", "VAE": ""}


class Inverter:
    """Stands for a face restorer: turns light and dark round."""

    name = "CodeFormer"

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def restore(self, image: Image.Image, fidelity: float, advance: Callable[[int, int], None]) -> Image.Image:
        advance(0, 1)
        self.told.append((image.mode, fidelity))
        return Image.fromarray(255 - np.asarray(image))


@pytest.fixture
def inverter() -> Inverter:
    return Inverter()


@pytest.fixture
def restoring(library: Library, inverter: Inverter) -> Engine:
    def find(name: str) -> FaceRestorer:
        if name != inverter.name:
            raise InvalidRequest(f"There is no {name}.")
        return inverter
    return Engine(library, Models(10**9), Placement(), restorer=find)


def made(engine: Engine, request: Any, watch: Recorder | None = None) -> list[np.ndarray]:
    watch = watch or Recorder()
    engine.generate(request, (), watch)
    return [np.asarray(picture.image).astype(int) for picture in watch.pictures]


def test_decoded_pictures_have_their_faces_restored_one_by_one(restoring: Engine, inverter: Inverter) -> None:
    two = dataclasses.replace(REQUEST, batch_size=2, steps=2, settings=Settings(code_former_weight=0.3))
    plain = made(restoring, two)
    assert inverter.told == []
    watch = Recorder()
    restored = made(restoring, dataclasses.replace(two, restore_faces=True), watch)
    np.testing.assert_array_equal(restored, 255 - np.array(plain))
    assert inverter.told == [("RGB", 0.3)] * 2 and watch.phases.count("Restoring faces") == 2
    entries = watch.pictures[0].parameters
    assert (entries["Face restoration"], entries["CodeFormer weight"]) == ("CodeFormer", "0.3")


def test_what_is_kept_of_a_picture_is_pasted_over_restored_faces(restoring: Engine, library: Library) -> None:
    inputs = Inputs(library.folders.inputs)
    picture = inputs.add(Image.fromarray(np.full((64, 64, 3), 90, np.uint8)))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    request = dataclasses.replace(FACES, kind="img2img", init_images=(picture.id,), mask=inputs.add(mask).id,
                                  mask_blur_x=0, mask_blur_y=0, steps=2)
    (image,) = made(restoring, request)
    assert (image[:, 40:] == 90).all() and (image[:, :24] != 90).any()


def test_without_the_restorer_nothing_is_loaded(restoring: Engine, engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="no GFPGAN"):
        restoring.generate(dataclasses.replace(FACES, settings=Settings(face_restoration_model="GFPGAN")), (),
                           watch := Recorder())
    assert watch.batches == [] and watch.phases == []
    with pytest.raises(InvalidRequest, match="CodeFormer"):
        engine.generate(FACES, (), Recorder())


def test_an_interrupted_picture_is_handed_over_as_it_is(restoring: Engine, inverter: Inverter) -> None:
    watch = Recorder(interrupt_at=2)
    with pytest.raises(Interrupted):
        restoring.generate(FACES, (), watch)
    assert len(watch.pictures) == 1 and inverter.told == []


def test_it_is_interrupted_between_faces(restoring: Engine, inverter: Inverter) -> None:
    watch = Recorder(interrupt_at=FACES.steps)
    with pytest.raises(Interrupted):
        restoring.generate(FACES, (), watch)
    assert inverter.told == [] and watch.phases[-1] == "Restoring faces"


def test_the_infotext_says_by_what_and_how_far() -> None:
    changed = Settings(face_restoration_model="GFPGAN", code_former_weight=0.2)
    without = parameters(dataclasses.replace(REQUEST, settings=changed), NAMES, {})
    assert not {"Face restoration", "CodeFormer weight"} & set(without)
    gfpgan = parameters(dataclasses.replace(FACES, settings=changed), NAMES, {})
    assert gfpgan["Face restoration"] == "GFPGAN" and "CodeFormer weight" not in gfpgan
    codeformer = parameters(FACES, NAMES, {})
    assert codeformer["Face restoration"] == "CodeFormer" and "CodeFormer weight" not in codeformer
    names = list(codeformer)
    assert names.index("Seed") + 1 == names.index("Face restoration") == names.index("Size") - 1
