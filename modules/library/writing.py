"""Files that are always the old or the new, never half of one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.core.errors import DiskFull

PRIVATE, USUAL = 0o600, 0o666


def write_whole(path: Path, content: bytes, durable: bool = True, mode: int = USUAL) -> None:
    """Write ``path`` so that it is always the old or the new content; raises ``DiskFull``.

    What is not ``durable`` may be lost in a power cut. A new file has ``mode`` as far as the process's mask allows;
    whoever may read the old one may read the new: folders of models are often shared.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _unwritten(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8, line ends as given) as ``write_whole`` does, with its folder.

    Its owner alone may read a new file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritten(path, error) from error
    write_whole(path, text.encode(), mode=PRIVATE)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as ``write_text`` does."""
    write_text(path, json.dumps(content, indent=4, ensure_ascii=False))


def _unwritten(path: Path, error: OSError) -> DiskFull:
    return DiskFull(f"{path} could not be written: {error.strerror}.",
                    "Free some space or check the folder's permissions.")
