"""The networks that families are made of, built without memory and given a checkpoint's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modules.core.errors import InvalidModel
from modules.families import ldm
from modules.families.base import Variant
from modules.families.clip_tokenizer import ClipTokenizer
from modules.library.headers import Header, inert_globals, read_header

if TYPE_CHECKING:
    import torch

    from modules.runtime.device import Placement
    from modules.runtime.patches import Applied
    from modules.sampling.spaces import Space

WRONG_CONFIGURATION = "It is not a model of this kind, or its config.json is damaged."


@dataclass(eq=False)
class LoadedModel:
    """A diffusion model in memory; ``applied`` is what the patch stack has in force on it.

    ``tokenizers`` are by the component that reads their tokens.
    """

    variant: Variant
    modules: Mapping[str, Any]
    placement: Placement
    tokenizers: Mapping[str, ClipTokenizer]
    space: Space
    applied: Applied = field(init=False)

    def __post_init__(self) -> None:
        from modules.runtime.patches import Applied

        self.applied = Applied()


@dataclass(frozen=True)
class Source:
    """Where one component's tensors are: ``name`` maps a name of the network to the one in ``weights``."""

    weights: Mapping[str, torch.Tensor]
    name: Callable[[str], str]
    what: str


def open_tensors(*paths: str) -> Mapping[str, torch.Tensor]:
    """Return the tensors of files as one mapping, mapped; harmless leftovers of training are passed over.

    Raises ``InvalidModel`` where a file is damaged or holds anything else.
    """
    from modules.runtime.weights import open_weights

    return open_weights(*paths, inert=inert_globals())


def shapes_of(header: Header) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of ``header``."""
    return {name: info.shape for name, info in header.tensors.items()}


def build_unet(config: Mapping[str, Any], source: Source, placement: Placement) -> Any:
    """Return diffusers' denoiser with weights, its attention open to hooks."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from modules.runtime import attention, perturb

    unet = _on_meta(lambda: UNet2DConditionModel.from_config(dict(config)), source.what)
    _assign(unet, "unet", source, placement)
    attention.install(unet, placement.attention)
    perturb.install(unet)
    return unet


def build_vae(config: Mapping[str, Any], source: Source, placement: Placement) -> Any:
    """Return diffusers' autoencoder with weights."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from modules.runtime import attention

    vae = _on_meta(lambda: AutoencoderKL.from_config(dict(config)), source.what)
    _assign(vae, "vae", source, placement)
    attention.install_in_autoencoder(vae, placement.attention)
    return vae


def build_clip(config: Mapping[str, Any], source: Source, placement: Placement, projected: bool = False) -> Any:
    """Return transformers' CLIP text encoder with weights.

    ``projected`` adds the projection of the pooled output, as its layer ``text_projection``.
    """
    import torch
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    def build() -> Any:
        text = CLIPTextModel(CLIPTextConfig.from_dict(dict(config)))
        if projected:
            text.text_projection = torch.nn.Linear(text.config.hidden_size, text.config.projection_dim, bias=False)
        return text

    text = _on_meta(build, source.what)
    _assign(text, "text_encoder", source, placement)
    positions = text.config.max_position_embeddings
    text.embeddings.position_ids = torch.arange(positions, device=placement.home).unsqueeze(0)
    return text


def _on_meta(build: Callable[[], Any], what: str) -> Any:
    """Build a network that has shapes and no memory; whatever a configuration makes it raise is the file's fault."""
    import torch
    from huggingface_hub.errors import StrictDataclassError

    try:
        with torch.device("meta"):
            return build()
    except (
        ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, StrictDataclassError
    ) as error:
        raise InvalidModel(f"{what} has an unusable configuration: {error}", WRONG_CONFIGURATION) from error


def _assign(module: Any, component: str, source: Source, placement: Placement) -> None:
    import torch

    from modules.runtime.weights import Target, assign

    large = placement.cast_above if component == "unet" else None
    target = Target(placement.home, placement.dtype(component), placement.storage, large)
    assign(module, source.weights, source.name, target, source.what)
    if placement.channels_last:
        module.to(memory_format=torch.channels_last)


def unet_source(weights: Mapping[str, torch.Tensor], prefix: str, config: Mapping[str, Any]) -> Source:
    """Return where a single file keeps the tensors of its denoiser."""
    modules = ldm.unet_modules(config)
    return Source(weights, lambda name: prefix + ldm.rename(name, modules), "The denoiser (UNet)")


def vae_source(weights: Mapping[str, torch.Tensor], prefix: str, config: Mapping[str, Any]) -> Source:
    """Return where a file keeps the tensors of its autoencoder, in the original layout or diffusers'."""
    modules: Mapping[str, str] = {}
    if not ldm.is_diffusers(_without(prefix, weights)):
        modules = ldm.vae_modules(config)
    elif f"{prefix}encoder.mid_block.attentions.0.query.weight" in weights:
        modules = ldm.old_vae_modules()
    return Source(weights, lambda name: prefix + ldm.rename(name, modules), "The autoencoder (VAE)")


def _without(prefix: str, names: Mapping[str, Any]) -> list[str]:
    return [name[len(prefix):] for name in names if name.startswith(prefix)]


def clip_source(weights: Mapping[str, torch.Tensor], prefix: str) -> Source:
    """Return where a file keeps the tensors of its CLIP text encoder."""
    return Source(weights, lambda name: prefix + name, "The text encoder (CLIP)")


def clip_prefix(names: Mapping[str, Any], prefixes: Sequence[str]) -> str | None:
    """Return the prefix under which ``names`` hold a CLIP text encoder, None without one."""
    return next((prefix for prefix in prefixes if f"{prefix}embeddings.token_embedding.weight" in names), None)


def read_vae_file(path: str) -> tuple[dict[str, Any], str]:
    """Return the configuration of a VAE file and the prefix of its tensors.

    Raises ``InvalidModel`` where the file holds no autoencoder.
    """
    shapes = shapes_of(read_header(path))
    for prefix in ("", ldm.VAE_PREFIX, "vae."):
        if f"{prefix}decoder.conv_in.weight" in shapes:
            try:
                return ldm.vae_config(ldm.under(shapes, prefix)), prefix
            except KeyError as error:
                raise InvalidModel(f"The VAE file lacks {error}.", "Download it again.") from error
    raise InvalidModel("The file chosen as VAE holds no autoencoder.", "Choose another VAE, or Automatic.")
