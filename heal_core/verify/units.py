r"""The unit behind a number: what it measures and how large it is, where both are known.

A question usually names its unit, so that "5" answers "5 cm" and "12 apples" answers "12". Only
two known units can contradict each other. What does not belong here: reading numbers (`numbers`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

_PREFIXES = {"k": Fraction(1000), "": Fraction(1), "d": Fraction(1, 10), "c": Fraction(1, 100), "m": Fraction(1, 1000)}
_PREFIX_NAMES = {"k": "kilo", "": "", "d": "deci", "c": "centi", "m": "milli"}

# (quantity, power, size): names; a litre is a cubic decimetre, so that it can be compared with one
_METRIC = {
    ("length", 1, Fraction(1)): ("m", "meter meters metre metres"),
    ("mass", 1, Fraction(1)): ("g", "gram grams"),
    ("length", 3, Fraction(1, 1000)): ("l L", "liter liters litre litres"),
}
_OTHERS = {
    ("time", 1, Fraction(1)): "s sec secs second seconds",
    ("time", 1, Fraction(60)): "min mins minute minutes",
    ("time", 1, Fraction(3600)): "h hr hrs hour hours",
    ("time", 1, Fraction(86400)): "day days",
    ("time", 1, Fraction(604800)): "week weeks",
    ("length", 1, Fraction("0.0254")): "in inch inches",
    ("length", 1, Fraction("0.3048")): "ft foot feet",
    ("length", 1, Fraction("0.9144")): "yd yard yards",
    ("length", 1, Fraction("1609.344")): "mi mile miles",
    ("mass", 1, Fraction("453.59237")): "lb lbs pound pounds",
    ("mass", 1, Fraction("28.349523125")): "oz ounce ounces",
    ("money", 1, Fraction(1)): "dollar dollars",
    ("money", 1, Fraction(1, 100)): "cent cents",
    ("angle", 1, Fraction(1)): r"^\circ degree degrees",
}
_COMPOUNDS = {"mph": "mi/h", "kph": "km/h"}

_FACTOR = re.compile(r"(?P<power>square |sq |cubic )?(?P<name>[A-Za-z]+|\^\\circ)\.?(?:\^\{?(?P<exponent>[1-4])\}?)?")
_POWERS = {"square ": 2, "sq ": 2, "cubic ": 3, None: 1}
_PER = re.compile(r" ?/ ?| per ")

_WRAPPED = re.compile(r"\s*\\(?:text|mathrm|mbox)\s*\{(?P<words>[^{}\d]*)\}(?P<exponent>\^\{?[1-4]\}?)?$")
_WRAPPERS = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}")
_SPACES = re.compile(r"\\[,;:! ]|~")
_VALUE_END = re.compile(r"(?<=[\d)}])\s*(?=[A-Za-z])")
_DEGREES = re.compile(r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})$")
_BARE = re.compile(r"(?<=\d) (?P<words>[A-Za-z]{2,}(?:(?: ?/ ?| )[A-Za-z]+){0,3}(?:\^\{?[1-4]\}?)?)$")
_DOLLARS = re.compile(r"^(-?)\s*\\\$\s*(?=[\d.])")
_BARE_WORDS = ("percent", "per cent", "million", "billion", "trillion", "dozen", "hundred", "thousand")
_HAS_VALUE = re.compile(r"\d|\\pi")
_OTHER_WORDS = (
    "and or to of is are not no but if times plus minus wrong incorrect maybe perhaps wait squared cubed factorial "
    "half halves third thirds quarter quarters fifths sixths eighths tenths hundredths thousandths"
)
NOT_UNITS = frozenset(_OTHER_WORDS.split())
"""Words that turn what stands before them into another value, or into part of a sentence."""


@dataclass(frozen=True)
class Unit:
    """What is measured, as powers of quantities, and its size in units of the same kind."""

    dimension: tuple[tuple[str, int], ...]
    size: Fraction


def split_unit(text: str) -> tuple[str, str | None]:
    r"""Return the text without the unit at its end (or the dollar before it), and the unit's words.

    Words in `\text{..}` count as a unit unless they go on with a sentence ("or", "is", "not");
    bare ones only where the unit is known, since "3 abc" may be a product.
    """
    if _DOLLARS.match(text):
        body, words = split_unit(_DOLLARS.sub(r"\1", text))
        return body, words or "dollars"
    if degrees := _DEGREES.search(text):
        return text[: degrees.start()], r"^\circ"
    unit = _WRAPPED.search(text) or _BARE.search(text)
    if unit is None or not _HAS_VALUE.search(text, 0, unit.start()):
        return text, None
    words = " ".join(unit["words"].split())
    if unit.re is _WRAPPED:
        words += unit["exponent"] or ""
    elif read_unit(words) is None and words not in _BARE_WORDS:
        return text, None
    return (text, None) if NOT_UNITS & set(words.casefold().split()) else (text[: unit.start()], words)


def split_asked_unit(text: str, asked: str) -> tuple[str, Fraction | None]:
    r"""Return the text without its unit, and that unit over the one that is asked for: 1 without one.

    Where a problem names its unit, what stands behind the value is one as well, in whatever way it is
    written: `9.81 m/s^2`, `\text{..}`, a single letter. None: it does not convert, or is not known.
    """
    plain = " ".join(_SPACES.sub(" ", _WRAPPERS.sub(r" \1 ", text)).split())
    for end in _VALUE_END.finditer(plain):
        words = plain[end.end() :].strip()
        if words.casefold() == asked.casefold() or read_unit(words) is not None:
            return plain[: end.start()], unit_ratio(words, asked)
    body, other = split_unit(text)
    return (text, Fraction(1)) if other is None else (body, unit_ratio(other, asked))


def unit_ratio(words: str, asked: str) -> Fraction | None:
    """Return the size of one unit in the other, None if it does not convert."""
    if words.casefold() == asked.casefold():
        return Fraction(1)
    one, other = read_unit(words), read_unit(asked)
    return one.size / other.size if one and other and one.dimension == other.dimension else None


@lru_cache(maxsize=1024)
def read_unit(words: str) -> Unit | None:
    """Return the unit that the words name (cm, square feet, km/h, m/s^2), or None if it is not known."""
    dimension: Counter[str] = Counter()
    size = Fraction(1)
    for index, factor in enumerate(_PER.split(_COMPOUNDS.get(words, words))):
        match = _FACTOR.fullmatch(factor)
        if match is None or (known := _known_units().get(match["name"])) is None:
            return None
        quantity, quantity_power, unit_size = known
        power = _POWERS[match["power"]] * int(match["exponent"] or 1) * (-1 if index else 1)
        dimension[quantity] += quantity_power * power
        size *= unit_size**power
    return Unit(tuple(sorted((quantity, power) for quantity, power in dimension.items() if power)), size)


@cache
def _known_units() -> dict[str, tuple[str, int, Fraction]]:
    """Return quantity, power and size of each unit by its names."""
    units = {name: kind for kind, names in _OTHERS.items() for name in names.split()}
    for (quantity, power, size), (symbols, names) in _METRIC.items():
        for prefix, factor in _PREFIXES.items():
            written = [prefix + symbol for symbol in symbols.split()]
            written += [_PREFIX_NAMES[prefix] + name for name in names.split()]
            units.update(dict.fromkeys(written, (quantity, power, size * factor)))
    return units
