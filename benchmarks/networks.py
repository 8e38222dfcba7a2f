"""The networks browser with many files: `python -m benchmarks.networks`.

Writes LoRAs with a header of a few tensors, half of them with a sidecar, a tenth with a cover, into folders, and asks
the routes of the page as a browser would. Times are wall-clock milliseconds; the limits are those of the first screen
and of a search.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fixtures.networks import write_network

FIRST_SCREEN_MS, SEARCH_MS = 300.0, 50.0
WORDS = ("amber", "birch", "cinder", "delft", "ember", "fjord", "granite", "harbor", "indigo", "juniper", "kelp",
         "linen", "moss", "nectar", "opal", "poppy", "quartz", "russet", "saffron", "thistle", "umber", "velvet")
WIDTHS = (768, 1024, 2048)
SEARCHES = ("velvet", "opal moss", "em", "style 77", "trigger19", "nothing-of-this-name")


def write_networks(folder: Path, count: int) -> None:
    """Write ``count`` LoRAs below ``folder``."""
    cover = _cover()
    for number in range(count):
        first, second = (WORDS[number // step % len(WORDS)] for step in (1, len(WORDS)))
        place = folder / first / (second if number % 3 else "")
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{first}_{second}_style{number}.safetensors"
        write_network(path, WIDTHS[number % 3], {"ss_output_name": path.stem, "ss_network_dim": "16"})
        if number % 2:
            path.with_suffix(".json").write_text(json.dumps({
                "description": f"A {second} look, drawn with {first}.", "activation text": f"trigger{number}",
                "preferred weight": 0.8, "notes": ""}))
        if number % 10 == 0:
            path.with_suffix(".png").write_bytes(cover)


def _cover() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((512, 640)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def measure(root: Path, count: int) -> dict[str, float]:
    """Return milliseconds by what was done."""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from modules.app.networks import Networks, describe
    from modules.web.routes import router
    from tests.web.running import fake_engine, make_app

    app = make_app(root, fake_engine(root))
    write_networks(app.folders.lora[0], count)
    site = FastAPI()
    site.include_router(router(app))
    client = TestClient(site)

    def ask(**query: Any) -> Any:
        answer = client.get("/darkroom/page/networks", params={"kind": "lora", "limit": 60, **query})
        answer.raise_for_status()
        return answer.json()

    found = {"first index": _milliseconds(lambda: app.networks.rescan(wait=True))}
    assert ask(everything=True)["count"] == count
    app.close()
    reads = []
    again = Networks(root / "data" / "networks.sqlite3", app.folders, lambda file: reads.append(file) or describe(file))
    found["index, nothing changed"] = _milliseconds(lambda: again.rescan(wait=True))
    assert not reads
    again.close()
    app = make_app(root, fake_engine(root))
    site = FastAPI()
    site.include_router(router(app))
    client = TestClient(site)
    found["first screen"] = _milliseconds(ask)
    found["next screens"] = _slowest(lambda: [ask(offset=60 * number) for number in (1, 2, count // 120)], 3)
    found["sorted by date"] = _milliseconds(lambda: ask(sort="date", descending=True))
    found["slowest search"] = max(
        statistics.median(_milliseconds(lambda text=text: ask(text=text)) for _ in range(5)) for text in SEARCHES)
    app.close()
    return found


def _milliseconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3


def _slowest(action: Callable[[], Any], parts: int) -> float:
    return _milliseconds(action) / parts


def main() -> int:
    """Print the figures; return 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000, help="networks to write")
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), files)
    print(json.dumps({"files": files, **{name: round(value, 1) for name, value in found.items()}}))
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; "
          f"first screen {found['first screen']:.0f} of {FIRST_SCREEN_MS:.0f} ms, "
          f"search {found['slowest search']:.0f} of {SEARCH_MS:.0f} ms")
    return int(found["first screen"] > FIRST_SCREEN_MS or found["slowest search"] > SEARCH_MS)


if __name__ == "__main__":
    raise SystemExit(main())
