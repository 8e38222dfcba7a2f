"""Networks of small changes to weights (LoRA and its kin), for plugins: how they are called, read and fitted."""

from __future__ import annotations

from modules.adapters.calls import Call, read_call
from modules.adapters.files import TAGS, named
from modules.adapters.fitting import Changes, fit
from modules.adapters.reading import Network, read_network
from modules.core.errors import examples

__all__ = ["TAGS", "Call", "Changes", "Network", "examples", "fit", "named", "read_call", "read_network"]
