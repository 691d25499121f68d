"""The scores of a run's arms as printed: avg@k, pass@k, benchmarks, and the differences of arms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from heal_core.arms import ARMS, arm_named
from heal_core.report.names import SHORT_BANDS

PRINTED_BANDS = ("all", "extremely_hard")
"""Of these the differences are printed; the store has all bands."""

Scores = dict[str, Any]


def print_scores(console: Console, summary: dict[str, Any]) -> None:
    """Print what an evaluation came to."""
    arms = summary["evaluation"]
    console.print(_by_band(arms))
    for name, of_arm in _benchmarks(arms).items():
        console.print(_benchmark(name, of_arm))
    if len(arms["teacher"]["pass_at"]) > 1:
        console.print(_pass_at(arms))
    if summary["contrasts"]:
        console.print(_contrasts(summary["contrasts"]))
    if summary["lm_eval"]:
        console.print(_lm_eval(summary["lm_eval"]))
    if cut := _cut(arms):
        console.print(f"answers cut at max_tokens: {cut}")


def new_table(title: str) -> Table:
    """Return an empty table as all of a summary look."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _by_band(arms: dict[str, Scores]) -> Table:
    teacher = arms["teacher"]
    bands = [band for band in SHORT_BANDS if band in teacher["bands"]]
    table = new_table(f"held-out problems: avg@{teacher['k']} in % ± standard error")
    table.add_column("arm", no_wrap=True)
    table.add_column(f"all\n({teacher['problems']})", justify="right", no_wrap=True)
    for band in bands:
        name = f"{SHORT_BANDS[band]}\n({teacher['bands'][band]['problems']})"
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("gap\nclosed", justify="right", no_wrap=True)
    _add_arms(
        table,
        arms,
        lambda scores: [
            _average(scores),
            *(_average(scores["bands"][band]) for band in bands),
            "" if scores["gap_closed"] is None else f"{100 * scores['gap_closed']:.0f} %",
        ],
    )
    return table


def _benchmarks(arms: dict[str, Scores]) -> dict[str, dict[str, Scores]]:
    """Return the scores of each benchmark by arm."""
    return {
        name: {arm: scores["benchmarks"][name] for arm, scores in arms.items() if name in scores["benchmarks"]}
        for name in arms["teacher"]["benchmarks"]
    }


def _benchmark(name: str, arms: dict[str, Scores]) -> Table:
    teacher = arms["teacher"]
    table = new_table(f"{name}: {teacher['problems']} problems, in %")
    table.add_column("arm", no_wrap=True)
    ks = list(teacher["pass_at"])
    for column in (f"avg@{teacher['k']}", *(f"pass\n@{k}" for k in ks), "cut", "no\nanswer"):
        table.add_column(column, justify="right", no_wrap=True)
    _add_arms(
        table,
        arms,
        lambda scores: [
            _average(scores),
            *(_percent(scores["pass_at"][k]) for k in ks),
            _percent(scores["truncated_share"]),
            _percent(scores["no_answer_share"]),
        ],
    )
    return table


def _pass_at(arms: dict[str, Scores]) -> Table:
    teacher = arms["teacher"]
    ks = list(teacher["pass_at"])
    table = new_table("unbiased pass@k in %")
    table.add_column("arm", no_wrap=True)
    for k in ks:
        table.add_column(f"pass@{k}", justify="right", no_wrap=True)
    _add_arms(table, arms, lambda scores: [_percent(scores["pass_at"][k]) for k in ks])
    return table


def _add_arms(table: Table, arms: dict[str, Scores], cells: Callable[[Scores], list[str]]) -> None:
    for arm, names in ARMS.items():
        if arm in arms:
            table.add_row(names.label, *cells(arms[arm]), style="bold" if arm == "heal" else None)


def _contrasts(contrasts: list[dict[str, Any]]) -> Table:
    table = new_table("differences of avg@k in points, with 95 % intervals over problems")
    table.add_column("arms", no_wrap=True)
    table.add_column("problems", min_width=15, overflow="fold")
    for column in ("points", "interval", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for row in contrasts:
        if row["benchmark"] is None and row["band"] not in PRINTED_BANDS:
            continue
        names = [arm_named(arm).short for arm in (row["arm"], row["against"])]
        known = row["low"] is not None
        table.add_row(
            " - ".join(names),
            f"{row['benchmark'] or SHORT_BANDS.get(row['band'], row['band'])} ({row['problems']})",
            f"{100 * row['difference']:+.1f}",
            f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]" if known else "unknown",
            f"{row['p_adjusted']:.3f}" if known else "",
            ", ".join(_remarks(row)),
        )
    return table


def _lm_eval(rows: list[dict[str, Any]]) -> Table:
    """Return a table with a row per task, metric and filter, and a column per arm; values as lm-eval has them."""
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    table = new_table(f"lm-eval {rows[0]['lm_eval_version']}: value ± standard error")
    table.add_column("task", overflow="fold")
    table.add_column("metric", overflow="fold")
    for arm in arms:
        table.add_column(ARMS[arm].short, justify="right")
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        task = row["task"] + ("" if row["num_samples"] is None else f" ({row['num_samples']})")
        metric = row["metric"] + ("" if row["filter"] == "none" else f", {row['filter']}")
        error = row["standard_error"]
        value = f"{row['value']:.3f}" + ("" if error is None else f" ± {error:.3f}")
        cells.setdefault((task, metric), {})[row["arm"]] = value
    for (task, metric), values in cells.items():
        table.add_row(task, metric, *(values.get(arm, "") for arm in arms))
    return table


def _remarks(row: dict[str, Any]) -> Iterator[str]:
    if row["is_primary"]:
        yield "primary"
    if not row["is_powered"]:
        yield "not powered"


def _average(scores: Scores) -> str:
    error = scores["standard_error"]
    return f"{100 * scores['avg_at_k']:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _cut(arms: dict[str, Scores]) -> str:
    """Return which arms had samples cut at the limit, empty when none had."""
    shares = {arm: scores["truncated_share"] for arm, scores in arms.items()}
    return ", ".join(f"{arm_named(arm).label} {100 * share:.1f} %" for arm, share in shares.items() if share)
