"""Keeping a part of the picture: each rule against its formula, on a denoiser whose answer is known."""

from __future__ import annotations

import torch

from modules.engine.images import Begun
from modules.engine.masking import after_guidance, before_model, differential
from modules.sampling.samplers import Denoised
from modules.sampling.spaces import space_from_betas
from modules.sampling.steps import Denoise

SPACE = space_from_betas()
SIGMAS = (10.0, 5.0, 2.0, 1.0, 0.0)
LATENTS, NOISE = (torch.randn(1, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
                  for n in (0, 1))
HALF = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
HALF[..., 2:] = 1
KEPT = Begun(LATENTS, NOISE, HALF)


def network(x: torch.Tensor, sigma: float) -> Denoised:
    """Every cell depends on all of them, so that what is seen outside of the mask matters inside."""
    x0 = x.tanh() + x.mean() / (1 + sigma)
    return Denoised(x0, x0 - 1)


def euler(denoise: Denoise, x: torch.Tensor) -> torch.Tensor:
    for sigma, following in zip(SIGMAS[:-1], SIGMAS[1:], strict=True):
        x = x + (following - sigma) * (x - denoise(x, sigma).x0) / sigma
    return x


def replaced(masks: list[torch.Tensor]) -> torch.Tensor:
    """Sample, putting the noised picture where each step's mask is 1 before the step (RePaint's known part)."""
    x = LATENTS + NOISE * SIGMAS[0]
    for sigma, following, mask in zip(SIGMAS[:-1], SIGMAS[1:], masks, strict=True):
        x = x * (1 - mask) + (LATENTS + NOISE * sigma) * mask
        x = x + (following - sigma) * (x - network(x, sigma).x0) / sigma
    return x


def test_both_places_of_blending_give_what_replacing_the_known_part_does() -> None:
    start = LATENTS + NOISE * SIGMAS[0]
    expected = replaced([HALF] * 4)
    for denoise in (after_guidance(network, KEPT), before_model(network, KEPT, SPACE)):
        assert torch.allclose(euler(denoise, start)[..., :2], expected[..., :2], atol=1e-12)
    assert torch.allclose(euler(after_guidance(network, KEPT), start)[..., 2:], LATENTS[..., 2:], atol=1e-12)


def test_before_the_model_the_predicted_noise_is_the_models_own() -> None:
    x, sigma = torch.ones_like(LATENTS), 3.0
    seen = x * (1 - HALF) + (LATENTS + NOISE * sigma) * HALF
    denoised = before_model(network, KEPT, SPACE)(x, sigma)
    assert torch.allclose((x - denoised.x0) / sigma, (seen - network(seen, sigma).x0) / sigma)
    assert torch.allclose(denoised.x0 - denoised.uncond, torch.ones_like(x))


def test_differential_diffusion_frees_each_cell_at_its_share_of_the_steps() -> None:
    keep = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=torch.float64).expand(1, 1, 4, 4)
    # Steps 0 to 3 of 4: replaced while i / 4 is less than the share.
    masks = [torch.tensor(row, dtype=torch.float64).expand(1, 1, 4, 4)
             for row in ([0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1])]
    denoise = differential(network, Begun(LATENTS, NOISE, keep), SPACE, SIGMAS)
    result, expected = euler(denoise, LATENTS + NOISE * SIGMAS[0]), replaced(masks)
    assert torch.allclose(result[..., :3], expected[..., :3], atol=1e-12)
    assert torch.allclose(result[..., 3], LATENTS[..., 3], atol=1e-12)
    middle = differential(lambda x, sigma: Denoised(torch.zeros_like(x)), Begun(LATENTS, NOISE, keep), SPACE, SIGMAS)
    assert torch.equal(middle(LATENTS, 3.0).x0[0, 0, 0] != 0, torch.tensor([False, False, True, True]))
