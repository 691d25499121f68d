"""What was learnt from: examples by stage, and losses."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from heal_core.report import names
from heal_core.report.charts.drawing import Palette, colours, new_chart
from heal_core.store.report import RunReport


def stage_rows(report: RunReport) -> list[dict[str, Any]]:
    return [
        {"stage": row["stage"], "kind": names.KINDS.get(row["kind"], row["kind"]), "examples": row["num"]}
        for row in report.stage_mix
    ]


def draw_stages(report: RunReport, palette: Palette) -> Any:
    rows = stage_rows(report)
    if not rows:
        return None
    order = [name for name in names.KINDS.values() if any(row["kind"] == name for row in rows)]
    return (
        new_chart([{**row, "rank": order.index(row["kind"])} for row in rows], 120)
        .mark_bar()
        .encode(
            y=alt.Y("stage:N", title="stage"),
            x=alt.X("examples:Q", title="training examples"),
            color=colours(order, palette, None, "kind"),
            order="rank:Q",
        )
    )


def loss_rows(report: RunReport) -> list[dict[str, Any]]:
    return [
        {"stage": row["stage"], "optimizer_step": row["run_step"], "loss": row["loss"]}
        for row in report.losses
        if row["loss"] is not None
    ]


def held_out_points(report: RunReport) -> list[dict[str, Any]]:
    points, step = [], 0
    for row in report.held_out:
        if row["held_out_before"] is not None:
            points.append({"stage": row["stage"], "optimizer_step": step, "loss": row["held_out_before"]})
        step += row["num_optimizer_steps"]
        if row["held_out_after"] is not None:
            points.append({"stage": row["stage"], "optimizer_step": step, "loss": row["held_out_after"]})
    return points


def all_loss_rows(report: RunReport) -> list[dict[str, Any]]:
    """Return training losses, and those on held-out problems under a name of their own."""
    held_out = [{**row, "stage": f"{row['stage']}, held out"} for row in held_out_points(report)]
    return [*loss_rows(report), *held_out]


def draw_losses(report: RunReport, palette: Palette) -> Any:
    rows = loss_rows(report)
    if not rows:
        return None
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    x = alt.X("optimizer_step:Q", title="optimizer step, all stages one after another")
    y = alt.Y("loss:Q", title="loss, nats per token")
    line = new_chart(rows).mark_line().encode(x=x, y=y, color=colours(stages, palette, "stage", "stage"))
    held_out = held_out_points(report)
    if not held_out:
        return line
    marks = alt.Chart(pl.DataFrame(held_out)).mark_point(
        shape="diamond", filled=True, size=80, color=palette.text, opacity=1
    )
    return line + marks.encode(x=x, y=y)
