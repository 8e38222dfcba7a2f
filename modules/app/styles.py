"""The styles of ``styles.csv``: read at every use, so that a file edited elsewhere counts at once; written whole."""

from __future__ import annotations

import threading
from pathlib import Path

from modules.core.errors import NotFound
from modules.library.writing import write_text
from modules.prompts.styles import Style, parse_styles, with_style, without_style


class StyleBook:
    """The styles of one file. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def all(self) -> dict[str, Style]:
        """Return the styles by name in the file's order."""
        return read_styles(self._path)

    def save(self, style: Style) -> None:
        """Add ``style`` or replace its namesake; raises ``InvalidRequest`` for a bad name, ``DiskFull``."""
        with self._lock:
            write_text(self._path, with_style(_text(self._path), style))

    def delete(self, name: str) -> None:
        """Remove the style called ``name``; raises ``NotFound`` or ``DiskFull``."""
        with self._lock:
            if name not in read_styles(self._path):
                raise NotFound(f"There is no style {name[:100]!r}.")
            write_text(self._path, without_style(_text(self._path), name))


def read_styles(file: Path) -> dict[str, Style]:
    """Return the styles of ``file`` by name, none where it does not exist."""
    return {style.name: style for style in parse_styles(_text(file).replace("\r\n", "\n"))}


def _text(file: Path) -> str:
    try:
        # Line ends stay as they are, so that what is not changed is written back as it was.
        return file.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
