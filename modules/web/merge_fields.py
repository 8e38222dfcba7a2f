"""A1111's fields of its Checkpoint Merger, as a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.merge import CONFIGS, METHODS

# A1111's parameter to the recipe's field, where they mean the same.
RENAMED = {
    "primary_model_name": "model_a", "secondary_model_name": "model_b", "tertiary_model_name": "model_c",
    "multiplier": "alpha", "custom_name": "name", "checkpoint_format": "format", "discard_weights": "discard",
    "add_merge_recipe": "add_recipe", "copy_metadata_fields": "copy_metadata",
}
OTHERS = ("interp_method", "save_as_half", "config_source", "bake_in_vae")
CONFIG_LABELS = ("A, B or C", "B", "C", "Don't")


def recipe_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with A1111's fields under the recipe's names; its own stay. Raises ``InvalidRequest``.

    ``interp_method`` is a label, ``config_source`` a label or its number, ``bake_in_vae`` a name or ``None``.
    """
    found = {RENAMED.get(name, name): value for name, value in values.items() if name not in OTHERS}
    if "interp_method" in values:
        found["method"] = method_of(str(values["interp_method"]))
    if values.get("save_as_half"):
        found["dtype"] = "float16"
    if "config_source" in values:
        found["config"] = _config(values["config_source"])
    if values.get("bake_in_vae") not in (None, "", "None"):
        found["vae"] = values["bake_in_vae"]
    return found


def method_of(text: str) -> str:
    """Return the method that ``text`` names by its id or its label; raises ``InvalidRequest``."""
    wanted = text.strip().lower()
    for method in METHODS.values():
        if wanted in (method.id, method.label.lower()):
            return method.id
    raise InvalidRequest(f"There is no method {text[:60]!r}.",
                         f"Use {', '.join(method.label for method in METHODS.values())}.")


def _config(value: Any) -> str:
    if value in CONFIG_LABELS:
        return CONFIGS[CONFIG_LABELS.index(value)]
    if isinstance(value, int) and 0 <= value < len(CONFIGS):
        return CONFIGS[value]
    raise InvalidRequest(f"config_source: {value!r} is none of {', '.join(CONFIG_LABELS)}.")
