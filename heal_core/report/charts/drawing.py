"""How a chart of the report is drawn by Vega-Lite (altair), and in which colours; what the charts have in common.

A chart is drawn for the page with colours that follow the reader's light or dark scheme, and for papers with colours
of its own. What does not belong here: any one chart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import polars as pl
import vl_convert

from heal_core.store.report import RunReport

WIDTH = 560
HEIGHT = 220
Z95 = 1.96

Form = Literal["svg", "png", "pdf"]
FORMS: tuple[Form, ...] = ("svg", "png", "pdf")


@dataclass(frozen=True)
class Palette:
    """Colours of a chart; `series` can be told apart by colour-blind readers (Okabe and Ito)."""

    text: str
    grid: str
    background: str | None
    series: tuple[str, ...]
    font: str


PAGE = Palette("var(--ink)", "var(--line)", None, tuple(f"var(--series-{n})" for n in range(1, 7)), "inherit")
PAPER = Palette(
    "#222222", "#dddddd", "#ffffff", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), "sans-serif"
)


@dataclass(frozen=True)
class Chart:
    """A chart by its name.

    Attributes:
        title: As its heading.
        caption: What it shows, how it is counted, and what to look for.
        draw: The chart; None where the run has nothing to draw.
        rows: The numbers behind it, for those who cannot or would rather not see it.
    """

    title: str
    caption: str
    draw: Callable[[RunReport, Palette], Any]
    rows: Callable[[RunReport], list[dict[str, Any]]]


def render(chart: Chart, report: RunReport, palette: Palette, form: Form = "svg") -> bytes | None:
    """Return a chart as SVG, PNG or PDF; None where the run has nothing to draw."""
    drawn = chart.draw(report, palette)
    if drawn is None:
        return None
    spec = _styled(drawn, palette).to_dict()
    if "facet" not in spec and "row" not in spec.get("encoding", {}):
        # the width is that of the whole, names on the left included, so that all charts have letters of one size
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    if form == "svg":
        return bytes(vl_convert.vegalite_to_svg(spec).encode())
    return bytes(vl_convert.vegalite_to_png(spec, scale=3) if form == "png" else vl_convert.vegalite_to_pdf(spec))


def _styled(chart: Any, palette: Palette) -> Any:
    axis = {"labelColor": palette.text, "titleColor": palette.text, "gridColor": palette.grid,
            "domainColor": palette.grid, "tickColor": palette.grid, "titleFontWeight": "normal",
            "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 0}  # fmt: skip
    text = {"labelColor": palette.text, "titleColor": palette.text, "labelFontSize": 12, "titleFontSize": 12}
    return (
        chart.configure(background=palette.background or "transparent", font=palette.font)
        .configure_axis(**axis)
        .configure_legend(orient="top", symbolOpacity=1, titleFontWeight="normal", labelLimit=0, **text)
        .configure_header(**text, titleFontWeight="normal")
        .configure_view(stroke=None)
        .configure_text(color=palette.text)
    )


def new_chart(rows: list[dict[str, Any]], height: int | None = HEIGHT, width: int = WIDTH) -> Any:
    """Return a chart of rows without marks; without a height its bands of names have one each.

    Numbers are cut to 6 digits: more cannot be seen, and their last ones depend on the order in which a store adds up.
    """
    cut = [
        {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]
    chart = alt.Chart(pl.DataFrame(cut, infer_schema_length=None)).properties(width=width)
    return chart if height is None else chart.properties(height=height)


def colours(values: list[str], palette: Palette, title: str | None = None, field: str = "series") -> Any:
    """Return a colour by the values of a field, in the order given."""
    shades = [palette.series[n % len(palette.series)] for n in range(len(values))]
    return alt.Color(f"{field}:N", title=title, scale=alt.Scale(domain=values, range=shades))


def draw_intervals(
    rows: list[dict[str, Any]],
    palette: Palette,
    name: str,
    value: str,
    title: str,
    zero: float,
    colour: tuple[str, list[str]],
) -> Any:
    """Return points with intervals `low` to `high`, a line per name, and a rule where there is no difference."""
    base = new_chart(rows, None)
    y = alt.Y(f"{name}:N", title=None, sort=None)
    x = alt.X(f"{value}:Q", title=title, scale=alt.Scale(zero=False))
    field, values = colour
    scale = alt.Scale(domain=values, range=[palette.series[0], palette.series[5]])
    shade = alt.Color(f"{field}:N", title=None, scale=scale)
    rule = alt.Chart(pl.DataFrame({"zero": [zero]})).mark_rule(strokeDash=[4, 3], color=palette.text).encode(x="zero:Q")
    return (
        rule
        + base.mark_rule(strokeWidth=2).encode(y=y, x="low:Q", x2="high:Q", color=shade)
        + base.mark_point(filled=True, size=70, opacity=1).encode(y=y, x=x, color=shade)
    )
