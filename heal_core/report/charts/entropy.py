"""Where teachers break: entropies around the breakpoint, and where breakpoints lie."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from heal_core.report.charts.drawing import Z95, Palette, colours, new_chart
from heal_core.store.report import RunReport


def entropy_rows(report: RunReport) -> list[dict[str, Any]]:
    return [
        {
            "rollouts": row["label"],
            "step_offset": row["step_offset"],
            "mean_entropy_nats": row["mean_entropy_nats"],
            "low": None if row["standard_error"] is None else row["mean_entropy_nats"] - Z95 * row["standard_error"],
            "high": None if row["standard_error"] is None else row["mean_entropy_nats"] + Z95 * row["standard_error"],
            "num": row["num"],
            "problems": row["num_problems"],
        }
        for row in report.entropies
    ]


def draw_entropies(report: RunReport, palette: Palette) -> Any:
    rows = entropy_rows(report)
    if not rows:
        return None
    base = new_chart(rows)
    offsets = sorted({row["step_offset"] for row in rows})
    x = alt.X("step_offset:Q", title="steps after the breakpoint", axis=alt.Axis(values=offsets, format="+d"))
    colour = colours(["correct", "wrong"], palette, "rollouts", "rollouts")
    area = base.mark_area(opacity=0.2).encode(
        x=x, y=alt.Y("low:Q", title="mean entropy, nats"), y2="high:Q", color=colour
    )
    line = base.mark_line(point=True).encode(x=x, y="mean_entropy_nats:Q", color=colour)
    at = alt.Chart(pl.DataFrame({"step_offset": [0]})).mark_rule(strokeDash=[4, 3], color=palette.text)
    return area + line + at.encode(x="step_offset:Q")


def break_rows(report: RunReport) -> list[dict[str, Any]]:
    return [
        {
            "place": f"{10 * int(row['tenth'])}–{10 * int(row['tenth']) + 10} %",
            "share": row["share"],
            "random_share": row["random_share"],
            "num": row["num"],
        }
        for row in report.break_positions
    ]


def draw_breaks(report: RunReport, palette: Palette) -> Any:
    rows = break_rows(report)
    if not rows:
        return None
    chosen, drawn = "breakpoint", "random step of the window"
    base = new_chart([{**row, "chosen": chosen, "drawn": drawn} for row in rows])
    x = alt.X(
        "place:N", title="place of the breakpoint among the rollout's steps", sort=None, axis=alt.Axis(labelAngle=0)
    )
    words = [chosen, drawn]
    bars = base.mark_bar().encode(x=x, y=alt.Y("share:Q", title="share of wrong rollouts", axis=alt.Axis(format="%")),
                                  color=colours(words, palette, None, "chosen"))  # fmt: skip
    ticks = base.mark_tick(thickness=3, width=40).encode(
        x=x, y="random_share:Q", color=colours(words, palette, None, "drawn")
    )
    return bars + ticks
