"""A merge from recipe to file: models opened, planned, written, named, described."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from modules.adapters.files import read_calls
from modules.core.merge import (
    CKPT,
    DIFFUSERS,
    FROM_ANY,
    FROM_B,
    FROM_C,
    Recipe,
    check_name,
    check_recipe,
    config_name,
    file_name,
    usual_name,
)
from modules.core.merge_metadata import Source, metadata
from modules.core.result import Outcome, Watch
from modules.library.files import Library, ModelFile
from modules.library.hashes import short_hash
from modules.library.headers import read_metadata
from modules.merging import methods
from modules.merging.edits import Called, called, edits, warnings
from modules.merging.models import Checkpoint, open_checkpoint, open_vae, yaml_beside
from modules.merging.plan import Plan, Step, make_plan
from modules.merging.progress import advancing
from modules.merging.values import pieces, survey
from modules.merging.writer import HASH, check_new, check_space, replacing, temporary, write_safetensors
from modules.runtime.weights import open_weights


def perform(recipe: Recipe, library: Library, watch: Watch) -> Outcome:
    """Merge the checkpoints of ``recipe`` into a new one in the first folder of checkpoints.

    Raises ``InvalidRequest``, ``NotFound``, ``InvalidModel``, ``DiskFull``; whatever is raised leaves nothing behind.
    """
    files = [library.find_checkpoint(name) for name in check_recipe(recipe).models]
    target = target_of(recipe, files, library.folders.checkpoints[0])
    watch.batch(0, 1)
    with ExitStack() as stack:
        models = [open_checkpoint(file.path, file.name, recipe.ema, stack) for file in files]
        vae = library.find_vae(recipe.vae) if recipe.vae else None
        networks = called(recipe.loras, library, models[0])
        plan = make_plan(recipe, models, open_vae(vae.path, stack) if vae else {}, edits(networks, models[0]))
        told = metadata(recipe, _sources(recipe, files, models, library, watch), models[0].variant.takes,
                        lora_sources(networks, library, watch))
        if models[0].targets and models[0].variant.prediction == "v_prediction":
            told["modelspec.prediction_type"] = "v"
        write(recipe, plan, target, told, watch)
    copied = copy_config(recipe, [file.path for file in files], target)
    watch.phase("Hashing the result")
    sha256 = library.hashes.sha256(target, watch.check)
    return Outcome(True, (*plan.warnings, *warnings(networks)), {
        "name": target.name, "title": f"{target.name} [{short_hash(sha256)}]", "sha256": sha256,
        "size": plan.bytes, "tensors": len(plan.steps), "config": copied})


def target_of(recipe: Recipe, files: Sequence[ModelFile], folder: Path) -> Path:
    """Return where the result is to be; raises ``InvalidRequest`` where that exists or cannot be a name."""
    loras = [call.name for call in read_calls(recipe.loras)]
    stem = check_name(recipe.name or usual_name(recipe, [file.stem for file in files], loras))
    target = folder / file_name(recipe, stem)
    check_new(target)
    check_new(folder / config_name(recipe, stem))  # it would be taken for the new model's
    return target


def write(recipe: Recipe, plan: Plan, target: Path, told: dict[str, str], watch: Watch) -> None:
    """Write what ``plan`` says to ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    check_space(target.parent, plan.bytes * (2 if recipe.format == CKPT else 1))
    method = methods.METHODS[recipe.method]
    advance = advancing(watch, plan.bytes * (1 if method.survey is None else 2))
    with torch.inference_mode(), replacing(target) as partial:
        bounds = survey(plan.steps, method, advance)
        if recipe.format == DIFFUSERS:
            write_folder(plan, partial, told, lambda steps: _told(steps, method, bounds, advance))
            return
        infos = [(step.name, step.info) for step in plan.steps]
        told = told | {HASH: ""} if recipe.save_metadata else told
        values = _told(plan.steps, method, bounds, advance)
        if recipe.format == CKPT:
            with temporary(target.with_suffix(".safetensors")) as whole:
                write_safetensors(whole, infos, told, values)
                watch.phase("Writing the checkpoint")
                torch.save({"state_dict": dict(open_weights(whole))}, partial)
            watch.check()
        else:
            write_safetensors(partial, infos, told, values)


def write_folder(plan: Plan, folder: Path, told: dict[str, str],
                 values: Callable[[Sequence[Step]], Iterator[Tensor]]) -> None:
    """Write the weights of a folder, a file for each component; the denoiser's has the metadata."""
    for component in dict.fromkeys(step.component for step in plan.steps):
        steps = [step for step in plan.steps if step.component == component]
        name = "diffusion_pytorch_model" if component in ("unet", "vae") else "model"
        (folder / component).mkdir(parents=True)
        more = told if component == "unet" else {}
        write_safetensors(folder / component / f"{name}.safetensors", [(step.name, step.info) for step in steps],
                          {"format": "pt"} | more, values(steps))
    for source, place in plan.copies:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / place)


def copy_config(recipe: Recipe, paths: Sequence[str], target: Path) -> bool:
    """Copy the yaml beside a source, whose one the recipe says, to ``target``'s name; return whether there was one."""
    chosen = {FROM_ANY: list(paths), FROM_B: list(paths[1:2]), FROM_C: list(paths[2:3])}.get(recipe.config, [])
    beside = next((found for path in chosen if (found := yaml_beside(path))), None)
    if beside is None or recipe.format == DIFFUSERS:
        return False
    with target.with_suffix(".yaml").open("xb") as file:
        file.write(Path(beside).read_bytes())
    return True


def _sources(recipe: Recipe, files: Sequence[ModelFile], models: Sequence[Checkpoint], library: Library,
             watch: Watch) -> list[Source]:
    """Return the models that take part; their hashes, which take reading all of them, only where they are written."""
    found, hashed = [], recipe.save_metadata and recipe.add_recipe
    for letter, file, model in zip("ABC", files, models, strict=False):
        if hashed:
            watch.phase(f"Hashing model {letter}")
        sha256 = library.hashes.sha256(Path(file.path), watch.check) if hashed else ""
        found.append(Source(file.name, sha256, read_metadata(model.header)))
    return found


def lora_sources(networks: Sequence[Called], library: Library, watch: Watch) -> list[Source]:
    """Return the networks of changes that take part, with the hashes that infotexts show."""
    return [Source(one.file.name, library.hashes.addnet(Path(one.file.path), watch.check), {}) for one in networks]


def _told(steps: Sequence[Step], method: methods.Method, bounds: tuple[float, float],
          advance: Callable[[int], None]) -> Iterator[Tensor]:
    for step in steps:
        for piece in pieces(step, method, bounds):
            advance(piece.nbytes)
            yield piece
