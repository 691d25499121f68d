"""Where a statement ends: SQL as text, as far as that can be told without a parser."""

from __future__ import annotations

import re

_LITERALS = re.compile(
    r"'(?:[^']|'')*'"  # text
    r'|"(?:[^"]|"")*"'  # a quoted name
    r"|--[^\n]*"
    r"|/\*.*?\*/"
    r"|(?<![\w$])\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$",
    re.DOTALL,
)
_OPENINGS = re.compile(r"""['"]|/\*|(?<![\w$])\$(?:[A-Za-z_]\w*)?\$""")


def blank_literals(sql: str) -> str:
    """Return the text with spaces for texts, quoted names and comments; of the same length."""
    return _LITERALS.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), sql)


def is_complete(sql: str) -> bool:
    """Return whether the text ends with a semicolon that is in no text, quoted name or comment."""
    code = blank_literals(sql)
    return code.rstrip().endswith(";") and not _OPENINGS.search(code)


def without_semicolon(statement: str) -> str:
    """Return a single statement up to its semicolon, if it has one."""
    code = blank_literals(statement)
    return statement[: code.rindex(";")] if ";" in code else statement
