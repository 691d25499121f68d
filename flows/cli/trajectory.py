"""One trajectory as a person reads it in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from heal_core.records import EXACT, RESCORED

BAR_WIDTH = 20


def print_trajectory(console: Console, row: dict[str, Any]) -> None:
    """Print the problem, the text by step or as prefix and continuation, verdict, scores and repairs."""
    console.print(
        Panel(Text(row["question"]), title="problem", subtitle=Text(f"answer {row['answer']}"), title_align="left")
    )
    heading = Text(f"{row['kind']} {row['trajectory_id']}  sample {row['sample_index']}  {row['num_tokens']} tokens  ")
    heading.append(_verdict(row), style="green" if row["label"] == "correct" else "red")
    console.print(heading)
    if row["profile"]:
        console.print(_steps(row))
    else:
        _print_continuation(console, row)
    for decision in row["decisions"]:
        reason = f" ({decision['reason']})" if decision["reason"] else ""
        console.print(
            Text(f"run {decision['run_id']}: {decision['phase']}: {decision['decision']}{reason}"), style="dim"
        )
    _print_repairs(console, row["repairs"])


def _verdict(row: dict[str, Any]) -> str:
    reason = f" ({row['reason']})" if row["reason"] else ""
    extracted = f", read {row['extracted']!r}" if row["extracted"] else ""
    return f"{row['label'] or 'not graded'}{reason}{extracted}, {row['finish_reason']}"


def _steps(row: dict[str, Any]) -> Table:
    """Return the steps with their mean entropies; the breakpoint is marked."""
    profile = row["profile"]
    starts = [*profile["step_start_chars"], len(row["text"])]
    largest = max(*profile["step_entropies"], 1e-9)
    radii = profile["step_entropy_radii"]
    table = Table(title=f"entropy by step, nats{_source(profile)}", title_justify="left", show_lines=False)
    for column in ("step", "nats", "", "text"):
        table.add_column(column, overflow="fold")
    for index, entropy in enumerate(profile["step_entropies"]):
        breaks = index == profile["breakpoint_step"]
        text = Text(row["text"][starts[index] : starts[index + 1]].strip())
        if breaks:
            text.append(f"\n<- breakpoint: {_surge(profile)}", "bold red")
        bar = "█" * round(BAR_WIDTH * entropy / largest)
        nats = f"{entropy:.3f}" + (f" ± {radii[index]:.3f}" if radii else "")
        table.add_row(str(index + 1), nats, bar, text, style="red" if breaks else None)
    return table


def _surge(profile: dict[str, Any]) -> str:
    radii, index = profile["step_entropy_radii"], profile["breakpoint_step"]
    off = f" ± {radii[index] + radii[index - 1]:.3f}" if radii else ""
    marks = (", flat" if profile["flat"] else "") + (", uncertain" if profile["is_certain"] is False else "")
    return f"surge {profile['surge_nats']:+.3f}{off} nats, window {profile['window_size']}{marks}"


def _source(profile: dict[str, Any]) -> str:
    """Return what the entropies of a profile are from, where that is not the model's own whole distribution."""
    source = profile["entropy_source"] or EXACT
    if source == RESCORED:
        return " (exact, from reading the text again)"
    if source == EXACT:
        return ""
    return f" (middles of intervals from {source})"


def _print_continuation(console: Console, row: dict[str, Any]) -> None:
    if row["prefix"]:
        console.print(Panel(Text(row["prefix"].strip()), title="kept steps", title_align="left", style="dim"))
    if row["hint"]:
        console.print(Panel(Text(row["hint"]["text"].strip()), title="hint (never in an example)", title_align="left"))
    console.print(
        Panel(Text(row["text"].strip()), title="continuation" if row["prefix"] else "text", title_align="left")
    )
    score = row["score"]
    if score and score["reject_reason"]:
        console.print(f"PURE: rejected, {score['reject_reason']}")
    elif score:
        console.print(
            f"PURE: ratio {score['ratio']:.3g}, jump {score['jump']:.3g}, reliance {score['reliance']:+.3g}; "
            f"span steps {score['span_start'] + 1}..{score['span_end']}"
        )


def _print_repairs(console: Console, repairs: list[dict[str, Any]]) -> None:
    if not repairs:
        return
    first = repairs[0]
    if first["hint"]:
        console.print(Panel(Text(first["hint"].strip()), title="hint", title_align="left"))
    console.print(
        Panel(
            Text(first["text"].strip()), title=f"repair {first['trajectory_id']}: {first['label']}", title_align="left"
        )
    )
    others = ", ".join(f"{repair['trajectory_id'][:12]} {repair['label']}" for repair in repairs[1:])
    if others:
        console.print(Text(f"other repairs: {others}"), style="dim")
