"""What is written: each tensor of the result, from which operands it comes and with which numbers. Reads no tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from modules.core.errors import InvalidModel, examples
from modules.core.merge import DIFFUSERS, Recipe, hash_text
from modules.core.merge_blocks import Ratios, component_of, ratios, side_of
from modules.families import detect
from modules.library.headers import SAFETENSORS, Header
from modules.library.name_patterns import matching
from modules.library.tensors import DTYPE_BITS, TensorInfo
from modules.merging.edits import Edit, Edits, of_target
from modules.merging.methods import METHODS
from modules.merging.models import Checkpoint, Target
from modules.merging.tensors import NAMES, Stored

FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
LATENT_CHANNELS = 4
EIGHT_BITS = "float8_e4m3fn"
CODES = {str(dtype).removeprefix("torch."): name for dtype, name in NAMES.items()}
VOCABULARY = 49408
# What shapes do not tell, so that families take a usual value for it in a single file.
UNSAID = {"unet": ("attention_head_dim",), "vae": ("scaling_factor",)}


@dataclass(frozen=True)
class Step:
    """One tensor of the result: ``operands`` are A's, B's and C's; one alone is copied, in the type of ``info``.

    ``copied`` says whose that is, ``a`` or ``b``, empty where operands are merged. ``channels`` is how many of A's
    input channels are merged, 0 for all; ``component`` is that of a folder. ``edits`` are added to what is merged.
    ``kept`` ones are A's as they are stored.
    """

    name: str
    info: TensorInfo
    operands: tuple[Stored, ...]
    alpha: float = 0.0
    beta: float = 0.0
    seed: int = 0
    copied: str = ""
    channels: int = 0
    component: str = ""
    edits: tuple[Edit, ...] = ()
    kept: bool = False


@dataclass(frozen=True)
class Plan:
    """The steps in the order of the file, what is to be said of them, and a folder's other files with their places."""

    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    copies: tuple[tuple[str, str], ...] = ()
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes", sum(step.info.bytes for step in self.steps))


def make_plan(recipe: Recipe, models: Sequence[Checkpoint], vae: Mapping[str, Stored],
              edits: Edits = MappingProxyType({})) -> Plan:
    """Return what merging ``models`` by ``recipe`` writes, with the tensors of ``vae`` in place of the autoencoder's.

    ``edits`` are made by the tensors that they change.

    Raises ``InvalidModel`` for models that do not go together, ``InvalidRequest`` for block weights of another model.
    """
    check_families(models)
    first = models[0]
    numbers = ratios((recipe.alpha, recipe.beta), (recipe.block_alpha, recipe.block_beta), recipe.rules,
                     side_of(first.tensors))
    tensors = {**first.tensors, **vae}
    discarded = matching(recipe.discard, tensors)
    steps, missing = [], []
    for component, target in _targets(recipe, first, tensors):
        name, stored = target.original, tensors[target.original]
        if name in discarded:
            continue
        others = [] if name in vae else [model.find(name) for model in models[1:]]
        if not _is_merged(name, stored):
            others = []
        elif any(other is None for other in others):
            missing.append(name)
            others = []
        operands = tuple(target.view(one) for one in (stored, *others) if one is not None)
        own = edits.get(name, ())
        step = _step(recipe, numbers, name, operands)
        steps.append(replace(step, name=target.name, component=component,
                             kept=step.kept and name not in vae and not own,
                             edits=of_target(own, target.name) if component else own))
    if first.targets and recipe.format != DIFFUSERS:
        check_holds(first, {step.name: step.info for step in steps})
    if not steps:
        raise InvalidModel("Nothing remains to be written.", "Discard fewer weights.")
    ordered = sorted(steps, key=lambda step: -DTYPE_BITS[step.info.dtype])
    copies = folder_copies(first) if recipe.format == DIFFUSERS else ()
    return Plan(tuple(ordered), _warnings(models, tensors, missing), copies)


def folder_copies(model: Checkpoint) -> tuple[tuple[str, str], ...]:
    """Return all files of a folder but the weights that are written anew, with their places in the folder."""
    root = Path(model.header.path)
    parts = [root / name for name in model.header.index if (root / name).is_dir()]
    files = [file for file in root.iterdir() if file.is_file()] + [
        file for part in parts for file in part.rglob("*")
        if file.is_file() and not (part.name in model.targets and file.suffix in (".safetensors", ".bin"))
        and not file.name.endswith(".index.json")]
    return tuple((str(file), file.relative_to(root).as_posix()) for file in files if not file.name.startswith("."))


def _targets(recipe: Recipe, first: Checkpoint, tensors: Mapping[str, Stored]) -> Iterator[tuple[str, Target]]:
    if recipe.format != DIFFUSERS:
        yield from (("", Target(name, name)) for name in tensors)
        return
    if not first.targets:
        raise InvalidModel(f"{first.name} is a single file, and a folder takes its configurations from model A.",
                           "Choose a folder as model A, or another format.")
    yield from ((component, target) for component, several in first.targets.items() for target in several)


def check_families(models: Sequence[Checkpoint]) -> None:
    """Raise ``InvalidModel`` where ``models`` are of different families or roles."""
    first = models[0]
    for model in models[1:]:
        if (model.family, model.variant.role) != (first.family, first.variant.role):
            raise InvalidModel(f"{first.name} is {_kind(first)}, {model.name} is {_kind(model)}.",
                               "Only models of one family can be merged.")


def check_holds(first: Checkpoint, infos: Mapping[str, TensorInfo]) -> None:
    """Raise ``InvalidModel`` where a single file cannot say what the folder ``first`` says of its networks."""
    file = detect(Header("", SAFETENSORS, infos))[1].components
    for component, names in UNSAID.items():
        ours, theirs = (one.get(component, {}) for one in (first.variant.components, file))
        lost = [name for name in names if ours and theirs and _plain(ours.get(name)) != _plain(theirs.get(name))]
        if lost:
            raise InvalidModel(f"A single file cannot hold what {first.name} says of its {component}: "
                               f"{', '.join(lost)}.", "Choose the format diffusers.")
    if first.variant.components.get("scheduler", {}).get("rescale_betas_zero_snr"):
        raise InvalidModel(f"A single file cannot hold the noise schedule of {first.name}.",
                           "Choose the format diffusers.")
    if first.variant.components.get("text_encoder", {}).get("vocab_size", VOCABULARY) != VOCABULARY:
        raise InvalidModel(f"{first.name} has a tokenizer of its own, which a single file cannot hold.",
                           "Choose the format diffusers.")


def _plain(value: object) -> object:
    """Return one number for several equal ones, so that both ways to write it compare."""
    several = value if isinstance(value, (list, tuple)) else [value]
    return several[0] if len(set(several)) == 1 else tuple(several)


def _kind(model: Checkpoint) -> str:
    return f"{model.family}{' (refiner)' if model.variant.role == 'refiner' else ''}"


def _is_merged(name: str, stored: Stored) -> bool:
    return bool(component_of(name)) and stored.is_float


def _step(recipe: Recipe, numbers: Ratios, name: str, operands: tuple[Stored, ...]) -> Step:
    info = TensorInfo(_dtype(recipe.dtype, name, operands[0]), operands[0].info.shape)
    if len(operands) == 1 or (METHODS[recipe.method].survey is not None and component_of(name) == "vae"):
        return Step(name, info, operands[:1], copied="a", kept=info.dtype == operands[0].info.dtype)
    channels = _channels(name, [operand.info.shape for operand in operands])
    alpha, beta = numbers.alpha(name), numbers.beta(name)
    same = METHODS[recipe.method].same(alpha, beta)
    if same == "a" or (same == "b" and not channels):
        kept = same == "a" and info.dtype == operands[0].info.dtype
        return Step(name, info, (operands["ab".index(same)],), copied=same, kept=kept)
    return Step(name, info, operands, alpha, beta, hash_text(f"{recipe.seed} {name}"), channels=channels)


def _dtype(wanted: str, name: str, stored: Stored) -> str:
    """Return safetensors' name of the type to write; norms, biases and the autoencoder are not put in eight bits."""
    if not wanted or not _is_merged(name, stored):
        return stored.info.dtype
    if wanted == EIGHT_BITS and (len(stored.info.shape) < 2 or component_of(name) == "vae"):
        return "F16"
    return CODES[wanted]


def _channels(name: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return how many input channels of A are merged, 0 for all: A1111's rule for models that take a picture.

    Their first four channels are the latent's and are merged with those of an ordinary model; the others stay. Raises
    ``InvalidModel`` for all other differences.
    """
    if len(set(shapes)) == 1:
        return 0
    first = shapes[0]
    if name == FIRST_CONVOLUTION:
        ordinary = (first[0], LATENT_CHANNELS, *first[2:])
        if all(shape == ordinary for shape in shapes[1:]):
            return LATENT_CHANNELS
        raise InvalidModel(f"The models take pictures differently: {_channel_words(shapes)}.",
                           "An inpainting, editing or depth model must be model A, with ordinary ones as the others.")
    raise InvalidModel(f"The models have other shapes at {name}: {' and '.join(map(_shape, shapes))}.",
                       "Only models of the same size can be merged.")


def _channel_words(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(f"{letter} {shape[1]} channels" for letter, shape in zip("ABC", shapes, strict=False))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _warnings(models: Sequence[Checkpoint], tensors: Mapping[str, Stored], missing: Sequence[str]) -> tuple[str, ...]:
    found = []
    if missing:
        parts = sorted({component_of(name) for name in missing})
        found.append(f"{len(missing)} tensors ({', '.join(parts)}) are not in every model and were taken from A: "
                     f"{examples(missing)}.")
    known = {name for name in tensors if component_of(name)}
    for letter, model in zip("BC", models[1:], strict=False):
        more = [name for name in model.tensors if component_of(name) and name not in known
                and models[0].find(name) is None]
        if more:
            found.append(f"{len(more)} tensors of {letter} are not in A and were left out: {examples(more)}.")
    return tuple(found)
