"""What trainers write into the metadata of networks: kohya-ss' sd-scripts (``ss_``) and the ModelSpec (``modelspec.``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from modules.library.sidecars import storable

TAGS = "ss_tag_frequency"
LONGEST_FACT, LONGEST_TAG, LARGEST_COUNT = 200, 200, 10**9
FACTS: Mapping[str, str] = MappingProxyType({
    "modelspec.title": "Title", "modelspec.author": "Author", "modelspec.license": "License",
    "ss_sd_model_name": "Trained on", "ss_base_model_version": "Base version", "ss_resolution": "Resolution",
    "ss_network_module": "Network", "ss_network_dim": "Rank", "ss_network_alpha": "Alpha",
    "ss_num_train_images": "Pictures", "ss_num_epochs": "Epochs", "ss_steps": "Steps",
    "ss_learning_rate": "Learning rate", "ss_optimizer": "Optimizer", "ss_clip_skip": "Clip skip",
})


def trained_tags(metadata: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return the words of a network's training captions with how often each was there, the commonest first.

    None where the metadata does not tell them, or tells them wrongly.
    """
    counts: Counter[str] = Counter()
    try:
        for tags in json.loads(metadata.get(TAGS) or "{}").values():
            counts.update({storable(str(tag).strip())[:LONGEST_TAG]: min(int(number), LARGEST_COUNT)
                           for tag, number in tags.items()})
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return []
    return [(tag, number) for tag, number in counts.most_common() if tag]


def facts(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what the metadata tell of a network's training, by labels for people."""
    return {label: storable(metadata[key])[:LONGEST_FACT] for key, label in FACTS.items()
            if metadata.get(key, "None") not in ("", "None")}
