"""How long a request takes through everything but an engine: `python -m benchmarks.request_latency`.

The server runs in a process of its own with an engine that has every picture ready, once with the page and its
controls and once without. Times are wall-clock milliseconds seen by a client on a connection that stays open; the
processor's time of the server per request is given too, since a busy machine makes the former grow and not the latter.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

BODY = {"prompt": "a cat", "steps": 20, "width": 64, "height": 64, "seed": 1}


class NullEngine:
    """Answers every job at once with one and the same picture."""

    def __init__(self, picture: Path) -> None:
        self._picture = picture
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def start(self, report: Callable[[Any], None]) -> None:
        """Begin."""
        threading.Thread(target=self._work, args=(report,), daemon=True).start()

    def send(self, command: Any) -> None:
        """Take a command; all but jobs are ignored."""
        if type(command).__name__ == "Run":
            self._inbox.put(command)

    def status(self) -> Any:
        """Return that all is well."""
        from modules.app.messages import EngineStatus

        return EngineStatus("ready")

    def close(self) -> None:
        """Stop."""
        self._inbox.put(None)

    def _work(self, report: Callable[[Any], None]) -> None:
        from modules.app.messages import Finished, Ready, Saved
        from modules.core.result import SavedImage

        report(Ready("null"))
        while (run := self._inbox.get()) is not None:
            image = SavedImage(str(self._picture), "picture", 64, 64, run.request.seed, "a cat\nSteps: 20")
            report(Saved(run.job_id, image))
            report(Finished(run.job_id))
            report(Ready("null"))


def serve(root: str, nowebui: bool, told: Any) -> None:
    """Serve an App with a null engine; send its port, and the processor's time each time it is asked for."""
    import uvicorn
    from PIL import Image

    from modules.app.app import assemble
    from modules.app.settings import SettingsStore
    from modules.host.registry import Host
    from modules.launcher.flags import Flags
    from modules.library.files import Library, folders
    from modules.library.hashes import HashCache
    from modules.web.site import asgi, bind

    picture = Path(root) / "picture.png"
    Image.new("RGB", (64, 64)).save(picture)
    places = folders(Path(root), {}, {})
    places.checkpoints[0].mkdir(parents=True, exist_ok=True)
    (places.checkpoints[0] / "model.safetensors").write_bytes(b"x")
    library = Library(places, HashCache(Path(root) / "hashes.sqlite3"))
    flags = replace(Flags(), api=True, nowebui=nowebui)
    app = assemble(library, SettingsStore(places.config), Host(()), NullEngine(picture), flags)
    app.start()
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(asgi(app, flags), log_level="error"))
    told.send(listener.getsockname()[1])
    threading.Thread(target=_tell_time, args=(told, server), daemon=True).start()
    server.run(sockets=[listener])
    app.close()


def measure(nowebui: bool, requests: int) -> dict[str, dict[str, float]]:
    """Return milliseconds (median, 95th percentile, processor) by route."""
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as root:
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(root, nowebui, theirs))
        process.start()
        connection = http.client.HTTPConnection("127.0.0.1", ours.recv(), timeout=60)
        routes = {"ping": ("GET", "/internal/ping", None), "txt2img": ("POST", "/sdapi/v1/txt2img", BODY),
                  "submit": ("POST", "/darkroom/v1/jobs", BODY)}
        found = {name: _timed(connection, ours, requests, *route) for name, route in routes.items()}
        ours.send("stop")
        process.join(20)
    return found


def _timed(connection: http.client.HTTPConnection, clock: Any, requests: int, method: str, path: str, body: Any
           ) -> dict[str, float]:
    content = json.dumps(body) if body else None
    times = []
    for number in range(requests + 20):
        if number == 20:
            busy = _processor_time(clock)
        began = time.perf_counter()
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        times.append((time.perf_counter() - began) * 1e3)
        if answer.status >= 400:
            raise SystemExit(f"{path} answered {answer.status}")
    spent = (_processor_time(clock) - busy) / requests * 1e3
    return {"median": statistics.median(times[20:]), "p95": statistics.quantiles(times[20:], n=20)[-1],
            "processor": spent}


def _processor_time(clock: Any) -> float:
    clock.send("time")
    return float(clock.recv())


def _tell_time(told: Any, server: Any) -> None:
    while told.recv() == "time":
        told.send(time.process_time())
    server.should_exit = True


def main() -> None:
    """Print one line for each route, with and without the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="requests to each route")
    requests = parser.parse_args().requests
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; milliseconds")
    for nowebui in (True, False):
        for name, times in measure(nowebui, requests).items():
            shown = "  ".join(f"{key} {value:6.2f}" for key, value in times.items())
            print(f"{'API alone' if nowebui else 'with page':10} {name:8} {shown}")


if __name__ == "__main__":
    main()
