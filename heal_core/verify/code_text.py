"""The program in a text that a model wrote, and where it stood.

What does not belong here: whether it is right (`code`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>```+|~~~+)[ \t]*(?P<language>[^\s`]*)[^`\n]*$", re.MULTILINE)
_PYTHON = frozenset({"python", "python3", "py", "py3"})


def find_code(text: str, entry_point: str = "") -> tuple[str | None, str | None]:
    """Return the program of a text, and where it stood.

    Only what follows the last `</think>` counts; an unclosed `<think>` has none. "code_block" is the last complete
    block that names Python; without one, "bare_block" is the last that names no language, and "whole_text" an answer
    that is a program as it stands. Of blocks, the last that defines the function `entry_point` goes before
    others: a block that shows its use may follow.
    """
    answer = text.rpartition("</think>")[2]
    if "<think>" in answer:
        return None, None
    blocks = list(_blocks(answer))
    for extraction, languages in (("code_block", _PYTHON), ("bare_block", frozenset({""}))):
        found = [code for language, code in blocks if language in languages and code.strip()]
        if found:
            defines = re.compile(rf"^[ \t]*(?:def {re.escape(entry_point)}\b|class Solution\b)", re.MULTILINE)
            return ([code for code in found if entry_point and defines.search(code)] or found)[-1], extraction
    if not blocks and not _FENCE.search(answer) and _is_program(answer):
        return answer.strip(), "whole_text"
    return None, None


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield language and content of each complete fenced block."""
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence["ticks"][0] == opened["ticks"][0] and not fence["language"]:
            yield opened["language"].lower(), _outdent(text[opened.end() + 1 : fence.start()], opened["indent"])
            opened = None


def _outdent(code: str, indent: str) -> str:
    """Return the lines without the indentation of their fence, as within a list."""
    return re.sub(f"^{indent}", "", code, flags=re.MULTILINE) if indent else code


def _is_program(text: str) -> bool:
    """Return whether a text without blocks is meant as a program: more than words and values."""
    try:
        tree = ast.parse(text.strip())
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Call)) for node in ast.walk(tree))
