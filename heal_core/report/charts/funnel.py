"""What became of everything: the funnel, and problems by band and pass rate."""

from __future__ import annotations

from typing import Any

import altair as alt

from heal_core.report import names
from heal_core.report.charts.drawing import Palette, new_chart
from heal_core.store.report import RunReport


def funnel_rows(report: RunReport) -> list[dict[str, Any]]:
    return [
        {
            "phase": names.PHASES.get(row["phase"], row["phase"]),
            "outcome": names.BANDS.get(row["outcome"] or "not graded", row["outcome"] or "not graded").replace(
                "_", " "
            ),
            "reason": row["reason"] or "",
            "num": row["num"],
            "of": row["num_in_phase"],
        }
        for row in report.funnel
    ]


def draw_funnel(report: RunReport, palette: Palette) -> Any:
    rows = funnel_rows(report)
    if not rows:
        return None
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    summed: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        kept = summed.setdefault((row["phase"], row["outcome"]), {**row, "num": 0})
        kept["num"] += row["num"]
    bars = [
        {**row, "share": row["num"] / row["of"], "label": f"{row['outcome']} {row['num']:,}"} for row in summed.values()
    ]
    position: dict[str, float] = {}
    for rank, row in enumerate(bars):
        start = position.get(row["phase"], 0.0)
        row |= {"start": start, "end": start + row["share"], "middle": start + row["share"] / 2, "rank": rank}
        row["shade"] = _shade_of(row["outcome"])
        position[row["phase"]] = row["end"]
    shades = ["good", "bad", "dropped", "neutral"]
    base = new_chart(bars, 44 * len(phases))
    y = alt.Y("phase:N", sort=phases, title=None)
    colour = alt.Color(
        "shade:N", legend=None,
        scale=alt.Scale(domain=shades, range=[palette.series[n] for n in (0, 1, 4, 5)]),
    )  # fmt: skip
    x = alt.X("start:Q", title="share of the phase", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    bar = base.mark_bar(stroke=palette.grid, strokeWidth=1, height=20).encode(
        y=y, x=x, x2="end:Q", color=colour, description=alt.Description("label:N")
    )
    words = base.transform_filter(f"datum.share > {_SHARE_PER_LETTER} * length(datum.label)").mark_text(
        fontSize=11, dy=19, color=palette.text
    )
    return bar + words.encode(y=y, x="middle:Q", text="label:N")


_SHARE_PER_LETTER = 0.015
"""What a letter of a label takes of a bar's width: a label stands under its part only where it fits there."""


def _shade_of(outcome: str) -> str:
    if outcome in ("correct", "kept", "train", "hinted", "easy"):
        return "good"
    if outcome in ("wrong", "truncated", "unverifiable", "extremely hard"):
        return "bad"
    return "dropped" if outcome.startswith(("dropped", "quarantined", "filtered", "not sampled")) else "neutral"


def _band_colours(order: list[str], palette: Palette) -> Any:
    """Return colours of bands as the funnel has them."""
    places = {"good": 0, "bad": 1, "dropped": 4, "neutral": 5}
    shades = [palette.series[places[_shade_of(name)]] for name in order]
    return alt.Color("band:N", title="band", scale=alt.Scale(domain=order, range=shades))


def band_rows(report: RunReport) -> list[dict[str, Any]]:
    splits = {"train": "training", "held_out": "held out"}
    return [
        {"split": splits.get(row["split"], row["split"]), "band": names.BANDS[row["band"]], "problems": row["num"]}
        for row in report.bands
    ]


def draw_bands(report: RunReport, palette: Palette) -> Any:
    rows = band_rows(report)
    if not rows:
        return None
    order = [name for name in names.BANDS.values() if any(row["band"] == name for row in rows)]
    return (
        new_chart([{**row, "rank": order.index(row["band"])} for row in rows], 90)
        .mark_bar()
        .encode(
            y=alt.Y("split:N", title=None, sort=["training", "held out"]),
            x=alt.X("problems:Q", title="problems"),
            color=_band_colours(order, palette),
            order="rank:Q",
        )
    )


def pass_rate_rows(report: RunReport) -> list[dict[str, Any]]:
    """Return problems by tenth of their pass rate; a rate of exactly 0 and of exactly 1 has a place of its own."""

    def place(rate: float) -> str:
        return "0" if rate == 0 else "1" if rate == 1 else f"≤ {(int(rate * 10 - 1e-9) + 1) / 10:.1f}"

    counted: dict[tuple[str, str, str], int] = {}
    for when, field in (("before repair", "rate_before"), ("after repair", "rate_after")):
        for row in report.pass_rates:
            key = (when, place(row[field]), names.BANDS[row["band"]])
            counted[key] = counted.get(key, 0) + 1
    return [
        {"when": when, "pass_rate": rate, "band": band, "problems": num} for (when, rate, band), num in counted.items()
    ]


_PLACES = ["0", *(f"≤ {n / 10:.1f}" for n in range(1, 11)), "1"]


def draw_pass_rates(report: RunReport, palette: Palette) -> Any:
    rows = pass_rate_rows(report)
    if not rows:
        return None
    order = [name for name in names.BANDS.values() if any(row["band"] == name for row in rows)]
    return (
        new_chart(rows, 120)
        .mark_bar()
        .encode(
            x=alt.X("pass_rate:N", title="pass rate of a training problem", scale=alt.Scale(domain=_PLACES),
                    axis=alt.Axis(labelAngle=0)),
            y=alt.Y("problems:Q", title="problems"),
            color=_band_colours(order, palette),
            row=alt.Row("when:N", title=None, sort=["before repair", "after repair"],
                        header=alt.Header(orient="top", labelAnchor="start", labelFontWeight="bold")),
        )
    )  # fmt: skip
