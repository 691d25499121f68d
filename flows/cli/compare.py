"""`heal compare`: what changed between two runs, read also while a run writes. Loads neither torch nor Prefect."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.look import WorkspaceOption
from flows.cli.scores import BAND_NAMES
from heal_core.arms import ARMS, arm_named

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


def compare(
    run_a: Annotated[
        str, typer.Argument(metavar="RUN_A", help="A run: the beginning of its id, `last` or `previous`.")
    ] = "previous",
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run to compare with it, likewise.")] = "last",
    workspace: WorkspaceOption = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what changed between two runs: settings, problems, funnel, yields, and the scores with intervals."""
    from heal_core.store.compare import compare_runs, find_compared_run
    from heal_core.store.inspect import open_store

    with open_store(workspace) as store:
        found = compare_runs(store, find_compared_run(store, run_a), find_compared_run(store, run_b))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_comparison(Console(highlight=False), found)


def print_comparison(console: Console, found: dict[str, Any]) -> None:
    """Print a comparison: what differs first, the scores last, where the eye ends up."""
    runs, problems = found["runs"], found["problems"]
    console.print(_runs(runs))
    if runs["a"]["run_id"] == runs["b"]["run_id"]:
        console.print("A and B are the same run.\n")
    _print_changes(console, "settings", found["settings"])
    _print_changes(console, "models, libraries and prompts", found["recipes"])
    _print_problems(console, problems)
    _print_titled(console, "funnel: what became of everything", _funnel(found["funnel"]))
    _print_titled(console, "yields", _yields(found["yields"]))
    title = "spend: tokens that a phase rests on, those that the run itself sampled, time"
    _print_titled(console, title, _spend(found["spend"]))
    _print_evaluation(console, found["evaluation"], problems["by_split"]["held_out"]["num_shared"])


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in left:
        table.add_column(column, overflow="fold")
    for column in right:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _print_titled(console: Console, title: str, table: Table) -> None:
    # apart from its table, which may be narrower
    console.print(f"\n{title}", style="italic")
    console.print(table)


def _runs(runs: dict[str, Any]) -> Table:
    table = _table(["", "A", "B"], [])
    for column, name in RUN_NAMES.items():
        a, b = ({**run, "state": _state(run)}[column] for run in (runs["a"], runs["b"]))
        if a or b or column not in OFTEN_ABSENT:
            table.add_row(name, Text(_text(a)), Text(_text(b)))
    return table


def _state(run: dict[str, Any]) -> str:
    is_whole = run["state"] == "completed"
    return run["state"] if is_whole else f"{run['state']}, closed: {run['last_phase'] or 'nothing'}"


def _print_changes(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print the settings, or the parts of recipes, whose values differ."""
    if not rows:
        console.print(f"{title}: no difference")
        return
    table = _table(["what", "A", "B"], [])
    for row in rows[:MAX_LISTED]:
        name = row["setting"] if "setting" in row else f"{row['item']} ({', '.join(row['phases'])})"
        table.add_row(Text(name), *map(Text, _differing(row["a"], row["b"])))
    _print_titled(console, title, table)
    _print_rest(console, len(rows) - MAX_LISTED)


def _print_problems(console: Console, problems: dict[str, Any]) -> None:
    table = _table([""], ["A", "B", "in both", "only in A", "only in B", "moved here"])
    totals = {**problems, "num_moved_here": problems["num_moved"]}
    for name, counts in (*((SPLIT_NAMES[split], row) for split, row in problems["by_split"].items()), ("all", totals)):
        columns = ("num_a", "num_b", "num_shared", "num_only_a", "num_only_b", "num_moved_here")
        table.add_row(name, *(str(counts[column]) for column in columns))
    _print_titled(console, "problems", table)
    for kind, title in (("only_a", "only in A"), ("only_b", "only in B"), ("moved", "moved to the other side")):
        for number, row in enumerate(problems[kind]):
            if not number:
                console.print(f"{title}:")
            side = " -> ".join(SPLIT_NAMES[split] for split in (row["a"], row["b"]) if split)
            line = f"  {row['problem_id']}  {side:8}  {_text(row['question'])}"
            console.print(line, markup=False, no_wrap=True, overflow="ellipsis")
        _print_rest(console, problems[f"num_{kind}"] - len(problems[kind]))


def _funnel(rows: Sequence[dict[str, Any]]) -> Table:
    table = _table(["phase", "outcome", "reason"], ["A", "B", "B - A", "A %", "B %"])
    last = None
    for row in rows:
        of = [row["num_in_phase_a"], row["num_in_phase_b"]]
        if row["phase"] != last:
            table.add_section()
            table.add_row(row["phase"], "all", "", *_counts(*of), "", "")
        counts = _counts(row["a"], row["b"])
        shares = (_share(part, whole) for part, whole in zip((row["a"], row["b"]), of, strict=True))
        table.add_row("", row["outcome"] or "not graded", row["reason"] or "", *counts, *shares)
        last = row["phase"]
    return table


def _yields(rows: Sequence[dict[str, Any]]) -> Table:
    table = _table(["what"], ["A", "B", "B - A"])
    for topic, item, metric, name in YIELDS:
        for row in rows:
            is_meant = row["topic"] == topic and row["metric"] == metric and item in (None, row["item"])
            if not is_meant or (metric == "truncated_share" and not (row["a"] or row["b"])):
                continue
            if metric.endswith("_share"):
                table.add_row(name, _share(row["a"], 1), _share(row["b"], 1), _points(row["difference"]))
            elif metric == "pooled_threshold":
                cells = (NONE if value is None else f"{value:.3g}" for value in (row["a"], row["b"]))
                table.add_row(f"{name} of {row['item']}", *cells, _signed(row["difference"], "+.3g"))
            else:
                table.add_row(name, *_counts(row["a"], row["b"]))
    return table


def _spend(rows: Sequence[dict[str, Any]]) -> Table:
    columns = [f"{name}\n{side}" for name in ("tokens", "sampled", "wall s") for side in "AB"]
    table = _table(["phase"], columns)
    names = [f"{name}_{side}" for name in ("num_tokens", "num_new_tokens", "wall_seconds") for side in "ab"]
    for row in rows:
        table.add_row(row["phase"], *(NONE if row[name] is None else f"{row[name]:.0f}" for name in names))
    table.add_section()
    known = ([row[name] for row in rows if row[name] is not None] for name in names)
    table.add_row("all", *(f"{sum(values):.0f}" if values else NONE for values in known))
    return table


def _print_evaluation(console: Console, evaluation: dict[str, Any], num_held_out: int) -> None:
    if evaluation["why_empty"]:
        console.print(f"\nevaluation: nothing to compare. {evaluation['why_empty']}.", markup=False)
        return
    k_a, k_b = evaluation["k_a"], evaluation["k_b"]
    score = f"avg@{k_a}" if k_a == k_b else f"A avg@{k_a}, B avg@{k_b},"
    table = _table(["arm", "band"], ["problems", "A", "B", "B - A", "95 % interval"])
    order = [*ARMS, *(row["arm"] for row in evaluation["scores"])]
    last = None
    for row in sorted(evaluation["scores"], key=lambda row: order.index(row["arm"])):
        arm = arm_named(row["arm"]).label if row["arm"] != last else ""
        table.add_row(
            arm,
            BAND_NAMES.get(row["band"], row["band"]),
            str(row["num_problems"]),
            f"{100 * row['a']:.1f}",
            f"{100 * row['b']:.1f}",
            _points(row["difference"]),
            _interval(row),
            style="bold" if row["arm"] == "heal" else None,
        )
        last = row["arm"]
    _print_titled(console, f"scores on the held-out problems of both: {score} in %", table)
    for note in _notes(evaluation, num_held_out):
        console.print(note, style="dim", markup=False)


def _notes(evaluation: dict[str, Any], num_held_out: int) -> list[str]:
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
            f"{row['problem_id'][:12]} {BAND_NAMES.get(row['a'], row['a'])} -> {BAND_NAMES.get(row['b'], row['b'])}"
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
    if any(_interval(row).startswith("[") for row in evaluation["scores"]):
        notes.append(
            "Intervals are a paired bootstrap over problems. They leave out that another seed would train another "
            "student; and of 20 of them, about one excludes 0 by chance."
        )
    if any(_interval(row) == "no spread" for row in evaluation["scores"]):
        notes.append("no spread: the difference is the same on every problem, which says nothing of its uncertainty.")
    return notes


def _interval(row: dict[str, Any]) -> str:
    """Return the interval in points, or why there is none that a reader should trust."""
    if row["num_same_answers"] == row["num_problems"] and row["difference"] == 0:
        return "same answers"
    if row["interval"] is None:
        return "one problem"
    low, high = row["interval"]
    return "no spread" if low == high else f"[{_points(low)}, {_points(high)}]"


def _counts(a: float | None, b: float | None) -> list[str]:
    cells = [NONE if value is None else f"{value:.0f}" for value in (a, b)]
    return [*cells, _signed(None if a is None or b is None else b - a, "+.0f")]


def _share(part: float | None, whole: float | None) -> str:
    return NONE if part is None or not whole else f"{100 * part / whole:.1f}"


def _points(difference: float | None) -> str:
    return _signed(None if difference is None else 100 * difference, "+.1f")


def _signed(value: float | None, form: str) -> str:
    """Return a difference with its sign; one that rounds to nothing is 0."""
    text = NONE if value is None else format(value, form)
    return text if value is None or re.search("[1-9]", text) else "0"


def _print_rest(console: Console, num: int) -> None:
    if num > 0:
        console.print(f"  ... and {num} more")


def _differing(a: str | None, b: str | None) -> list[str]:
    """Return two values, each cut to what a cell holds; long ones begin shortly before they differ."""
    in_common = itertools.takewhile(lambda chars: chars[0] == chars[1], zip(a or "", b or "", strict=False))
    start = sum(1 for _ in in_common) - LEAD_CHARS
    if start <= LEAD_CHARS:
        return [_text(a), _text(b)]
    return [NONE if value is None else f"... {_text(value[start:])}" for value in (a, b)]


def _text(value: object, max_chars: int = MAX_CELL_CHARS) -> str:
    """Return a value on one line, without what could steer the terminal; of a digest, the beginning."""
    if value is None:
        return NONE
    line = " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())
    if re.fullmatch("[0-9a-f]{32,}", line):
        return line[:12]
    return line if len(line) <= max_chars else f"{line[:max_chars]} ..."
