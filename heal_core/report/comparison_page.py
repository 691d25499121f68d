"""Two runs as one page: what was changed, what came of it, and the charts of both side by side.

What does not belong here: what is compared (`store.compare`), and its words (`comparison`).
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from heal_core import __version__
from heal_core.arms import arm_named
from heal_core.report.charts.catalogue import CHARTS
from heal_core.report.charts.drawing import Chart, Palette, draw_intervals
from heal_core.report.comparison import comparison_tables, problem_lines, score_notes, scores_in_order
from heal_core.report.names import BANDS_OF_SCORES
from heal_core.report.page import SECTIONS, Figure, asset, draw_figure, environment
from heal_core.report.trajectory import bound
from heal_core.store.reading import Readable
from heal_core.store.report import read_report


def build_comparison(store: Readable, found: dict[str, Any]) -> str:
    """Return the comparison of two runs as one HTML file.

    Args:
        store: That of the runs.
        found: Of `compare_runs`.

    Raises:
        StoreError: If the store is of an older schema.
    """
    runs, evaluation = found["runs"], found["evaluation"]
    a, b = (read_report(store, runs[side]["run_id"]) for side in "ab")
    difference = Chart(
        "Differences of scores, B − A",
        "Over the held-out problems of both runs, with 95 % intervals from a paired bootstrap over problems; the "
        "number of problems is in brackets.",
        lambda _, palette: _draw(evaluation, palette),
        lambda _: _rows(evaluation),
    )
    sections = []
    for name, (title, charts) in SECTIONS.items():
        pairs = [
            (_named(draw_figure(chart, CHARTS[chart], a), "a"), _named(draw_figure(chart, CHARTS[chart], b), "b"))
            for chart in charts
        ]
        if pairs := [pair for pair in pairs if any(pair)]:
            sections.append((f"section-{name}", title, pairs))
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            runs=runs,
            tables=list(comparison_tables(found)),
            problem_lines=list(problem_lines(found["problems"])),
            why_empty=evaluation["why_empty"],
            notes=[]
            if evaluation["why_empty"]
            else score_notes(evaluation, found["problems"]["by_split"]["held_out"]["num_shared"]),
            difference=None if evaluation["why_empty"] else draw_figure("differences", difference, a),
            sections=sections,
            style=Markup(asset("report.css")),
            version=__version__,
            bound=bound,
        )
    )


def _named(figure: Figure | None, side: str) -> Figure | None:
    """Return a figure under a name that both sides of a page do not share."""
    return None if figure is None else Figure(**{**vars(figure), "name": f"{figure.name}-{side}"})


def _rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "score": f"{arm_named(row['arm']).label}, {BANDS_OF_SCORES.get(row['band'], row['band'])} "
            f"({row['num_problems']})",
            "difference": 100 * row["difference"],
            "low": None if row["interval"] is None else 100 * row["interval"][0],
            "high": None if row["interval"] is None else 100 * row["interval"][1],
        }
        for row in scores_in_order(evaluation)
    ]


def _draw(evaluation: dict[str, Any], palette: Palette) -> Any:
    rows = [
        row | {"zero": "excludes 0" if row["low"] is not None and (row["low"] > 0 or row["high"] < 0) else "includes 0"}
        for row in _rows(evaluation)
    ]
    colour = ("zero", ["excludes 0", "includes 0"])
    return draw_intervals(rows, palette, "score", "difference", "points of avg@k", 0.0, colour) if rows else None
