"""Styles: named texts that are put around or after a prompt."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from modules.core.errors import InvalidRequest
from modules.core.request import MAX_PROMPT_CHARACTERS

PLACEHOLDER = "{prompt}"


@dataclass(frozen=True)
class Style:
    """A style: what it adds to the prompt and to the negative prompt."""

    name: str
    prompt: str
    negative_prompt: str


def apply(prompt: str, style_prompts: Iterable[str]) -> str:
    """Apply the texts of styles to ``prompt``, one after the other.

    A text with ``{prompt}`` takes the prompt in at each; another is appended after ``", "``, and of an empty prompt or
    text only the other remains. Raises ``InvalidRequest`` where the result would pass ``MAX_PROMPT_CHARACTERS``.
    """
    for text in style_prompts:
        uses = text.count(PLACEHOLDER)
        if len(text) + uses * len(prompt) + (0 if uses else len(prompt)) > MAX_PROMPT_CHARACTERS:
            raise InvalidRequest(
                f"With its styles the prompt has more than {MAX_PROMPT_CHARACTERS:,} characters.",
                "Use fewer styles, or styles that repeat {prompt} less often.",
            )
        prompt = text.replace(PLACEHOLDER, prompt) if uses else _appended(prompt, text)
    return prompt


def _appended(prompt: str, text: str) -> str:
    return ", ".join(part for part in (prompt.strip(), text.strip()) if part)


def parse_styles(text: str) -> tuple[Style, ...]:
    """Return the styles of a ``styles.csv`` (RFC 4180) with the columns name, prompt and negative_prompt.

    Older files call the prompt ``text`` and have no third column. Rows without a name and rows that begin with ``#``
    are skipped, as are rows that are no CSV; of equal names the last counts. A byte order mark is ignored.
    """
    rows = _rows(text.removeprefix("\ufeff"))
    header = next(rows, [])
    styles = (_style(dict(zip(header, row, strict=False))) for row in rows)
    return tuple({style.name: style for style in styles if style.name and not style.name.startswith("#")}.values())


def _rows(text: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            continue
        if row:
            yield row


def _style(row: dict[str, str]) -> Style:
    prompt = row["prompt"] if "prompt" in row else row.get("text", "")
    return Style(row.get("name", ""), prompt, row.get("negative_prompt", ""))
