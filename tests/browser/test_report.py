"""The report of a run in a real browser: of a finished run, and of one whose every text is hostile."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.inspector import Inspector
from tests.browser.watching import HEIGHT, WIDTHS, WatchedPage

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("finished_run")]  # all of them need it, some by name alone

MAX_BYTES = 5_000_000
SECTIONS = ["headline", "funnel", "bands", "entropy", "pure", "training", "evaluation", "cost", "config", "inspector"]
LOOKS = [
    pytest.param({"width": width, "dark": dark}, id=f"{width}{'-dark' if dark else ''}")
    for width in WIDTHS
    for dark in (False, True)
]

PROVOKE = """() => {
    for (const element of document.querySelectorAll('*'))
        for (const kind of ['mouseover', 'pointerenter', 'focus', 'load', 'error', 'toggle', 'animationend'])
            element.dispatchEvent(new Event(kind));
}"""
"""Events that nobody waits for: an attribute with a handler in it would hear them."""

MARKUP = """() => {
    const all = [...document.querySelectorAll('*')];
    return {
        tags: [...new Set(all.map(e => e.tagName.toLowerCase()))],
        scripts: [...document.querySelectorAll('script')].map(e => e.type),
        styles: document.querySelectorAll('style').length,
        handlers: all.flatMap(e => e.getAttributeNames()).filter(name => name.startsWith('on')),
        links: all.flatMap(e => ['href', 'xlink:href', 'src', 'action', 'srcdoc'].map(name => e.getAttribute(name)))
            .filter(to => to !== null && !to.startsWith('#')),
    };
}"""

BOXES = """() => [...document.querySelectorAll('section[id]')].map(section => {
    const box = section.getBoundingClientRect(), style = getComputedStyle(section);
    return {id: section.id, top: box.top + scrollY, bottom: box.bottom + scrollY, left: box.left, right: box.right,
            shown: style.display !== 'none' && style.visibility === 'visible', length: section.innerText.length};
})"""


@pytest.fixture
def open_report(open_page: Callable[..., WatchedPage]) -> Callable[..., Inspector]:
    """Return a function that opens a report and waits until its inspector is there."""

    def open_report(path: Path, **look: Any) -> Inspector:
        watched = open_page(path, **look)
        watched.page.wait_for_selector("html[data-ready]")
        return Inspector(watched)

    return open_report


@pytest.fixture(params=["finished", "hostile"])
def report(request: pytest.FixtureRequest) -> Path:
    """The report of the finished run, then of the hostile one."""
    path: Path = request.getfixturevalue(f"{request.param}_report")
    return path


# Of both reports


@pytest.mark.parametrize("look", LOOKS)
def test_it_opens_from_a_file_without_network_and_with_nothing_out_of_place(
    open_report: Callable[..., Inspector], report: Path, look: dict[str, Any]
) -> None:
    watched = open_report(report, **look).watched
    watched.shoot(report.stem)
    boxes = watched.page.evaluate(BOXES)
    assert [box["id"] for box in boxes] == SECTIONS
    for box, following in zip(boxes, [*boxes[1:], None], strict=True):
        assert box["shown"], box
        assert box["length"] > 20, box
        assert 0 <= box["left"] < box["right"] <= look["width"], box
        assert following is None or box["bottom"] <= following["top"] + 1, (box, following)
    assert watched.overflow() is None
    watched.page.locator("details:not([open]) > summary").evaluate_all("all => all.forEach(one => one.click())")
    assert watched.overflow() is None
    assert watched.page.evaluate("window.pwned") is None


def test_it_is_small_enough_to_send(report: Path) -> None:
    assert report.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious(open_report: Callable[..., Inspector], report: Path, look: dict[str, Any]) -> None:
    inspector = open_report(report, **look)
    inspector.filter(kind="repairs")
    inspector.open_first()
    inspector.page.locator("details:not([open]) > summary").evaluate_all("all => all.forEach(one => one.click())")
    assert inspector.watched.accessibility_faults() == []


def test_it_prints(open_report: Callable[..., Inspector], report: Path) -> None:
    watched = open_report(report, dark=True).watched
    watched.page.emulate_media(media="print")
    assert _lightness(watched, "background-color") > 0.9
    assert _lightness(watched, "color") < 0.3
    assert watched.overflow() is None
    printed = watched.page.pdf(format="A4")
    watched.page.emulate_media(media="screen")
    assert printed.startswith(b"%PDF")
    assert 3 <= printed.count(b"/Type /Page\n") <= 40


def _lightness(watched: WatchedPage, color: str) -> float:
    """Return how light a colour of the page's body is, from 0 to 1; paper is white."""
    told = watched.page.evaluate("name => getComputedStyle(document.body).getPropertyValue(name)", color)
    *rgb, alpha = [float(part) for part in re.findall(r"[\d.]+", told)] + ([] if told.startswith("rgba") else [1.0])
    return alpha * sum(rgb) / 3 / 255 + 1 - alpha


def test_without_scripts_all_but_the_inspector_is_there(open_page: Callable[..., WatchedPage], report: Path) -> None:
    page = open_page(report, scripts=False).page
    for name in SECTIONS:
        assert page.locator(f"#{name} h2").is_visible()
    assert page.locator("#headline article").count() >= 4


# Of hostile texts


def test_no_text_becomes_markup(
    open_report: Callable[..., Inspector], finished_report: Path, hostile_report: Path
) -> None:
    plain, hostile = (_markup(open_report(path)) for path in (finished_report, hostile_report))
    assert (hostile["handlers"], hostile["links"]) == ([], [])
    assert set(hostile["tags"]) <= {*plain["tags"], "wbr"}
    assert (hostile["scripts"], hostile["styles"]) == (plain["scripts"], plain["styles"])


def _markup(inspector: Inspector) -> dict[str, Any]:
    """Return what a page is made of, after some trajectories of each kind were read and every handler was called."""
    for kind in inspector.filters["kind"]:
        inspector.filter(kind=kind)
        inspector.open_first()
        for _ in range(8):
            inspector.page.keyboard.press("j")
            inspector.page.evaluate(PROVOKE)
    assert inspector.page.evaluate("window.pwned") is None
    assert inspector.watched.overflow() is None
    markup: dict[str, Any] = inspector.page.evaluate(MARKUP)
    return markup


def test_hostile_texts_are_shown_as_they_were_written(
    open_report: Callable[..., Inspector], hostile_report: Path
) -> None:
    inspector = open_report(hostile_report)
    shown = inspector.page.locator("body").inner_text()
    for part in (
        "<script>window.pwned=1</script>",
        "<img src=x onerror=window.pwned=1>",
        "{{ 7*7 }}",
        "&lt;script&gt;",
    ):
        assert part in shown
    for steering in "\u202e\u2066\u2067\x1b\x00":
        assert steering not in inspector.page.locator("#funnel, #config, #headline").all_inner_texts()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_token_of_a_million_characters_is_read_like_any_other(
    open_report: Callable[..., Inspector], hostile_report: Path, width: int
) -> None:
    inspector = open_report(hostile_report, width=width)
    giants = [
        name for name, view in inspector.data["trajectories"].items()
        if any("more characters)" in token for token in view["tokens"])
    ]  # fmt: skip
    assert giants
    for name in giants[:4]:
        inspector.filter(text=name)
        assert inspector.open_first() == name
        assert inspector.watched.overflow() is None
    inspector.watched.shoot_part("#inspector", "hostile-giant")


# Of the finished run: what a newcomer asks


def test_five_questions_are_answered_at_the_top(
    open_report: Callable[..., Inspector], finished_run: Any, finished_report: Path
) -> None:
    watched = open_report(finished_report).watched
    summary = finished_run.summary
    num_hard, num_broken = summary["bands"]["extremely_hard"], summary["repairs"]["problems_broken"]
    dropped: Counter[str] = Counter()
    for row in summary["funnel"]:
        if row["phase"] == "repairs" and row["outcome"].startswith("dropped by "):
            dropped[row["outcome"].removeprefix("dropped by ")] += row["num"]
    ((most, num_dropped),) = dropped.most_common(1)
    (gain,) = (c for c in summary["contrasts"] if (c["arm"], c["against"], c["band"]) == ("heal", "base", "all"))
    answers = {
        "ceiling": [f"{num_hard} of {sum(summary['bands'].values())}"],
        "fell": [f"{num_broken} of {num_hard}"],
        "filter dropped most": [most, str(num_dropped)],
        "repair look": ["hint", "entropy"],
        "better than untrained": [f"{100 * abs(gain[name]):.1f}" for name in ("difference", "low", "high")],
    }
    for question, words in answers.items():
        article = watched.page.locator("#headline article", has_text=question)
        assert article.count() == 1, question
        text = article.inner_text()
        assert [word for word in words if word not in text] == [], (question, text)
        box = article.bounding_box()
        assert box is not None
        assert box["y"] < 1.5 * HEIGHT, f"{question} is answered {box['y']} px down"


def test_the_counts_of_the_funnel_add_up(
    open_report: Callable[..., Inspector], finished_run: Any, finished_report: Path
) -> None:
    page = open_report(finished_report).page
    shown: dict[str, list[int]] = defaultdict(list)
    totals: dict[str, set[int]] = defaultdict(set)
    for row in page.locator("#funnel table.counts tbody tr").all():
        phase = row.get_attribute("data-phase") or ""
        num, total = (int(text.replace(",", "")) for text in row.locator("td.number").all_inner_texts())
        shown[phase].append(num)
        totals[phase].add(total)
    assert {phase: {sum(nums)} for phase, nums in shown.items()} == totals
    query = "SELECT phase, sum(num)::INTEGER AS num FROM funnel GROUP BY phase"
    assert {phase: sum(nums) for phase, nums in shown.items()} == {
        row["phase"]: row["num"] for row in finished_run.rows(query)
    }


# The inspector

FILTERED = {
    "kind": "SELECT phase, trajectory_id FROM run_trajectories",
    "band": "SELECT band, trajectory_id FROM run_trajectories JOIN bands USING (run_id, problem_id)",
    "verdict": "SELECT label, trajectory_id FROM run_trajectories",
    "stage": "SELECT stage, trajectory_id FROM stage_examples WHERE arm = 'heal'",
}
"""By filter, which trajectories have which value, asked of the store."""


@pytest.mark.parametrize("name", FILTERED)
def test_a_filter_lists_what_the_store_has_of_it(
    open_report: Callable[..., Inspector], finished_run: Any, finished_report: Path, name: str
) -> None:
    inspector = open_report(finished_report)
    everything = set(inspector.listed)
    assert inspector.count == len(inspector.listed) > 0
    stored: dict[str, set[str]] = defaultdict(set)
    for row in finished_run.rows(FILTERED[name]):
        value, trajectory_id = row.values()
        stored[value].add(trajectory_id)
    offered = inspector.filters[name]
    assert len(offered) > 1
    for value in offered:
        inspector.filter(**{name: value})
        assert set(inspector.listed) == stored[value] & everything, value
        assert inspector.count == len(inspector.listed) > 0


def test_outcomes_and_reasons_are_those_of_the_store(
    open_report: Callable[..., Inspector], finished_run: Any, finished_report: Path
) -> None:
    inspector = open_report(finished_report)
    inspector.filter(kind="repairs")
    everything = set(inspector.listed)
    outcomes = finished_run.rows("SELECT trajectory_id, outcome, reason FROM run_repairs")
    for outcome in ("kept", "dropped by cap"):
        inspector.filter(outcome=outcome)
        assert (
            set(inspector.listed)
            == {row["trajectory_id"] for row in outcomes if row["outcome"] == outcome} & everything
        )
    inspector.filter(outcome="")
    for reason in {row["reason"] for row in outcomes if row["outcome"] == "dropped by gate"}:
        inspector.filter(gate=reason)
        assert (
            set(inspector.listed) == {row["trajectory_id"] for row in outcomes if row["reason"] == reason} & everything
        )


def test_filters_narrow_each_other_and_are_cleared(
    open_report: Callable[..., Inspector], finished_run: Any, finished_report: Path
) -> None:
    inspector = open_report(finished_report)
    everything = inspector.listed
    scores = {r["trajectory_id"]: r["score"] for r in finished_run.rows("SELECT trajectory_id, score FROM pure_scores")}
    middle = sorted(scores[name] for name in everything if name in scores)[len(scores) // 2]
    inspector.filter(kind="repairs", pure_max=repr(middle))
    below = inspector.listed
    assert set(below) == {name for name in everything if name in scores and scores[name] <= middle}
    inspector.filter(pure_min=repr(middle))
    assert 0 < len(inspector.listed) < len(below)
    inspector.filter(pure_min="", pure_max="", text=below[0][:12].upper())
    assert inspector.listed == below[:1]
    inspector.filter(text="in no trajectory at all")
    assert (inspector.listed, inspector.count) == ([], 0)
    inspector.page.get_by_role("button", name="Clear").click()
    inspector.page.wait_for_function(
        "n => document.querySelectorAll('#trajectory-list > *').length === n", arg=len(everything)
    )
    assert inspector.listed == everything


def test_it_is_worked_by_keys_alone(open_report: Callable[..., Inspector], finished_report: Path) -> None:
    inspector = open_report(finished_report)
    page = inspector.page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link that skips to the inspector
    num_tabs = _tab_to(inspector, "trajectory-list")
    assert num_tabs <= 16
    assert inspector.shows_focus()
    first, second, third, *_, last = inspector.listed
    for key, expected in (("Home", first), ("j", second), ("ArrowDown", third), ("k", second), ("ArrowUp", first),
                          ("k", first), ("End", last), ("j", last), ("Home", first)):  # fmt: skip
        page.keyboard.press(key)
        assert inspector.selected == expected, key
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'trajectory'")
    assert second in page.locator("#trajectory h3").first.inner_text()
    page.keyboard.press("Escape")
    assert inspector.focused == "trajectory-list"
    page.keyboard.press("/")
    assert inspector.focused == "filter-text"
    page.keyboard.type("jk?")
    assert page.locator("#filter-text").input_value() == "jk?"
    assert not page.locator("#help").is_visible()
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    inspector.watched.shoot("help", full_page=False)
    assert inspector.watched.accessibility_faults() == []
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def _tab_to(inspector: Inspector, element_id: str) -> int:
    """Press Tab until an element has the focus; return how often."""
    for number in range(1, 200):
        inspector.page.keyboard.press("Tab")
        if inspector.focused == element_id:
            return number
    raise AssertionError(f"Tab never comes to {element_id}")


def test_every_stop_of_the_tab_key_is_seen(open_report: Callable[..., Inspector], finished_report: Path) -> None:
    inspector = open_report(finished_report)
    unseen = []
    for _ in range(60):
        inspector.page.keyboard.press("Tab")
        if inspector.focused is not None and not inspector.shows_focus():
            unseen.append(inspector.page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
    assert unseen == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_rollout_is_read_with_its_entropies_and_its_breakpoint(
    open_report: Callable[..., Inspector], finished_run: Any, finished_report: Path, width: int
) -> None:
    inspector = open_report(finished_report, width=width)
    inspector.filter(kind="rollouts", verdict="wrong", outcome="continued")
    name = inspector.open_first()
    (row,) = finished_run.rows(
        f"SELECT text, entropies, num_steps, breakpoint_step FROM trajectories JOIN tokens USING (trajectory_id) "
        f"JOIN profiles USING (trajectory_id) WHERE trajectory_id = '{name}'"
    )
    steps = inspector.page.locator("#trajectory .step")
    classes = steps.evaluate_all("all => all.map(one => one.classList.contains('breakpoint'))")
    assert classes == [index == row["breakpoint_step"] for index in range(row["num_steps"])]
    tokens = steps.locator(".token")
    assert _words("".join(tokens.all_text_contents())) == _words(row["text"])
    assert f"{round(row['entropies'][0], 4)}" in (tokens.first.get_attribute("title") or "")
    inspector.watched.shoot_part("#inspector", "rollout")


@pytest.mark.parametrize("look", LOOKS)
def test_a_repair_is_read_beside_its_original(
    open_report: Callable[..., Inspector], finished_run: Any, finished_report: Path, look: dict[str, Any]
) -> None:
    inspector = open_report(finished_report, **look)
    inspector.filter(kind="repairs", outcome="kept")
    name = inspector.open_first()
    (row,) = finished_run.rows(
        f"SELECT r.text, r.prefix, r.parent_id, o.text AS original, h.text AS hint FROM trajectories r "
        f"JOIN trajectories o ON o.trajectory_id = r.parent_id JOIN trajectories h ON h.trajectory_id = r.hint_id "
        f"WHERE r.trajectory_id = '{name}'"
    )
    detail = inspector.page.locator("#trajectory")
    before, after = detail.locator(".sides > *").all()
    shown = _words(detail.inner_text())
    assert _words(row["prefix"]) in shown
    assert _words(row["hint"]) in shown
    assert before.locator(".breakpoint").count() == 1
    assert _words(row["prefix"] + "".join(before.locator(".token").all_text_contents())) == _words(row["original"])
    assert _words("".join(after.locator(".token").all_text_contents())) == _words(row["text"])
    inspector.watched.shoot_part("#inspector", "repair")
    inspector.page.keyboard.press("o")
    inspector.page.locator("#trajectory h3", has_text=row["parent_id"]).wait_for()


def _words(text: str) -> str:
    """Return a text without what lies between its words: on a page, a sign stands for the blank line after a step."""
    return "".join(text.replace("↵", "").split())


@pytest.mark.parametrize("look", LOOKS)
def test_each_view_is_kept_as_a_picture(
    open_report: Callable[..., Inspector], finished_report: Path, look: dict[str, Any]
) -> None:
    watched = open_report(finished_report, **look).watched
    for name in SECTIONS:
        path = watched.shoot_part(f"#{name}", f"section-{name}")
        assert path.stat().st_size > 3000
