import numpy as np
import pytest

from heal_core.seams import find_bad_seam, natural_seam
from heal_core.steps import StepsConfig

STEPS = StepsConfig(min_step_tokens=1)


def whole(num_steps: int) -> tuple[str, np.ndarray]:
    """Return a text of steps of one token each."""
    steps = [f"step {n}\n\n" for n in range(num_steps)]
    return "".join(steps), np.cumsum([0, *map(len, steps)])[:-1]


@pytest.mark.parametrize(("num_steps", "kept"), [(1, None), (2, 1), (6, 1), (12, 1), (13, 2), (18, 2), (19, 3)])
def test_a_whole_text_is_cut_before_step_max_2_ceil_k_by_6(num_steps: int, kept: int | None) -> None:
    text, starts = whole(num_steps)
    seam = natural_seam(text, starts, STEPS)
    assert seam == (None if kept is None else starts[kept])


def test_at_a_natural_seam_a_text_that_goes_on_is_not_refused() -> None:
    text, starts = whole(12)
    seam = natural_seam(text, starts, STEPS)
    assert find_bad_seam(text[:seam], text[seam:], [r"\bstart over\b"]) is None


def test_a_thought_that_was_opened_before_the_seam_may_be_closed_behind_it() -> None:
    assert find_bad_seam("<think>\nWe add.\n\n", "Then we double.</think>\n\nIt is 16.", []) is None
    assert find_bad_seam("<think>\nWe add.</think>\n\n", "Then we double.</think>", []) == "a second </think>"
    # the template may have opened it: an opening tag behind kept steps is the second one
    assert find_bad_seam("We add.\n\n", "<think>Then we double.</think>", []) == "a second <think>"
    assert find_bad_seam("", "<think>We add.</think> It is 8.", []) is None


def test_only_the_first_sentence_can_restart() -> None:
    anew = [r"\banew\b"]
    assert find_bad_seam("We add.\n\n", "We begin anew with 5.", anew) is not None
    assert find_bad_seam("We add.\n\n", "We double. We begin anew.", anew) is None
    assert find_bad_seam("We add.\n\n", "x" * 250 + " anew", anew) is None
