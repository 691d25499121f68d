"""One trajectory as a person reads it in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

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
    table = Table(title="entropy by step, nats", title_justify="left", show_lines=False)
    for column in ("step", "nats", "", "text"):
        table.add_column(column, overflow="fold")
    for index, entropy in enumerate(profile["step_entropies"]):
        breaks = index == profile["breakpoint_step"]
        text = Text(row["text"][starts[index] : starts[index + 1]].strip())
        if breaks:
            flat = ", flat" if profile["flat"] else ""
            text.append(
                f"\n<- breakpoint: surge {profile['surge_nats']:+.3f} nats, window {profile['window_size']}{flat}",
                "bold red",
            )
        bar = "█" * round(BAR_WIDTH * entropy / largest)
        table.add_row(str(index + 1), f"{entropy:.3f}", bar, text, style="red" if breaks else None)
    return table


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
    console.print(Panel(Text(repairs[0]["hint"].strip()), title="hint", title_align="left"))
    first = repairs[0]
    console.print(
        Panel(
            Text(first["text"].strip()), title=f"repair {first['trajectory_id']}: {first['label']}", title_align="left"
        )
    )
    others = ", ".join(f"{repair['trajectory_id'][:12]} {repair['label']}" for repair in repairs[1:])
    if others:
        console.print(Text(f"other repairs: {others}"), style="dim")
