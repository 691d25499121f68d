"""The charts: drawn for page and paper, empty where there is nothing, and of numbers that add up."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.report.charts import filters, funnel, training
from heal_core.report.charts.catalogue import CHARTS, chart_named
from heal_core.report.charts.drawing import PAGE, PAPER, render
from heal_core.report.page import SECTIONS
from heal_core.store.report import RunReport

MakeReport = Callable[..., RunReport]

VALIDITY = [
    {"measure": "jump", "kind": "all", "auroc": 0.9, "low": 0.8, "high": 0.95, "num_shortcuts": 5, "num_natural": 5,
     "winner": "jump", "chosen": "ratio", "verdict": "unproven"},
]  # fmt: skip


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_drawn_as_svg_that_parses(name: str, make_report: MakeReport) -> None:
    drawn = render(CHARTS[name], make_report(validity=VALIDITY), PAGE)
    assert drawn is not None
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert b"<script" not in drawn


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_without_rows_is_none(name: str, make_report: MakeReport) -> None:
    lists = {field.name: [] for field in dataclasses.fields(RunReport) if field.name not in ("run", "ceiling")}
    empty = make_report(**lists)
    assert render(CHARTS[name], empty, PAGE) is None
    assert CHARTS[name].rows(empty) == []


def test_every_chart_has_a_place_in_the_page() -> None:
    assert sorted(name for _, charts in SECTIONS.values() for name in charts) == sorted(CHARTS)


def test_the_page_has_colours_that_follow_its_scheme_and_the_paper_has_none_of_these(make_report: MakeReport) -> None:
    page, paper = (render(CHARTS["bands"], make_report(), palette) for palette in (PAGE, PAPER))
    assert page is not None and b"var(--series-1)" in page
    assert paper is not None and b"var(" not in paper


def test_png_and_pdf_are_what_they_say(make_report: MakeReport) -> None:
    png, pdf = (render(CHARTS["bands"], make_report(), PAPER, form) for form in ("png", "pdf"))  # type: ignore[arg-type]
    assert png is not None and png.startswith(b"\x89PNG")
    assert pdf is not None and pdf.startswith(b"%PDF")


def test_an_unknown_chart_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match="there is no chart 'pi'; expected one of funnel, bands"):
        chart_named("pi")


def test_hostile_words_in_a_chart_stay_words(make_report: MakeReport) -> None:
    rows = [{"position": 1, "phase": "<script>x</script>", "outcome": "</svg><b onclick=x>", "reason": None, "num": 3,
             "num_in_phase": 3}]  # fmt: skip
    drawn = render(CHARTS["funnel"], make_report(funnel=rows), PAGE)
    assert drawn is not None
    tags = {element.tag.rsplit("}")[-1] for element in ElementTree.fromstring(drawn).iter()}
    assert not tags & {"script", "b"}
    assert b"&lt;script&gt;" in drawn


@pytest.mark.parametrize(
    ("rate", "place"),
    [(0.0, "0"), (0.01, "≤ 0.1"), (0.1, "≤ 0.1"), (0.11, "≤ 0.2"), (0.3, "≤ 0.3"), (0.99, "≤ 1.0"), (1.0, "1")],
)
def test_pass_rates_fall_into_their_tenth_and_the_ends_stand_alone(
    rate: float, place: str, make_report: MakeReport
) -> None:
    problem = {"problem_id": "p", "band": "hard", "rate_before": rate, "rate_after": rate}
    rows = funnel.pass_rate_rows(make_report(pass_rates=[problem]))
    assert [row["pass_rate"] for row in rows] == [place, place]


def test_bins_of_pure_hold_every_scored_repair_once(make_report: MakeReport) -> None:
    pure: list[dict[str, Any]] = [
        {"score_name": "ratio", "score": value, "decision": "kept", "reason": None, "rule": "pooled",
         "pooled_threshold": None}
        for value in (0.0, 0.5, 1.0, 7.5, 7.5)
    ]  # fmt: skip
    pure.append(pure[0] | {"score": None, "decision": "dropped"})  # rejected: it has no score
    rows = filters.pure_rows(make_report(pure=pure))
    assert sum(row["repairs"] for row in rows) == 5
    assert rows[0]["from"] == 0.0 and rows[-1]["to"] == pytest.approx(7.5)


def test_equal_scores_of_pure_are_drawn(make_report: MakeReport) -> None:
    pure = [make_report().pure[0]] * 4
    assert render(CHARTS["pure"], make_report(pure=pure), PAGE) is not None


def test_held_out_losses_stand_where_their_stage_begins_and_ends(make_report: MakeReport) -> None:
    one = make_report().held_out[0]
    stages = [one, one | {"stage": "II", "num_optimizer_steps": 3}]
    found = training.held_out_points(make_report(held_out=stages))
    assert [point["optimizer_step"] for point in found] == [0, 1, 1, 4]


def test_what_has_no_standard_error_has_no_interval(make_report: MakeReport) -> None:
    scores = [make_report().scores[0] | {"standard_error": None}]
    entropies = [make_report().entropies[0] | {"standard_error": None, "num": 1}]
    report = make_report(scores=scores, entropies=entropies)
    for name in ("scores", "entropy"):
        (row,) = CHARTS[name].rows(report)
        assert row["low"] is row["high"] is None
        assert render(CHARTS[name], report, PAGE) is not None
