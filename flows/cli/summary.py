"""The summary of a run as a person reads it at the end of `heal run`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

ARM_NAMES = {
    "teacher": "teacher",
    "base": "student, untrained",
    "rejection_sampling": "B1 rejection sampling",
    "equal_tokens": "B2 equal tokens",
    "heal": "HEAL",
    "latest": "promoted student",
}
BAND_NAMES = {"easy": "easy", "hard": "hard", "extremely_hard": "extr. hard"}


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
        console.print(_evaluation(outcome))
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
    console.print(
        f"newly made: {made['rollouts']} rollouts (B2's too), {made['hints']} hints, {made['repairs']} repairs, "
        f"{made['guided']} guided, {made['evaluation']} answers of students ({made['tokens']} tokens), "
        f"{made['optimizer_steps']} optimizer steps, in {outcome['wall_seconds']:.0f} s"
    )
    console.print(f"store: {workspace}/heal.duckdb   students: {workspace}/students/", highlight=False)


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print funnel, repair yield, stages and evaluation."""
    console.print(_funnel(summary))
    if imported := summary["imported_rollouts"]:
        console.print(f"{imported} of {summary['rollouts']} rollouts were imported, not sampled", highlight=False)
    print_breakpoints(console, summary["breakpoints"])
    _print_repairs(console, summary)
    _print_early_stops(console, summary)
    console.print(_stages(summary))
    console.print(_evaluation(summary))
    _print_contrast(console, summary)
    if cut := _truncated(summary):
        console.print(f"answers cut at max_tokens: {cut}")
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


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _funnel(summary: dict[str, Any]) -> Table:
    table = _table("funnel: what became of everything")
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
    table = _table("three stages of SFT (HEAL)")
    for column in ("stage", "examples", "optimizer steps", "loss at start, end", "model"):
        table.add_column(column)
    for stage in summary["stages"]:
        table.add_row(
            stage["name"],
            str(stage["examples"]),
            str(stage["optimizer_steps"]),
            f"{stage['loss_first']:.3f}, {stage['loss_last']:.3f}",
            f"students/heal/stage-{stage['name']}",
        )
    return table


def _evaluation(summary: dict[str, Any]) -> Table:
    arms = summary["evaluation"]
    teacher = arms["teacher"]
    bands = [band for band in BAND_NAMES if band in teacher["bands"]]
    table = _table(f"held-out problems: avg@{teacher['k']} in % ± standard error")
    table.add_column("arm", no_wrap=True)
    table.add_column(f"all\n({teacher['problems']})", justify="right", no_wrap=True)
    for band in bands:
        name = f"{BAND_NAMES[band]}\n({teacher['bands'][band]['problems']})"
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("gap\nclosed", justify="right", no_wrap=True)
    for arm, name in ARM_NAMES.items():
        if arm in arms:
            scores = arms[arm]
            gap = scores["gap_closed"]
            cells = [_percent(scores), *(_percent(scores["bands"][band]) for band in bands)]
            table.add_row(
                name, *cells, "" if gap is None else f"{100 * gap:.0f} %", style="bold" if arm == "heal" else None
            )
    return table


def _print_contrast(console: Console, summary: dict[str, Any]) -> None:
    """Print HEAL minus B2 with its interval, and how much of the ceiling plain sampling leaves."""
    for band in ("all", "extremely_hard"):
        if band in summary["contrast"]:
            found = summary["contrast"][band]
            console.print(
                f"HEAL - B2, {BAND_NAMES.get(band, band)}: {100 * found['difference']:+.1f} points "
                f"[{100 * found['low']:+.1f}, {100 * found['high']:+.1f}] (95 %, {found['problems']} problems)",
                highlight=False,
            )
    ceiling = summary["ceiling"]
    console.print(
        f"ceiling: {ceiling['unsolved']} of {ceiling['problems']} extremely hard training problems stay unsolved "
        "by all plain samples",
        highlight=False,
    )


def _percent(scores: dict[str, Any]) -> str:
    error = scores["standard_error"]
    return f"{100 * scores['avg_at_k']:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _truncated(summary: dict[str, Any]) -> str:
    """Return which arms had samples cut at the limit, empty when none had."""
    shares = {arm: scores["truncated_share"] for arm, scores in summary["evaluation"].items()}
    return ", ".join(f"{ARM_NAMES[arm]} {100 * share:.1f} %" for arm, share in shares.items() if share)
