"""How long a start takes: first byte, usable page, engine ready; the page against a bare `import gradio`.

    python -m benchmarks.start [--repetitions 7]

Both are started in turn (A B B A ...) in the same run. Prints one JSON object and a line for people; ends with status 1
where the page's median is more than 1.3 times that of the import, or its process imports torch.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LARGEST_RATIO = 1.3
PATIENCE = 300.0
PAUSE = 0.02
MODEL_LIBRARIES = ("torch", "diffusers", "transformers")

COUNT_MODULES = """
import json, sys
from modules.app.app import create
from modules.launcher.flags import Flags
from modules.web.site import asgi
flags = Flags(data_dir=sys.argv[1], api=True)
asgi(create(flags), flags)
print(json.dumps(sorted(sys.modules)))
"""


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    repetitions = parser.parse_args().repetitions
    imports: list[float] = []
    starts: list[dict[str, float]] = []
    for index in range(repetitions):
        steps: list[Callable[[], None]] = [lambda: imports.append(import_gradio()), lambda: starts.append(start())]
        for step in steps if index % 2 == 0 else reversed(steps):
            step()
    result = summary(imports, starts, page_modules())
    print(json.dumps(result, indent=1))
    print(f"page {result['page']['median']:.2f} s, import gradio {result['import_gradio']['median']:.2f} s: "
          f"ratio {result['ratio']:.2f} (at most {LARGEST_RATIO}); first byte {result['first_byte']['median']:.2f} s, "
          f"engine {result['engine']['median']:.2f} s; {result['modules']} modules, "
          f"model libraries in the page's process: {', '.join(result['model_libraries']) or 'none'}")
    return 0 if result["passed"] else 1


def summary(imports: list[float], starts: list[dict[str, float]], modules: list[str]) -> dict[str, Any]:
    """Return medians, spreads and whether the gate is passed."""
    heavy = [name for name in MODEL_LIBRARIES if name in modules]
    spreads = {name: spread([start[name] for start in starts]) for name in starts[0]}
    gradio = spread(imports)
    ratio = spreads["page"]["median"] / gradio["median"]
    return {
        "import_gradio": gradio, **spreads, "ratio": ratio, "modules": len(modules), "model_libraries": heavy,
        "repetitions": len(imports), "load": os.getloadavg()[0], "passed": ratio <= LARGEST_RATIO and not heavy,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and most, in seconds."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def import_gradio() -> float:
    """Return the seconds of a process that imports gradio and ends."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gradio"], cwd=ROOT, check=True)
    return time.perf_counter() - started


def page_modules() -> list[str]:
    """Return the names of the modules that the page's process has imported once the page is built."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", COUNT_MODULES, folder], cwd=ROOT, check=True, text=True,
                              stdout=subprocess.PIPE)
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


def start() -> dict[str, float]:
    """Start the program in an empty data folder; return seconds to its first byte, its page and its engine."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "webui.py", "--skip-prepare-environment", "--api", "--port", str(port),
                   "--data-dir", folder]
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            times = {}
            for name, there in (("first_byte", answers), ("page", page_is_there), ("engine", engine_is_ready)):
                wait_for(partial(there, port), process, started)
                times[name] = time.perf_counter() - started
            return times
        finally:
            process.terminate()
            process.wait(30)


def wait_for(there: Callable[[], bool], process: subprocess.Popen[bytes], started: float) -> None:
    """Return once ``there`` says so; raises ``RuntimeError`` if the program ends or takes too long."""
    while not there():
        if process.poll() is not None:
            errors = process.stderr.read().decode() if process.stderr else ""
            raise RuntimeError(f"The program ended with status {process.returncode}: {errors}")
        if time.perf_counter() - started > PATIENCE:
            raise RuntimeError(f"Not ready after {PATIENCE:.0f} s.")
        time.sleep(PAUSE)


def answers(port: int) -> bool:
    """Return whether anything answers a browser at all."""
    return get(port, "/", "text/html")[0] != 0


def page_is_there(port: int) -> bool:
    """Return whether the page itself answers.

    Whoever does not ask for HTML waits until it is there; asking again and again would slow down what is measured.
    """
    status, body = get(port, "/", "*/*")
    return status == 200 and b"txt2img_generate" in body


def engine_is_ready(port: int) -> bool:
    """Return whether the engine's process has imported everything and waits for work."""
    status, body = get(port, "/darkroom/v1/status", "*/*")
    return status == 200 and json.loads(body)["engine"]["state"] == "ready"


def get(port: int, path: str, accept: str) -> tuple[int, bytes]:
    """Return status and body, status 0 where nobody answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
