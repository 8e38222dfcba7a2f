"""One guided model call: rows for every prompt, grouped by length, combined by guidance."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from modules.core.errors import InvalidRequest
from modules.core.guidance import LAYER_HINT, Guidance
from modules.core.result import Watch
from modules.core.settings import Settings
from modules.engine.conditioning import PicturePrompts
from modules.engine.guiding import Guider, Predictions, first_predictions
from modules.engine.rows import Row, rows_at
from modules.families.base import Conditioning, ModelInput
from modules.runtime.exhaustion import is_out_of_memory
from modules.runtime.perturb import Disturbance, disturbances
from modules.sampling import guidance
from modules.sampling.samplers import Denoised
from modules.sampling.spaces import Space

ModelCall = Callable[[ModelInput], torch.Tensor]


@dataclass(frozen=True)
class Prompted:
    """What the model is told about a batch in one pass of ``calls`` model calls, as prompt editing counts them.

    ``encoded`` is keyed by text and whether it is said as a negative prompt. ``always_uncond`` asks for the negative
    prediction at any scale. ``micro`` has each role's numbers about size or quality (``cond``, ``uncond``; none for
    most families). ``concat`` [pictures or 1, channels, h, w] is what the model ``takes`` beside the noisy latent
    (``inpaint``, ``edit``, ``depth``; ``Variant.takes``).
    """

    prompts: Sequence[PicturePrompts]
    encoded: Mapping[tuple[str, bool], Conditioning]
    calls: int
    always_uncond: bool = False
    micro: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    concat: torch.Tensor | None = None
    takes: str = ""


class Denoiser:
    """Counts the model calls of a pass, from ``first_call`` on; a sampler sees it as ``(x, sigma) -> Denoised``."""

    def __init__(
        self, call: ModelCall, space: Space, prompted: Prompted, guided: Guidance, watch: Watch,
        free_memory: Callable[[], None], settings: Settings, first_call: int = 0,
    ) -> None:
        self._model_call = call
        self._space = space
        self._prompted = prompted
        self._guidance = guided
        self._guider = Guider(guided, space)
        self._watch = watch
        self._free_memory = free_memory
        self._settings = settings
        self._negatives = _negative_roles(prompted, guided)
        self._disturbances = disturbances(guided)
        self._told: dict[tuple[Row, ...], dict[str, Any]] = {}
        self._row_by_row = False
        self.calls = first_call

    def __call__(self, x: torch.Tensor, sigma: float) -> Denoised:
        """Return the estimate of the clean latents for ``x`` [pictures, channels, height, width]."""
        self._watch.check()
        call, self.calls = self.calls, self.calls + 1
        zero = self._guidance.zero_star
        if zero and call < zero.zero_calls:
            nothing = self._space.denoised(x, torch.zeros_like(x), sigma)
            return Denoised(nothing, nothing)
        rows = rows_at(self._prompted.prompts, call, self._roles(call, sigma))
        outputs = self._outputs(x, sigma, call, rows)
        predictions = Predictions(x, sigma, rows, outputs)
        denoised = self._guider(predictions)
        if denoised.uncond is None and self._prompted.always_uncond:
            return Denoised(denoised.x0, first_predictions(predictions))
        return denoised

    def _roles(self, call: int, sigma: float) -> tuple[str, ...]:
        """Return the roles of the rows of this call, in their order."""
        negatives = () if self._skips_negative(call, sigma) else self._negatives
        disturbed = [
            role for role, perturbation in self._guidance.perturbations().items()
            if perturbation.active(call, self._prompted.calls)
        ]
        return ("cond", *negatives, *disturbed)

    def _skips_negative(self, call: int, sigma: float) -> bool:
        """Return whether the settings leave the negative prompt out, as A1111 counts: early, or every other call."""
        settings = self._settings
        early = settings.skip_early_cond
        if early > 0 and call / self._prompted.calls <= early:
            return True
        due = call % 2 == 1 or settings.s_min_uncond_all
        return due and sigma < settings.s_min_uncond and self._prompted.takes != "edit"

    def _outputs(self, x: torch.Tensor, sigma: float, call: int, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Return each row's clean latent; rows whose contexts differ in length go in calls of their own."""
        groups: dict[tuple[int, str], list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            apart = "" if self._settings.batch_cond_uncond else row.role
            groups[self._prompted.encoded[row.said].context.shape[0], apart].append(index)
        outputs: dict[int, torch.Tensor] = {}
        told = {}
        for indices in groups.values():
            group = tuple(rows[index] for index in indices)
            told[group] = self._told.get(group) or _told(self._prompted, group, x.device)
            noisy = torch.stack([x[row.picture] for row in group])
            raw = self._call(self._inputs(noisy, sigma, call, group, told[group]))
            outputs |= zip(indices, self._space.denoised(noisy, raw.to(noisy), sigma), strict=True)
        self._told = told
        return [outputs[index] for index in range(len(rows))]

    def _inputs(
        self, noisy: torch.Tensor, sigma: float, call: int, group: Sequence[Row], told: Mapping[str, Any]
    ) -> ModelInput:
        roles = tuple(row.role for row in group)
        hooks: dict[str, list[Callable[..., Any]]] = defaultdict(list)
        for disturbance in self._disturbances:
            if disturbance.role in roles:
                hooks[disturbance.kind].append(disturbance)
        return ModelInput(
            x=self._space.scale_input(noisy, sigma),
            sigma=sigma,
            timestep=self._space.timestep(sigma),
            call=call,
            roles=roles,
            rows=tuple(row.picture for row in group),
            attention=hooks,
            **told,
        )

    def _call(self, inputs: ModelInput) -> torch.Tensor:
        """Run the model; where memory does not suffice, free some and go on one row at a time."""
        if not self._row_by_row:
            try:
                return self._checked_call(inputs)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self._free_memory()
            self._row_by_row = len(inputs.roles) > 1
        if not self._row_by_row:
            return self._checked_call(inputs)
        return torch.cat([self._checked_call(_row(inputs, index)) for index in range(len(inputs.roles))])

    def _checked_call(self, inputs: ModelInput) -> torch.Tensor:
        output = self._model_call(inputs)
        for disturbance in self._disturbances:
            _check_met(disturbance, inputs)
        return output


def _negative_roles(prompted: Prompted, guided: Guidance) -> tuple[str, ...]:
    """Return the roles that guidance needs beside ``cond``; a model that edits may need two (Brooks et al. 2023)."""
    edits = prompted.takes == "edit"
    needed = prompted.always_uncond or any(
        guidance.needs_uncond(guided.scale, [part.weight for part in item.parts]) for item in prompted.prompts
    )
    if edits and guided.image_scale != 1:
        return "image_uncond", "uncond"
    if not needed:
        return ()
    return ("image_uncond",) if edits else ("uncond",)


def _told(prompted: Prompted, group: Sequence[Row], device: torch.device) -> dict[str, Any]:
    """Return the fields of ``ModelInput`` that depend on a group's rows alone, on ``device``."""
    encoded = [prompted.encoded[row.said] for row in group]
    pooled = [item.pooled for item in encoded if item.pooled is not None]
    added = {name: torch.stack([item.added[name] for item in encoded]).to(device) for name in encoded[0].added}
    micro = [prompted.micro.get("uncond" if row.said[1] else "cond", ()) for row in group]
    if any(micro):
        added["micro"] = torch.tensor(micro, dtype=torch.float32, device=device)
    return {
        "context": torch.stack([item.context for item in encoded]).to(device),
        "pooled": torch.stack(pooled).to(device) if len(pooled) == len(encoded) else None,
        "added": added,
        "concat": _concat(prompted, group, device),
    }


def _concat(prompted: Prompted, group: Sequence[Row], device: torch.device) -> torch.Tensor | None:
    """Return each row's own channels; where a model edits, the unconditional row sees an empty picture."""
    if prompted.concat is None:
        return None
    channels = [prompted.concat[row.picture if len(prompted.concat) > 1 else 0] for row in group]
    if prompted.takes == "edit":
        channels = [torch.zeros_like(own) if row.role == "uncond" else own
                    for row, own in zip(group, channels, strict=True)]
    return torch.stack(channels).to(device)


def _check_met(disturbance: Disturbance, inputs: ModelInput) -> None:
    """Raise ``InvalidRequest`` where the network has none of a layer that was to be disturbed."""
    if disturbance.role in inputs.roles and (missing := disturbance.missing()):
        raise InvalidRequest(
            f"This model has no layer {', '.join(missing)} to disturb.",
            LAYER_HINT,
        )


def _row(inputs: ModelInput, index: int) -> ModelInput:
    """Return one row of ``inputs`` as inputs of its own."""
    cut = slice(index, index + 1)
    return dataclasses.replace(
        inputs,
        x=inputs.x[cut],
        context=inputs.context[cut],
        roles=inputs.roles[cut],
        rows=inputs.rows[cut],
        pooled=None if inputs.pooled is None else inputs.pooled[cut],
        added={name: value[cut] for name, value in inputs.added.items()},
        concat=None if inputs.concat is None else inputs.concat[cut],
    )
