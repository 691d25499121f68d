"""`heal report`, `heal plot`, `heal compare --html` and what they read, on a run of the reduced lab."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.outcome import is_of_run
from heal_core.errors import InputError, StoreError
from heal_core.report.charts.catalogue import CHARTS
from heal_core.report.page import build_page
from heal_core.report.sampling import MAX_PER_GROUP, choose_trajectories
from heal_core.store.inspect import open_store
from heal_core.store.inspector import (
    list_trajectories,
    page_of_trajectories,
    read_token_arrays,
    read_trajectory,
    sample_trajectories,
)
from heal_core.store.reading import PublishedStore
from heal_core.store.report import check_schema, read_report

Row = dict[str, Any]


class Page(HTMLParser):
    """What a page holds: its scripts by type, whatever it would load, and handlers of events."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: dict[str | None, str] = {}
        self.loads: list[str] = []
        self._script: tuple[str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._script = (given.get("type"),) if tag == "script" else None
        self.loads += [f"{tag} {name}={value}" for name, value in attrs
                       if name in ("src", "srcset", "action", "data") or name.startswith("on")
                       or (name in ("href", "xlink:href") and not (value or "").startswith("#"))]  # fmt: skip

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script[0]] = self.scripts.get(self._script[0], "") + data

    def handle_endtag(self, tag: str) -> None:
        self._script = None


@pytest.fixture(scope="session")
def page(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "page.html"
    told = CliRunner().invoke(app, ["report", "-w", str(finished_run.workspace), "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert f"{out} (" in told.output.replace("\n", "")
    return out.read_text()


def data_of(page: str) -> Row:
    return dict(json.loads(Page(page).scripts["application/json"]))


def test_a_run_leaves_a_report_in_its_workspace(finished_run: Any) -> None:
    text = (finished_run.workspace / "report.html").read_text()
    assert f"HEAL run {data_of(text)['run_id']}" in text


def test_the_page_needs_nothing_and_its_policy_names_its_one_script(page: str) -> None:
    parsed = Page(page)
    assert parsed.loads == []
    assert set(parsed.scripts) == {None, "application/json"}
    assert re.search(r"default-src 'none'; script-src 'sha256-[A-Za-z0-9+/]{43}='", page)


def test_the_pages_funnel_is_that_of_the_store_and_adds_up(page: str, finished_run: Any) -> None:
    rows = re.findall(
        r'<tr data-phase="(\w+)">.*?<td class="number">([\d,]+)</td><td class="number">([\d,]+)</td></tr>', page, re.S
    )
    assert rows
    sums: dict[str, int] = {}
    wholes: dict[str, set[str]] = {}
    for phase, num, of in rows:
        sums[phase] = sums.get(phase, 0) + int(num.replace(",", ""))
        wholes.setdefault(phase, set()).add(of.replace(",", ""))
    assert {phase: {str(num)} for phase, num in sums.items()} == wholes
    expected = finished_run.rows("SELECT phase, sum(num)::BIGINT AS num FROM funnel GROUP BY phase")
    assert sums == {row["phase"]: row["num"] for row in expected}


def test_a_small_run_is_held_whole_and_each_row_has_its_trajectory(page: str, finished_run: Any) -> None:
    data = data_of(page)
    used = finished_run.one(
        "SELECT count(*) FROM (SELECT DISTINCT trajectory_id, phase FROM run_trajectories "
        "WHERE phase IN ('rollouts', 'repairs', 'guided', 'evaluation'))"
    )
    assert data["num_all"] == used == len(data["listed"])
    assert {row["trajectory_id"] for row in data["listed"]} == set(data["trajectories"])


def test_tokens_and_breakpoints_are_those_of_the_store(page: str, finished_run: Any) -> None:
    views = data_of(page)["trajectories"]
    texts = finished_run.rows("SELECT trajectory_id, text, num_tokens FROM trajectories WHERE kind <> 'hint'")
    known = [row for row in texts if row["trajectory_id"] in views]
    assert len(known) == len(views)
    for row in known:
        view = views[row["trajectory_id"]]
        assert "".join(view["tokens"]) == row["text"]
        assert len(view["tokens"]) == len(view["entropies"]) == row["num_tokens"]
    breaks = finished_run.rows("SELECT trajectory_id, breakpoint_step FROM profiles")
    for row in breaks:
        assert views[row["trajectory_id"]]["breakpoint"] == row["breakpoint_step"]


def test_every_outcome_of_a_repair_is_that_of_the_view(finished_run: Any) -> None:
    with open_store(finished_run.workspace) as connection:
        store = PublishedStore(connection)
        (run_id,) = (row["run_id"] for row in store.rows("SELECT run_id FROM runs"))
        expected = store.rows(
            "SELECT trajectory_id, reason, CASE WHEN outcome = 'kept' OR starts_with(outcome, 'dropped') "
            "THEN outcome END AS outcome FROM repair_outcomes WHERE run_id = ?", [run_id],
        )  # fmt: skip
        found = {
            row["trajectory_id"]: row
            for row in list_trajectories(store, run_id, [row["trajectory_id"] for row in expected])
        }
    assert expected
    for row in expected:
        one = found[row["trajectory_id"]]
        assert (one["outcome"], one["reason"]) == (row["outcome"], row["reason"])


def test_filters_give_what_sql_gives(finished_run: Any) -> None:
    with open_store(finished_run.workspace) as connection:
        store = PublishedStore(connection)
        (run_id,) = (row["run_id"] for row in store.rows("SELECT run_id FROM runs"))

        def filtered(limit: int = 10_000, low: float | None = None, high: float | None = None, **filters: str) -> Any:
            return page_of_trajectories(store, run_id, filters, limit, (low, high))

        kept, num_kept = filtered(phase="repairs", outcome="kept")
        assert num_kept == len(kept) == store.rows("SELECT count(*) AS n FROM run_repairs WHERE kept")[0]["n"] > 0
        _, num_third = filtered(phase="repairs", stage="III")
        assert num_third == num_kept
        scored, _ = filtered(low=-1e9)
        middle = sorted(row["pure"] for row in scored)[len(scored) // 2]
        below, num_below = filtered(high=middle)
        assert num_below == sum(row["pure"] <= middle for row in scored) == len(below)
        some, num_all = filtered(limit=3, phase="rollouts", label="wrong")
        assert len(some) == 3 < num_all
        assert filtered(band="no such band") == ([], 0)
        with pytest.raises(InputError, match="there is no filter 'colour'"):
            filtered(colour="red")


def test_a_repair_comes_with_hint_scores_gates_and_its_rollout_with_repairs(finished_run: Any) -> None:
    with open_store(finished_run.workspace) as connection:
        store = PublishedStore(connection)
        (run_id,) = (row["run_id"] for row in store.rows("SELECT run_id FROM runs"))
        kept = store.rows("SELECT trajectory_id, parent_id FROM run_repairs WHERE kept ORDER BY ALL LIMIT 1")[0]
        repair = read_trajectory(store, run_id, kept["trajectory_id"])
        rollout = read_trajectory(store, run_id, kept["parent_id"])
        with pytest.raises(InputError, match="the store has no trajectory 'nowhere'"):
            read_trajectory(store, run_id, "nowhere")
        assert read_token_arrays(store, ["nowhere"]) == {}
    assert repair["hint"] and repair["score"]["decision"] == "kept"
    assert [one["phase"] for one in repair["decisions"]] == ["gate", "pure", "cap"]
    assert "G2" in {one["gate"] for one in repair["gates"]}
    assert rollout["profile"]["breakpoint_step"] is not None
    assert rollout["verdict"]["label"] == "wrong"
    assert kept["trajectory_id"] in {one["trajectory_id"] for one in rollout["repairs"]}
    assert rollout["repairs"][0]["kept"]


def test_a_page_that_is_full_holds_some_of_every_group_with_the_originals_of_repairs(finished_run: Any) -> None:
    with open_store(finished_run.workspace) as connection:
        store = PublishedStore(connection)
        (run_id,) = (row["run_id"] for row in store.rows("SELECT run_id FROM runs"))
        rows, num_all = sample_trajectories(store, run_id, MAX_PER_GROUP)
        few, still_all = sample_trajectories(store, run_id, 2)
    assert num_all == still_all > len(few)
    groups = {(row["phase"], row["band"], row["label"], row["outcome"], row["reason"]) for row in rows}
    assert {(row["phase"], row["band"], row["label"], row["outcome"], row["reason"]) for row in few} == groups
    chosen = set(choose_trajectories(rows, [], 400_000))
    assert 0 < len(chosen) < num_all
    parents = {row["parent_id"] for row in rows if row["trajectory_id"] in chosen and row["phase"] == "repairs"}
    assert parents and parents <= chosen


def test_the_same_run_gives_the_same_page(page: str, finished_run: Any) -> None:
    with open_store(finished_run.workspace) as connection:
        store = PublishedStore(connection)
        assert build_page(store, data_of(page)["run_id"]) == page


def test_counts_of_the_report_are_those_of_the_store(finished_run: Any) -> None:
    with open_store(finished_run.workspace) as connection:
        store = PublishedStore(connection)
        (run_id,) = (row["run_id"] for row in store.rows("SELECT run_id FROM runs"))
        report = read_report(store, run_id)
        (never,) = store.rows("SELECT count(*) FILTER (num_correct = 0) AS n, count(*) AS of FROM repair_yield")
        (wrong,) = store.rows(
            "SELECT count(*) AS n FROM run_trajectories JOIN profiles USING (trajectory_id) "
            "WHERE phase = 'rollouts' AND label = 'wrong' AND breakpoint_step IS NOT NULL"
        )
    assert (report.ceiling["num_never"], report.ceiling["num_extremely_hard"]) == (never["n"], never["of"])
    assert sum(row["num"] for row in report.break_positions) == wrong["n"]
    assert sum(row["share"] for row in report.break_positions) == pytest.approx(1)
    assert sum(row["random_share"] for row in report.break_positions) == pytest.approx(1)
    at_zero = {row["label"]: row["num"] for row in report.entropies if row["step_offset"] == 0}
    assert at_zero["wrong"] == wrong["n"]
    assert sum(row["num"] for row in report.bands) == sum(
        row["num"] for row in report.funnel if row["phase"] == "problems"
    )


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_a_chart_is_written_for_a_paper(ending: str, finished_run: Any, tmp_path: Path) -> None:
    out = tmp_path / f"entropy.{ending}"
    told = CliRunner().invoke(app, ["plot", "entropy", "-w", str(finished_run.workspace), "-o", str(out)])
    assert told.exit_code == 0, told.output
    assert out.stat().st_size > 1_000


def test_plot_without_a_name_lists_the_charts() -> None:
    told = CliRunner().invoke(app, ["plot"])
    assert [line.split()[0] for line in told.output.splitlines()] == list(CHARTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plot", "pie"], "there is no chart 'pie'"),
        (["plot", "entropy", "-o", "f.gif"], "--out f.gif: expected a file that ends in .svg, .png, .pdf"),
        (["plot", "validity"], "has nothing to draw for 'validity'"),
        (["report", "nothere"], "no run has an id that begins with 'nothere'"),
        (["report", "--out", "/proc/nowhere/report.html"], "cannot be written"),
    ],
)
def test_mistakes_are_told(arguments: list[str], said: str, finished_run: Any) -> None:
    told = CliRunner().invoke(app, [*arguments, "-w", str(finished_run.workspace)])
    assert isinstance(told.exception, InputError)
    assert said in str(told.exception)


def test_two_runs_become_a_page(finished_run: Any, tmp_path: Path) -> None:
    out = tmp_path / "compared.html"
    told = CliRunner().invoke(app, ["compare", "last", "last", "-w", str(finished_run.workspace), "--html", str(out)])
    assert told.exit_code == 0, told.output
    text = out.read_text()
    assert Page(text).loads == [] and Page(text).scripts == {}
    assert "A and B are the same run" in text
    assert text.count('id="chart-funnel-') == 2
    identifiers = re.findall(r' id="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))


def test_a_store_of_an_older_schema_is_refused_with_the_remedy() -> None:
    class Old:
        def rows(self, sql: str, parameters: Any = ()) -> list[Row]:
            return [{"name": "0004_sources"}]

    with pytest.raises(StoreError, match="heal store rebuild"):
        check_schema(Old())  # type: ignore[arg-type]


def test_a_report_is_known_by_its_title_so_that_a_run_that_is_complete_has_its_own(
    finished_run: Any, page: str, tmp_path: Path
) -> None:
    report = finished_run.workspace / "report.html"
    assert is_of_run(report, data_of(page)["run_id"])
    assert not is_of_run(report, "another")
    assert not is_of_run(tmp_path / "nowhere.html", "another")
