"""Low-rank adapters (LoRA, Hu et al. 2021; of convolutions too, as LoCon, Yeh et al. 2023) and what a file holds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from modules.core.errors import InvalidRequest
from modules.training.config import LoraConfig
from modules.training.denoiser import Denoiser
from modules.training.diffusion import DiffusionStage
from modules.training.loop import generator

# Kinds of layers by the ends of their names, in UNet2DConditionModel and CLIPTextModel.
LAYERS: Mapping[str, str] = MappingProxyType({
    "attention": r"\.to_(q|k|v|out\.0)|self_attn\.(q|k|v|out)_proj",
    "feed_forward": r"\.ff\.net\.(0\.proj|2)|\.mlp\.fc[12]",
    "projection": r"\.proj_(in|out)",
    "convolution": r"\.conv[12]|\.conv_shortcut|samplers\.0\.conv",
})
PRECISIONS: Mapping[str, torch.dtype] = MappingProxyType({"fp16": torch.float16, "fp32": torch.float32})
CHILD = "lora"


class LowRank(nn.Module):
    """What is added to a layer's output: ``alpha / rank`` times ``up(down(inputs))``, which starts at zero.

    ``down`` is a layer of the adapted one's kind with ``rank`` outputs, ``up`` mixes these into its outputs.
    In training, the ranks that the last ``drop`` left out take no part.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, config: LoraConfig, source: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.down, self.up = _pair(layer, config.rank)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5), generator=source)
        nn.init.zeros_(self.up.weight)
        self.kept: torch.Tensor | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inner = self.down(inputs)
        if self.training and self.kept is not None:
            inner = inner * (self.kept if isinstance(self.down, nn.Linear) else self.kept[:, None, None])
        output: torch.Tensor = self.up(inner) * (self.config.alpha / self.config.rank)
        return output

    def drop(self, source: torch.Generator) -> None:
        """Choose anew which ranks are left out; the others are scaled up, so that the mean stays."""
        if self.config.dropout:
            kept = torch.rand(self.config.rank, generator=source, device=source.device) >= self.config.dropout
            self.kept = kept / (1 - self.config.dropout)


def _pair(layer: nn.Linear | nn.Conv2d, rank: int) -> tuple[nn.Module, nn.Module]:
    if isinstance(layer, nn.Linear):
        return (nn.utils.skip_init(nn.Linear, layer.in_features, rank, bias=False),
                nn.utils.skip_init(nn.Linear, rank, layer.out_features, bias=False))
    shape = {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding,
             "dilation": layer.dilation}
    return (nn.utils.skip_init(nn.Conv2d, layer.in_channels, rank, bias=False, **shape),
            nn.utils.skip_init(nn.Conv2d, rank, layer.out_channels, 1, bias=False))


def layers(network: nn.Module, kinds: Iterable[str]) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the layers of ``kinds`` by name; raises ``InvalidRequest`` for a kind that is unknown or not there."""
    found: dict[str, nn.Linear | nn.Conv2d] = {}
    for kind in kinds:
        if kind not in LAYERS:
            raise InvalidRequest(f"There are no layers called {kind!r}.", f"Known are {', '.join(LAYERS)}.")
        own = {name: layer for name, layer in network.named_modules() if re.search(f"({LAYERS[kind]})$", name)
               and (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1))}
        if not own:
            raise InvalidRequest(f"{type(network).__name__} has no layers of the kind {kind!r}.")
        found |= own
    return found


def attach(model: Denoiser, config: LoraConfig, seed: int) -> None:
    """Freeze ``model`` and give its layers of the kinds asked for adapters, which change nothing yet.

    The same seed gives the same adapters. ``model`` is on the CPU.
    """
    if config.precision not in PRECISIONS:
        raise InvalidRequest(f"There is no precision {config.precision!r}.", f"Known are {', '.join(PRECISIONS)}.")
    model.requires_grad_(False)
    for part, network, kinds in (("unet", model.unet, config.unet), ("text", model.text, config.text)):
        for number, layer in enumerate(layers(network, kinds).values()):
            source = generator(torch.device("cpu"), seed, f"lora {part}", number)
            layer.add_module(CHILD, LowRank(layer, config, source))
            layer.register_forward_hook(lambda layer, inputs, output: output + layer.lora(inputs[0]))


def adapters(network: nn.Module) -> Iterator[tuple[str, LowRank]]:
    """Yield the adapters of a network with the names of their layers."""
    for name, module in network.named_modules():
        if isinstance(module, LowRank):
            yield name.removesuffix(f".{CHILD}"), module


class LoraStage(DiffusionStage):
    """Trains the adapters of a model; other ranks of them are left out of each part of a batch."""

    def loss(self, count: int, source: torch.Generator) -> torch.Tensor:
        """Return the weighted squared error of one part of a batch."""
        for _, adapter in adapters(self.model):
            adapter.drop(source)
        return super().loss(count, source)


def tensors(model: Denoiser, precision: torch.dtype) -> dict[str, torch.Tensor]:
    """Return copies of the adapters under the names of kohya-ss' sd-scripts (``lora_unet_``, ``lora_te_``)."""
    found: dict[str, torch.Tensor] = {}
    for prefix, network in (("lora_unet", model.unet), ("lora_te_text_model", model.text)):
        for name, adapter in adapters(network):
            key = f"{prefix}_{name.removeprefix('text_model.').replace('.', '_')}"
            for side, layer in (("down", adapter.down), ("up", adapter.up)):
                weight = layer.weight.detach().to("cpu", precision, copy=True)
                found[f"{key}.lora_{side}.weight"] = weight.contiguous(memory_format=torch.contiguous_format)
            found[f"{key}.alpha"] = torch.tensor(adapter.config.alpha, dtype=precision)
    return found


def metadata(config: LoraConfig, model_name: str) -> dict[str, str]:
    """Return what sd-scripts writes about a network's shape."""
    told: dict[str, Any] = {"ss_network_module": "networks.lora", "ss_network_dim": config.rank,
                            "ss_network_alpha": config.alpha, "ss_base_model_version": model_name}
    return {name: str(value) for name, value in told.items()}
