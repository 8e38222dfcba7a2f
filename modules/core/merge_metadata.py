"""A recipe in a file's metadata, and back: ours, and A1111's for its three methods."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modules.core import codec
from modules.core.errors import InvalidRequest
from modules.core.merge import ADD_DIFFERENCE, CONFIGS, METHODS, NO_INTERPOLATION, WEIGHTED_SUM, Recipe

RECIPE, MODELS, OURS = "sd_merge_recipe", "sd_merge_models", "darkroom_merge_recipe"
LORAS = "darkroom_merge_loras"
# What infotexts call the recipe of a merge that was tried out and not saved.
PREVIEW = "Merge preview"
# Fields of a recipe that say nothing about the weights.
_OF_THE_FILE = ("name", "format", "discard", "config", "save_metadata", "add_recipe", "copy_metadata", "metadata_json")
A1111 = (NO_INTERPOLATION, WEIGHTED_SUM, ADD_DIFFERENCE)


@dataclass(frozen=True)
class Source:
    """A model that takes part: its name, its sha256, and the metadata of its file."""

    name: str
    sha256: str
    metadata: Mapping[str, str]


def metadata(recipe: Recipe, sources: Sequence[Source], takes: str, loras: Sequence[Source] = ()) -> dict[str, str]:
    """Return the metadata of a merge of ``sources`` with ``loras``; ``takes`` is as in ``Variant``.

    The hashes of LoRAs are those of their tensors. Raises ``InvalidRequest``.
    """
    if not recipe.save_metadata:
        return {}
    found: dict[str, str] = {}
    if recipe.copy_metadata:
        found |= combined([source.metadata for source in sources])
    found |= given(recipe.metadata_json)
    if recipe.add_recipe:
        found[RECIPE] = json.dumps(a1111(recipe, sources, takes))
        found[MODELS] = json.dumps(_lineage(sources))
        found[OURS] = json.dumps(codec.encode(recipe))
        if loras:
            found[LORAS] = json.dumps({source.name: source.sha256 for source in loras})
    return found


def preview_text(recipe: Recipe) -> str:
    """Return what of ``recipe`` a merge's pictures depend on as one line of JSON, defaults left out."""
    default = codec.encode(Recipe())
    return json.dumps({name: value for name, value in codec.encode(recipe).items()
                       if name not in _OF_THE_FILE and (value != default[name] or name in ("method", "alpha"))})


def combined(metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the metadata of several models as one, the first winning; recipes and hashes of their tensors left out."""
    found: dict[str, str] = {}
    for one in reversed(metadata):
        found |= {key: value for key, value in one.items()
                  if key not in (RECIPE, MODELS, OURS, LORAS) and not key.startswith("modelspec.hash")}
    return found


def given(text: str) -> dict[str, str]:
    """Return the metadata that a person wrote as a JSON object; values other than texts stay JSON."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The metadata is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The metadata must be a JSON object.", 'Such as {"author": "…"}.')
    return {key: item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}


def a1111(recipe: Recipe, sources: Sequence[Source], takes: str) -> dict[str, object]:
    """Return what A1111 writes as ``sd_merge_recipe``; of another ``type`` for methods that it does not know."""
    hashes = [source.sha256 for source in sources] + [None, None, None]
    return {
        "type": "webui" if recipe.method in A1111 else "darkroom",
        "primary_model_hash": hashes[0], "secondary_model_hash": hashes[1], "tertiary_model_hash": hashes[2],
        "interp_method": METHODS[recipe.method].label, "multiplier": recipe.alpha,
        "save_as_half": recipe.dtype == "float16", "custom_name": recipe.name,
        "config_source": CONFIGS.index(recipe.config), "bake_in_vae": recipe.vae or "None",
        "discard_weights": recipe.discard, "is_inpainting": takes == "inpaint",
        "is_instruct_pix2pix": takes == "edit",
    }


def _lineage(sources: Sequence[Source]) -> dict[str, object]:
    """Return the sources by their hashes, and what they were themselves merged from."""
    found: dict[str, object] = {}
    for source in sources:
        earlier = _object(source.metadata.get(MODELS, ""))
        found |= earlier
        found[source.sha256] = {"name": source.name, "legacy_hash": None,
                                "sd_merge_recipe": _object(source.metadata.get(RECIPE, "")) or None}
    return found


def read_recipe(found: Mapping[str, str]) -> Recipe:
    """Return the recipe in a file's metadata; models are named by their hashes where A1111 wrote it.

    Raises ``InvalidRequest`` where there is none that can be followed here.
    """
    ours = _object(found.get(OURS, ""))
    if ours:
        return codec.decode(Recipe, ours, where="recipe", ignore_unknown=True)
    theirs = _object(found.get(RECIPE, ""))
    labels = {METHODS[method].label: method for method in A1111}
    if theirs.get("type") != "webui" or theirs.get("interp_method") not in labels:
        raise InvalidRequest("This file has no recipe of a merge in its metadata.", "Choose one that was merged.")
    names = {f"model_{letter}": str(theirs.get(f"{key}_model_hash") or "")
             for letter, key in (("a", "primary"), ("b", "secondary"), ("c", "tertiary"))}
    vae = str(theirs.get("bake_in_vae") or "None")
    return codec.decode(Recipe, {
        **names, "method": labels[str(theirs["interp_method"])], "alpha": theirs.get("multiplier", 0.3),
        "dtype": "float16" if theirs.get("save_as_half") else "", "name": str(theirs.get("custom_name") or ""),
        "vae": "" if vae == "None" else vae, "discard": str(theirs.get("discard_weights") or ""),
    }, where="recipe")


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
