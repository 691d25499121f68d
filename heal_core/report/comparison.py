"""What a comparison of two runs says, as tables of words: for the terminal and for the page alike.

What does not belong here: what is compared (`store.compare`), and how a table looks (`flows.cli.compare`, `page`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from heal_core.arms import ARMS, arm_named
from heal_core.report.names import SHORT_BANDS

MAX_LISTED = 20
MAX_CELL_CHARS = 120
LEAD_CHARS = 20
"""What is shown of two long values before the place where they differ, at most."""

NONE = "-"
"""What stands for a number or value that a run does not have."""

RUN_NAMES = {
    "run_id": "run",
    "purpose": "purpose",
    "attempt": "attempt",
    "started": "started",
    "state": "state",
    "heal_version": "heal version",
    "git_revision": "git revision",
    "start_checkpoint_id": "students start from",
    "seed": "seed",
}
OFTEN_ABSENT = ("purpose", "attempt", "start_checkpoint_id")
"""What is only printed when a run has it."""

SPLIT_NAMES = {"train": "train", "held_out": "held out"}
YIELDS = (
    ("samples", "rollouts", "correct_share", "rollouts: correct, %"),
    ("samples", "rollouts", "truncated_share", "rollouts: cut at max_tokens, %"),
    ("samples", "guided", "correct_share", "guided samples: correct, %"),
    ("samples", "guided", "truncated_share", "guided samples: cut at max_tokens, %"),
    ("repairs", "problems", "num_problems", "extremely hard training problems"),
    ("repairs", "problems", "num_repaired", "those with a verified repair"),
    ("repairs", "problems", "verified_share", "repairs: verified, %"),
    ("samples", "repairs", "truncated_share", "repairs: cut at max_tokens, %"),
    ("repairs", "problems", "passed_gates_share", "verified repairs: passed the gates, %"),
    ("repairs", "problems", "kept_share", "repairs: kept, %"),
    ("pure", None, "pooled_threshold", "PURE: pooled threshold"),
    ("examples", "heal, stage III, rollout", "num_examples", "HEAL, stage III: rollouts"),
    ("examples", "heal, stage III, guided", "num_examples", "HEAL, stage III: guided samples"),
    ("examples", "heal, stage III, repair", "num_examples", "HEAL, stage III: repairs"),
    ("cost", "heal, all", "tokens_per_example", "tokens sampled per example: HEAL"),
    ("cost", "rejection_sampling, all", "tokens_per_example", "tokens sampled per example: B1"),
    ("cost", "equal_tokens, all", "tokens_per_example", "tokens sampled per example: B2"),
)
"""Topic, item (None: any) and metric of what is printed, and its name; --json has all."""


@dataclass(frozen=True)
class WordTable:
    """A table of words: its columns, of which the last `num_right` hold numbers, and its rows.

    Attributes:
        sections: Indices of rows that begin a new part.
        bold: Indices of rows that stand out.
        rest: How many rows there are beyond these.
    """

    title: str
    columns: tuple[str, ...]
    num_right: int
    rows: tuple[tuple[str, ...], ...]
    sections: frozenset[int] = frozenset()
    bold: frozenset[int] = frozenset()
    rest: int = 0


def comparison_tables(found: dict[str, Any]) -> Iterator[WordTable]:
    """Yield the tables of a comparison: what differs first, the scores last, where the eye ends up.

    A table without rows says in its title that there is no difference.

    Args:
        found: Of `compare_runs`.
    """
    yield runs_table(found["runs"])
    yield changes_table("settings", found["settings"])
    yield changes_table("models, libraries and prompts", found["recipes"])
    yield problems_table(found["problems"])
    yield funnel_table(found["funnel"])
    yield yields_table(found["yields"])
    yield spend_table(found["spend"])
    if not found["evaluation"]["why_empty"]:
        yield scores_table(found["evaluation"])


def runs_table(runs: dict[str, Any]) -> WordTable:
    rows = []
    for column, name in RUN_NAMES.items():
        a, b = ({**run, "state": _state(run)}[column] for run in (runs["a"], runs["b"]))
        if a or b or column not in OFTEN_ABSENT:
            rows.append((name, one_line(a), one_line(b)))
    return WordTable("", ("", "A", "B"), 0, tuple(rows))


def _state(run: dict[str, Any]) -> str:
    is_whole = run["state"] == "completed"
    return run["state"] if is_whole else f"{run['state']}, closed: {run['last_phase'] or 'nothing'}"


def changes_table(title: str, rows: Sequence[dict[str, Any]]) -> WordTable:
    """Return the settings, or the parts of recipes, whose values differ."""
    words = []
    for row in rows[:MAX_LISTED]:
        name = row["setting"] if "setting" in row else f"{row['item']} ({', '.join(row['phases'])})"
        words.append((one_line(name), *_differing(row["a"], row["b"])))
    rest = max(0, len(rows) - MAX_LISTED)
    return WordTable(title if rows else f"{title}: no difference", ("what", "A", "B"), 0, tuple(words), rest=rest)


def problems_table(problems: dict[str, Any]) -> WordTable:
    totals = {**problems, "num_moved_here": problems["num_moved"]}
    columns = ("num_a", "num_b", "num_shared", "num_only_a", "num_only_b", "num_moved_here")
    counted = (*((SPLIT_NAMES[split], row) for split, row in problems["by_split"].items()), ("all", totals))
    rows = tuple((name, *(str(counts[column]) for column in columns)) for name, counts in counted)
    return WordTable("problems", ("", "A", "B", "in both", "only in A", "only in B", "moved here"), 6, rows)


def problem_lines(problems: dict[str, Any]) -> Iterator[tuple[str, list[str], int]]:
    """Yield some of the problems that are not in both runs, or on another side: a title, lines, how many more."""
    for kind, title in (("only_a", "only in A"), ("only_b", "only in B"), ("moved", "moved to the other side")):
        lines = []
        for row in problems[kind]:
            side = " -> ".join(SPLIT_NAMES[split] for split in (row["a"], row["b"]) if split)
            lines.append(f"  {row['problem_id']}  {side:8}  {one_line(row['question'])}")
        if lines:
            yield title, lines, problems[f"num_{kind}"] - len(lines)


def funnel_table(rows: Sequence[dict[str, Any]]) -> WordTable:
    words: list[tuple[str, ...]] = []
    sections, last = set(), None
    for row in rows:
        of = [row["num_in_phase_a"], row["num_in_phase_b"]]
        if row["phase"] != last:
            sections.add(len(words))
            words.append((row["phase"], "all", "", *_counts(*of), "", ""))
        counts = _counts(row["a"], row["b"])
        shares = (_share(part, whole) for part, whole in zip((row["a"], row["b"]), of, strict=True))
        words.append(("", row["outcome"] or "not graded", row["reason"] or "", *counts, *shares))
        last = row["phase"]
    columns = ("phase", "outcome", "reason", "A", "B", "B - A", "A %", "B %")
    return WordTable("funnel: what became of everything", columns, 5, tuple(words), frozenset(sections))


def yields_table(rows: Sequence[dict[str, Any]]) -> WordTable:
    words: list[tuple[str, ...]] = []
    for topic, item, metric, name in YIELDS:
        for row in rows:
            is_meant = row["topic"] == topic and row["metric"] == metric and item in (None, row["item"])
            if not is_meant or (metric == "truncated_share" and not (row["a"] or row["b"])):
                continue
            if metric.endswith("_share"):
                words.append((name, _share(row["a"], 1), _share(row["b"], 1), points(row["difference"])))
            elif metric == "pooled_threshold":
                cells = (NONE if value is None else f"{value:.3g}" for value in (row["a"], row["b"]))
                words.append((f"{name} of {row['item']}", *cells, _signed(row["difference"], "+.3g")))
            else:
                words.append((name, *_counts(row["a"], row["b"])))
    return WordTable("yields", ("what", "A", "B", "B - A"), 3, tuple(words))


def spend_table(rows: Sequence[dict[str, Any]]) -> WordTable:
    columns = [f"{name}\n{side}" for name in ("tokens", "sampled", "wall s") for side in "AB"]
    names = [f"{name}_{side}" for name in ("num_tokens", "num_new_tokens", "wall_seconds") for side in "ab"]
    words = [(row["phase"], *(NONE if row[name] is None else f"{row[name]:.0f}" for name in names)) for row in rows]
    known = ([row[name] for row in rows if row[name] is not None] for name in names)
    words.append(("all", *(f"{sum(values):.0f}" if values else NONE for values in known)))
    title = "spend: tokens that a phase rests on, those that the run itself sampled, time"
    return WordTable(title, ("phase", *columns), 6, tuple(words), frozenset({len(words) - 1}))


def scores_table(evaluation: dict[str, Any]) -> WordTable:
    k_a, k_b = evaluation["k_a"], evaluation["k_b"]
    score = f"avg@{k_a}" if k_a == k_b else f"A avg@{k_a}, B avg@{k_b},"
    words: list[tuple[str, ...]] = []
    bold, last = set(), None
    for row in scores_in_order(evaluation):
        if row["arm"] == "heal":
            bold.add(len(words))
        words.append(
            (
                arm_named(row["arm"]).label if row["arm"] != last else "",
                SHORT_BANDS.get(row["band"], row["band"]),
                str(row["num_problems"]),
                f"{100 * row['a']:.1f}",
                f"{100 * row['b']:.1f}",
                points(row["difference"]),
                interval_words(row),
            )
        )
        last = row["arm"]
    title = f"scores on the held-out problems of both: {score} in %"
    columns = ("arm", "band", "problems", "A", "B", "B - A", "95 % interval")
    return WordTable(title, columns, 5, tuple(words), bold=frozenset(bold))


def scores_in_order(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the scores by arm as tables have them."""
    order = [*ARMS, *(row["arm"] for row in evaluation["scores"])]
    return sorted(evaluation["scores"], key=lambda row: order.index(row["arm"]))


def score_notes(evaluation: dict[str, Any], num_held_out: int) -> list[str]:
    """Return what to keep in mind of the scores.

    Args:
        num_held_out: Problems that are held out in both runs.
    """
    notes = []
    num_unanswered = num_held_out - evaluation["num_problems"] - evaluation["num_ungradable"]
    if num_unanswered > 0:
        notes.append(f"{num_unanswered} more held-out problems of both lack answers in one of them.")
    if evaluation["num_changed_band"]:
        listed = ", ".join(
            f"{row['problem_id'][:12]} {SHORT_BANDS.get(row['a'], row['a'])} -> {SHORT_BANDS.get(row['b'], row['b'])}"
            for row in evaluation["changed_band"]
        )
        rest = evaluation["num_changed_band"] - len(evaluation["changed_band"])
        notes.append(
            f"Bands are those of B's teacher; {evaluation['num_changed_band']} of {evaluation['num_problems']} "
            f"problems had another in A: {listed}" + (f", ... and {rest} more" if rest else "")
        )
    if evaluation["num_ungradable"]:
        notes.append(f"{evaluation['num_ungradable']} more left out: their reference answer cannot be parsed.")
    for side in "ab":
        if names := [arm_named(arm).label for arm in evaluation[f"only_{side}"]]:
            notes.append(f"only in {side.upper()}: {', '.join(names)}")
    if any(interval_words(row).startswith("[") for row in evaluation["scores"]):
        notes.append(
            "Intervals are a paired bootstrap over problems. They leave out that another seed would train another "
            "student; and of 20 of them, about one excludes 0 by chance."
        )
    if any(interval_words(row) == "no spread" for row in evaluation["scores"]):
        notes.append("no spread: the difference is the same on every problem, which says nothing of its uncertainty.")
    return notes


def interval_words(row: dict[str, Any]) -> str:
    """Return the interval in points, or why there is none that a reader should trust."""
    if row["num_same_answers"] == row["num_problems"] and row["difference"] == 0:
        return "same answers"
    if row["interval"] is None:
        return "one problem"
    low, high = row["interval"]
    return "no spread" if low == high else f"[{points(low)}, {points(high)}]"


def _counts(a: float | None, b: float | None) -> list[str]:
    cells = [NONE if value is None else f"{value:.0f}" for value in (a, b)]
    return [*cells, _signed(None if a is None or b is None else b - a, "+.0f")]


def _share(part: float | None, whole: float | None) -> str:
    return NONE if part is None or not whole else f"{100 * part / whole:.1f}"


def points(difference: float | None) -> str:
    return _signed(None if difference is None else 100 * difference, "+.1f")


def _signed(value: float | None, form: str) -> str:
    """Return a difference with its sign; one that rounds to nothing is 0."""
    text = NONE if value is None else format(value, form)
    return text if value is None or re.search("[1-9]", text) else "0"


def _differing(a: str | None, b: str | None) -> list[str]:
    """Return two values, each cut to what a cell holds; long ones begin shortly before they differ."""
    in_common = itertools.takewhile(lambda chars: chars[0] == chars[1], zip(a or "", b or "", strict=False))
    start = sum(1 for _ in in_common) - LEAD_CHARS
    if start <= LEAD_CHARS:
        return [one_line(a), one_line(b)]
    return [NONE if value is None else f"... {one_line(value[start:])}" for value in (a, b)]


def one_line(value: object, max_chars: int = MAX_CELL_CHARS) -> str:
    """Return a value on one line, without what could steer the terminal; of a digest, the beginning."""
    if value is None:
        return NONE
    line = " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())
    if re.fullmatch("[0-9a-f]{32,}", line):
        return line[:12]
    return line if len(line) <= max_chars else f"{line[:max_chars]} ..."
