"""The texts that HEAL puts in front of a model: one user turn each.

Chat templates are not applied here (engines do that); what is inside a model's
answer is not read here (steps, gates and verify do that). The student prompt is
the only one that training examples ever contain; the others are hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."

ANSWER_CUE = "\n\nThe final answer is \\boxed{"
"""What precedes a forced answer when its uncertainty U_k is measured (METHOD, PURE)."""


@dataclass(frozen=True)
class Wording:
    """What the prompts say differently by what a problem asks for.

    Attributes:
        instruction: How the answer is to be given.
        reveal: Tells the reference, as `{}`, to who writes a hint or a solution with the answer in sight.
        withhold: What a hint must not state.
        cue: What precedes a forced answer when its uncertainty U_k is measured.
        closing: What ends it.
    """

    instruction: str = INSTRUCTION
    reveal: str = "The correct final answer is {}."
    withhold: str = "Do not state the answer or any computed value."
    cue: str = ANSWER_CUE
    closing: str = "}"


BOXED = Wording()
CHOICE = Wording(
    instruction="Please reason step by step, and put the letter of the right option within \\boxed{}.",
    reveal="The right option is {}.",
    withhold="Do not name an option, and state no computed value.",
)
PROGRAM = Wording(
    instruction="Please reason step by step, and end with the whole program in one ```python code block.",
    reveal="A correct program is:\n```python\n{}\n```\nThat is one way to solve it.",
    withhold="Do not write any line of the program.",
    cue="\n\n```python\n",
    closing="\n```",
)
OUTPUTS = Wording(
    instruction=PROGRAM.instruction,
    reveal="Its tests expect these outputs:\n```\n{}\n```\nThey are what a right program gives.",
    withhold="Do not write any line of a program.",
    cue="\n\nThe expected outputs are:\n```\n",
    closing="\n```",
)


def prompt_templates() -> list[str]:
    """Return all templates with empty slots: what of this module is part of every run's identity."""
    return [
        template
        for wording in (BOXED, CHOICE, PROGRAM, OUTPUTS)
        for template in (
            wording.cue + wording.closing,
            student_prompt("", wording),
            hint_prompt("", "", "", "", wording),
            hinted_prompt("", "", wording),
            guided_prompt("", "", wording),
        )
    ]


def student_prompt(question: str, wording: Wording = BOXED) -> str:
    """Return the prompt used for rollouts, SFT and evaluation. Source: definition D2."""
    return f"{question}\n\n{wording.instruction}"


def hint_prompt(question: str, prefix: str, failed_step: str, answer: str, wording: Wording = BOXED) -> str:
    """Return the request for a hint that names the missed idea without the answer.

    Args:
        question: The problem text.
        prefix: The steps kept before the breakpoint; may be empty.
        failed_step: The step at the breakpoint.
        answer: The reference, which only the hint's writer sees.

    Source: definition D6, arm `generated`.
    """
    return (
        f"{question}\n\n"
        f"An attempt at this problem begins:\n{prefix.strip()}\n\n"
        f"Its next step goes wrong:\n{failed_step.strip()}\n\n"
        f"{wording.reveal.replace('{}', answer)}\n"
        "Write a hint of one to three sentences that names the idea or check which the attempt misses. "
        f"{wording.withhold}"
    )


def hinted_prompt(question: str, hint: str, wording: Wording = BOXED) -> str:
    """Return the prompt under which a failed prefix is continued. Source: definition D6."""
    return f"{question}\n\nKeep in mind while solving, without mentioning it: {hint.strip()}\n\n{wording.instruction}"


def rationale_prompt(question: str, answer: str, wording: Wording = BOXED) -> str:
    """Return the prompt under which an answer is justified instead of found (the validity test of PURE)."""
    return (
        f"{question}\n\n"
        f"{wording.reveal.replace('{}', answer)} Justify it at once, without mentioning that it was given.\n\n"
        f"{wording.instruction}"
    )


def guided_prompt(question: str, answer: str, wording: Wording = BOXED) -> str:
    """Return the prompt for a fresh solution with the answer in sight (stage II samples)."""
    return (
        f"{question}\n\n"
        f"{wording.reveal.replace('{}', answer)} Derive it, without mentioning that it was given.\n\n"
        f"{wording.instruction}"
    )
