"""Values of a result as JSON has them. What does not belong here: running queries (`query`), and where results go."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any


def plain(value: Any) -> Any:
    """Return a value as JSON has it: times as ISO 8601, null for what is no finite number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def plain_row(row: Sequence[Any], types: Sequence[str]) -> list[Any]:
    """Return the values of a row; those of DuckDB's type JSON as what their text says."""
    return [
        plain(json.loads(value) if kind == "JSON" and value is not None else value)
        for value, kind in zip(row, types, strict=True)
    ]
