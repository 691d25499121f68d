"""Who answers how many held-out problems: scores of the arms, and their differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from heal_core.arms import ARMS, arm_named
from heal_core.report import names
from heal_core.report.charts.drawing import Z95, Palette, draw_intervals, new_chart
from heal_core.store.report import RunReport


def in_order(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return scores by band, all first, and within it by arm as tables have them."""
    arms, bands = list(ARMS), list(names.BANDS_OF_SCORES)

    def place(order: list[str], name: str) -> int:
        return order.index(name) if name in order else len(order)

    return sorted(scores, key=lambda row: (place(bands, row["band"]), place(arms, row["arm"]), row["arm"]))


def score_rows(report: RunReport) -> list[dict[str, Any]]:
    return [
        {
            "arm": arm_named(row["arm"]).label,
            "band": names.BANDS_OF_SCORES.get(row["band"], row["band"]),
            "avg_at_k": row["avg_at_k"],
            "low": None if row["standard_error"] is None else max(0.0, row["avg_at_k"] - Z95 * row["standard_error"]),
            "high": None if row["standard_error"] is None else min(1.0, row["avg_at_k"] + Z95 * row["standard_error"]),
            "problems": row["num_problems"],
        }
        for row in in_order(report.scores)
    ]


def draw_scores(report: RunReport, palette: Palette) -> Any:
    rows = score_rows(report)
    if not rows:
        return None
    bands = list(dict.fromkeys(row["band"] for row in rows))
    base = new_chart(rows, None, 150)
    y = alt.Y("arm:N", title=None, sort=None)
    axis = alt.Axis(format="%", tickCount=4)
    spread = base.mark_rule(strokeWidth=2, color=palette.series[0]).encode(
        y=y, x=alt.X("low:Q", title="avg@k", axis=axis, scale=alt.Scale(domain=[0, 1])), x2="high:Q"
    )
    point = base.mark_point(filled=True, size=60, color=palette.series[0], opacity=1).encode(y=y, x="avg_at_k:Q")
    facet = alt.Facet("band:N", title=None, sort=bands, header=alt.Header(labelFontWeight="bold", labelAnchor="start"))
    return (spread + point).facet(facet, columns=2)


def contrast_rows(report: RunReport) -> list[dict[str, Any]]:
    return [
        {
            "contrast": f"{arm_named(row['arm']).short} − {arm_named(row['against']).short}, "
            f"{names.BANDS_OF_SCORES.get(row['band'], row['band'])} ({row['num_problems']})",
            "difference": 100 * row["difference"],
            "low": None if row["low"] is None else 100 * row["low"],
            "high": None if row["high"] is None else 100 * row["high"],
            "p_adjusted": row["p_adjusted"],
            "shown": "shown" if is_shown(row) else "not shown",
        }
        for row in report.contrasts
    ]


def is_shown(contrast: Mapping[str, Any]) -> bool:
    """Return whether a difference is shown: by its adjusted p-value, which of the primary one is its own."""
    return contrast["p_adjusted"] is not None and contrast["p_adjusted"] < 0.05


def draw_contrasts(report: RunReport, palette: Palette) -> Any:
    rows = contrast_rows(report)
    if not rows:
        return None
    title = "difference in points of avg@k"
    return draw_intervals(rows, palette, "contrast", "difference", title, 0.0, ("shown", ["shown", "not shown"]))
