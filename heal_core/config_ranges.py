"""What values a setting takes and which it has by default, in words: for the page of settings.

What does not belong here: which settings there are and what they mean (`config_reference`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

GROUP = "group"

_UNITS = {"seconds": " s", "tokens": " tokens", "kib": " KiB", "mib": " MiB", "gib": " GiB", "points": " points"}
_PLAIN = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true, false",
    "object": "names with values",
}
_COUNTED = (GROUP, "text", "integer", "number")
_ALTERNATIVES = re.compile(r"\^\((\w+(?:\|\w+)+)\)\$")


def describe_default(value: Any) -> str:
    """Return a default as it is written in YAML, or "none"."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(str(item) for item in value)}]`"
    if isinstance(value, float) and len(repr(value)) > 10:
        return f"`{Fraction(value).limit_denominator(10)}`"  # 1/3, not 0.3333333333333333
    return f"`{str(value).replace('e-0', 'e-')}`"


def describe_choices(name: str, schema: dict[str, Any]) -> str:
    """Return which values a setting takes, with the unit that its name ends in.

    Args:
        name: The last part of its key.
        schema: Its JSON schema.
    """
    choices = _choices(schema, _UNITS.get(name.rsplit("_", 1)[-1], ""))
    is_none_set = {"type": "null"} in schema.get("anyOf", ()) and schema.get("default") is not None
    return f"{choices}, or none" if is_none_set else choices


def forms(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schema of each form that a value may have, null left out."""
    return [form for form in schema.get("anyOf", [schema]) if form.get("type") != "null"]


def _choices(schema: dict[str, Any], unit: str) -> str:
    return ", or ".join(_form(form, unit) for form in forms(schema))


def _form(form: dict[str, Any], unit: str) -> str:
    names = form.get("enum") or ([form["const"]] if "const" in form else [])
    if alternatives := _ALTERNATIVES.fullmatch(form.get("pattern", "")):
        names = alternatives[1].split("|")
    if names:
        return ", ".join(f"`{name}`" for name in names)
    if "$ref" in form:
        return GROUP
    if "prefixItems" in form:
        return f"list of {len(form['prefixItems'])}, each {_choices(form['prefixItems'][0], unit)}"
    if "items" in form:
        item = _choices(form["items"], unit)
        return f"list of {item}s" if item in _COUNTED else f"list of {item}"
    return _range(form) + unit if _range(form) else _PLAIN[form["type"]]


def _range(form: dict[str, Any]) -> str:
    """Return the bounds of a number, "" where there are none."""
    if "minimum" in form and "maximum" in form:
        return f"{form['minimum']:g} to {form['maximum']:g}"
    bounds = {"minimum": ">=", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return ", ".join(f"{word} {_number(form[key])}" for key, word in bounds.items() if key in form)


def _number(number: float) -> str:
    """Return a number in short, a large power of two as one."""
    exponent = int(number).bit_length() - 1
    return f"2^{exponent}" if exponent > 10 and number == 2**exponent else f"{number:g}"
