"""Links of the pages lead somewhere, and every page can be found from the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name_of, prose

LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the names under which GitHub shows the headings of a page; a second one of a name gets a number."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w -]", "", LINK.sub("", heading).lower()).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return set(found)


def relative_links(page: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`(?!\])", "", prose(page))  # code, but not the text of a link
    return [link for link in LINK.findall(text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    dead = []
    for link in relative_links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists() and target.is_relative_to(ROOT)
        if not is_there or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_links_are_found() -> None:
    assert sum(len(relative_links(page)) for page in PAGES) > 150
    assert "what-a-change-recomputes" in anchors(ROOT / "docs/store.md")


def test_every_page_is_in_the_index_once() -> None:
    listed = [link for link in relative_links(ROOT / "docs/README.md") if "/" not in link]
    there = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert sorted(listed) == sorted(there)
