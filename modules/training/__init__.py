"""The training workbench: a small text-to-image latent diffusion model from pictures with captions.

Stages, each one command of ``python -m modules.training``: ``prepare``, ``autoencoder``, ``latents``, ``diffusion``,
``export`` and ``evaluate``.
"""
