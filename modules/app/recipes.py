"""The names in a recipe of a merge, resolved: its models, its VAE, the LoRAs that it calls, and its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from modules.adapters.files import find_network, read_calls
from modules.core.merge import Recipe, check_name, check_recipe, usual_name
from modules.library.files import AUTOMATIC, NO_VAE, Library, ModelFile


@dataclass(frozen=True)
class Models:
    """How a checkpoint, a VAE, and the LoRAs that tags call (as ``called`` does) are found."""

    find_checkpoint: Callable[[str], ModelFile]
    find_vae: Callable[[str], ModelFile | None]
    called: Callable[[str], list[str]]

    def named(self, recipe: Recipe) -> Recipe:
        """Return ``recipe`` with models and VAE under their proper names, and with the name of what it makes.

        Raises ``InvalidRequest``, and ``NotFound`` for a model, VAE or LoRA.
        """
        files = [self.find_checkpoint(name) for name in check_recipe(recipe).models]
        vae = self.find_vae(recipe.vae) if recipe.vae not in ("", AUTOMATIC, NO_VAE) else None
        usual = usual_name(recipe, [file.stem for file in files], self.called(recipe.loras))
        a, b, c = (*(file.name for file in files), "", "")[:3]
        return dataclasses.replace(recipe, model_a=a, model_b=b, model_c=c, name=check_name(recipe.name or usual),
                                   vae=vae.name if vae else "")


def called(loras: str, library: Library) -> list[str]:
    """Return the names of LoRAs that tags call, each of which is there; raises ``InvalidRequest``, ``NotFound``."""
    calls = read_calls(loras)
    for call in calls:
        find_network(call.name, library)
    return [call.name for call in calls]
