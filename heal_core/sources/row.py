"""A row of a source: where it stands, and what it says.

Numbers are kept as text, digit by digit where the format keeps digits, since an answer of 1.50
is not 1.5 to every verifier. What does not belong here: what a column means (`heal_core/problems.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

MAX_RAW_CHARS = 2000


class Number(str):
    """A number as its source writes it; without digits to keep, the shortest that give it back."""

    __slots__ = ()


@dataclass(frozen=True)
class Refusal:
    """Why a row is no problem: a code, and after a colon what was seen."""

    reason: str


@dataclass(frozen=True)
class SourceRow:
    """One row.

    Attributes:
        place: The file, URL, dataset or function.
        line: The line of a text file in which it begins, else the row's number; from 1.
        name: What `place` is called where a problem says where it is from.
        content: Its columns, or why they could not be read.
        written: The row as it stands in a text file; None where only its columns are known.
    """

    place: str
    line: int
    name: str
    content: Mapping[str, Any] | Refusal
    written: bytes | None = None

    @property
    def raw(self) -> str:
        """The row for a person to look at, bounded."""
        if self.written is not None:
            return self.written.decode(errors="backslashreplace")[:MAX_RAW_CHARS]
        if isinstance(self.content, Refusal):
            return ""
        text = json.dumps(dict(self.content), ensure_ascii=False, default=str)[:MAX_RAW_CHARS]
        return text.encode(errors="backslashreplace").decode()


def as_written(value: Any) -> Any:
    """Return a number of Python, NumPy or Arrow as a `Number`, NaN as None, and anything else as it is."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None  # pandas and Arrow write a missing number so
        # 2.0 gives "2", and a float32 its own 0.1 rather than that of a float64: 0.10000000149
        return Number(np.format_float_positional(value, trim="-"))
    if isinstance(value, (int, np.integer, Decimal)):
        return Number(value)
    return value


def number_of(text: Number) -> int | float:
    """Return the number to count with: an integer where it fits 64 bits, else a float."""
    if len(text) < 20 and text.lstrip("-").isdecimal():
        value = int(text)
        if -(2**63) <= value < 2**63:
            return value
    return float(text)
