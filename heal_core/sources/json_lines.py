"""JSON Lines as rows: an object per line; blank lines and a byte order mark are passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from heal_core.sources.files import SourceFile
from heal_core.sources.row import Number, Refusal, SourceRow

_BOM = b"\xef\xbb\xbf"


def read_json_lines(source: SourceFile) -> Iterator[SourceRow]:
    """Yield the lines that are not blank; one that is no JSON object with the reason.

    Raises:
        InputError: If the file cannot be read.
    """
    with source.open() as file:
        for line, written in enumerate(file, start=1):
            written = written.removeprefix(_BOM) if line == 1 else written
            if written.strip():
                yield SourceRow(source.place, line, source.name, _parse_object(written), written)


def _parse_object(written: bytes) -> dict[str, Any] | Refusal:
    """Return the line's JSON object; numbers stay as they are written."""
    try:
        text = written.decode()
    except UnicodeDecodeError as error:
        return Refusal(f"undecodable: byte {error.object[error.start]:#04x} at {error.start} is not UTF-8")
    try:
        value = json.loads(text, parse_float=Number, parse_int=Number, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return Refusal(f"invalid_json: {error}")
    return value if isinstance(value, dict) else Refusal(f"not_an_object: {_json_name(value)}")


def _json_name(value: Any) -> str:
    return "number" if isinstance(value, Number) else type(value).__name__


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
