"""What the report calls things: bands, outcomes, phases and gates in words, numbers as people read them.

What does not belong here: names of arms (`heal_core.arms`).
"""

from __future__ import annotations

import re
from typing import Any

BANDS = {"easy": "easy", "hard": "hard", "extremely_hard": "extremely hard", "ungraded": "ungraded"}
SHORT_BANDS = {"easy": "easy", "hard": "hard", "extremely_hard": "extr. hard"}
BANDS_OF_SCORES = {"all": "all"} | {band: BANDS[band] for band in ("easy", "hard", "extremely_hard")}
KINDS = {"rollout": "teacher's rollouts", "guided": "guided samples", "repair": "repairs"}
PHASES = {
    "rows": "rows of the sources",
    "rollouts": "teacher's rollouts",
    "problems": "problems by band",
    "paths": "wrong paths to repair",
    "repairs": "repairs",
    "guided": "guided samples",
    "evaluation": "answers of students",
}
REASONS = {
    "near_duplicate": "too like another kept text of its problem",
    "over_cap": "more than the cap of its problem",
    "same_path": "a better repair of the same path was kept",
    "shortcut": "PURE's score is among the worst, as if it leant on the answer",
    "answer_not_found": "no step states the answer",
    "empty_span": "the answer is stated at once",
    "answer_in_problem": "the problem itself gives the answer away",
    "train": "for training",
    "held_out": "for evaluation only",
    "quota": "enough repairs of its problem were verified before",
    "imported": "written elsewhere",
}
GATES = {
    "G1": "hint states the answer",
    "G2": "speaks of the hint or of a given answer",
    "G3": "answer asserted at once",
    "G4": "most of it comes after the answer",
    "G5": "much shorter than natural solutions",
    "G6": "hesitations (counted only)",
    "G7": "foreign script",
    "G8": "bad seam with the kept steps",
    "G9": "loop",
    "G10": "not one boxed answer at the end",
}
MEASURES = {
    "ratio": "PURE ratio",
    "jump": "PURE jump",
    "reliance": "PURE reliance",
    "length": "length",
    "mean_perplexity": "mean perplexity",
    "final_uncertainty": "final uncertainty",
    "num_assertions": "leak count",
}


def explain_reason(reason: str | None) -> str:
    """Return a stored reason in words; of a gate what it looks for; one that is not known as it is."""
    if not reason:
        return ""
    return REASONS.get(reason) or (f"gate {reason}: {GATES[reason]}" if reason in GATES else reason)


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share in [0, 1] as a percentage; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float | None) -> str:
    """Return a difference of shares as signed percentage points."""
    return "–" if difference is None else f"{100 * difference:+.1f}".replace("-", "−")


def seconds(value: float | None) -> str:
    """Return a duration as people say it."""
    if value is None:
        return "–"
    if value < 120:
        return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def count(value: Any) -> str:
    """Return a whole number with thousands apart; a dash where there is none."""
    return "–" if value is None else f"{value:,}"


_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def visible(value: Any) -> Any:
    """Return a text in which signs that steer how text is laid out are seen, not obeyed; other values as they are.

    These are control signs, marks of the direction of writing, and halves of surrogate pairs.
    """
    return _STEERING.sub(lambda match: f"\\u{{{ord(match[0]):x}}}", value) if isinstance(value, str) else value
