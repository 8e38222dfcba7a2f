"""One guided model call: rows for every prompt, grouped by length, combined by guidance."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from modules.core.plan import Guidance
from modules.core.result import Watch
from modules.engine.conditioning import PicturePrompts, Row, rows_at
from modules.engine.exhaustion import is_out_of_memory
from modules.families.base import Conditioning, ModelInput
from modules.sampling import guidance
from modules.sampling.samplers import Denoised
from modules.sampling.spaces import Space

ModelCall = Callable[[ModelInput], torch.Tensor]


@dataclass(frozen=True)
class Prompted:
    """The prompts of a batch and their encodings by text; ``always_uncond`` asks for the negative one at any scale."""

    prompts: Sequence[PicturePrompts]
    encoded: Mapping[str, Conditioning]
    always_uncond: bool = False


class Denoiser:
    """Counts the model calls of a pass; a sampler sees it as ``(x, sigma) -> Denoised``."""

    def __init__(
        self, call: ModelCall, space: Space, prompted: Prompted, guided: Guidance, watch: Watch,
        free_memory: Callable[[], None],
    ) -> None:
        self._model_call = call
        self._space = space
        self._prompted = prompted
        self._scale = guided.scale
        self._watch = watch
        self._free_memory = free_memory
        self._needs_uncond = prompted.always_uncond or any(
            guidance.needs_uncond(guided.scale, [part.weight for part in item.parts]) for item in prompted.prompts
        )
        self._row_by_row = False
        self.calls = 0

    def __call__(self, x: torch.Tensor, sigma: float) -> Denoised:
        """Return the estimate of the clean latents for ``x`` [pictures, channels, height, width]."""
        self._watch.check()
        rows = rows_at(self._prompted.prompts, self.calls, self._needs_uncond)
        outputs = self._outputs(x, sigma, rows)
        self.calls += 1
        return self._guided(outputs, rows, len(x))

    def _outputs(self, x: torch.Tensor, sigma: float, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Return each row's denoised latent; rows whose contexts differ in length go in calls of their own."""
        groups: dict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            groups[self._prompted.encoded[row.text].context.shape[0]].append(index)
        outputs: list[torch.Tensor | None] = [None] * len(rows)
        for indices in groups.values():
            noisy = x[[rows[index].picture for index in indices]]
            raw = self._call(self._inputs(noisy, sigma, [rows[index] for index in indices]))
            denoised = self._space.denoised(noisy, raw.to(noisy), sigma)
            for place, index in enumerate(indices):
                outputs[index] = denoised[place]
        return [output for output in outputs if output is not None]

    def _inputs(self, noisy: torch.Tensor, sigma: float, rows: Sequence[Row]) -> ModelInput:
        encoded = [self._prompted.encoded[row.text] for row in rows]
        pooled = [item.pooled for item in encoded if item.pooled is not None]
        return ModelInput(
            x=self._space.scale_input(noisy, sigma),
            sigma=sigma,
            timestep=self._space.timestep(sigma),
            call=self.calls,
            context=torch.stack([item.context for item in encoded]),
            roles=tuple(row.role for row in rows),
            rows=tuple(row.picture for row in rows),
            pooled=torch.stack(pooled) if len(pooled) == len(encoded) else None,
        )

    def _call(self, inputs: ModelInput) -> torch.Tensor:
        """Run the model; where memory does not suffice, free some and go on one row at a time."""
        if not self._row_by_row:
            try:
                return self._model_call(inputs)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self._free_memory()
            self._row_by_row = len(inputs.roles) > 1
        if not self._row_by_row:
            return self._model_call(inputs)
        return torch.cat([self._model_call(_row(inputs, index)) for index in range(len(inputs.roles))])

    def _guided(self, outputs: Sequence[torch.Tensor], rows: Sequence[Row], pictures: int) -> Denoised:
        conds: list[list[tuple[torch.Tensor, float]]] = [[] for _ in range(pictures)]
        unconds: list[torch.Tensor | None] = [None] * pictures
        for row, output in zip(rows, outputs, strict=True):
            if row.role == "cond":
                conds[row.picture].append((output, row.weight))
            else:
                unconds[row.picture] = output
        guided = [
            guidance.compose(parts, uncond, self._scale) for parts, uncond in zip(conds, unconds, strict=True)
        ]
        known = [uncond for uncond in unconds if uncond is not None]
        return Denoised(torch.stack(guided), torch.stack(known) if len(known) == pictures else None)


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
        concat=None if inputs.concat is None else inputs.concat[cut],
    )
