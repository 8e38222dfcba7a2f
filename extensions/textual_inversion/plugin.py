"""Textual inversion (Gal et al. 2022): a file's name in a prompt stands for the vectors that were learned for it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modules.plugin import (
    Asked,
    Context,
    DarkroomError,
    ModelRef,
    OncePerRequest,
    Plan,
    Plugin,
    Route,
    Segment,
    Tag,
    Variant,
    extract_tags,
    model_variant,
    param,
)

from .embeddings import Embedding, found, load, short_hash


@dataclasses.dataclass(frozen=True)
class Shown:
    """What stands on the settings page."""

    hashes: bool = param(True, "Add the hashes of embeddings to infotexts")


class TextualInversion(Plugin):
    """Puts the embeddings that prompts mention into the vocabulary of the text encoders."""

    id = "textual_inversion"
    name = "Textual inversion"
    description = "Embeddings: a file's name in a prompt stands for what was learned."
    version = "1.0"
    Settings = Shown

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._known = OncePerRequest(self._found)

    def words(self, variant: Variant | None) -> Mapping[str, int]:
        """Return every embedding that fits the checkpoint and its number of vectors."""
        return {name: chosen.vectors for name, chosen in _fitting(self._found(), variant).items()}

    def routes(self) -> Sequence[Route]:
        """Return the list of embeddings, as A1111 gives it."""
        return (Route("/sdapi/v1/embeddings", self._listed),)

    def on_plan(self, plan: Plan, params: Any) -> Plan | None:
        """Write hashes of the embeddings in use into the infotext, and say what cannot be used."""
        names = _mentioned(self._known(plan.request), _texts(plan))
        if not names:
            return None
        hashes: dict[str, str] = {}
        warnings: dict[str, None] = {}
        for model in _models(plan):
            variant = model_variant(model)
            for name, files in names.items():
                chosen, said = _choose(name, files, variant)
                warnings |= dict.fromkeys(said)
                if chosen and self.settings(plan.request).hashes:
                    hashes[re.sub("[:,]", "", name)] = short_hash(chosen.stamp)
        entry = {"TI hashes": ", ".join(f"{name}: {value}" for name, value in hashes.items())} if hashes else {}
        return dataclasses.replace(plan, parameters={**plan.parameters, **entry},
                                   warnings=(*plan.warnings, *warnings))

    def patches(self, plan: Plan, segment: Segment, tags: Sequence[Tag], params: Any) -> Sequence[Any]:
        """Return the words that the plan's prompts mention, with their vectors."""
        names = _mentioned(self._known(plan.request), _texts(plan))
        if not names:
            return ()
        variant = model_variant(segment.model)
        chosen = {name: _choose(name, files, variant)[0] for name, files in names.items()}
        return [patch for name, one in chosen.items() if one for patch in _patches(name, one, variant)]

    def _found(self) -> tuple[Embedding, ...]:
        return found(self.context.folders.get("embeddings", ()))

    def _listed(self, asked: Asked) -> dict[str, Any]:
        known = self._found()
        loaded = _fitting(known, asked.variant)
        used = {one.stamp for one in loaded.values()}
        skipped = {one.names[0]: _told(one) for one in known if one.stamp not in used}
        return {"loaded": {name: _told(one) for name, one in loaded.items()}, "skipped": skipped}


def _fitting(known: Iterable[Embedding], variant: Variant | None) -> dict[str, Embedding]:
    fitting: dict[str, Embedding] = {}
    for one in known:
        if not one.error and (variant is None or one.parts(variant)):
            for name in one.names:
                fitting.setdefault(name, one)
    return fitting


def _told(one: Embedding) -> dict[str, Any]:
    told = {"step": one.step, "sd_checkpoint": one.checkpoint, "sd_checkpoint_name": one.checkpoint_name,
            "shape": sum(one.widths.values()), "vectors": one.vectors}
    return {**told, "error": one.error} if one.error else told


def _texts(plan: Plan) -> list[str]:
    pairs = [(one.prompt, one.negative_prompt) for one in plan.pictures]
    pairs += [(one.prompt, one.negative_prompt) for one in plan.passes]
    texts = [text for pair in pairs for text in pair if text]
    return [extract_tags(text)[0] for text in dict.fromkeys(texts)]


def _models(plan: Plan) -> list[ModelRef]:
    return list(dict.fromkeys(segment.model for pass_ in plan.passes for segment in pass_.segments))


def _mentioned(known: Iterable[Embedding], texts: Sequence[str]) -> dict[str, list[Embedding]]:
    """Return the files of each name that stands in one of ``texts`` as a word of its own; longer names first."""
    lowered = "\n".join(texts).lower()
    by_name: dict[str, list[Embedding]] = {}
    for one in known:
        for name in one.names:
            if name.lower() in lowered:
                by_name.setdefault(name.lower(), []).append(one)
    if not by_name:
        return {}
    longest_first = sorted(by_name, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)")
    said = dict.fromkeys(pattern.findall(lowered))
    return {_spelled(name, by_name[name][0]): by_name[name] for name in sorted(said)}


def _spelled(lowered: str, one: Embedding) -> str:
    return next(name for name in one.names if name.lower() == lowered)


def _choose(name: str, files: Sequence[Embedding], variant: Variant) -> tuple[Embedding | None, list[str]]:
    """Return the file to use for ``name``, and what to tell the user about the others."""
    errors = [(one, _error(one, variant)) for one in files]
    usable = [one for one, error in errors if not error]
    if not usable:
        return None, [f"{error} {name!r} was read as plain text." for _, error in errors]
    if len(usable) > 1:
        others = ", ".join(str(one.stamp.path) for one in usable)
        return usable[0], [f"Several embeddings are called {name!r}: {others}. The first was used."]
    return usable[0], []


def _error(one: Embedding, variant: Variant) -> str:
    if one.error:
        return one.error
    if one.parts(variant) is None:
        widths = " and ".join(map(str, one.widths.values()))
        return f"The embedding {one.file} does not fit {variant.name}: its vectors are {widths} wide."
    try:
        load(one.stamp)
    except DarkroomError as error:
        return error.message
    return ""


def _patches(name: str, one: Embedding, variant: Variant) -> list[Any]:
    from modules.plugin import Embedding as Word

    vectors = load(one.stamp)
    key = f"{one.stamp.path}@{one.stamp.mtime}"
    return [Word(component, name, key, 1.0, vectors[part]) for component, part in (one.parts(variant) or {}).items()]
