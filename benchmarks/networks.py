"""The networks browser with many files: `python -m benchmarks.networks`.

Writes LoRAs with a header of a few tensors, half of them with a sidecar, a tenth with a cover, into folders, and asks
the routes of the page as a browser would. Times are milliseconds, of the wall's clock and of the processor; the limits
are those of the first screen and of a search.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.fixtures.networks import write_network

FIRST_SCREEN_MS, SEARCH_MS = 300.0, 50.0
WORDS = ("amber", "birch", "cinder", "delft", "ember", "fjord", "granite", "harbor", "indigo", "juniper", "kelp",
         "linen", "moss", "nectar", "opal", "poppy", "quartz", "russet", "saffron", "thistle", "umber", "velvet")
WIDTHS = (768, 1024, 2048)
SEARCHES = ("velvet", "opal moss", "em", "style 77", "trigger19", "nothing-of-this-name")


@dataclass(frozen=True)
class Times:
    """Milliseconds of the wall's clock, and of the processor."""

    wall: float
    processor: float


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


def measure(root: Path, count: int) -> dict[str, Times]:
    """Return the times of what was done, by its name."""
    from modules.app.networks import Networks, describe
    from tests.web.running import fake_engine, make_app

    app = make_app(root, fake_engine(root))
    write_networks(app.folders.lora[0], count)
    found = {"first index": timed(lambda: app.networks.rescan(wait=True), 1)}
    app.close()
    reads: list[Any] = []
    again = Networks(root / "data" / "networks.sqlite3", app.folders, lambda file: reads.append(file) or describe(file))
    found["index, nothing changed"] = timed(lambda: again.rescan(wait=True))
    assert not reads
    again.close()
    app = make_app(root, fake_engine(root))
    ask = asking(app)
    found["first screen"] = timed(lambda: ask(everything=True), 1)
    assert ask(everything=True)["count"] == count
    found["further screens"] = slowest(lambda offset: ask(offset=offset), (60, 120, count // 4))
    found["by date"] = timed(lambda: ask(sort="date", descending=True))
    found["search"] = slowest(lambda text: ask(text=text), SEARCHES)
    app.close()
    return found


def asking(app: Any) -> Callable[..., Any]:
    """Return what asks the route of the page for cards."""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from modules.web.routes import router

    site = FastAPI()
    site.include_router(router(app))
    client = TestClient(site)

    def ask(**query: Any) -> Any:
        answer = client.get("/darkroom/page/networks", params={"kind": "lora", "limit": 60, **query})
        answer.raise_for_status()
        return answer.json()
    return ask


def timed(action: Callable[[], Any], times: int = 5) -> Times:
    """Return the shortest of several times: others use the machine, too."""
    walls, processors = [], []
    for _ in range(times):
        wall, processor = time.perf_counter(), time.process_time()
        action()
        walls.append((time.perf_counter() - wall) * 1e3)
        processors.append((time.process_time() - processor) * 1e3)
    return Times(round(min(walls), 1), round(min(processors), 1))


def slowest(action: Callable[[Any], Any], values: Iterable[Any]) -> Times:
    """Return the times of that of several actions which takes longest."""
    return max((timed(lambda value=value: action(value)) for value in values), key=lambda found: found.wall)


def main() -> int:
    """Print the figures; return 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000, help="networks to write")
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), files)
    print(json.dumps({"files": files, **{name: asdict(times) for name, times in found.items()}}))
    screen, search = found["first screen"].wall, found["search"].wall
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; "
          f"first screen {screen:.0f} of {FIRST_SCREEN_MS:.0f} ms, search {search:.0f} of {SEARCH_MS:.0f} ms")
    return int(screen > FIRST_SCREEN_MS or search > SEARCH_MS)


if __name__ == "__main__":
    raise SystemExit(main())
