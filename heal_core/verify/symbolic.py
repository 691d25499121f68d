r"""Expressions, sets, equations and matrices: math-verify's reading of an answer, and its comparison.

May hang or eat memory, so it belongs in a worker process. What does not belong here: plain numbers,
units and words (`grade`), of which math-verify makes products of letters.
"""

from __future__ import annotations

import re
from typing import Any

from heal_core.verify.notation import TEXT
from heal_core.verify.numbers import MAGNITUDES, canonical, parse_number
from heal_core.verify.units import NOT_UNITS, split_unit

_CONNECTIVES = frozenset({"and", "or"})
_NO_VALUE = NOT_UNITS | MAGNITUDES.keys()


def parse_math(answer: str) -> list[Any]:
    """Return math-verify's reading of an answer that `unify` wrote, empty when it has none."""
    # Only the LaTeX reader, which has a grammar: the other one evaluates text as Python.
    from math_verify import LatexExtractionConfig, parse

    number = parse_number(answer)
    if number is None and _is_sentence(answer):
        return []
    parsed: list[Any] = parse(
        "\\boxed{" + (split_unit(answer)[0] if number is None else canonical(number)) + "}",
        [LatexExtractionConfig(boxed_match_priority=0)],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return [_completed(expression, _connectives(answer)) for expression in parsed]


def math_equal(gold: list[Any], answer: list[Any]) -> bool:
    """Return whether a reading of the answer equals one of the reference; an inequality equals its interval."""
    from math_verify import verify

    return bool(verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True))


def _is_sentence(text: str) -> bool:
    """Return whether words in the text doubt or change the value, which math-verify would not see."""
    parts = [set(re.findall(r"\w+", part.casefold())) for part in TEXT.findall(text)]
    return any(words & _NO_VALUE and not (len(words) == 1 and words <= _CONNECTIVES) for words in parts)


def _connectives(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", text) if word in _CONNECTIVES}


def _completed(expression: Any, connectives: set[str]) -> Any:
    """Return the expression with the letter i as the imaginary unit, and connected inequalities as one set.

    math-verify leaves i a variable, and reads "x < 1 or x > 2" and "x > 1 and x < 2" as sets of two relations.
    """
    from sympy import FiniteSet, I, Intersection, Union
    from sympy.core.relational import Eq, Relational

    symbols: set[Any] = getattr(expression, "free_symbols", set())
    parts = expression.args if isinstance(expression, FiniteSet) else ()
    are_inequalities = parts and all(isinstance(part, Relational) and not isinstance(part, Eq) for part in parts)
    try:
        if are_inequalities and len(symbols) == 1 and len(connectives) == 1:
            combine = Union if connectives == {"or"} else Intersection
            return combine(*(relation.as_set() for relation in parts))
        return expression.subs({symbol: I for symbol in symbols if symbol.name == "i"}) if symbols else expression
    except (ValueError, TypeError, NotImplementedError, AttributeError):  # an interval to i, say
        return expression
