"""Entries survive JSON exactly: what is a tuple stays one."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.gym.entry import NotStorableError, pack, unpack

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.fractions()
)
KEYS = st.one_of(st.text(), st.sampled_from(["$tuple", "$dict", "$fraction", "$"]), st.integers(), st.tuples(st.text()))
VALUES = st.recursive(
    SCALARS,
    lambda parts: st.one_of(st.lists(parts), st.lists(parts).map(tuple), st.dictionaries(KEYS, parts, max_size=3)),
    max_leaves=10,
)


def typed(value: Any) -> Any:
    """The value with its types, since (1,) == (True,) and 1 == 1.0."""
    if isinstance(value, dict):
        return {"dict": [(typed(key), typed(part)) for key, part in value.items()]}
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(typed, value)]
    return [type(value).__name__, repr(value)]


@given(VALUES)
def test_what_was_packed_comes_back_with_its_types(value: Any) -> None:
    assert typed(unpack(json.loads(json.dumps(pack(value))))) == typed(value)


def test_numbers_and_words_of_numpy_become_plain() -> None:
    packed = pack({"score": np.float64(0.1), "name": np.str_("Ann")})
    assert typed(packed) == typed({"score": 0.1, "name": "Ann"})


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), float("inf"), object(), [{"a": 1j}]])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(NotStorableError):
        pack(value)


def test_a_fraction_keeps_its_value() -> None:
    assert unpack(pack({"share": Fraction(1, 3)})) == {"share": Fraction(1, 3)}
