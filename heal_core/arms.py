"""The arms of a comparison: whose answers to the held-out problems are set side by side, and what they are called.

What does not belong here: which of them a run trains (`controls`), and how each comes to its examples (the flows).
Source: METHOD section 6 (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TEACHER, BASE, HEAL = "teacher", "base", "heal"
LATEST, GIVEN = "latest", "given"
REJECTION_SAMPLING, EQUAL_TOKENS = "rejection_sampling", "equal_tokens"
WITHOUT_REPAIRS, UNHINTED, RANDOM_BREAKPOINT = "without_repairs", "unhinted", "random_breakpoint"
RANDOM_DROP, SHUFFLED, MISMATCHED_HINT = "random_drop", "shuffled", "mismatched_hint"
ANSWER_TOLD = "answer_told"


@dataclass(frozen=True)
class Arm:
    """How people name an arm.

    Attributes:
        label: As a row of a table.
        short: Within a line, as in "HEAL - B2".
        isolates: What the difference of HEAL to it is about; empty where it is no control.
        examples: What its student learns from; empty where HEAL trained none.
    """

    label: str
    short: str
    isolates: str = ""
    examples: str = ""


ARMS: Mapping[str, Arm] = {
    TEACHER: Arm("teacher", "teacher"),
    BASE: Arm("student, untrained", "untrained", "training at all"),
    REJECTION_SAMPLING: Arm(
        "B1 rejection sampling",
        "B1",
        "HEAL against the standard",
        "verified solutions of a teacher (rejection sampling, a baseline of HEAL's)",
    ),
    EQUAL_TOKENS: Arm(
        "B2 equal tokens",
        "B2",
        "whether the ceiling was under-sampling",
        "verified solutions of a teacher that sampled as many tokens as HEAL (a baseline of HEAL's)",
    ),
    WITHOUT_REPAIRS: Arm(
        "B3 without repairs",
        "B3",
        "GEAR",
        "verified solutions and guided samples of a teacher (HEAL without its repairs)",
    ),
    UNHINTED: Arm(
        "B4 no hint",
        "B4",
        "the hint against resampling",
        "HEAL's examples, but with repairs that were continued without a hint",
    ),
    RANDOM_BREAKPOINT: Arm(
        "B5 random break",
        "B5",
        "whether entropy finds the place",
        "HEAL's examples, but with repairs of wrong attempts that were cut at a random step",
    ),
    RANDOM_DROP: Arm(
        "B6 random drop",
        "B6",
        "PURE",
        "HEAL's examples, but with repairs dropped at random, as many as PURE had dropped",
    ),
    SHUFFLED: Arm(
        "B7 shuffled",
        "B7",
        "the curriculum",
        "HEAL's examples, as often, in random order instead of three stages",
    ),
    MISMATCHED_HINT: Arm(
        "B8 other's hint",
        "B8",
        "whether the hint's content matters",
        "HEAL's examples, but with repairs that were continued under another problem's hint",
    ),
    ANSWER_TOLD: Arm(
        "answer told",
        "answer",
        "a hint against the answer itself",
        "HEAL's examples, but with repairs that were continued with the answer in sight",
    ),
    HEAL: Arm(
        "HEAL",
        "HEAL",
        examples="verified solutions, guided samples and repaired attempts of a teacher (HEAL, arXiv:2603.10359)",
    ),
    LATEST: Arm("promoted student", "promoted"),
    GIVEN: Arm("given student", "given"),
}
"""All arms, in the order of a table."""

CONTROLS = tuple(name for name in ARMS if name not in (TEACHER, BASE, HEAL, LATEST, GIVEN))
"""B1 to B8, and the other arm of hints."""

CONTINUED = (UNHINTED, RANDOM_BREAKPOINT, MISMATCHED_HINT, ANSWER_TOLD)
"""Controls that continue HEAL's wrong paths in another way, with repairs of their own."""

NUM_SHARED_STAGES: Mapping[str, int] = {REJECTION_SAMPLING: 1} | {
    arm: 2 for arm in CONTROLS if arm not in (REJECTION_SAMPLING, EQUAL_TOKENS, SHUFFLED)
}
"""How many of a control's first stages are HEAL's own, and trained once; of others none."""


def arm_named(name: str) -> Arm:
    """Return how people name an arm; one that another version of HEAL stored goes by its own name."""
    return ARMS.get(name, Arm(name, name, examples=f"the examples of the arm {name} of HEAL"))
