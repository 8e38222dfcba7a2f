"""One batch through a sampler."""

from __future__ import annotations

from collections.abc import Callable

import torch

from modules.engine.conditioning import picture_prompts
from modules.engine.denoiser import Denoiser, Prompted
from modules.engine.exhaustion import is_out_of_memory, out_of_memory
from modules.engine.loader import Loader
from modules.engine.planner import network_tags
from modules.engine.preview import Previewer
from modules.engine.work import Work
from modules.families.base import ModelInput
from modules.plugin import StepState, hooks
from modules.prompts import tags
from modules.runtime import patches
from modules.sampling import noise
from modules.sampling.runs import Run, model_calls, prepare
from modules.sampling.samplers import Denoised, find_sampler


class BatchSampling:
    """Samples a batch; ``last`` is the latest estimate, for pictures that are interrupted."""

    def __init__(self, loader: Loader, previewer: Previewer, work: Work) -> None:
        self._loader = loader
        self._previewer = previewer
        self._work = work
        self.loaded = loader.load(work.base.segments[0].model, work.watch.phase)
        self.last: torch.Tensor | None = None

    def run(self) -> torch.Tensor:
        """Return the batch's latents [pictures, channels, height, width]; raises ``OutOfMemory`` with the numbers."""
        try:
            return self._sample()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            base, pictures = self._work.base, len(self._work.pictures)
            raise out_of_memory("sampling", base.width, base.height, pictures, self._loader.placement.device) from error

    def _sample(self) -> torch.Tensor:
        work, settings = self._work, self._work.plan.request.settings
        self._apply_patches()
        space = self.loaded.family.space(self.loaded.model)
        sampler, _ = find_sampler(work.base.sampler)
        run = prepare(sampler, work.base.schedule, work.base.steps, space, settings)
        space = run.space  # LCM's is coarser: the network is told whole timesteps of its training
        prompted = self._prompted(run.steps * sampler.calls_per_step, sampler.needs_uncond)
        work.watch.phase("Sampling")
        denoiser = Denoiser(
            self._model_call(), space, prompted, work.base.guidance, work.watch, self._loader.release
        )
        denoise = hooks.wrap_denoise(work.active, self._reporting(denoiser, model_calls(run)), work.plan)
        start = self._start_noise() * run.start_scale
        x: torch.Tensor = sampler.sample(
            denoise, start, run.sigmas, noise=self._step_noise(run), space=space, **run.options
        )
        return x * run.end_scale

    def _apply_patches(self) -> None:
        work = self._work
        segment = work.base.segments[0]
        found = tags.extract(work.pictures[0].prompt)[1]
        patches.apply(self.loaded.model, segment.patches + hooks.patches(work.active, work.plan, segment, found))

    def _prompted(self, calls: int, always_uncond: bool) -> Prompted:
        work, settings = self._work, self._work.plan.request.settings
        prompts = [picture_prompts(picture, calls, settings.use_old_scheduling) for picture in work.pictures]
        texts = [text for item in prompts for text in item.texts()]
        encoded = self._loader.encode(self.loaded, network_tags(work.pictures[0]), texts, settings)
        return Prompted(prompts, encoded, always_uncond)

    def _start_noise(self) -> torch.Tensor:
        """Return what the pictures start from: float32 [pictures, channels, height, width]."""
        work, request = self._work, self._work.plan.request
        factor = self.loaded.model.variant.latent.factor
        resized = (request.seed_resize_from_h // factor, request.seed_resize_from_w // factor)
        return noise.picture_noise(
            self._shape(), [picture.seed for picture in work.pictures],
            subseeds=[picture.subseed for picture in work.pictures], subseed_strength=request.subseed_strength,
            seed_resize_from=resized, source=request.settings.randn_source, device=self._loader.placement.device,
        )

    def _step_noise(self, run: Run) -> noise.NoiseSource | None:
        """Return what the sampler draws on its way, continuing each picture's stream."""
        settings = self._work.plan.request.settings
        seeds = [picture.seed for picture in self._work.pictures]
        device = self._loader.placement.device
        if run.sampler.noise == "none":
            return None
        if run.sampler.noise == "brownian":
            return noise.brownian_noise(
                self._shape(), seeds, run.noise_range, source=settings.randn_source, device=device
            )
        return noise.sequential_noise(
            self._shape(), seeds, source=settings.randn_source, device=device,
            seed_delta=settings.eta_noise_seed_delta,
        )

    def _shape(self) -> noise.Shape:
        latent, base = self.loaded.model.variant.latent, self._work.base
        return latent.channels, base.height // latent.factor, base.width // latent.factor

    def _model_call(self) -> Callable[[ModelInput], torch.Tensor]:
        family, model = self.loaded.family, self.loaded.model
        wrapped: Callable[[ModelInput], torch.Tensor] = hooks.wrap_model(
            self._work.active, lambda inputs: family.call(model, inputs), self._work.plan
        )
        return wrapped

    def _reporting(self, denoiser: Denoiser, calls: int) -> Callable[[torch.Tensor, float], Denoised]:
        """Return ``denoiser`` with progress, ``on_step`` and preview after each call."""
        work, steps = self._work, self._work.base.steps

        def denoise(x: torch.Tensor, sigma: float) -> Denoised:
            denoised = denoiser(x, sigma)
            self.last = denoised.x0
            work.watch.step(steps * min(1.0, denoiser.calls / calls), steps)
            hooks.on_step(work.active, StepState(denoiser.calls, calls, sigma, denoised.x0))
            self._show(denoised.x0, denoiser.calls)
            return denoised
        return denoise

    def _show(self, x0: torch.Tensor, call: int) -> None:
        settings = self._work.plan.request.settings
        due = call % settings.show_progress_every_n_steps == 0
        if settings.live_previews_enable and due and self._work.watch.wants_preview():
            latent = self.loaded.model.variant.latent
            self._work.watch.preview(self._previewer.image(x0, latent, settings.show_progress_type))
