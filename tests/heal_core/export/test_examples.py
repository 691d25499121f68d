from collections.abc import Callable

from heal_core.export.examples import (
    TracedExample,
    as_messages,
    as_prompt_completion,
    as_sharegpt,
    prompt_of,
    traced_example,
)
from heal_core.prompts import CHOICE, INSTRUCTION
from heal_core.specs import ChoiceSpec, write_spec

TRACE = {
    "trajectory_id": "t0", "problem_id": "p0", "arm": "heal", "stage": "III", "kind": "rollout", "band": "easy",
}  # fmt: skip


def test_layouts_hold_the_same_two_turns_and_where_they_are_from(make_example: Callable[..., TracedExample]) -> None:
    user, assistant = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
    example = make_example("y", "x")
    assert as_messages(example) == {"messages": [user, assistant], **TRACE}
    assert as_prompt_completion(example) == {"prompt": [user], "completion": [assistant], **TRACE}
    turns = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]
    assert as_sharegpt(example) == {"conversations": turns, **TRACE}


def test_the_user_turn_is_worded_by_the_type_of_problem() -> None:
    row = {"question": "1 + 1?", "answer": "2", "problem_type": "math", "spec": None}
    assert prompt_of(row) == f"1 + 1?\n\n{INSTRUCTION}"
    spec = write_spec(ChoiceSpec(options={"A": "1", "B": "2"}))
    choice = {"question": "1 + 1?", "answer": "B", "problem_type": "choice", "spec": spec}
    assert prompt_of(choice) == f"1 + 1?\n\n{CHOICE.instruction}"
    old = {name: value for name, value in row.items() if name != "spec"}  # stored before there were any
    example = traced_example(
        {**old, "trajectory_id": "t", "problem_id": "p", "response": "r", "kind": "repair", "band": None}, "heal", "I"
    )
    assert (example.prompt, example.response, example.kind, example.band) == (prompt_of(row), "r", "repair", None)
