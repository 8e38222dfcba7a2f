"""A model file looked at: what its header shows, what its metadata tell, and its hashes as far as they are known."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules.core import codec
from modules.core.errors import InvalidRequest
from modules.core.merge_metadata import read_recipe
from modules.families.inspection import Inspection, Part, inspect
from modules.library.files import Library, ModelFile, check_kind
from modules.library.hashes import ADDNET_SHORT, HashCache, legacy_hash, short_hash
from modules.library.headers import read_header, read_metadata
from modules.library.training_metadata import TAGS, facts, trained_tags

# What has no header to look at: ncnn's graphs, which are text.
UNREAD = (".param",)
LONGEST_VALUE, LONGEST_KEY, MOST_VALUES = 20_000, 200, 500
SHOWN_TAGS = 500


@dataclass(frozen=True)
class Inspected:
    """A file with what is seen of it.

    ``training`` are facts by labels, ``tags`` the words of its captions with their counts, the commonest first.
    ``recipe`` is that of a merge, None without one. ``metadata`` are the first values but the captions' words,
    shortened. ``hashes`` are by name, empty while they are not computed.
    """

    file: ModelFile
    inspection: Inspection
    training: Mapping[str, str]
    tags: Sequence[tuple[str, int]]
    recipe: Mapping[str, Any] | None
    metadata: Mapping[str, str]
    hashes: Mapping[str, str]


def look(library: Library, kind: str, name: str) -> Inspected:
    """Return what is seen of the model of ``kind`` called ``name``; reads its header alone.

    Raises ``InvalidRequest`` for an unknown kind, ``NotFound``, and ``InvalidModel`` for what is no model file.
    """
    file = library.find(kind, name)
    header = read_header(file.path)
    metadata = read_metadata(header)
    try:
        recipe = codec.encode(read_recipe(metadata))
    except InvalidRequest:
        recipe = None
    plain = {key[:LONGEST_KEY]: value[:LONGEST_VALUE]
             for key, value in itertools.islice(metadata.items(), MOST_VALUES) if key != TAGS}
    return Inspected(file, inspect(kind, header), facts(metadata), trained_tags(metadata)[:SHOWN_TAGS], recipe, plain,
                     known_hashes(Path(file.path), metadata, library.hashes))


def names(library: Library, kind: str, text: str) -> list[str]:
    """Return the names of the models of ``kind`` that can be looked at and hold every word of ``text``, sorted.

    Raises ``InvalidRequest`` for a kind that does not exist.
    """
    words = text.lower().split()
    return [file.name for file in library.files(check_kind(kind))
            if not file.name.endswith(UNREAD) and all(word in file.name.lower() for word in words)]


def known_hashes(path: Path, metadata: Mapping[str, str], cache: HashCache) -> dict[str, str]:
    """Return a file's hashes under the names that Civitai has for them, and ``short``, that of titles here.

    AutoV1 is A1111's oldest, AutoV2 the beginning of ``sha256``, AutoV3 that of the sha256 of the tensors alone.
    Only AutoV1 is computed; it takes reading 64 KiB.
    """
    sha256 = cache.cached(path) or ""
    tensors = cache.cached_addnet(path) or metadata.get("sshs_model_hash", "")
    return {"sha256": sha256, "short": short_hash(sha256), "AutoV1": legacy_hash(path).upper(),
            "AutoV2": short_hash(sha256).upper(), "AutoV3": tensors[:ADDNET_SHORT].upper()}


def view(found: Inspected) -> dict[str, Any]:
    """Return ``found`` as plain JSON values; no path is told."""
    inspection = found.inspection
    return {
        "kind": found.file.kind, "name": found.file.name, "title": found.file.title, "size": found.file.size,
        "modified": found.file.mtime, "what": inspection.what, "family": inspection.family,
        "layout": inspection.layout, "problem": inspection.problem, "details": dict(inspection.details),
        "elements": inspection.elements, "bytes": inspection.bytes,
        "parts": [_part(part) for part in inspection.parts],
        "hashes": dict(found.hashes), "training": dict(found.training), "tags": [list(tag) for tag in found.tags],
        "recipe": found.recipe, "metadata": dict(found.metadata),
    }


def _part(part: Part) -> dict[str, Any]:
    return {"name": part.name, "tensors": part.tensors, "elements": part.elements, "bytes": part.bytes,
            "dtypes": dict(part.dtypes), "ranks": {str(rank): count for rank, count in part.ranks.items()}}


def text(found: Inspected) -> str:
    """Return ``found`` as lines for a terminal."""
    seen = found.inspection
    lines = [f"{found.file.name}: {seen.what}", *([f"  {seen.problem}"] if seen.problem else []),
             f"  {seen.layout}, {seen.bytes:,} bytes, {seen.elements:,} numbers"]
    lines += [f"  {label}: {value}" for label, value in seen.details.items()]
    for part in seen.parts:
        types = ", ".join(f"{count} {dtype}" for dtype, count in part.dtypes.items())
        ranks = ", ".join(f"rank {rank}: {count} modules" for rank, count in part.ranks.items())
        lines.append(f"  {part.name:<16} {part.tensors:>6} tensors {part.bytes:>16,} bytes  {types}"
                     + (f"  {ranks}" if ranks else ""))
    lines += [f"  {name}: {value}" for name, value in found.hashes.items() if value]
    lines += [f"  {label}: {value}" for label, value in found.training.items()]
    if found.tags:
        lines.append("  Words: " + ", ".join(f"{tag} ({count})" for tag, count in found.tags[:30]))
    if found.recipe:
        lines.append(f"  Recipe: {json.dumps(found.recipe)}")
    return "\n".join(lines)


def values_text(values: Mapping[str, Any]) -> str:
    """Return what a check of a file's values found as lines for a terminal."""
    lines = [f"  Largest value: {values['largest']:g}"]
    for key, label in (("nan", "with NaN"), ("infinite", "with infinity"), ("zero", "of zeros alone")):
        names = ", ".join(values[key]["names"])
        lines.append(f"  Tensors {label}: {values[key]['count']}{f' ({names})' if names else ''}")
    lines += [f"  Alpha of {part}: {', '.join(f'{alpha} ({count} modules)' for alpha, count in alphas.items())}"
              for part, alphas in values["alphas"].items()]
    return "\n".join(lines)
