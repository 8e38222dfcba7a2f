"""What a model family is: detection from a header, loading, and the four calls that the engine makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from modules.core.settings import Settings
    from modules.library.headers import Header
    from modules.runtime.device import Placement
    from modules.runtime.patches import Applied
    from modules.sampling.spaces import Space


@dataclass(frozen=True)
class LatentFormat:
    """How latents of a family relate to pixels.

    ``channels`` of a latent, ``factor`` pixels per latent cell and side. ``rgb`` has one row (r, g, b) per channel
    and with ``rgb_bias`` maps a latent to colours in -1..1, the linear preview. ``preview_decoder`` is the stem of
    the small decoder's file (``taesd_decoder``).
    """

    channels: int
    factor: int
    rgb: tuple[tuple[float, float, float], ...] = ()
    rgb_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    preview_decoder: str = ""


@dataclass(frozen=True)
class Variant:
    """What a header was recognised as: everything ``load`` needs to know, and nothing that needs a tensor.

    ``prediction`` is ``epsilon``, ``v_prediction`` or ``flow``. ``takes`` says what the denoiser sees beside the noisy
    latent: nothing, ``inpaint`` (mask and masked picture), ``edit`` (a picture), ``depth`` or ``low_res`` (a small
    picture). ``role`` is ``base``, ``refiner``, which can only go on with a picture, or ``upscaler``, which only makes
    one larger. ``components`` holds each component's configuration as inferred from shapes (``unet``,
    ``text_encoder``, ``vae``; one that is missing in the file is absent).
    """

    family: str
    name: str
    prediction: str
    latent: LatentFormat
    default_size: int
    components: Mapping[str, Mapping[str, Any]]
    layout: str = "original"
    takes: str = ""
    role: str = "base"


@dataclass(frozen=True)
class ImageCondition:
    """What pictures of ``width`` by ``height`` pixels tell a denoiser that takes more than a noisy latent.

    ``pixels`` [n, 3, H, W] in 0..1, ``mask`` [n, 1, H, W] with 1 where to repaint, ``depth`` [n, 1, h, w] in any range,
    near is large; None where there is none (text to image). ``mask_strength`` (0 to 1) is how much of the picture
    under the mask is hidden from the denoiser. To an upscaler ``pixels`` [n, 3, h, w] are the small picture, on which
    standard normal ``noise`` of the same shape lies at ``noise_level``, a timestep.
    """

    width: int
    height: int
    pixels: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    mask_strength: float = 1.0
    noise: torch.Tensor | None = None
    noise_level: int = 0


@dataclass(frozen=True)
class Conditioning:
    """One encoded prompt: ``context`` [tokens, width], ``pooled`` [width] or None, and a family's own extras."""

    context: torch.Tensor
    pooled: torch.Tensor | None = None
    added: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelInput:
    """One call of the denoiser; plugins see and change it.

    ``x`` [rows, channels, height, width] is already scaled for the network; ``sigma`` and ``timestep`` are floats;
    ``call`` counts the model calls of the pass from 0. ``context`` [rows, tokens, width]. ``roles`` names each row
    ``cond``, ``uncond``, ``image_uncond`` (the negative prompt with the picture, for models that edit one) or, for what
    ``cond`` is told of a worse network, ``perturbed``, ``smoothed`` or ``skipped``; ``rows`` gives its picture within
    the batch. ``concat`` is appended to the channels of ``x`` (mask and masked latent, picture, depth). ``added`` is
    what some families are told besides (``micro``, an upscaler's ``noise_level``, both by row). ``residuals`` are added
    inside the network (``down``, ``mid``); ``attention`` maps a layer's name, or ``attn1``, ``attn2`` or
    ``block`` for all of a kind, to hooks.
    """

    x: torch.Tensor
    sigma: float
    timestep: float
    call: int
    context: torch.Tensor
    roles: tuple[str, ...]
    rows: tuple[int, ...]
    pooled: torch.Tensor | None = None
    added: Mapping[str, Any] = field(default_factory=dict)
    concat: torch.Tensor | None = None
    residuals: Mapping[str, Any] = field(default_factory=dict)
    attention: Mapping[str, Sequence[Callable[..., Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Vocabulary:
    """How a model counts a prompt: ``encode`` gives a text's tokens without specials, ``chunk_size`` fit in a chunk.

    ``comma_id`` is the comma's token, before which a chunk may end early.
    """

    encode: Callable[[str], list[int]]
    comma_id: int
    chunk_size: int


class Model(Protocol):
    """A loaded model; what it holds is its family's affair.

    ``modules`` maps a component (``unet``, ``text_encoder``, ``vae``) to its ``torch.nn.Module``.
    """

    variant: Variant
    modules: Mapping[str, Any]
    applied: Applied


class Family(Protocol):
    """One model family, in one file; ``name`` is what people call its checkpoints."""

    id: str
    name: str

    def detect(self, header: Header) -> Variant | None:
        """Return what ``header`` is, or None; reads names, shapes, dtypes and metadata only."""

    def load(self, variant: Variant, path: str, vae_path: str | None, placement: Placement) -> Model:
        """Load a checkpoint (file or folder), offline. Raises ``InvalidModel`` saying what is wrong with it."""

    def space(self, model: Model) -> Space:
        """Return the model's noise levels and its prediction type."""

    def encode(
        self, model: Model, prompts: Sequence[str], settings: Settings, negative: bool = False
    ) -> list[Conditioning]:
        """Encode prompts (emphasis applied, no scheduling left in them), one ``Conditioning`` each.

        ``negative`` says that they are negative prompts, which some families treat differently when they are empty.
        """

    def micro_conditioning(
        self, model: Model, role: str, width: int, height: int, settings: Settings
    ) -> tuple[float, ...]:
        """Return the numbers that tell the denoiser about the picture's size, crop or quality; none in most families.

        ``role`` is a row's (``cond``, ``uncond``). The engine hands them to ``call`` as ``added["micro"]``
        [rows, numbers], float32.
        """

    def concat(self, model: Model, condition: ImageCondition) -> torch.Tensor | None:
        """Return the channels to append to the noisy latents, float32 [n or 1, channels, h, w]; None for none."""

    def vocabulary(self, header: Header) -> Vocabulary:
        """Return how the model of ``header`` counts a prompt, without torch or a loaded model."""

    def call(self, model: Model, inputs: ModelInput) -> torch.Tensor:
        """Run the denoiser once and return its raw output [rows, channels, height, width]."""

    def decode(self, model: Model, latents: torch.Tensor, tiled: bool = False) -> torch.Tensor:
        """Decode latents [n, channels, h, w] to float32 pixels [n, 3, H, W] in 0..1, on the CPU.

        ``tiled`` decodes in overlapping tiles, which needs less memory and may leave faint seams.
        """

    def encode_image(
        self, model: Model, pixels: torch.Tensor, generator: Any = None, tiled: bool = False
    ) -> torch.Tensor:
        """Encode pixels [n, 3, H, W] in 0..1 to latents scaled for the denoiser; the mean without a generator."""
