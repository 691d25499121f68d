"""The server's answers on a small store: the page, lists by filter, one trajectory, SQL, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from heal_core.store.workspace import Workspace
from heal_core.view import live
from heal_core.view.app import make_app
from heal_core.view.gate import HEADERS, Keys
from heal_core.view.live import MAX_LISTED, LiveRun
from heal_core.view.search import Searches

PORT = 8510
HOSTILE = ["'; DROP TABLE runs; --", '"><script>alert(1)</script>', "../../etc/passwd", "%00", "\u202e", "x" * 5000, ""]


def open_browser(workspace: Workspace, run: str = "last") -> TestClient:
    """Return a browser that was let in to a server on a workspace."""
    keys = Keys()
    app = make_app(LiveRun(workspace, run), Searches(workspace), PORT, keys)
    browser = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
    browser.cookies.set(f"heal_view_{PORT}", keys.token)
    return browser


@pytest.fixture
def browser(small_store: Any) -> TestClient:
    return open_browser(small_store.workspace)


@pytest.fixture
def ask(browser: TestClient) -> Callable[..., Any]:
    """Return a function that asks the api about the second run and returns what was answered."""

    def ask(path: str, run: str = "run2", **parameters: Any) -> Any:
        names = {name.replace("_", "-"): value for name, value in parameters.items()}
        answer = browser.get(f"/api/{path}", params={"run": run, **names})
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.content.isascii()
        return (answer.status_code, answer.json())

    return ask


# ---- the page


def test_the_page_is_that_of_the_newest_run_and_names_the_others(browser: TestClient) -> None:
    page = browser.get("/")
    assert page.status_code == 200
    assert "<title>HEAL run run2</title>" in page.text
    assert 'href="/?run=run1"' in page.text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.text, re.DOTALL)
    assert data is not None
    given = json.loads(data[1])
    assert given.pop("reasons")  # what they mean, in words
    assert given == {"run_id": "run2", "api": "/api"}
    assert "<title>HEAL run run1</title>" in browser.get("/?run=run1").text
    assert "<title>HEAL run run1</title>" in browser.get("/?run=previous").text


def test_the_policy_of_header_and_page_agree_but_for_framing(browser: TestClient) -> None:
    page = browser.get("/")
    within = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page.text)
    assert within is not None
    assert page.headers["Content-Security-Policy"] == f"{within[1]}; frame-ancestors 'none'"
    assert "connect-src 'self'" in within[1] and "script-src 'sha256-" in within[1]


def test_a_kept_repair_is_the_example_without_the_page_holding_trajectories(
    browser: TestClient, small_store: Any
) -> None:
    assert f'href="#t={small_store.repairs[0]}"' in browser.get("/").text


def test_a_page_is_made_anew_when_the_store_is_and_not_before(
    browser: TestClient, small_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    render = live.render_page
    monkeypatch.setattr(live, "render_page", lambda *given: made.append("page") or render(*given))
    first = browser.get("/").text
    assert browser.get("/").text == first and len(made) == 1
    browser.get("/?run=run1")
    assert browser.get("/").text == first and len(made) == 2
    small_store.add_problem("p1")
    assert browser.get("/").text != first and len(made) == 3


def test_the_run_that_is_shown_first_can_be_chosen(small_store: Any) -> None:
    assert "<title>HEAL run run1</title>" in open_browser(small_store.workspace, "run1").get("/").text


# ---- lists


def test_all_trajectories_are_listed_repairs_first(ask: Callable[..., Any], small_store: Any) -> None:
    status, found = ask("trajectories")
    assert (status, found["num_all"]) == (200, 4)
    assert [row["phase"] for row in found["rows"]] == ["repairs"] * 3 + ["rollouts"]
    assert found["rows"][0]["trajectory_id"] == small_store.repairs[0]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"kind": "repairs"}, "abc"),
        ({"kind": "rollouts"}, "r"),
        ({"verdict": "wrong"}, "r"),
        ({"outcome": "kept"}, "a"),
        ({"outcome": "dropped by cap"}, "b"),
        ({"gate": "over_cap"}, "b"),
        ({"kind": "repairs", "verdict": "wrong"}, ""),
        ({"stage": "III"}, ""),
        ({"band": "easy"}, ""),
        ({"pure_min": "0"}, ""),
        ({"text": "many eggs"}, "abcr"),  # of the question, in other letters
        ({"text": "P0"}, "abcr"),
        ({"text": "no such text"}, ""),
        ({"text": "%"}, ""),  # no pattern
        ({"text": "' OR true --"}, ""),
        ({"kind": "' OR true --"}, ""),
    ],
)
def test_filters_narrow_the_list(
    ask: Callable[..., Any], small_store: Any, filters: dict[str, str], expected: str
) -> None:
    names = dict(zip(small_store.repairs, "abc", strict=True)) | {small_store.rollout: "r"}
    status, found = ask("trajectories", **filters)
    assert status == 200
    assert sorted(names[row["trajectory_id"]] for row in found["rows"]) == sorted(expected)
    assert found["num_all"] == len(expected)


def test_text_is_searched_in_texts_and_ids(ask: Callable[..., Any], small_store: Any) -> None:
    (one, *_) = small_store.repairs
    _, view = ask("trajectory", id=one)
    words = "".join(view["tokens"])[:9]
    for text in (one[5:20].upper(), words):
        assert one in {row["trajectory_id"] for row in ask("trajectories", text=text)[1]["rows"]}
    assert ask("trajectories", text=one)[1]["num_all"] == 1


@pytest.mark.parametrize("number", ["x", "nan", "inf", "1e999", "0x1"])
def test_a_bound_that_is_no_number_is_refused(ask: Callable[..., Any], number: str) -> None:
    status, said = ask("trajectories", pure_min=number)
    assert status == 400 and "pure-min is no number" in said["error"]


def test_the_values_of_filters_are_those_that_occur(ask: Callable[..., Any]) -> None:
    assert ask("values") == (
        200,
        {"kind": ["repairs", "rollouts"], "band": [], "verdict": ["correct", "wrong"],
         "outcome": ["continued", "dropped by cap", "kept"], "gate": ["over_cap"], "stage": []},
    )  # fmt: skip
    assert ask("values", run="run1")[1]["kind"] == []


# ---- one trajectory


def test_a_trajectory_comes_with_what_was_decided_of_it(ask: Callable[..., Any], small_store: Any) -> None:
    status, view = ask("trajectory", id=small_store.repairs[1])
    assert (status, view["kind"], view["parent"]) == (200, "repair", small_store.rollout)
    assert [(one["phase"], one["decision"]) for one in view["decisions"]] == [("cap", "dropped")]
    assert len(view["tokens"]) == len(view["entropies"]) == view["num_tokens"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_ids_and_runs_find_nothing_and_come_back_as_data(ask: Callable[..., Any], hostile: str) -> None:
    status, said = ask("trajectory", id=hostile)
    assert status == 404 and "has no trajectory" in said["error"]
    status, said = ask("trajectory", run=hostile, id="x")
    assert status == 404 and "has no run" in said["error"]
    assert ask("trajectories", run=hostile) == (200, {"rows": [], "num_all": 0})
    assert ask("trajectories")[1]["num_all"] == 4


@pytest.mark.parametrize("hostile", [text for text in HOSTILE if text])
def test_a_page_of_a_hostile_run_says_so_in_text(browser: TestClient, hostile: str) -> None:
    answer = browser.get("/", params={"run": hostile})
    assert answer.status_code == 404
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src")
    assert "<script" not in answer.text
    assert "no run has an id that begins with" in unescape(answer.text)


# ---- SQL


def test_trajectories_that_a_query_names_are_listed_in_its_order(ask: Callable[..., Any], small_store: Any) -> None:
    query = "SELECT row_id AS trajectory_id FROM run_rows WHERE kind = 'repair' ORDER BY row_id DESC"
    status, found = ask("sql", query=query)
    backwards = sorted(small_store.repairs, reverse=True)
    assert status == 200
    assert [row["trajectory_id"] for row in found["listed"]] == backwards
    assert (found["rows"], found["num_ids"]) == ([[name] for name in backwards], 3)
    status, found = ask("sql", query="SELECT 1 AS n")
    assert (status, found) == (200, {"columns": ["n"], "rows": [[1]], "is_cut": False, "notes": []})


def test_ids_of_no_trajectory_are_counted_and_not_listed(ask: Callable[..., Any], small_store: Any) -> None:
    query = f"SELECT '{small_store.rollout}' AS trajectory_id UNION ALL SELECT range::VARCHAR FROM range({MAX_LISTED})"
    _, found = ask("sql", query=f"FROM ({query}) ORDER BY trajectory_id DESC")
    assert found["num_ids"] == MAX_LISTED + 1
    assert {row["trajectory_id"] for row in found["listed"]} <= {small_store.rollout}


@pytest.mark.parametrize("query", ["SELEC", "", "SELECT error('<script>')", "DROP TABLE heal.runs", "SELECT $x"])
def test_a_refused_query_is_an_error_of_the_one_who_asks(ask: Callable[..., Any], query: str) -> None:
    status, said = ask("sql", query=query)
    assert status == 400 and list(said) == ["error"] and said["error"]


# ---- what goes wrong


def test_unknown_paths_are_not_found(browser: TestClient) -> None:
    assert browser.get("/api/none").status_code == 404
    assert browser.get("/api/none").json() == {"error": "Not Found"}
    assert browser.get("/favicon.ico").status_code == 404
    for path in ("/../secret", "/assets/report.js", "/heal.duckdb"):
        assert browser.get(path).status_code == 404


def test_before_the_first_publication_it_says_so_and_then_answers(small_store: Any, tmp_path: Path) -> None:
    workspace = small_store.workspace
    hidden = tmp_path / "hidden.duckdb"
    workspace.database.rename(hidden)
    browser = open_browser(workspace)
    page = browser.get("/")
    assert (page.status_code, page.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert "nothing is published" in page.text and "Reload" in page.text
    for path in ("trajectories", "values", "trajectory?id=x", "sql?query=SELECT 1"):
        answer = browser.get(f"/api/{path}")
        assert answer.status_code == 503 and "no store at" in answer.json()["error"]
    hidden.rename(workspace.database)
    assert browser.get("/").status_code == 200


def test_a_damaged_store_says_so(small_store: Any) -> None:
    small_store.workspace.database.write_bytes(b"damaged" * 4096)
    browser = open_browser(small_store.workspace)
    page = browser.get("/")
    assert page.status_code == 503 and "heal store rebuild" in page.text
    assert "heal store rebuild" in browser.get("/api/values?run=run2").json()["error"]


def test_without_the_parts_texts_are_shown_without_entropies(browser: TestClient, small_store: Any) -> None:
    shutil.rmtree(small_store.workspace.parts)
    assert browser.get("/").status_code == 200
    view = browser.get("/api/trajectory", params={"run": "run2", "id": small_store.rollout}).json()
    assert (view["entropies"], len(view["tokens"]), view["steps"]) == ([None], 1, [])


def test_no_request_fails_while_the_store_is_replaced(browser: TestClient, small_store: Any, tmp_path: Path) -> None:
    database = small_store.workspace.database
    copy = database.read_bytes()
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            (tmp_path / "next").write_bytes(copy)
            os.replace(tmp_path / "next", database)
            time.sleep(0.002)

    replacing = threading.Thread(target=replace)
    replacing.start()
    try:
        paths = ("/api/trajectories?run=run2", f"/api/trajectory?run=run2&id={small_store.rollout}",
                 "/api/sql?run=run2&query=FROM problems")  # fmt: skip
        assert {browser.get(path).status_code for _ in range(6) for path in paths} == {200}
    finally:
        done.set()
        replacing.join()


def test_reading_goes_on_while_a_query_runs(small_store: Any) -> None:
    searches = Searches(small_store.workspace)
    keys = Keys()
    app = make_app(LiveRun(small_store.workspace, "last"), searches, PORT, keys)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", cookies={f"heal_view_{PORT}": keys.token}) as browser:
        endless = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b"
        asking = threading.Thread(target=browser.get, args=(f"/api/sql?run=run2&query={endless}",))
        asking.start()
        try:
            assert browser.get("/api/trajectories?run=run2").json()["num_all"] == 4
            assert asking.is_alive()
        finally:
            searches.end()
            asking.join(10)
        assert not asking.is_alive()


def test_every_answer_has_the_headers_of_the_gate(browser: TestClient) -> None:
    for path in ("/", "/?run=none", "/api/none", "/api/values?run=run2", "/api/sql?query=SELEC"):
        headers = browser.get(path).headers
        assert {name: headers[name] for name in HEADERS if name != "Content-Security-Policy"} == {
            name: value for name, value in HEADERS.items() if name != "Content-Security-Policy"
        }
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
