"""Plans that cannot be carried out are refused before anything is loaded."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from modules.core.errors import InvalidRequest
from modules.core.plan import ModelRef, Plan
from modules.core.request import Request
from modules.engine.checks import check_plan
from modules.engine.planner import Checkpoint, Checkpoints, plan
from modules.families.base import LatentFormat, Variant

SD, XL, REFINER = (Checkpoint(ModelRef(f"/models/{name}.safetensors"), name) for name in ("sd", "xl", "refiner"))
BASE = Variant("sd15", "base", "epsilon", LatentFormat(4, 8, ((1.0, 0.0, 0.0),)), 512, {})
LARGE = dataclasses.replace(BASE, family="sdxl", latent=LatentFormat(4, 8, ((0.0, 1.0, 0.0),)))
X4 = Checkpoint(ModelRef("/models/x4.safetensors"), "x4")
VARIANTS = {SD.ref: BASE, XL.ref: LARGE, REFINER.ref: dataclasses.replace(LARGE, role="refiner"),
            X4.ref: dataclasses.replace(BASE, role="upscaler")}


def planned(
    base: Checkpoint, hires: Checkpoint | None = None, refiner: Checkpoint | None = None, **values: Any
) -> Plan:
    return plan(Request(**values), Checkpoints(base, hires, refiner), {})


def check(one: Plan, *upscalers: str) -> None:
    check_plan(one, VARIANTS.__getitem__, upscalers)


def test_what_fits_together_passes() -> None:
    check(planned(XL, refiner=REFINER))
    check(planned(XL, XL, REFINER, enable_hr=True))
    check(planned(XL, REFINER, enable_hr=True))
    check(planned(SD, XL, enable_hr=True, hr_upscaler="Lanczos"), "Lanczos")


def test_a_refiner_cannot_begin() -> None:
    with pytest.raises(InvalidRequest, match=r"refiner.safetensors is a refiner.*another checkpoint to begin with"):
        check(planned(REFINER))


@pytest.mark.parametrize("one", [
    planned(X4), planned(SD, refiner=X4), planned(SD, X4, enable_hr=True, hr_upscaler="Lanczos"),
    planned(X4, kind="img2img", init_images=("a",)),
])
def test_an_upscaler_is_no_checkpoint_for_generations(one: Plan) -> None:
    with pytest.raises(InvalidRequest, match=r"x4.safetensors is an upscaler.*Extras tab, for hires fix, or for"):
        check(one, "Lanczos")


@pytest.mark.parametrize(("one", "names"), [
    (planned(SD, refiner=REFINER), r"refiner.safetensors cannot go on with the latents of sd.safetensors"),
    (planned(SD, XL, enable_hr=True), r"xl.safetensors cannot go on with the latents of sd.safetensors"),
    (planned(XL, SD, REFINER, enable_hr=True, hr_upscaler="Lanczos"), r"refiner.safetensors .* sd.safetensors"),
])
def test_latents_of_another_kind_cannot_be_taken_over(one: Plan, names: str) -> None:
    with pytest.raises(InvalidRequest, match=names):
        check(one, "Lanczos")


def test_an_upscaler_must_exist() -> None:
    with pytest.raises(InvalidRequest, match=r"no upscaler 'ESRGAN'. There are Latent, .*, Lanczos"):
        check(planned(SD, enable_hr=True, hr_upscaler="ESRGAN"), "Lanczos")
