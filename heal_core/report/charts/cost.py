"""What a run took: tokens by phase."""

from __future__ import annotations

from typing import Any

import altair as alt

from heal_core.report.charts.drawing import Palette, colours, new_chart
from heal_core.store.report import RunReport


def cost_rows(report: RunReport) -> list[dict[str, Any]]:
    fields = {"num_tokens": "sampled", "num_scored_tokens": "scored", "num_trained_tokens": "trained on"}
    return [
        {
            "phase": row["phase"].replace("_", " "),
            "tokens": word,
            "num": row[field],
            "wall_seconds": row["wall_seconds"],
        }
        for row in report.spend
        for field, word in fields.items()
        if row[field]
    ]


def draw_cost(report: RunReport, palette: Palette) -> Any:
    rows = cost_rows(report)
    if not rows:
        return None
    return (
        new_chart(rows, None)
        .mark_bar()
        .encode(
            y=alt.Y("phase:N", title=None, sort=None),
            x=alt.X("num:Q", title="tokens", axis=alt.Axis(format="~s")),
            color=colours(["sampled", "scored", "trained on"], palette, "tokens", "tokens"),
        )
    )
