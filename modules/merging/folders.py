"""A single file as a diffusers folder: what of it goes where, and the files that say what it is.

What a folder has no place for (averaged weights, a text encoder's last layer, noise levels) goes into ``REST``, a
safetensors file beside ``model_index.json`` that diffusers does not look at. Read back with the folder, it makes a
single file that is the first one again, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from modules.core.errors import InvalidModel
from modules.families import detect, ldm
from modules.families.checkpoint import TextTower
from modules.families.clip_tokenizer import END, START, clip_tokenizer
from modules.families.latent_diffusion import LatentDiffusion
from modules.families.open_clip import THIRDS
from modules.merging.models import Checkpoint, Target, third
from modules.merging.parameters import TRANSPOSED, parameters
from modules.merging.tensors import Stored, reshaped, transposed

SCHEDULER = {
    "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
}
POSITIONS = 77
PROJECTION = "text_projection."


def folder_of(model: Checkpoint, tensors: Mapping[str, Stored]) -> list[tuple[str, Target]]:
    """Return the tensors of a folder made of the single file ``model`` by component, ``REST`` with none.

    ``tensors`` are those to write, under their names in a single file. Raises ``InvalidModel`` for a file without a
    denoiser under the usual names.
    """
    found = [*_networks(model), *(("vae", target) for target in _autoencoder(tensors, model))]
    if not any(component == "unet" for component, _ in found):
        raise InvalidModel(f"{model.name} does not name its denoiser as a full checkpoint does.",
                           "Choose another format.")
    held = {target.original for _, target in found}
    return [*found, *(("", Target(name, name)) for name in tensors if name not in held)]


def descriptions(model: Checkpoint) -> tuple[tuple[str, str], ...]:
    """Return the files that say what the folder of a single file holds: places in the folder, and texts."""
    family, variant = cast(LatentDiffusion, detect(model.header)[0]), model.variant
    parts, towers = variant.components, family.towers(variant.components["unet"])
    held = [tower for tower in towers if tower.component in parts]
    index: dict[str, Any] = {
        "_class_name": family.pipelines[variant.takes or variant.role], "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", SCHEDULER["_class_name"]],
        **({"vae": ["diffusers", "AutoencoderKL"]} if "vae" in parts else {}),
        **{tower.component: ["transformers", tower.kind] for tower in held},
        **{_tokenizer(tower): ["transformers", "CLIPTokenizer"] for tower in held},
        **family.without,
    }
    size = variant.default_size // variant.latent.factor
    files: dict[str, Any] = {
        "model_index.json": index,
        "unet/config.json": {"_class_name": "UNet2DConditionModel", **parts["unet"], "sample_size": size},
        "scheduler/scheduler_config.json": SCHEDULER | _noise(parts["scheduler"]),
        **({"vae/config.json": {"_class_name": "AutoencoderKL", **parts["vae"]}} if "vae" in parts else {}),
    }
    for tower in held:
        files[f"{tower.component}/config.json"] = {
            "architectures": [tower.kind], "model_type": "clip_text_model", **parts[tower.component]}
    return (*((place, json.dumps(value, indent=2)) for place, value in files.items()),
            *(file for tower in held for file in _tokenizer_files(tower)))


def _networks(model: Checkpoint) -> Iterator[tuple[str, Target]]:
    for one in parameters(model):
        inside = "" if one.place.component == "unet" or one.name.startswith(PROJECTION) else "text_model."
        yield one.place.component, Target(f"{inside}{one.name}", one.tensor, _view(one.part))


def _view(part: str) -> Callable[[Stored], Stored]:
    if part in THIRDS:
        return third(THIRDS.index(part))
    return transposed if part == TRANSPOSED else lambda stored: stored


def _autoencoder(tensors: Mapping[str, Stored], model: Checkpoint) -> Iterator[Target]:
    config = model.variant.components.get("vae")
    if config is None:
        return
    back = {theirs: ours for ours, theirs in ldm.vae_modules(config).items()}
    for name, stored in tensors.items():
        inner = name.removeprefix(ldm.VAE_PREFIX)
        if inner != name and inner.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")):
            flat = ".mid.attn_1." in name and len(stored.info.shape) == 4
            yield Target(ldm.rename(inner, back), name, _matrix if flat else lambda stored: stored)


def _matrix(stored: Stored) -> Stored:
    return reshaped(stored, stored.info.shape[:2])


def _noise(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a single file says of its training in diffusers' terms; nothing where it does not say."""
    found = {"prediction_type": stated["prediction_type"]} if "prediction_type" in stated else {}
    return found | ({"rescale_betas_zero_snr": True} if stated.get("zero_terminal_snr") else {})


def _tokenizer(tower: TextTower) -> str:
    return tower.component.replace("text_encoder", "tokenizer")


def _tokenizer_files(tower: TextTower) -> Iterator[tuple[str, str]]:
    words, folder = clip_tokenizer(), _tokenizer(tower)
    pad = END if tower.pad_id is None else next(piece for piece, number in words.vocabulary.items()
                                                if number == tower.pad_id)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    yield f"{folder}/vocab.json", json.dumps(dict(words.vocabulary), ensure_ascii=False)
    yield f"{folder}/merges.txt", "#version: 0.2\n" + "".join(f"{one} {other}\n" for one, other in words.ranks)
    yield f"{folder}/special_tokens_map.json", json.dumps(special, indent=2)
    yield f"{folder}/tokenizer_config.json", json.dumps(
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": POSITIONS, "do_lower_case": True, **special}, indent=2)
