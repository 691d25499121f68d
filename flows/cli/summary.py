"""The summary of a run as a person reads it at the end of `heal run`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.cli.scores import new_table, print_scores


def print_outcome(outcome: dict[str, Any], workspace: str) -> None:
    """Print how a run ended: its summary, or why it stopped before it had one."""
    console = Console()
    console.rule(f"run {outcome['run_id']}")
    if outcome["state"] == "stopped":
        console.print(f"Stopped: {outcome['reason']}. The same command goes on from there.")
        return
    if outcome["state"] == "nothing_new":
        console.print("Nothing to do: everything this run needs was already there.")
    if outcome["stages"]:
        print_summary(console, outcome)
    else:
        print_scores(console, outcome)
    if failed := outcome["quarantined"]["problems"]:
        console.print(
            f"in quarantine, since their work failed: {failed} of {outcome['problems']} problems. See which, and try "
            "them again:\n"
            f"  heal sql \"SELECT problem_id, work, reason FROM quarantine WHERE run_id = '{outcome['run_id']}'\" "
            f"-w {workspace}\n  heal retry {outcome['run_id']} -w {workspace}",
            highlight=False,
            soft_wrap=True,
        )
    if promotion := outcome["promotion"]:
        console.print(_promotion(promotion), highlight=False)
    made = outcome["generated"]
    apart = {"controls": "hints and repairs of controls", "validity": "texts of the validity test"}
    others = "".join(f"{made[name]} {words}, " for name, words in apart.items() if made[name])
    console.print(
        f"newly made: {made['rollouts']} rollouts (B2's too), {made['hints']} hints, {made['repairs']} repairs, "
        f"{made['guided']} guided, {others}{made['evaluation']} answers of students ({made['tokens']} tokens), "
        f"{made['optimizer_steps']} optimizer steps, in {outcome['wall_seconds']:.0f} s"
    )
    console.print(f"store: {workspace}/heal.duckdb   students: {workspace}/students/", highlight=False)
    console.print(f"report: {workspace}/report.html, to open in a browser", highlight=False)


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print funnel, repair yield, stages and evaluation."""
    console.print(_funnel(summary))
    if imported := summary["imported_rollouts"]:
        console.print(f"{imported} of {summary['rollouts']} rollouts were imported, not sampled", highlight=False)
    print_breakpoints(console, summary["breakpoints"])
    _print_repairs(console, summary)
    _print_gates(console, summary)
    _print_early_stops(console, summary)
    console.print(_stages(summary))
    print_scores(console, summary)
    _print_ceiling(console, summary)
    if not summary["powered"]:
        console.print(
            "A run of this size is not powered: differences of a few points are within its noise.", style="dim"
        )


def print_breakpoints(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print what breakpoints rest on where entropies are known from the most probable tokens; else nothing."""
    if not rows:
        return
    sources, num = Counter[str](), Counter[str]()
    for row in rows:
        sources[row["entropy_source"]] += row["num_rollouts"]
        num[row["outcome"]] += row["num_rollouts"]
        num[row["reason"] or ""] += row["num_rollouts"]
    told = " and ".join(f"{count} from {source}" for source, count in sources.items())
    line = f"breakpoints: {num['certain']} of {sources.total()} are certain from intervals of entropy ({told})"
    if num["rescored"]:
        line += f"; {num['rescored']} were read again, which moved {num['moved']}"
    if num["uncertain"]:
        line += (
            f"; {num['uncertain']} stay uncertain, placed by the middles (a `scorer` with the teacher's weights and "
            "the engine hf reads them again)"
        )
    console.print(line, highlight=False)


def _promotion(promotion: dict[str, Any]) -> str:
    """Return whether the student was promoted, and on what it rests."""
    words = "promoted to students/latest" if promotion["decision"] == "promoted" else "not promoted"
    if promotion["reason"] == "same_student":
        return f"promotion: {words}, being the best student so far itself"
    against = "the best promoted so far" if promotion["best_checkpoint_id"] else "the untrained student"
    if promotion["low"] is None:
        return f"promotion: {words}: {promotion['num_problems']} held-out problems can be compared with {against}"
    return (
        f"promotion: {words}: {100 * promotion['difference']:+.1f} points to {against} "
        f"[{100 * promotion['low']:+.1f}, {100 * promotion['high']:+.1f}] on {promotion['num_problems']} problems; "
        f"the lower end has to be above {100 * promotion['margin']:+.1f}"
    )


def _funnel(summary: dict[str, Any]) -> Table:
    table = new_table("funnel: what became of everything")
    for column, justify in (
        ("phase", "left"),
        ("outcome", "left"),
        ("reason", "left"),
        ("n", "right"),
        ("of", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]  # rich types it as a Literal
    last = ""
    for row in summary["funnel"]:
        if last and row["phase"] != last:
            table.add_section()
        first = row["phase"] != last
        table.add_row(
            row["phase"] if first else "",
            row["outcome"],
            row["reason"] or "",
            str(row["num"]),
            str(int(row["num_in_phase"])),
        )
        last = row["phase"]
    return table


def _print_repairs(console: Console, summary: dict[str, Any]) -> None:
    repairs = summary["repairs"]
    attempted = max(1, repairs["attempted"])
    console.print(
        f"repairs: {repairs['paths']} wrong paths of {repairs['problems']} extremely hard problems, "
        f"{repairs['attempted']} continuations, {repairs['verified']} verified "
        f"({100 * repairs['verified'] / attempted:.0f} %), {repairs['kept']} kept; "
        f"{repairs['problems_broken']} problems have a verified repair"
    )
    if repairs["skipped"]:
        console.print(
            f"quota: {repairs['skipped']} more continuations were left out, of problems that had enough verified ones: "
            f"an estimated {repairs['estimated_tokens_saved']} tokens saved (at each problem's own mean)",
            highlight=False,
        )


def _print_gates(console: Console, summary: dict[str, Any]) -> None:
    """Print how much each gate refuses of texts that saw neither hint nor answer: its false positives."""
    base = [row for row in summary["gates"] if row["phase"] == "rollouts" and row["refused_share"] is not None]
    if base:
        shares = ", ".join(f"{row['gate']} {100 * row['refused_share']:.1f} %" for row in base)
        console.print(
            f"gates, refused of {base[0]['num_texts']} verified rollouts that saw neither hint nor answer (each gate's "
            f"false positives): {shares}",
            highlight=False,
        )


def _print_early_stops(console: Console, summary: dict[str, Any]) -> None:
    """Print what early stopping did, where it stopped anything."""
    early = summary["early_stops"]
    if early["stopped"]:
        console.print(
            f"early stopping: {early['stopped']} texts were given up as hopeless after {early['tokens']} tokens; up to "
            "their limits they could have had "
            f"{early['saved_at_most']} more, the most that was saved",
            highlight=False,
        )


def _stages(summary: dict[str, Any]) -> Table:
    table = new_table("three stages of SFT (HEAL), losses at start and end")
    for column in ("stage", "examples", "steps", "loss", "held-out loss", "model"):
        table.add_column(column)
    for stage in summary["stages"]:
        table.add_row(
            stage["name"],
            str(stage["examples"]),
            str(stage["optimizer_steps"]),
            f"{stage['loss_first']:.3f}, {stage['loss_last']:.3f}",
            _two(stage["held_out_before"], stage["held_out_after"]),
            f"students/heal/stage-{stage['name']}",
        )
    return table


def _two(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{before:.3f}, {after:.3f}"


def _print_ceiling(console: Console, summary: dict[str, Any]) -> None:
    """Print how much of the ceiling plain sampling leaves."""
    ceiling = summary["ceiling"]
    console.print(
        f"ceiling: {ceiling['unsolved']} of {ceiling['problems']} extremely hard training problems stay unsolved "
        "by all plain samples",
        highlight=False,
    )
