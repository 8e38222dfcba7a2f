"""The training workbench: a small text-to-image latent diffusion model, and adapters, from pictures with captions.

Stages, each one command of ``python -m modules.training``: ``prepare``, ``autoencoder``, ``latents``, ``diffusion``
and ``export``; ``lora`` and ``embedding`` for a model that is there.
"""
