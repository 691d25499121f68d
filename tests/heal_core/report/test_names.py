"""Words and numbers of the report."""

from __future__ import annotations

import pytest

from heal_core.gates import GATES
from heal_core.report import names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("a\x00b", "a\\u{0}b"),
        ("\x1b[31mred", "\\u{1b}[31mred"),
        ("a\u202eb", "a\\u{202e}b"),
        ("\u2066x\u2069", "\\u{2066}x\\u{2069}"),
        ("\ud800", "\\u{d800}"),
        ("👨\u200d👩", "👨\u200d👩"),  # a joiner within an emoji steers nothing
        ("一 二", "一 二"),
    ],
)
def test_signs_that_steer_the_layout_are_shown(text: str, shown: str) -> None:
    assert names.visible(text) == shown


def test_what_is_no_text_passes() -> None:
    assert names.visible(None) is None
    assert names.visible(0.5) == 0.5


def test_every_gate_has_a_name() -> None:
    assert set(GATES) <= names.GATES.keys()


def test_reasons_are_explained_and_unknown_ones_are_kept() -> None:
    assert names.explain_reason("near_duplicate") == "too like another kept text of its problem"
    assert names.explain_reason("G9") == "gate G9: loop"
    assert names.explain_reason("new_reason") == "new_reason"
    assert names.explain_reason(None) == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (3.21, "3.2 s"), (45.4, "45 s"), (119.0, "119 s"), (600.0, "10 min"), (9000.0, "2.5 h")],
)
def test_durations(value: float | None, shown: str) -> None:
    assert names.seconds(value) == shown


def test_differences_have_a_sign_and_a_true_minus() -> None:
    assert names.points(-0.0251) == "−2.5"
    assert names.points(0.1) == "+10.0"
    assert names.points(None) == "–"
