"""What a training run is made of: frozen configurations, read from one TOML file with a table per stage."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from modules.core.errors import InvalidRequest


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, at what ``size`` (pixels per side, square), and the fraction of base emoji held out.

    ``groups`` restricts to emojibase groups (all when empty); ``tones`` includes skin-tone variants.
    """

    size: int = 128
    quality: int = 90
    groups: tuple[str, ...] = ()
    tones: bool = True
    held_out: float = 0.04


@dataclass(frozen=True)
class LoopConfig:
    """Steps, batches and rates that every stage has.

    ``lr`` warms up over ``warmup`` steps, stays, and falls linearly to zero over the last ``decay`` of all ``steps``.
    ``batch`` pictures per step are processed ``accumulate`` parts at a time. ``precision`` is ``fp32`` or ``bf16``.
    ``checkpoint_seconds`` apart, and at the end, the state is saved; ``sample_every`` steps a grid is drawn.
    """

    steps: int
    batch: int
    lr: float
    accumulate: int = 1
    warmup: int = 50
    decay: float = 0.5
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    ema_on_cpu: bool = False
    precision: str = "fp32"
    compile: bool = False
    seed: int = 0
    checkpoint_seconds: float = 120.0
    log_every: int = 20
    sample_every: int = 500


@dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder and its losses.

    Squared error until ``l1_from`` of all steps, then absolute error and ``gradient_weight`` times that of the
    picture's gradients. ``kl_weight`` is per latent element against a mean per pixel element. ``adversarial_weight``
    scales VQGAN's adaptive weight from ``adversarial_from`` of all steps on; zero leaves the discriminator out.
    ``white`` is the share of pictures on white, ``tinted`` that of recoloured objects.
    """

    loop: LoopConfig
    block_out_channels: tuple[int, ...] = (32, 64, 96, 128)
    layers_per_block: int = 1
    latent_channels: int = 16
    norm_num_groups: int = 8
    linear_start: int = 150
    crop: int = 0
    l1_from: float = 0.67
    gradient_weight: float = 1.0
    kl_weight: float = 1e-6
    adversarial_weight: float = 0.0
    adversarial_from: float = 0.75
    white: float = 0.4
    tinted: float = 0.3


@dataclass(frozen=True)
class CaptionConfig:
    """How often each attribute is varied (and then named) and which combinations are kept for evaluation."""

    tinted: float = 0.4
    ground: float = 0.6
    placed: float = 0.1
    tags: float = 0.1
    held_out: float = 0.1


@dataclass(frozen=True)
class DiffusionConfig:
    """The denoiser, its text encoder and their training.

    It learns the pictures of ``groups`` (all of the data's when empty) and those of ``labels``, also the ones that the
    autoencoder never saw. ``draws`` compositions of each are cached as latents, with ``wordings`` captions each.
    ``grid`` prompts are drawn as it goes. ``prediction`` is ``epsilon`` or ``v_prediction``;
    ``zero_snr`` rescales the betas so that the last step is pure noise (Lin et al. 2023, algorithm 1).
    ``optimizer`` is ``adamw``, or ``muon`` for its matrices.
    Before, the text encoder alone learns for ``text_warmup`` steps what its captions look like on average, by AdamW at
    a rate that falls from ``text_warmup_lr``.
    The loss weighs the error of the clean latent by the signal-to-noise ratio clamped to ``snr_range``.
    """

    loop: LoopConfig
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    draws: int = 8
    wordings: int = 4
    grid: tuple[str, ...] = ()
    block_out_channels: tuple[int, ...] = (64, 128, 192)
    attention: tuple[bool, ...] = (False, True, True)
    layers_per_block: int = 1
    heads: int = 4
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    vocabulary: int = 2048
    positions: int = 32
    text_lr_scale: float = 0.3
    text_warmup: int = 2000
    text_warmup_batch: int = 128
    text_warmup_lr: float = 1e-3
    optimizer: str = "adamw"
    prediction: str = "v_prediction"
    zero_snr: bool = False
    beta_start: float = 0.00085
    beta_end: float = 0.02
    snr_range: tuple[float, float] = (1.0, 5.0)
    dropout: float = 0.1
    sample_steps: int = 25
    guidance_scale: float = 4.0


@dataclass(frozen=True)
class TrainingConfig:
    """All stages of one model."""

    data: DataConfig
    autoencoder: AutoencoderConfig
    diffusion: DiffusionConfig


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters: their ``rank``, their scale ``alpha`` / ``rank``, and the layers that have one.

    ``unet`` and ``text`` name kinds of layers (``lora.LAYERS``); without ``text`` the text encoder stays as it is.
    ``dropout`` is the share of ranks left out of a step. The file's weights are ``fp16`` or ``fp32``.
    """

    rank: int = 8
    alpha: float = 8.0
    unet: tuple[str, ...] = ("attention",)
    text: tuple[str, ...] = ()
    dropout: float = 0.0
    precision: str = "fp16"


@dataclass(frozen=True)
class EmbeddingConfig:
    """A new ``word`` of ``vectors`` tokens that starts as the words of ``start``.

    Each caption is put into one of ``templates``, which mention the word and ``{caption}``.
    """

    word: str
    start: str
    vectors: int = 4
    templates: tuple[str, ...] = ("{caption}, {word}",)


@dataclass(frozen=True)
class AboutConfig:
    """What a file says of itself, in the words of ``modelspec``."""

    title: str = ""
    description: str = ""
    license: str = ""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What every adapter of a model has: pictures in a ``style`` (``styles.STYLES``), captions and training.

    Of ``diffusion``, what describes the denoiser and its noise is not read: the model's folder says it.
    """

    data: DataConfig
    diffusion: DiffusionConfig
    style: str = "plain"
    about: AboutConfig = field(default_factory=AboutConfig)


@dataclass(frozen=True, kw_only=True)
class LoraTraining(AdapterConfig):
    """A LoRA and its training."""

    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True, kw_only=True)
class EmbeddingTraining(AdapterConfig):
    """An embedding (textual inversion) and its training."""

    embedding: EmbeddingConfig


Config = TypeVar("Config")


def build(kind: type[Config], values: dict[str, Any], where: str) -> Config:
    """Return a ``kind`` from a parsed table; raises ``InvalidRequest`` on a name or a type it does not have."""
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InvalidRequest(f"[{where}] has no setting {', '.join(unknown)}.")
    arguments = {name: convert(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return kind(**arguments)
    except TypeError as error:
        raise InvalidRequest(f"[{where}] is incomplete: {error}") from error


def convert(hint: Any, value: Any, where: str) -> Any:
    """Return a TOML value as the field's type: nested tables as dataclasses, arrays as tuples, integers as floats."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if isinstance(value, list):
        return tuple(value)
    if hint is float and type(value) is int:
        return float(value)
    if hint in (int, float, bool, str) and type(value) is not hint:
        raise InvalidRequest(f"{where} must be {hint.__name__}, not {value!r}.")
    return value


def read(path: Path, kind: type[Config]) -> Config:
    """Read a configuration file of a ``kind``: ``TrainingConfig``, ``LoraTraining`` or ``EmbeddingTraining``."""
    with path.open("rb") as file:
        return build(kind, tomllib.load(file), path.stem)
