"""Where a statement ends: SQL as text, by DuckDB's own tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator

import duckdb

_OPAQUE = {duckdb.token_type.string_const, duckdb.token_type.comment}
_NAME_QUOTES = (b'"', b"`")
_SPACES = re.compile(r"[\u00a0\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff]")
"""What DuckDB reads as a space between tokens when it parses, but not when it only finds tokens."""


def blank_literals(sql: str) -> str:
    """Return the text with spaces for texts, quoted names and comments; of the same length and lines."""
    return "".join(text if is_code else re.sub(r"[^\n]", " ", text) for is_code, text in _pieces(sql))


def is_complete(sql: str) -> bool:
    """Return whether the text ends with a semicolon that is in no text, quoted name or comment."""
    code = blank_literals(f"{sql}\n;")  # what is left open swallows the added semicolon
    return code.endswith(";") and code[:-1].rstrip().endswith(";")


def without_semicolon(statement: str) -> str:
    """Return a single statement up to its semicolon, if it has one."""
    code, _, _ = blank_literals(statement).partition(";")
    return statement[: len(code)]


def _pieces(sql: str) -> Iterator[tuple[bool, str]]:
    """Yield the text in pieces, a token and the space after it; and whether each is code."""
    sql = _SPACES.sub(" ", sql)
    text = sql.encode()  # DuckDB counts bytes
    tokens = duckdb.tokenize(sql)
    bounds = [*(start for start, _ in tokens), len(text)]
    yield True, text[: bounds[0]].decode()
    for (start, kind), end in zip(tokens, bounds[1:], strict=True):
        is_code = kind not in _OPAQUE and not text.startswith(_NAME_QUOTES, start)
        yield is_code, text[start:end].decode()
