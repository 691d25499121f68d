import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.engines.base import SamplingConfig
from heal_core.hints import HintConfig
from heal_core.prompts import CHOICE, PROGRAM, guided_prompt, hinted_prompt
from heal_core.recipes import TEMPLATES, repair_template
from heal_core.records import Kind, Step
from heal_core.reference import Reference, make_reference
from heal_core.repair import (
    BrokenPath,
    Hint,
    WrongPath,
    choose_paths,
    continuation_limit,
    kept_prefix,
    repair_slot,
    tell_answers,
)
from heal_core.steps import StepsConfig, split_steps


def path(sample_index: int, truncated: bool = False) -> WrongPath:
    return WrongPath(f"t{sample_index}", "p", sample_index, truncated)


def test_finished_paths_come_first_by_sample_index() -> None:
    paths = [path(4), path(0, truncated=True), path(2), path(1, truncated=True), path(3)]
    assert [p.sample_index for p in choose_paths(paths, 10)] == [2, 3, 4, 0, 1]
    # enough finished ones: no truncated one is taken
    assert [p.sample_index for p in choose_paths(paths, 3)] == [2, 3, 4]
    assert [p.sample_index for p in choose_paths(paths, 4)] == [2, 3, 4, 0]
    assert choose_paths([], 3) == []


indices = st.dictionaries(st.integers(0, 30), st.booleans(), max_size=20)


@given(indices, st.integers(1, 10))
def test_the_choice_does_not_depend_on_the_order(truncated: dict[int, bool], max_paths: int) -> None:
    paths = [path(i, cut) for i, cut in truncated.items()]
    chosen = choose_paths(paths, max_paths)
    assert chosen == choose_paths(paths[::-1], max_paths)
    num_finished = sum(not cut for cut in truncated.values())
    assert sum(not p.truncated for p in chosen) == min(max_paths, num_finished)


def test_the_steps_before_the_breakpoint_are_kept() -> None:
    steps = [Step(0, 5, 0, 2), Step(5, 9, 2, 3), Step(9, 20, 3, 8)]
    # b is the third step: "back up one step" keeps the first two, 9 characters and 3 tokens
    assert kept_prefix(steps, 2) == (9, 3)
    assert kept_prefix(steps, 1) == (5, 2)


def test_the_kept_prefix_ends_where_a_step_ends() -> None:
    text = "a b\n\nc d\n\ne f"
    starts = np.array([0, 2, 5, 7, 10, 12])
    _, steps = split_steps(text, starts, StepsConfig(min_step_tokens=1))
    num_chars, num_tokens = kept_prefix(steps, 2)
    assert (text[:num_chars], starts[:num_tokens].tolist()) == ("a b\n\nc d\n\n", [0, 2, 5, 7])


@pytest.mark.parametrize(("num_prefix_tokens", "limit"), [(0, 100), (30, 70), (99, 1), (100, 1), (150, 1)])
def test_prefix_and_continuation_share_the_limit(num_prefix_tokens: int, limit: int) -> None:
    # a prefix that fills the limit alone (it was lowered) still gets one token
    assert continuation_limit(SamplingConfig(max_tokens=100), num_prefix_tokens) == limit


def broken(reference: Reference) -> BrokenPath:
    return BrokenPath("t", "p", "How many?", reference, "Six rows.\n\n", (1, 2, 3), "Of five.")


SAMPLING = SamplingConfig(max_tokens=100)


def test_under_a_hint_the_answer_is_not_in_the_prompt_and_with_the_answer_no_hint_is() -> None:
    path = broken(Reference("4217"))
    hinted = repair_slot(path, Hint("h", "Mind the rows."), "recipe", 0, SAMPLING)
    told = repair_slot(path, tell_answers([path])["t"], "recipe", 0, SAMPLING)
    assert hinted.prompt == hinted_prompt("How many?", "Mind the rows.")
    assert "4217" not in hinted.prompt and hinted.hint_id == "h"
    assert told.prompt == guided_prompt("How many?", "4217")
    assert "4217" in told.prompt and told.hint_id is None
    # all else is alike: the kept tokens, the parent, the cut, the room that is left
    for slot in (hinted, told):
        assert (slot.kind, slot.parent_id, slot.cut_tokens, slot.limit_tokens) == (Kind.REPAIR, "t", 3, 97)
        assert (slot.prefix, slot.prefix_token_ids) == ("Six rows.\n\n", (1, 2, 3))
    assert hinted.slot_id != told.slot_id


def test_the_answer_is_told_as_its_type_of_problem_tells_it() -> None:
    choice = broken(make_reference("B", "choice", '{"options": {"A": "six", "B": "seven"}}'))
    code = broken(make_reference("print(7)", "code", ""))
    for path, told, wording in ((choice, "B (seven)", CHOICE), (code, "print(7)", PROGRAM)):
        slot = repair_slot(path, tell_answers([path])["t"], "recipe", 0, SAMPLING)
        assert slot.prompt == guided_prompt("How many?", told, wording)


def test_the_arms_have_recipes_of_their_own() -> None:
    assert repair_template(HintConfig()) == TEMPLATES[Kind.REPAIR]
    assert repair_template(HintConfig(arm="answer")) == TEMPLATES[Kind.GUIDED]
