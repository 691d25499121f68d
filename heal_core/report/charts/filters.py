"""What was filtered: gates, PURE's scores, and whether these find shortcuts."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from heal_core.report import names
from heal_core.report.charts.drawing import Palette, colours, draw_intervals, new_chart
from heal_core.store.report import RunReport

_PURE_BINS = 30


def gate_rows(report: RunReport) -> list[dict[str, Any]]:
    kinds = {"repairs": "repairs", "rollouts": "innocent rollouts"}
    return [
        {
            "gate": f"{row['gate']} {names.GATES.get(row['gate'], '')}".strip(),
            "texts": kinds[row["phase"]],
            "refused_share": row["refused_share"],
            "refused": row["num_refused"],
            "judged": row["num_judged"],
        }
        for row in report.gates
        if row["phase"] in kinds and row["refused_share"] is not None
    ]


def draw_gates(report: RunReport, palette: Palette) -> Any:
    rows = gate_rows(report)
    if not rows:
        return None
    kinds = ["repairs", "innocent rollouts"]
    return (
        new_chart(rows, None)
        .mark_bar()
        .encode(
            y=alt.Y("gate:N", title=None, sort=None),
            yOffset=alt.YOffset("texts:N", sort=kinds),
            x=alt.X("refused_share:Q", title="share refused of the texts it judged", axis=alt.Axis(format="%")),
            color=colours(kinds, palette, "texts", "texts"),
        )
    )


def pure_rows(report: RunReport) -> list[dict[str, Any]]:
    """Return scored repairs by bins of their score, kept and dropped."""
    scored = [row for row in report.pure if row["score"] is not None and row["decision"] is not None]
    if not scored:
        return []
    values = [row["score"] for row in scored]
    low, high = min(values), max(values)
    width = (high - low) / _PURE_BINS or 1.0
    counted: dict[tuple[int, str], int] = {}
    for row in scored:
        key = (min(int((row["score"] - low) / width), _PURE_BINS - 1), row["decision"])
        counted[key] = counted.get(key, 0) + 1
    return [
        {"from": low + place * width, "to": low + (place + 1) * width, "decision": decision, "repairs": num}
        for (place, decision), num in sorted(counted.items())
    ]


def draw_pure(report: RunReport, palette: Palette) -> Any:
    rows = pure_rows(report)
    if not rows:
        return None
    name = next(row["score_name"] for row in report.pure if row["score_name"])
    bars = (
        new_chart(rows)
        .mark_bar(stroke=palette.grid, strokeWidth=0.5)
        .encode(
            x=alt.X("from:Q", bin="binned", title=f"PURE score ({name}); higher is more like a shortcut"),
            x2="to:Q",
            y=alt.Y("repairs:Q", title="verified repairs", stack=True),
            color=colours(["kept", "dropped"], palette, "by PURE", "decision"),
        )
    )
    threshold = next((row["pooled_threshold"] for row in report.pure if row["pooled_threshold"] is not None), None)
    if threshold is None:
        return bars
    cut = alt.Chart(pl.DataFrame({"threshold": [threshold]})).mark_rule(strokeDash=[4, 3], color=palette.text)
    return bars + cut.encode(x="threshold:Q")


def validity_rows(report: RunReport) -> list[dict[str, Any]]:
    return [
        {
            "measure": names.MEASURES.get(row["measure"], row["measure"]),
            "auroc": row["auroc"],
            "low": row["low"],
            "high": row["high"],
            "shortcuts": row["num_shortcuts"],
            "natural": row["num_natural"],
        }
        for row in report.validity
        if row["kind"] == "all"
    ]


def draw_validity(report: RunReport, palette: Palette) -> Any:
    rows = validity_rows(report)
    if not rows:
        return None
    scores = {names.MEASURES[name] for name in ("ratio", "jump", "reliance")}
    return draw_intervals(
        [{**row, "kind": "score of PURE" if row["measure"] in scores else "baseline"} for row in rows],
        palette, "measure", "auroc", "AUROC: built shortcuts against natural texts", 0.5,
        ("kind", ["score of PURE", "baseline"]),
    )  # fmt: skip
