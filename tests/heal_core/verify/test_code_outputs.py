"""When outputs and values agree."""

from __future__ import annotations

from typing import Any

import pytest

from heal_core.verify.code_outputs import outputs_equal, values_equal


@pytest.mark.parametrize(
    ("output", "expected", "equal"),
    [
        ("1\n2\n", "1\n2", True),
        ("1  \n2\n\n", "1\n2", True),
        ("1   2", "1 2", True),
        ("1\r\n2", "1\n2", True),
        ("1 2", "1\n2", False),
        ("2\n1", "1\n2", False),
        ("1\n2\n3", "1\n2", False),
        ("", "1", False),
        ("", "", True),
        ("YES", "Yes", False),
        ("0.3333333", "0.33333333", True),
        ("0.3333", "0.33333333", False),
        ("1e6", "1000000.0", True),
        ("1000000.5", "1000000.0", True),  # one millionth of it is allowed
        ("1000002", "1000000.0", False),
        ("1000001", "1000000", False),  # whole numbers are exact
        ("1.0", "1", False),
        ("nan", "1.5", False),
        ("1.5.2", "1.5.3", False),
        ("1e-05", "0.00001", True),
        ("0.50000001", "5e-1", True),
        ("0e13", "0e12", False),  # texts that Python could read as zero
        ("9e999", "8e999", False),
        ("1_0.5", "10.5", False),
    ],
)
def test_outputs(output: str, expected: str, equal: bool) -> None:
    assert outputs_equal(output, expected) is equal


@pytest.mark.parametrize(
    ("value", "expected", "equal"),
    [
        (1, 1, True),
        (1, 2, False),
        (1.0, 1, True),
        (1 + 1e-9, 1, True),
        (10**400, 1.5, False),
        (1234567.0, 1234566, False),  # within a millionth of it, but another integer
        ((3 * 123456789012345678) / 3, 123456789012345678, False),  # 123456789012345680
        (float("inf"), 1, False),
        (10**20 + 1, 10**20, False),  # integers are exact
        (True, 1, False),
        (1, True, False),
        (True, True, True),
        ((1, (2,)), [1, [2]], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({1, 2}, [1, 2], False),
        ({1: "a"}, {"1": "a"}, True),
        ({"a": [1.0000000001]}, {"a": [1]}, True),
        ({"a": 1}, {"b": 1}, False),
        ("1", 1, False),
        (None, None, True),
        (None, 0, False),
        (float("nan"), float("nan"), False),
    ],
)
def test_values(value: Any, expected: Any, equal: bool) -> None:
    assert values_equal(value, expected) is equal
