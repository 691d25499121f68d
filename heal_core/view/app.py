"""What the server answers: the page of a run, and as JSON what the page asks for.

What goes wrong is said in the same form, a notice as a page or `{"error": ...}`. What does not belong here: who may
ask (`gate`), and what is read (`live`, `search`).
"""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from heal_core.errors import HealError, InputError, StoreError
from heal_core.report.page import page_policy, render_notice
from heal_core.store.plain import plain
from heal_core.view.gate import Gate, Keys
from heal_core.view.live import FILTERS, MAX_LISTED, LiveRun
from heal_core.view.search import Searches

_API = "/api/"


class Answers:
    """The answers about the runs of one workspace."""

    def __init__(self, live: LiveRun, searches: Searches) -> None:
        self._live = live
        self._searches = searches

    def page(self, request: Request) -> Response:
        """Return the page of the run `run`, by default of that which is shown first."""
        page = self._live.page(request.query_params.get("run", ""))
        policy = f"{page_policy(is_live=True)}; frame-ancestors 'none'"
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    def trajectories(self, request: Request) -> Response:
        """Return the first trajectories of the run `run` that meet the filters, and how many do."""
        asked = request.query_params
        filters = {name: asked.get(name, "") for name in FILTERS}
        pure = (_number(request, "pure-min"), _number(request, "pure-max"))
        return _Json(self._live.trajectories(_run_of(request), filters, pure, asked.get("text", "")))

    def values(self, request: Request) -> Response:
        """Return the values of the filters that occur in the run `run`."""
        return _Json(self._live.values(_run_of(request)))

    def trajectory(self, request: Request) -> Response:
        """Return the trajectory `id` as the run `run` uses it."""
        return _Json(self._live.trajectory(_run_of(request), request.query_params.get("id", "")))

    def sql(self, request: Request) -> Response:
        """Return what the query `query` finds; with ids of trajectories, their rows are in `listed`."""
        run_id = _run_of(request)
        try:
            found = self._searches.run(request.query_params.get("query", ""), run_id)
        except InputError as error:
            raise HTTPException(400, str(error)) from error
        answer = {"columns": found.columns, "rows": found.rows, "is_cut": found.is_cut, "notes": found.notes}
        if found.ids is not None:
            listed = self._live.named(run_id, found.ids[:MAX_LISTED])
            answer |= {"listed": listed, "num_ids": len(found.ids)}
        return _Json(answer)


def make_app(live: LiveRun, searches: Searches, port: int, keys: Keys) -> Starlette:
    """Return the server's app, behind its gate."""
    answers = Answers(live, searches)
    return Starlette(
        routes=[
            Route("/", answers.page),
            Route(f"{_API}trajectories", answers.trajectories),
            Route(f"{_API}values", answers.values),
            Route(f"{_API}trajectory", answers.trajectory),
            Route(f"{_API}sql", answers.sql),
        ],
        middleware=[Middleware(Gate, port=port, keys=keys)],
        exception_handlers={HealError: _say_what_is_wrong, HTTPException: _say_what_is_wrong},
    )


class _Json(JSONResponse):
    """JSON in ASCII, with null in place of what is no finite number."""

    def render(self, content: Any) -> bytes:
        return json.dumps(plain(content), allow_nan=False, separators=(",", ":")).encode()


def _say_what_is_wrong(request: Request, error: Exception) -> Response:
    """Return an error in the form that was asked for; a store that cannot be read now may be later."""
    status = error.status_code if isinstance(error, HTTPException) else 503 if isinstance(error, StoreError) else 404
    why = error.detail if isinstance(error, HTTPException) else str(error)
    if request.url.path.startswith(_API):
        return _Json({"error": why}, status)
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(render_notice(why), status, {"Content-Security-Policy": policy})


def _run_of(request: Request) -> str:
    return request.query_params.get("run", "")


def _number(request: Request, name: str) -> float | None:
    """Return a number of the query, None where there is none."""
    text = request.query_params.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise HTTPException(400, f"{name} is no number: {text!r}.")
    return value
