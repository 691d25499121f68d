"""The texts that HEAL puts in front of a model: one user turn each.

Chat templates are not applied here (engines do that); what is inside a model's
answer is not read here (steps, gates and verify do that). The student prompt is
the only one that training examples ever contain; the other three are hidden.
"""

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."

ANSWER_CUE = "\n\nThe final answer is \\boxed{"
"""What precedes a forced answer when its uncertainty U_k is measured (METHOD, PURE)."""


def prompt_templates() -> list[str]:
    """Return all templates with empty slots: what of this module is part of a run's identity."""
    return [
        INSTRUCTION,
        ANSWER_CUE,
        student_prompt(""),
        hint_prompt("", "", "", ""),
        hinted_prompt("", ""),
        guided_prompt("", ""),
    ]


def student_prompt(question: str) -> str:
    """Return the prompt used for rollouts, SFT and evaluation. Source: definition D2."""
    return f"{question}\n\n{INSTRUCTION}"


def hint_prompt(question: str, prefix: str, failed_step: str, answer: str) -> str:
    """Return the request for a hint that names the missed idea without the answer.

    Args:
        question: The problem text.
        prefix: The steps kept before the breakpoint; may be empty.
        failed_step: The step at the breakpoint.
        answer: The reference answer, which only the hint's writer sees.

    Source: definition D6, arm `generated`.
    """
    return (
        f"{question}\n\n"
        f"An attempt at this problem begins:\n{prefix.strip()}\n\n"
        f"Its next step goes wrong:\n{failed_step.strip()}\n\n"
        f"The correct final answer is {answer}.\n"
        "Write a hint of one to three sentences that names the idea or check which the attempt misses. "
        "Do not state the answer or any computed value."
    )


def hinted_prompt(question: str, hint: str) -> str:
    """Return the prompt under which a failed prefix is continued. Source: definition D6."""
    return f"{question}\n\nKeep in mind while solving, without mentioning it: {hint.strip()}\n\n{INSTRUCTION}"


def guided_prompt(question: str, answer: str) -> str:
    """Return the prompt for a fresh solution with the answer in sight (stage II samples)."""
    return (
        f"{question}\n\n"
        f"The correct final answer is {answer}. Derive it, without mentioning that it was given.\n\n"
        f"{INSTRUCTION}"
    )
