"""The program in a text: which block it is, and where no block stands."""

from __future__ import annotations

import pytest

from heal_core.records import VerdictLabel
from heal_core.reference import make_reference
from heal_core.specs import write_spec
from heal_core.verify.code_tests import CallTest, CodeTests
from heal_core.verify.code_text import find_code
from heal_core.verify.grade import grade

DOUBLE = "def double(value):\n    return value * 2"


@pytest.mark.parametrize(
    ("text", "code", "extraction"),
    [
        ("```python\na\n```", "a\n", "code_block"),
        ("```python\na\n```\nbetter:\n```py\nb\n```\nDone.", "b\n", "code_block"),
        ("```python\na\n```\nThen run\n```\nb\n```", "a\n", "code_block"),
        ("```python\na\n```\nand\n```python\nb", "a\n", "code_block"),  # the last one is cut off
        ("<think>```python\na\n```</think>```Python3\nb\n```", "b\n", "code_block"),
        ("~~~python\na\n~~~", "a\n", "code_block"),
        ("1. So:\n  ```python\n  if a:\n      b\n\n  ```", "if a:\n    b\n\n", "code_block"),
        ("  ```python\na\n  ```", "a\n", "code_block"),
        ("```\na\n```", "a\n", "bare_block"),
        ("import sys\nprint(1)", "import sys\nprint(1)", "whole_text"),
        ("<think>```python\na\n```", None, None),
        ("<think>```python\na\n```</think>It is 5.", None, None),
        ("```bash\nls\n```", None, None),
        ("```python\n```", None, None),
        ("42", None, None),
        ("The answer is 5", None, None),
    ],
)
def test_the_last_complete_block_is_the_program(text: str, code: str | None, extraction: str | None) -> None:
    assert find_code(text) == (code, extraction)


def test_a_block_that_shows_how_a_function_is_used_is_not_the_program() -> None:
    text = f"So:\n```python\n{DOUBLE}\n```\nUsage:\n```python\nprint(double(2))\n```\n"
    assert find_code(text, "double") == (f"{DOUBLE}\n", "code_block")
    assert find_code(text) == find_code(text, "triple") == ("print(double(2))\n", "code_block")
    tests = CodeTests(calls=(CallTest(args=(2,), expected=4),), entry_point="double")
    verdict = grade(text, make_reference(DOUBLE, "code", write_spec(tests)))
    assert verdict.label is VerdictLabel.CORRECT
