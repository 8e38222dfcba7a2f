"""`python -m benchmarks` runs those that need no model; its status is that of the first to fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("start", "request_latency", "overhead")


def main() -> int:
    """Run each in a process of its own, all of them, and return the first status that is not 0."""
    statuses = [subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=False).returncode
                for name in NAMES]
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main())
