"""The committed page of the schema is the one that the code makes."""

from __future__ import annotations

import re
from pathlib import Path

from heal_core.store.schema import COMMAND, schema_page

ROOT = Path(__file__).parents[2]


def test_the_schema_page_is_that_of_the_code() -> None:
    committed = (ROOT / "docs/schema.md").read_text()
    assert committed == schema_page(), f"docs/schema.md is stale; renew it with: {COMMAND}"


def test_links_within_the_page_lead_somewhere() -> None:
    page = (ROOT / "docs/schema.md").read_text()
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", page, re.M)}
    links = re.findall(r"\]\(#([\w-]+)\)", page)
    assert len(links) > 30
    assert [link for link in links if link not in headings] == []
    assert len(re.findall(r"^#+ ", page, re.M)) == len(headings)  # two headings of one name would share the link
