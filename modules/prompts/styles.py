"""Styles: named texts that are put around or after a prompt."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from modules.core.errors import InvalidRequest
from modules.core.request import MAX_PROMPT_CHARACTERS

PLACEHOLDER = "{prompt}"
COLUMNS = ("name", "prompt", "negative_prompt")
MAX_NAME_CHARACTERS = 200
# What Python's reader of CSV takes in one cell.
MAX_STYLE_CHARACTERS = 100_000
BOM = "\ufeff"


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
    rows = _rows(text.removeprefix(BOM))
    header = next(rows, [])
    styles = (_style(dict(zip(header, row, strict=False))) for row in rows)
    return tuple({style.name: style for style in styles if style.name and not style.name.startswith("#")}.values())


def with_style(text: str, style: Style) -> str:
    """Return the ``styles.csv`` ``text`` with ``style`` in place of its namesake, or at the end.

    Everything else stays as it is written: comments, order, columns that are not ours. Raises ``InvalidRequest`` for a
    name that would not be read back.
    """
    style = _clean(check_style(style))
    records = _records(text)
    header, columns = _header(records)
    row = _written([_cell(style, column) for column in columns])
    places = [place for place, record in enumerate(records) if place and _name(record, columns) == style.name]
    if places:
        records[places[-1]] = row
    else:
        records.append(row)
    # A last line without its end would swallow the next.
    return "".join(f"{record}\n" if not record.endswith(("\n", "\r")) else record for record in [header, *records[1:]])


def without_style(text: str, name: str) -> str:
    """Return the ``styles.csv`` ``text`` without the style called ``name``; the rest stays as it is written."""
    records = _records(text)
    columns = next(_rows(records[0].removeprefix(BOM)), []) if records else []
    return "".join(record for place, record in enumerate(records) if not place or _name(record, columns) != name)


def check_style(style: Style) -> Style:
    """Return ``style``; raise ``InvalidRequest`` where its name is empty, a comment or too long, or its texts are."""
    if style.name != style.name.strip() or style.name.startswith("#") or len(style.name.splitlines()) != 1:
        raise InvalidRequest("A style needs a name of one line that does not begin with #.")
    if len(style.name) > MAX_NAME_CHARACTERS:
        raise InvalidRequest(f"The style's name has more than {MAX_NAME_CHARACTERS} characters.")
    if max(len(style.prompt), len(style.negative_prompt)) > MAX_STYLE_CHARACTERS:
        raise InvalidRequest(f"The style has more than {MAX_STYLE_CHARACTERS:,} characters.")
    return style


def _clean(style: Style) -> Style:
    """Return ``style`` with line ends as one character and without half characters, which no file can hold."""
    return Style(*(part.replace("\r\n", "\n").replace("\r", "\n").encode(errors="replace").decode()
                   for part in (style.name, style.prompt, style.negative_prompt)))


def _records(text: str) -> list[str]:
    """Return the records of a CSV as they are written, each with its line end; a quoted cell may span lines."""
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, skipinitialspace=True)
    records, begin = [], 0
    while begin < len(lines):
        with suppress(csv.Error, StopIteration):
            next(reader)
        end = max(reader.line_num, begin + 1)
        records.append("".join(lines[begin:end]))
        begin = end
    return records


def _header(records: list[str]) -> tuple[str, list[str]]:
    """Return the first record and its columns; a file without one, or without a column we need, gets it."""
    if not records:
        records.append(f"{','.join(COLUMNS)}\n")
    columns = next(_rows(records[0].removeprefix(BOM)), [])
    missing = [name for name in COLUMNS if name not in columns and not (name == "prompt" and "text" in columns)]
    if not missing:
        return records[0], columns
    return _written([*columns, *missing]), [*columns, *missing]


def _name(record: str, columns: list[str]) -> str:
    row = next(_rows(record), [])
    return dict(zip(columns, row, strict=False)).get("name", "")


def _cell(style: Style, column: str) -> str:
    return {"name": style.name, "prompt": style.prompt, "text": style.prompt,
            "negative_prompt": style.negative_prompt}.get(column, "")


def _written(row: list[str]) -> str:
    file = io.StringIO(newline="")
    # Quoted, or white space in front would be skipped when it is read.
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(row)
    return file.getvalue()


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
