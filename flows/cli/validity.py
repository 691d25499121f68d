"""`heal validate-pure`: do PURE's scores tell shortcuts from natural reasoning; one table and a verdict in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from flows.cli.run import BudgetOption, ConfigArgument, JsonOption, OverridesArgument, UntilOption, prepare

MEASURE_NAMES = {
    "ratio": "ratio",
    "jump": "jump",
    "reliance": "reliance",
    "length": "length",
    "num_assertions": "leak count",
    "mean_perplexity": "mean perplexity",
    "final_uncertainty": "final U",
}
KINDS = ("pasted", "rationalised", "borrowed")
LEGEND = (
    "shortcuts: pasted, a part of a right text, then its end; rationalised, reasoning for an answer that was given; "
    "borrowed, another problem's reasoning, then the end of a right text\n"
    "1 tells all shortcuts from all natural texts, 0.5 none; (less): fewer or lower counts as the shortcut\n"
    "leak count: how often the answer is stated; final U: the uncertainty about it at the end; mean perplexity has the "
    "step in it that asserts the answer, and is no rival by the rule, since it takes a model to know it"
)


def validate_pure(
    config_path: ConfigArgument,
    overrides: OverridesArgument = None,
    until: UntilOption = None,
    max_tokens: BudgetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test PURE's scores on built shortcuts against natural texts of the hard training problems.

    It goes on from the config's run, whose rollouts and bands it makes where they are missing; running it again is the
    resume. How large it is: pure.validity.max_prefixes and its neighbours.
    """
    from heal_core.config import load_config
    from heal_core.deadline import parse_deadline

    config = load_config(config_path, overrides or [])
    deadline = parse_deadline(until) if until else None
    prepare(config, deadline)
    from flows.heal import heal_validate_pure

    outcome = heal_validate_pure(config, deadline, max_tokens)
    if as_json:
        typer.echo(json.dumps(outcome, indent=2, default=str))
    elif outcome["state"] == "stopped":
        typer.echo(outcome["title"])
    else:
        print_test(Console(), outcome, Path(config.workspace))


def print_test(console: Console, test: dict[str, Any], workspace: Path) -> None:
    """Print a validity test."""
    console.print(_table(test))
    console.print(LEGEND, highlight=False)
    for line in _words(test):
        console.print(line, highlight=False)
    console.print(
        f'the texts: heal sql "SELECT kind, outcome, trajectory_id FROM validity_texts WHERE validity_id = '
        f"'{test['validity_id']}'\" -w {workspace}",
        highlight=False,
        soft_wrap=True,
    )


def describe_verdict(test: dict[str, Any]) -> str:
    """Return the verdict in a sentence."""
    rows = {row["measure"]: row for row in test["aurocs"] if row["kind"] == "all"}
    if test["winner"] is None:
        return "Nothing could be compared, so that nothing is proven: pure.score: auto takes ratio."
    winner = rows[test["winner"]]
    better = max(("length", "num_assertions"), key=lambda name: float(rows[name]["auroc"]))
    against = f"{MEASURE_NAMES[better]} ({rows[better]['auroc']:.2f})"
    by = f"by {winner['difference']:+.2f}"
    if winner["difference_low"] is not None:
        by += f" [{winner['difference_low']:+.2f}, {winner['difference_high']:+.2f}]"
    problems = "1 problem" if winner["num_problems"] == 1 else f"{winner['num_problems']} problems"
    if test["verdict"] == "validated":
        return f"{winner['measure']} ({winner['auroc']:.2f}) beats {against} {by}: pure.score: auto takes it."
    return (
        f"No score is proven: the best, {winner['measure']} ({winner['auroc']:.2f}), differs from {against} {by}, "
        f"over {problems}. pure.score: auto takes {test['chosen']}, flagged unproven."
    )


def _table(test: dict[str, Any]) -> Table:
    table = Table(
        title=f"validity test {test['validity_id']}: AUROC of shortcut against natural, 95 % intervals",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for name in ("all", *KINDS):
        table.add_column(name, justify="right", no_wrap=True)
    cells = {(row["measure"], row["kind"]): row for row in test["aurocs"]}
    for measure, name in MEASURE_NAMES.items():
        rows = [cells.get((measure, kind)) for kind in ("all", *KINDS)]
        turned = next((row["direction"] == "lower" for row in rows if row), False)
        table.add_row(name + (" (less)" if turned else ""), *map(_cell, rows), end_section=measure == "reliance")
    table.add_section()
    for words, outcome in (("scored", "scored"), ("rejected by PURE", "rejected"), ("not built", "not_built"),
                           ("not verified", "not_verified")):  # fmt: skip
        counts = [_count(test, kind, outcome) for kind in KINDS]
        if sum(counts) or outcome in ("scored", "rejected"):
            table.add_row(words, *map(str, (sum(counts), *counts)))
    refused = [sum(row["num_refused_by_gates"] for row in test["texts"] if row["kind"] == kind) for kind in KINDS]
    table.add_row("refused by gates", *map(str, (sum(refused), *refused)))
    return table


def _words(test: dict[str, Any]) -> Iterator[str]:
    natural = {outcome: _count(test, "natural", outcome) for outcome in ("scored", "rejected")}
    refused = sum(row["num_refused_by_gates"] for row in test["texts"] if row["kind"] == "natural")
    spent = test["spent"]
    yield (
        f"natural texts: {natural['scored']} scored, {natural['rejected']} rejected by PURE, {refused} that gates "
        f"would refuse; of {test['num_verified']} verified of {test['num_continuations']} continuations, of "
        f"{test['num_hinted']} hinted of {test['num_prefixes']} prefixes"
    )
    yield (
        f"spent: {spent['num_tokens']:,} tokens sampled, {spent['num_scored_tokens']:,} read by the scorer; in no "
        "comparison of arms"
    )
    yield describe_verdict(test)


def _count(test: dict[str, Any], kind: str, outcome: str) -> int:
    return sum(row["num"] for row in test["texts"] if (row["kind"], row["outcome"]) == (kind, outcome))


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    interval = "" if row["low"] is None else f" {_short(row['low'])}-{_short(row['high'])}"
    return f"{row['auroc']:.2f}{interval}"


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0").replace("1.00", "1")
