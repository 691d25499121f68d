"""The inspector of a page as its user works it: filters, the list, the trajectory that is open."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.browser.watching import WatchedPage

Row = dict[str, Any]


class Inspector:
    """Works the inspector of an open page, and knows the data that the page has."""

    def __init__(self, watched: WatchedPage) -> None:
        self.watched = watched
        self.page = watched.page

    @property
    def data(self) -> dict[str, Any]:
        """Return what the page was given for its script."""
        data: dict[str, Any] = json.loads(self.page.locator("script[type='application/json']").text_content() or "")
        return data

    @property
    def count(self) -> int:
        """Return how many trajectories the page says it lists."""
        told = self.page.locator("#trajectory-count").inner_text()
        found = re.search(r"\d[\d,]*", told)
        assert found, told
        return int(found[0].replace(",", ""))

    @property
    def listed(self) -> list[str]:
        """Return the ids that are listed, in their order."""
        options = self.page.locator("#trajectory-list [role=option]")
        ids: list[str] = options.evaluate_all("all => all.map(one => one.dataset.id)")
        return ids

    @property
    def selected(self) -> str | None:
        """Return the id of the entry that is selected."""
        found = self.page.locator("#trajectory-list [role=option][aria-selected=true]")
        return found.get_attribute("data-id") if found.count() else None

    @property
    def focused(self) -> str | None:
        """Return the id of the element that has the focus; empty for one without, None where none has it."""
        focused: str | None = self.page.evaluate(
            "document.activeElement === document.body ? null : document.activeElement.id"
        )
        return focused

    def shows_focus(self) -> bool:
        """Return whether a user sees which element has the focus."""
        seen: bool = self.page.evaluate(
            """() => {
                const style = getComputedStyle(document.activeElement);
                return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
            }"""
        )
        return seen

    @property
    def filters(self) -> dict[str, list[str]]:
        """Return the values that each filter offers, without the one for all."""
        selects = self.page.locator("select[id^=filter-]")
        offered: list[tuple[str, list[str]]] = selects.evaluate_all(
            "all => all.map(one => [one.id.slice('filter-'.length), [...one.options].map(o => o.value)])"
        )
        return {name: [value for value in values if value] for name, values in offered}

    def filter(self, **values: str) -> None:
        """Set filters: of a select its value, of a field its text."""
        for name, value in values.items():
            field = self.page.locator(f"#filter-{name.replace('_', '-')}")
            if field.evaluate("field => field.tagName") == "SELECT":
                field.select_option(value)
            else:
                field.fill(value)

    def open_first(self) -> str:
        """Open the first entry by the keyboard; return its id."""
        self.page.locator("#trajectory-list").focus()
        self.page.keyboard.press("Home")
        self.page.locator("#trajectory h3", has_text=self.listed[0]).wait_for()
        return self.selected or ""
