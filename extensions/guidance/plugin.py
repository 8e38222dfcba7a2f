"""Ways to combine predictions beyond classifier-free guidance, each off until its control is moved."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from modules.plugin import Guidance, Mimicry, Perturbation, Plan, Plugin, Projection, Thresholding, ZeroStar, param

LAYERS = "Which layers: mid, down.1 (a level), up.1.0 (one of a level); several separated by commas."


@dataclass(frozen=True)
class Options:
    """What the panel shows; the defaults change nothing."""

    cfg_rescale: float = param(
        0.0, "CFG rescale", infotext="CFG rescale", minimum=0.0, maximum=1.0, step=0.05,
        help="Brings back the contrast that guidance exaggerates. 0.7 for models trained to zero terminal SNR.")
    dynamic_thresholding: bool = param(
        False, "Dynamic thresholding", infotext="Dynamic thresholding enabled",
        help="A high CFG scale in the range of colours of a lower one.")
    mimic_scale: float = param(
        7.0, "Mimic CFG scale", infotext="Mimic scale", minimum=0.0, maximum=30.0, step=0.5,
        help="Dynamic thresholding: the CFG scale whose range is kept.")
    threshold_percentile: float = param(
        100.0, "Threshold percentile", infotext="Threshold percentile", minimum=90.0, maximum=100.0, step=0.05,
        help="Dynamic thresholding: what lies beyond this percentile of a channel is cut off.")
    latent_threshold: str = param(
        "None", "Latent thresholding", infotext="Latent thresholding", choices=("None", "Static", "Percentile"),
        help="Keeps clean latents within the limit: cut off, or scaled down where 0.5 % of them lie beyond it.")
    latent_limit: float = param(
        3.0, "Latent limit", infotext="Latent limit", minimum=0.5, maximum=20.0, step=0.1,
        help="Latent thresholding: the largest magnitude.")
    apg: bool = param(
        False, "Adaptive projected guidance", infotext="APG",
        help="High CFG scales without oversaturation: only what differs from the prediction itself is exaggerated.")
    apg_eta: float = param(
        0.0, "APG eta", infotext="APG eta", minimum=0.0, maximum=1.0, step=0.05,
        help="How much of the saturating part is kept; 1 is plain guidance.")
    apg_threshold: float = param(
        15.0, "APG norm threshold", infotext="APG threshold", minimum=0.0, maximum=100.0, step=0.5,
        help="The longest that the direction may be; 0 for any length.")
    apg_momentum: float = param(
        -0.5, "APG momentum", infotext="APG momentum", minimum=-1.0, maximum=1.0, step=0.05,
        help="Below 0 each step turns away from the direction of the steps before.")
    cfg_zero: bool = param(
        False, "CFG-Zero*", infotext="CFG-Zero", help="Scales the negative prediction to fit before it is subtracted.")
    zero_init: int = param(
        0, "CFG-Zero* zero-init", infotext="CFG-Zero init", minimum=0, maximum=20, step=1,
        help="The first model calls that are left out altogether; 1 for flow models, 0 for others.")
    pag_scale: float = param(
        0.0, "PAG scale", infotext="PAG scale", minimum=0.0, maximum=20.0, step=0.1,
        help="Perturbed-attention guidance: firmer structure, for one more row a model call. 3 is usual; 0 is off.")
    pag_layers: str = param("mid", "PAG layers", infotext="PAG layers", help=LAYERS)
    pag_start: float = param(0.0, "PAG start", infotext="PAG start", minimum=0.0, maximum=1.0, step=0.01)
    pag_end: float = param(1.0, "PAG end", infotext="PAG end", minimum=0.0, maximum=1.0, step=0.01)
    seg_scale: float = param(
        0.0, "SEG scale", infotext="SEG scale", minimum=0.0, maximum=20.0, step=0.1,
        help="Smoothed energy guidance, gentler than PAG. 3 is usual; 0 is off.")
    seg_sigma: float = param(
        0.0, "SEG blur sigma", infotext="SEG sigma", minimum=0.0, maximum=100.0, step=0.5,
        help="How far queries are blurred, in cells of the layer; 0 averages the whole picture.")
    seg_layers: str = param("mid", "SEG layers", infotext="SEG layers", help=LAYERS)
    seg_start: float = param(0.0, "SEG start", infotext="SEG start", minimum=0.0, maximum=1.0, step=0.01)
    seg_end: float = param(1.0, "SEG end", infotext="SEG end", minimum=0.0, maximum=1.0, step=0.01)
    slg_scale: float = param(
        0.0, "SLG scale", infotext="SLG scale", minimum=0.0, maximum=20.0, step=0.1,
        help="Skip layer guidance: away from what the model makes without some of its blocks. 0 is off.")
    slg_layers: str = param("mid", "SLG layers", infotext="SLG layers", help=LAYERS)
    slg_start: float = param(0.01, "SLG start", infotext="SLG start", minimum=0.0, maximum=1.0, step=0.01)
    slg_end: float = param(0.2, "SLG end", infotext="SLG end", minimum=0.0, maximum=1.0, step=0.01)


class MoreGuidance(Plugin):
    """Writes the options into the guidance of every pass; the engine carries them out."""

    id = "guidance"
    name = "Guidance"
    description = "CFG rescale, dynamic thresholding, APG, CFG-Zero*, and guidance by disturbed attention."
    version = "1.0"
    Params = Options

    def on_plan(self, plan: Plan, params: Options) -> Plan | None:
        """Change the guidance of each pass."""
        if params == Options():
            return None
        return dataclasses.replace(plan, passes=tuple(
            dataclasses.replace(one, guidance=guided(one.guidance, params)) for one in plan.passes
        ))


def guided(guidance: Guidance, params: Options) -> Guidance:
    """Return ``guidance`` with what ``params`` ask for; raises ``InvalidRequest`` for what is no layer's name."""
    return dataclasses.replace(
        guidance,
        rescale=params.cfg_rescale,
        projection=Projection(params.apg_eta, params.apg_threshold, params.apg_momentum) if params.apg else None,
        zero_star=ZeroStar(params.zero_init) if params.cfg_zero else None,
        mimicry=_mimicry(params),
        thresholding=_thresholding(params),
        perturbed=Perturbation(params.pag_scale, _layers(params.pag_layers), params.pag_start, params.pag_end),
        smoothed=Perturbation(params.seg_scale, _layers(params.seg_layers), params.seg_start, params.seg_end),
        blur=params.seg_sigma or math.inf,
        skipped=Perturbation(params.slg_scale, _layers(params.slg_layers), params.slg_start, params.slg_end),
    )


def _mimicry(params: Options) -> Mimicry | None:
    return Mimicry(params.mimic_scale, params.threshold_percentile / 100) if params.dynamic_thresholding else None


def _thresholding(params: Options) -> Thresholding | None:
    kinds = {"Static": Thresholding(params.latent_limit), "Percentile": Thresholding(params.latent_limit, 0.995)}
    return kinds.get(params.latent_threshold)


def _layers(names: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in names.split(",") if name.strip())
