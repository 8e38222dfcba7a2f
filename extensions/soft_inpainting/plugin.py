"""AUTOMATIC1111's soft inpainting: no seam, because what changed little stays as it was."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from modules.plugin import InvalidRequest, Plan, Plugin, SoftBlend, param


@dataclass(frozen=True)
class Options:
    """What the panel shows, in the order of AUTOMATIC1111's script arguments."""

    enabled: bool = param(
        False, "Soft inpainting", infotext="Soft inpainting enabled",
        help="Blends the repainted part into the picture. A high mask blur (32) and denoising strength (1) suit it.")
    bias: float = param(
        1.0, "Schedule bias", infotext="Soft inpainting schedule bias", minimum=0.0, maximum=8.0, step=0.1,
        help="Above 1 the picture is kept more in early steps, below 1 more in late ones.")
    preservation: float = param(
        0.5, "Preservation strength", infotext="Soft inpainting preservation strength", minimum=0.0, maximum=8.0,
        step=0.05, help="How much of the picture is kept where the mask is partly white.")
    boost: float = param(
        4.0, "Transition contrast boost", infotext="Soft inpainting transition contrast boost", minimum=1.0,
        maximum=32.0, step=0.5, help="Contrast where both parts meet.")
    influence: float = param(
        0.0, "Mask influence", infotext="Soft inpainting mask influence", minimum=0.0, maximum=1.0, step=0.05,
        help="How much the mask decides what is shown, beside the difference.")
    threshold: float = param(
        0.5, "Difference threshold", infotext="Soft inpainting difference threshold", minimum=0.0, maximum=8.0,
        step=0.25, help="How different a place must be to be half replaced.")
    contrast: float = param(
        2.0, "Difference contrast", infotext="Soft inpainting difference contrast", minimum=0.0, maximum=8.0,
        step=0.25, help="How sharply what is shown and what is kept are told apart.")


class SoftInpainting(Plugin):
    """Asks for soft blending where a pass begins from pictures; the engine carries it out where there is a mask."""

    id = "soft_inpainting"
    name = "Soft Inpainting"
    description = "Repaints without a seam, by AUTOMATIC1111's method."
    version = "1.0"
    Params = Options
    panels = ("img2img",)

    def on_plan(self, plan: Plan, params: Options) -> Plan | None:
        """Give the options to each pass that begins from pictures."""
        if not params.enabled:
            return None
        if plan.request.inpaint_mode == "differential":
            raise InvalidRequest("Soft inpainting and differential diffusion exclude each other.", "Choose one.")
        soft = SoftBlend(params.bias, params.preservation, params.boost, params.influence, params.threshold,
                         params.contrast)
        return dataclasses.replace(plan, passes=tuple(
            dataclasses.replace(one, start=dataclasses.replace(one.start, soft=soft)) if one.start else one
            for one in plan.passes
        ))
