from heal_core.prompts import ANSWER_CUE, INSTRUCTION, guided_prompt, hint_prompt, hinted_prompt, student_prompt


def test_the_student_prompt_is_the_problem_and_the_instruction() -> None:
    assert student_prompt("What is 6 * 7?") == (
        "What is 6 * 7?\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    )


def test_braces_and_percent_signs_of_a_problem_stay_as_they_are() -> None:
    question = "Let f(x) = {x} and 5 %d of $\\frac{1}{2}$."
    assert student_prompt(question).startswith(question + "\n\n")
    assert question in hint_prompt(question, "{a}", "{b}", "{c}")


def test_the_writer_of_a_hint_sees_the_attempt_and_the_answer() -> None:
    prompt = hint_prompt("Q?", "1. Good.\n\n", "2. Bad.\n\n", "42")
    assert prompt.index("Q?") < prompt.index("1. Good.") < prompt.index("2. Bad.") < prompt.index("42")
    assert INSTRUCTION not in prompt  # a hint is no solution


def test_who_continues_sees_the_hint_and_solves_the_same_task() -> None:
    prompt = hinted_prompt("Q?", " Count twice. \n")
    assert prompt.startswith("Q?\n\n")
    assert prompt.endswith(f": Count twice.\n\n{INSTRUCTION}")


def test_the_hinted_prompt_without_its_hint_is_the_student_prompt() -> None:
    before, hint, after = hinted_prompt("Q?", "H").partition("\n\nKeep in mind while solving, without mentioning it: H")
    assert hint
    assert before + after == student_prompt("Q?")


def test_a_guided_solution_is_asked_for_with_the_answer_and_the_same_instruction() -> None:
    prompt = guided_prompt("Q?", "42")
    assert "42" in prompt
    assert prompt.endswith(INSTRUCTION)


def test_the_cue_opens_the_box_that_a_surface_form_closes() -> None:
    assert ANSWER_CUE.endswith("\\boxed{")
    assert ANSWER_CUE.count("{") == 1 + ANSWER_CUE.count("}")
