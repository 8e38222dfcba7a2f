"""One batch through its passes, each a run of a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from modules.core.errors import InvalidRequest
from modules.core.plan import Pass, Segment
from modules.engine import bridges, images, masking, soft_inpainting
from modules.engine.bridges import Beginning
from modules.engine.conditioning import PicturePrompts, picture_prompts
from modules.engine.denoiser import Denoiser, Prompted
from modules.engine.images import Begun
from modules.engine.loader import Loaded
from modules.engine.masking import Denoise
from modules.engine.segments import Relay, Share, share_of_calls, share_of_timesteps
from modules.engine.work import Bench, Work, merge_patches
from modules.families.base import Conditioning, ModelInput
from modules.plugin import StepState, hooks
from modules.prompts import tags
from modules.runtime import patches, tiling
from modules.runtime.exhaustion import is_out_of_memory, out_of_memory
from modules.sampling import noise
from modules.sampling.runs import Run, exact_steps, model_calls, prepare, truncate, truncate_to
from modules.sampling.samplers import Denoised, find_sampler
from modules.sampling.spaces import Space


@dataclass
class Reached:
    """How far a batch is: the model in use and its latest estimate, for pictures that are interrupted.

    ``opacity`` is how much of each finished picture is shown, cell by cell, where soft inpainting decides that.
    """

    loaded: Loaded | None = None
    last: torch.Tensor | None = None
    opacity: Sequence[np.ndarray] = ()


class BatchSampling:
    """Samples a batch, pass by pass."""

    def __init__(self, bench: Bench, work: Work) -> None:
        self._bench = bench
        self._work = work
        self.reached = Reached()

    def run(self) -> torch.Tensor:
        """Return the batch's latents [pictures, channels, height, width]; raises ``OutOfMemory`` with the numbers."""
        first, *later = self._work.plan.passes
        latents = None if first.made else self._pass(0, None)
        for number, pass_ in enumerate(later, 1):
            latents = self._pass(number, self._between(pass_, latents))
        assert latents is not None
        return latents

    def _between(self, pass_: Pass, latents: torch.Tensor | None) -> Beginning:
        """Return how ``pass_`` begins: from what the pass before made or, where that made nothing, what is given."""
        if latents is None:
            given = self._bench.inputs.open(self._work.plan.passes[0].made)
            return bridges.enter(self._bench, self._work, pass_, given)
        assert self.reached.loaded is not None
        return bridges.leave(self._bench, self._work, pass_, latents, self.reached.loaded)

    def _pass(self, number: int, begin: Beginning | None) -> torch.Tensor:
        pass_ = self._work.plan.passes[number]
        try:
            return PassSampling(self._bench, self._work, number, self.reached).run(begin)
        except OverflowError as error:
            raise InvalidRequest(f"{pass_.sampler} cannot compute what the settings ask of it: {error.args[-1]}.",
                                 "Set those of samplers and schedules back to their defaults.") from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            pictures, device = len(self._work.pictures), self._bench.loader.placement.device
            raise out_of_memory("sampling", pass_.width, pass_.height, pictures, device) from error


class PassSampling:
    """One pass of a batch: the ``number``-th of its plan."""

    def __init__(self, bench: Bench, work: Work, number: int, reached: Reached) -> None:
        self._bench = bench
        self._work = work
        self._number = number
        self._pass: Pass = work.plan.passes[number]
        self._reached = reached
        self._sampler = find_sampler(self._pass.sampler, bench.samplers)[0]
        self._settings = work.plan.request.settings
        self._soft = self._pass.start.soft if self._pass.start else None

    def run(self, begin: Beginning | None) -> torch.Tensor:
        """Return the latents that the pass makes: from noise alone, from what ``begin`` returns or given pictures."""
        loaded = self._load(self._pass.segments[0])
        run = self._prepared(loaded.family.space(loaded.model))
        noise = self._noise(loaded)
        begun = self._begun(begin, loaded, noise)
        x = self._first(run, begun) if begun else noise * run.start_scale
        step_noise = self._step_noise(run, loaded)
        relay = Relay(self._denoiser(loaded, 0), self._pass.segments[1:], self._opened, self._share(run.space),
                      self._sampler.calls_per_step)
        # From here on the relay alone holds the model, so that it may leave memory when the next segment begins.
        del loaded
        denoise = hooks.wrap_denoise(self._work.active, self._watched(relay, begun, run), self._work.plan)
        x = self._sampler.sample(denoise, x, run.sigmas, noise=step_noise, space=run.space, **run.options)
        return self._kept(x * run.end_scale, begun)

    def _kept(self, made: torch.Tensor, begun: Begun | None) -> torch.Tensor:
        """Return the latents with the picture where it is kept; soft inpainting decides pixel by pixel instead."""
        if begun is None or begun.keep is None or self._work.plan.request.inpaint_mode == "differential":
            return made
        if self._soft is None:
            return masking.blend(made, begun.latents, begun.keep)
        self._reached.opacity = soft_inpainting.opacity(begun.latents, made, begun.keep, self._soft)
        return made

    def _prepared(self, space: Space) -> Run:
        pass_, steps = self._pass, self._pass.steps
        begins = pass_.bridge or pass_.start
        exact = pass_.bridge is not None or bool(pass_.start and pass_.start.exact)
        if begins and exact:
            steps, t_enc = exact_steps(steps, begins.strength)
        run = prepare(self._sampler, pass_.schedule, steps, space, self._settings)
        if not begins:
            return run
        return truncate_to(run, t_enc) if exact else truncate(run, begins.strength)

    def _begun(self, begin: Beginning | None, loaded: Loaded, noise: torch.Tensor) -> Begun | None:
        if begin is not None:
            return Begun(begin(loaded).to(noise), noise)
        if self._pass.start is None:
            return None
        return images.begun(self._bench.loader, self._work, self._pass, loaded, noise)

    def _first(self, run: Run, begun: Begun) -> torch.Tensor:
        """Return the noised picture; A1111's extra noise is on top of that of the level."""
        level = run.start_scale + self._settings.img2img_extra_noise * run.init_scale
        return begun.noise * level + begun.latents * run.init_scale

    def _watched(self, relay: Relay, begun: Begun | None, run: Run) -> Denoise:
        """Return ``relay`` with progress and, where a part of the picture is kept, masks.

        A1111 puts the picture in after guidance, and for samplers of timesteps before the model.
        """
        calls = model_calls(run)
        if begun is None or begun.keep is None:
            return self._reporting(relay, relay, calls)
        if self._work.plan.request.inpaint_mode == "differential":
            return self._reporting(masking.differential(relay, begun, run.space, run.sigmas), relay, calls)
        mix = soft_inpainting.mix(self._soft) if self._soft else masking.at_any_level
        if run.sampler.kind == "timesteps":
            return masking.before_model(self._reporting(relay, relay, calls), begun, run.space, mix)
        return self._reporting(masking.after_guidance(relay, begun, mix), relay, calls)

    def _load(self, segment: Segment) -> Loaded:
        """Return the segment's model with its patches in force; the one in use before may leave memory for it."""
        work = self._work
        self._reached.loaded = None
        loaded = self._bench.loader.load(segment.model, work.watch.phase, self._settings)
        found = tags.extract(work.said(self._pass)[0].prompt)[1]
        patches.apply(loaded.model, (*merge_patches(self._bench, work, loaded), *segment.patches,
                                     *hooks.patches(work.active, work.plan, segment, found)))
        tiling.apply(loaded.model.modules, work.plan.request.tiling)
        self._reached.loaded = loaded
        return loaded

    def _opened(self, segment: Segment, first_call: int) -> Denoiser:
        return self._denoiser(self._load(segment), first_call)

    def _denoiser(self, loaded: Loaded, first_call: int) -> Denoiser:
        work = self._work
        prompted = self._prompted(loaded)
        self._bench.loader.place(loaded, "unet", 2 * len(work.pictures) * self._pass.width * self._pass.height)
        work.watch.phase("Sampling")
        family, model = loaded.family, loaded.model

        def call(inputs: ModelInput) -> torch.Tensor:
            return family.call(model, inputs)

        # A consistency sampler's space is coarser: the network is told whole timesteps of its training.
        return Denoiser(
            hooks.wrap_model(work.active, call, work.plan), self._sampler.grid(family.space(model)), prompted,
            self._pass.guidance, work.watch, self._bench.loader.release, self._settings, first_call,
        )

    def _prompted(self, loaded: Loaded) -> Prompted:
        family, model, pass_ = loaded.family, loaded.model, self._pass
        prompts = self._prompts()
        # What A1111 tells the denoiser of the second pass is the size before the margins are cut off.
        size = (pass_.bridge.resize_width, pass_.bridge.resize_height) if pass_.bridge else (pass_.width, pass_.height)
        concat = self._concat(loaded)
        return Prompted(
            prompts, self._encoded(loaded, prompts), self._calls(pass_), self._sampler.needs_uncond,
            {role: family.micro_conditioning(model, role, *size, self._settings) for role in ("cond", "uncond")},
            concat, model.variant.takes,
        )

    def _concat(self, loaded: Loaded) -> torch.Tensor | None:
        """Return the channels beside the latent; the autoencoder makes them where there are any."""
        width, height = self._pass.width, self._pass.height
        if loaded.model.variant.takes:
            self._bench.loader.place(loaded, "vae", width * height)
        return loaded.family.concat(loaded.model, images.condition(self._work, self._pass, loaded.model.variant.takes))

    def _prompts(self) -> list[PicturePrompts]:
        before = self._calls(self._work.plan.passes[0]) if self._number else None
        return [
            picture_prompts(picture, self._calls(self._pass), self._settings.use_old_scheduling, before)
            for picture in self._work.said(self._pass)
        ]

    def _encoded(self, loaded: Loaded, prompts: list[PicturePrompts]) -> dict[tuple[str, bool], Conditioning]:
        key = patches.wording(loaded.model.applied)
        found: dict[tuple[str, bool], Conditioning] = {}
        for negative in (False, True):
            texts = [text for item in prompts for text, said_negative in item.said() if said_negative == negative]
            encoded = self._bench.loader.encode(loaded, key, texts, self._settings, negative)
            found |= {(text, negative): conditioning for text, conditioning in encoded.items()}
        return found

    def _calls(self, pass_: Pass) -> int:
        """Return the model calls over which prompts are scheduled: a pass's own are fewer where its last step is."""
        return pass_.steps * find_sampler(pass_.sampler, self._bench.samplers)[0].calls_per_step

    def _share(self, space: Space) -> Share:
        if self._settings.refiner_switch_by_sample_steps:
            return share_of_calls(self._calls(self._pass))
        return share_of_timesteps(space)

    def _noise(self, loaded: Loaded) -> torch.Tensor:
        """Return what the pictures start from: float32 [pictures, channels, height, width]."""
        work, request = self._work, self._work.plan.request
        factor = loaded.model.variant.latent.factor
        resized = (request.seed_resize_from_h // factor, request.seed_resize_from_w // factor)
        return noise.picture_noise(
            self._shape(loaded), work.seeds, subseeds=[picture.subseed for picture in work.pictures],
            subseed_strength=request.subseed_strength, seed_resize_from=resized,
            source=self._settings.randn_source, device=self._bench.loader.placement.device,
        )

    def _step_noise(self, run: Run, loaded: Loaded) -> noise.NoiseSource | None:
        """Return what the sampler draws on its way, continuing each picture's stream."""
        settings, seeds, shape = self._settings, self._work.seeds, self._shape(loaded)
        device = self._bench.loader.placement.device
        if run.sampler.noise == "none":
            return None
        if run.sampler.noise == "brownian":
            return noise.brownian_noise(shape, seeds, run.noise_range, source=settings.randn_source, device=device)
        return noise.sequential_noise(shape, seeds, source=settings.randn_source, device=device,
                                      seed_delta=settings.eta_noise_seed_delta)

    def _shape(self, loaded: Loaded) -> noise.Shape:
        latent = loaded.model.variant.latent
        return latent.channels, self._pass.height // latent.factor, self._pass.width // latent.factor

    def _reporting(self, inner: Denoise, relay: Relay, calls: int) -> Denoise:
        """Return ``inner``, which asks ``relay``, with progress, ``on_step`` and preview after each call."""
        work, steps = self._work, [0 if one.made else one.steps for one in self._work.plan.passes]
        before, own, total = sum(steps[:self._number]), steps[self._number], sum(steps)

        def denoise(x: torch.Tensor, sigma: float) -> Denoised:
            denoised = inner(x, sigma)
            self._reached.last = denoised.x0
            work.watch.step(before + own * min(1.0, relay.calls / calls), total)
            hooks.on_step(work.active, StepState(relay.calls, calls, sigma, denoised.x0))
            self._show(denoised.x0, relay.calls)
            return denoised
        return denoise

    def _show(self, x0: torch.Tensor, call: int) -> None:
        due = call % self._settings.show_progress_every_n_steps == 0
        if self._reached.loaded and self._settings.live_previews_enable and due and self._work.watch.wants_preview():
            latent = self._reached.loaded.model.variant.latent
            self._work.watch.preview(self._bench.previewer.image(x0, latent, self._settings.show_progress_type))
