"""The report of a run as one page that needs nothing else: text, charts and data in a single HTML file.

Whatever a model or a user wrote reaches the page escaped: through Jinja2's autoescape, as text within the charts'
SVG, or as JSON that the page's script puts into text nodes. A policy in the page lets no other script run, and
nothing be loaded. What does not belong here: what is counted (`store.report`), and how a trajectory is cut into
steps (`trajectory`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel

from heal_core import __version__
from heal_core.arms import arm_named
from heal_core.breakpoints import BreakpointConfig
from heal_core.report import names
from heal_core.report.charts.catalogue import CHARTS
from heal_core.report.charts.drawing import PAGE, Chart, render
from heal_core.report.charts.evaluation import in_order
from heal_core.report.headline import answers
from heal_core.report.sampling import MAX_PER_GROUP, RULE, choose_trajectories, keep_fitting
from heal_core.report.trajectory import bound, view_trajectory
from heal_core.steps import StepsConfig
from heal_core.store.inspector import list_trajectories, read_token_arrays, read_trajectories, sample_trajectories
from heal_core.store.reading import Readable
from heal_core.store.report import RunReport, read_report

T = TypeVar("T", bound=BaseModel)

MAX_TABLE_ROWS = 200
MAX_EXAMPLE_STEPS = 4
MAX_EXAMPLE_CHARS = 240
MAX_EXAMPLE_QUESTION_CHARS = 600
_LONG_WORD = re.compile(r"\S{100}(?=\S)")

SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "funnel": ("Funnel", ("funnel",)),
    "bands": ("Problems", ("bands", "pass-rates")),
    "entropy": ("Where it breaks", ("entropy", "breaks")),
    "pure": ("Filters", ("gates", "pure", "validity")),
    "training": ("Training", ("stages", "loss")),
    "evaluation": ("Evaluation", ("scores", "contrasts")),
    "cost": ("Cost", ("cost",)),
}
"""Sections of the page with the charts in them, between the headline and the config."""


@dataclass(frozen=True)
class Live:
    """What a page of `heal view` says beside the run: when its store was published, and which runs there are."""

    published_at: datetime
    runs: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Figure:
    """A chart as the page shows it: SVG of its own making, and its numbers; `name` is its place in the page."""

    name: str
    title: str
    caption: str
    svg: Markup
    rows: Sequence[Mapping[str, Any]]
    num_rows: int


def build_page(store: Readable, run_id: str) -> str:
    """Return the report of a run as one HTML file, with as many trajectories as fit (`sampling`).

    Raises:
        StoreError: If the store is of an older schema, or a part is damaged.
    """
    report = read_report(store, run_id)
    rows, num_all = sample_trajectories(store, run_id, MAX_PER_GROUP)
    known = {row["trajectory_id"] for row in rows}
    parents = list_trajectories(
        store, run_id, [row["parent_id"] for row in rows if row["parent_id"] not in known | {None}]
    )
    chosen = choose_trajectories(rows, parents)
    found = view_trajectories(store, run_id, report.run["config"], chosen)
    size = {row_id: len(_json_for_script(view)) for row_id, view in found.items()}
    kept = keep_fitting(chosen, {row_id: view["parent"] for row_id, view in found.items()}, size)
    listed = list_trajectories(store, run_id, kept)
    views = {row_id: found[row_id] for row_id in kept}
    data = {"run_id": run_id, "listed": listed, "trajectories": views, "num_all": num_all}
    return render_page(report, data, find_example(listed, views))


def view_trajectories(
    store: Readable, run_id: str, config: Mapping[str, Any], trajectory_ids: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return trajectories as the inspector shows them, by id; those that the store does not have are left out.

    Args:
        store: Where they are.
        run_id: The run that is looked at.
        config: Its settings, which say how steps are cut.
        trajectory_ids: Which are wanted.
    """
    steps, breakpoints = known_settings(config)
    arrays = read_token_arrays(store, trajectory_ids)
    found = read_trajectories(store, run_id, trajectory_ids)
    return {row_id: view_trajectory(row, arrays.get(row_id), steps, breakpoints) for row_id, row in found.items()}


def known_settings(config: Mapping[str, Any]) -> tuple[StepsConfig, BreakpointConfig]:
    """Return how a run cuts steps and finds breakpoints; of an older HEAL's run what is known today."""

    def known(model: type[T], section: str) -> T:
        settings = config.get(section, {})
        return model.model_validate({name: settings[name] for name in model.model_fields if name in settings})

    return known(StepsConfig, "steps"), known(BreakpointConfig, "breakpoints")


def _model_name(config: Mapping[str, Any], role: str) -> str:
    return str((config.get(role) or {}).get("model_name_or_path", "unknown"))


def render_page(
    report: RunReport,
    data: Mapping[str, Any],
    example: Mapping[str, Any] | None,
    live: Live | None = None,
) -> str:
    """Return the page.

    Args:
        report: What the run counts.
        data: For the inspector: `listed` and `trajectories`, or an `api` to ask for them.
        example: Of `find_example`.
        live: What a page of `heal view` says beside; None for a file.
    """
    template = environment().get_template("report.html.j2")
    script, style = asset("report.js"), asset("report.css")
    return template.render(
        report=report,
        answers=answers(report),
        scores=in_order(report.scores),
        sections=[
            (name, title, [figure for chart in charts if (figure := draw_figure(chart, CHARTS[chart], report))])
            for name, (title, charts) in SECTIONS.items()
        ],
        teacher=_model_name(report.run["config"], "teacher"),
        student=_model_name(report.run["config"], "student"),
        config=_flat(report.run["config"]),
        data=Markup(_json_for_script({**data, "reasons": names.REASONS | names.GATES})),
        example=example,
        num_listed=len(data.get("listed", ())),
        num_all=data.get("num_all"),
        rule=RULE,
        live=live,
        script=Markup(script),
        policy=Markup(page_policy(is_live=live is not None)),
        style=Markup(style),
        names=names,
        arm_label=lambda name: arm_named(name).label,
        version=__version__,
        bound=bound,
    )


def render_notice(why: str) -> str:
    """Return a page that says why there is no report, for now."""
    return environment().get_template("notice.html.j2").render(why=why, style=Markup(asset("report.css")), bound=bound)


def page_policy(is_live: bool) -> str:
    """Return the policy of a page's content: its own script alone, and nothing loaded but from its server, if any."""
    source = "'self'" if is_live else "'none'"
    return (
        f"default-src 'none'; script-src '{_hash(asset('report.js'))}'; style-src 'unsafe-inline'; "
        f"connect-src {source}; base-uri 'none'; form-action 'none'"
    )


def draw_figure(name: str, chart: Chart, report: RunReport) -> Figure | None:
    """Return a chart for the page; None where the run has nothing to draw."""
    svg = render(chart, report, PAGE)
    if svg is None:
        return None
    rows = chart.rows(report)
    return Figure(name, chart.title, chart.caption, Markup(svg.decode()), rows[:MAX_TABLE_ROWS], len(rows))


def find_example(
    listed: Sequence[Mapping[str, Any]], views: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """Return a kept repair for the headline beside its original: a short one that goes another way at once, if any.

    Args:
        listed: Rows of `list_trajectories`.
        views: Theirs and their originals', by id.
    """
    pairs = [
        (views[row["trajectory_id"]], views[row["parent_id"]])
        for row in listed
        if row["phase"] == "repairs" and row["outcome"] == "kept" and row["parent_id"] in views
    ]
    if not pairs:
        return None

    def rank(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[Any, ...]:
        repair, original = pair
        first, broken = _step_texts(repair, 0)[:1], _step_texts(original, original.get("breakpoint") or 0)[:1]
        return first == broken, not repair["hint"], repair["num_tokens"], repair["id"]

    repair, original = min(pairs, key=rank)
    return {
        "id": repair["id"],
        "question": _cut(repair["question"], MAX_EXAMPLE_QUESTION_CHARS),
        "hint": repair["hint"],
        "broken": _step_texts(original, original.get("breakpoint") or 0)[:MAX_EXAMPLE_STEPS],
        "went_on": _step_texts(repair, 0)[:MAX_EXAMPLE_STEPS],
    }


def _step_texts(view: Mapping[str, Any], first: int) -> list[str]:
    """Return the texts of the steps from one on, each bounded."""
    starts = [step["start"] for step in view["steps"]] or [0]
    texts = ["".join(view["tokens"][start:end]).strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return [_cut(text) for text in texts[first:]]


def _cut(text: str, limit: int = MAX_EXAMPLE_CHARS) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return settings as dotted keys with their values as JSON."""
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", bound(json.dumps(value, ensure_ascii=False))))
    return rows


def _shown(value: Any) -> Any:
    """Return a text as HTML with its layout signs made visible and places to break within its long words.

    A browser takes half a minute to paint a word of 20,000 letters that has none.
    """
    if not isinstance(value, str):
        return value
    return Markup("<wbr>").join(_LONG_WORD.sub("\\g<0>\0", names.visible(value)).split("\0"))


def _json_for_script(data: Any) -> str:
    """Return JSON that may stand within a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), default=str, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def asset(name: str) -> str:
    """Return a file that the pages are made of."""
    return (files("heal_core.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def environment() -> Environment:
    """Return how templates become pages: everything escaped, nothing undefined."""
    made = Environment(
        loader=PackageLoader("heal_core.report", "assets"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(
        percent=names.percent, points=names.points, seconds=names.seconds, count=names.count, visible=_shown
    )
    return made
