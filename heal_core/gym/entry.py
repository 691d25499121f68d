"""An entry of reasoning-gym as JSON, and back exactly: scorers tell a tuple from a list.

What does not belong here: what the entry means to its scorer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

_MARK = "$"  # begins the one key that says what an object stands for


class NotStorableError(TypeError):
    """A value that has no form in JSON."""


def pack(value: Any) -> Any:
    """Return a value of strings, numbers, lists, tuples, dictionaries and fractions as JSON has it.

    Raises:
        NotStorableError: If another type is in it, or a number that is not finite.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise NotStorableError(f"a number that is {value}")
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)  # NumPy's are subclasses
    if isinstance(value, list):
        return [pack(part) for part in value]
    if isinstance(value, tuple):
        return {"$tuple": [pack(part) for part in value]}
    if isinstance(value, Fraction):
        return {"$fraction": str(value)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith(_MARK) for key in value):
            return {key: pack(part) for key, part in value.items()}
        return {"$dict": [[pack(key), pack(part)] for key, part in value.items()]}
    raise NotStorableError(f"{type(value).__module__}.{type(value).__name__}")


def unpack(value: Any) -> Any:
    """Return what `pack` was given."""
    if isinstance(value, list):
        return [unpack(part) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, part),) = value.items()
        if key == "$tuple":
            return tuple(unpack(part))
        if key == "$fraction":
            return Fraction(part)
        if key == "$dict":
            return {unpack(name): unpack(content) for name, content in part}
    return {key: unpack(part) for key, part in value.items()}
