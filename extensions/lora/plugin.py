"""LoRA and its kin: networks of small changes, called by a tag in the prompt, merged into the model's weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from modules.plugin import (
    Asked,
    Context,
    DarkroomError,
    ModelRef,
    NotFound,
    OncePerRequest,
    Pass,
    Plan,
    Plugin,
    Route,
    Segment,
    Stamp,
    Tag,
    extract_tags,
    param,
)
from modules.plugin.adapters import TAGS, Call, Changes, examples, named, read_call

from . import networks


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A tag that can be carried out: what it asks for, and of which file."""

    call: Call
    stamp: Stamp


@dataclasses.dataclass(frozen=True)
class Shown:
    """What stands on the settings page."""

    hashes: bool = param(True, "Add the hashes of networks to infotexts")


class Lora(Plugin):
    """Changes weights by the networks that a prompt calls."""

    id = "lora"
    name = "LoRA"
    description = "LoRA, LoCon, LoHa, LoKr, IA3, GLoRA, OFT, BOFT, DoRA and full differences, by <lora:name:weight>."
    version = "1.0"
    tags = TAGS
    Settings = Shown

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._known = OncePerRequest(self._found)

    def routes(self) -> Sequence[Route]:
        """Return the list of networks, as A1111 gives it."""
        return (Route("/sdapi/v1/loras", self._listed), Route("/sdapi/v1/refresh-loras", lambda asked: None, "POST"))

    def on_plan(self, plan: Plan, params: Any) -> Plan | None:
        """Write hashes into the infotext, say what cannot be used, and begin a segment where a tag begins or ends."""
        tags = _called(plan)
        if not tags:
            return None
        hashes: dict[str, str] = {}
        warnings: dict[str, None] = {}
        known, hashed = self._known(plan.request), self.settings(plan.request).hashes
        for tag in tags:
            try:
                wanted, said = _wanted(tag, known)
                warnings |= dict.fromkeys(said)
                for model in _models(plan):
                    warnings |= dict.fromkeys(_misfits(wanted, model))
            except DarkroomError as error:
                warnings[f"{tag} was left out: {error}"] = None
                continue
            if hashed:
                hashes[re.sub("[:,]", "", wanted.call.name)] = networks.short_hash(wanted.stamp)
        entry = {"Lora hashes": ", ".join(f"{name}: {value}" for name, value in hashes.items())} if hashes else {}
        passes = tuple(_divided(one, tags) for one in plan.passes)
        return dataclasses.replace(plan, passes=passes, parameters={**plan.parameters, **entry},
                                   warnings=(*plan.warnings, *warnings))

    def patches(self, plan: Plan, segment: Segment, tags: Sequence[Tag], params: Any) -> Sequence[Any]:
        """Return the changes of weights, and bundled words that the prompts mention."""
        if not tags:
            return ()
        known, texts = self._known(plan.request), "\n".join(_texts(plan))
        found: list[Any] = []
        for tag in tags:
            try:
                wanted, _ = _wanted(tag, known)
                if wanted.call.in_force(segment.first_step or 0):
                    found += _patches(wanted, segment.model, texts)
            except DarkroomError:
                continue  # on_plan has said it
        return found

    def _found(self) -> list[Stamp]:
        return networks.found(self.context.folders.get("lora", ()))

    def _listed(self, asked: Asked) -> list[dict[str, Any]]:
        return [{"name": one.path.stem, "alias": networks.alias(one), "path": str(one.path),
                 "metadata": dict(networks.metadata(one))} for one in self._found()]


def _texts(plan: Plan) -> list[str]:
    pairs = [(one.prompt, one.negative_prompt) for one in plan.pictures]
    pairs += [(one.prompt, one.negative_prompt) for one in plan.passes]
    return list(dict.fromkeys(text for pair in pairs for text in pair if text))


def _called(plan: Plan) -> list[Tag]:
    prompts = dict.fromkeys([one.prompt for one in plan.pictures] + [one.prompt for one in plan.passes])
    return list(dict.fromkeys(tag for prompt in prompts for tag in extract_tags(prompt)[1] if tag.name in TAGS))


def _models(plan: Plan) -> list[ModelRef]:
    return list(dict.fromkeys(segment.model for pass_ in plan.passes for segment in pass_.segments))


def _wanted(tag: Tag, known: Sequence[Stamp]) -> tuple[Wanted, list[str]]:
    """Return what a tag asks for and what to tell the user; raises where it cannot be carried out."""
    call = read_call(tag)
    files = named(known, call.name, lambda one: one.path.stem, networks.alias)
    if not files:
        raise NotFound(f"There is no network named {call.name!r}.", "Put it into models/Lora.")
    networks.load(files[0])
    others = ", ".join(str(one.path) for one in files)
    return Wanted(call, files[0]), [f"Several networks are called {call.name!r}: {others}. The first was used."] * (
        len(files) > 1)


def _misfits(wanted: Wanted, model: ModelRef) -> list[str]:
    found = networks.changes(wanted.stamp, model, wanted.call.rank)
    name = wanted.call.name
    if not found.fitting and not networks.load(wanted.stamp).words:
        if found.foreign:
            return [f"{name} was left out: it is for another kind of model ({examples(found.foreign)})."]
        unread = f" ({examples(found.unread)})" if found.unread else ""
        return [f"{name} was left out: nothing is known of what it holds, or its rank is 0{unread}."]
    why = {"do not fit the model": found.foreign, "are of no known kind or of rank 0": found.unread}
    return [f"{name}: {len(names)} modules {reason} and were left out ({examples(names)})."
            for reason, names in why.items() if names]


def _divided(pass_: Pass, tags: Sequence[Tag]) -> Pass:
    """Return ``pass_`` with a segment for each step at which a tag begins or ends."""
    borders: set[int] = set()
    for tag in tags:
        try:
            call = read_call(tag)
        except DarkroomError:
            continue
        borders |= {call.start, call.steps_end(pass_.steps)} - {0, pass_.steps}
    first, *later = pass_.segments
    own = (dataclasses.replace(first, first_step=step) for step in sorted(borders) if step < pass_.steps)
    return dataclasses.replace(pass_, segments=(first, *own, *later)) if borders else pass_


def _patches(wanted: Wanted, model: ModelRef, texts: str) -> Iterator[Any]:
    from modules.plugin import Embedding

    found: Changes = networks.changes(wanted.stamp, model, wanted.call.rank)
    stamp, call = wanted.stamp, wanted.call
    for change in found.fitting:
        if scale := call.weight(change.place.component, change.place.block):
            yield from change.patches(scale)
    for word, parts in networks.load(stamp).words.items():
        if word.lower() in texts.lower():
            for component, vectors in found.encoders(parts).items():
                yield Embedding(component, word, f"{stamp.path}@{stamp.mtime}", 1.0, vectors)
