import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.keys import STAGE_VERSIONS, content_key, recipe_key, row_key, slot_key
from heal_core.records import Kind

MODEL = {"files": "abc", "dtype": "float32"}
SAMPLING = {"temperature": 0.6, "top_p": 0.95}


def test_a_key_is_half_of_the_sha256_of_compact_json() -> None:
    # if this changes, every row that anyone has stored is orphaned
    assert (
        content_key("a", 1, {"c": 2, "b": [None, "ö"]})
        == (hashlib.sha256('["a",1,{"b":[null,"ö"],"c":2}]'.encode()).hexdigest()[:32])
    )
    assert content_key("a", 1) == "135f17a475a61afdeeaf3759ad2e45ad"


def test_the_order_of_settings_is_not_part_of_a_recipe() -> None:
    other = dict(reversed(SAMPLING.items()))
    assert recipe_key("rollout", MODEL, SAMPLING, 0, "t") == recipe_key("rollout", MODEL, other, 0, "t")


@pytest.mark.parametrize(
    "changed",
    [
        ("guided", MODEL, SAMPLING, 0, "t"),
        ("rollout", MODEL | {"files": "abd"}, SAMPLING, 0, "t"),
        ("rollout", MODEL, SAMPLING | {"top_p": 1.0}, 0, "t"),
        ("rollout", MODEL, SAMPLING, 1, "t"),
        ("rollout", MODEL, SAMPLING, 0, "t "),
    ],
)
def test_whatever_shapes_a_text_changes_the_recipe(changed: tuple) -> None:
    assert recipe_key(*changed) != recipe_key("rollout", MODEL, SAMPLING, 0, "t")


def test_a_raised_stage_version_changes_only_its_own_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {kind: recipe_key(kind, MODEL, SAMPLING, 0, "t") for kind in ("rollout", "repair")}
    monkeypatch.setitem(STAGE_VERSIONS, "repair", STAGE_VERSIONS["repair"] + 1)
    assert recipe_key("rollout", MODEL, SAMPLING, 0, "t") == before["rollout"]
    assert recipe_key("repair", MODEL, SAMPLING, 0, "t") != before["repair"]


def test_every_kind_has_a_version_and_is_keyed_by_its_name() -> None:
    for kind in Kind:
        assert recipe_key(kind, MODEL, SAMPLING, 0, "t") == recipe_key(str(kind), MODEL, SAMPLING, 0, "t")


slots = st.tuples(
    st.sampled_from(["rollout", "repair"]),
    st.lists(st.text(max_size=3), max_size=3),
    st.text(max_size=3),
    st.integers(0, 30),
)


@given(slots, slots)
def test_slots_are_equal_only_when_all_parts_are(one: tuple, other: tuple) -> None:
    assert (slot_key(*one) == slot_key(*other)) == (one == other)


@given(st.text(max_size=5), st.integers(1, 9999), st.integers(1, 9999))
def test_each_limit_makes_another_row_of_a_slot(slot_id: str, one: int, other: int) -> None:
    assert (row_key(slot_id, one) == row_key(slot_id, other)) == (one == other)
