"""Values of Python as JSON and back: plain data only, anything else as a handle.

Its source also runs in the sandbox, on both sides of a call: only the standard library. Whoever
decodes runs no code of the other side: what comes out is of built-in types, or a `Handle`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any


class Handle:
    """Something of the other side that is no plain data; equal only to itself."""

    def __init__(self, number: int) -> None:
        """Say which one it is."""
        self.number = number


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """Return the value as what JSON can write; `keep` takes what is no plain data, and returns its number."""
    if value is None or isinstance(value, (bool, str)):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Handle):
        return {"handle": value.number}
    if isinstance(value, dict):
        return {"dict": [[encode(key, keep), encode(item, keep)] for key, item in value.items()]}
    for kind in (list, tuple, set, frozenset, deque):
        if isinstance(value, kind):
            items = [encode(item, keep) for item in value]
            return items if kind is list else {kind.__name__: items}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, (Decimal, Fraction)):
        return {type(value).__name__: str(value)}
    return {"handle": keep(value)}


def decode(value: Any, find: Callable[[int], Any]) -> Any:
    """Return what `encode` wrote; `find` returns what a number stands for.

    Raises:
        ValueError: If it is nothing that `encode` writes.
    """
    if isinstance(value, list):
        return [decode(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        ((name, content),) = value.items()
        if name == "dict":
            return {decode(key, find): decode(item, find) for key, item in content}
        if name in _CONTAINERS:
            return _CONTAINERS[name](decode(item, find) for item in content)
        if name in _PLAIN:
            return _PLAIN[name](content)
        if name == "handle":
            return find(int(content))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"not a value: {error}") from error
    raise ValueError(f"not a value: {name!r}")


_CONTAINERS: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
_PLAIN: dict[str, Callable[[Any], Any]] = {
    "range": lambda content: range(*map(int, content)),
    "bytes": bytes.fromhex,
    "complex": lambda content: complex(*map(float, content)),
    "Decimal": Decimal,
    "Fraction": Fraction,
}
