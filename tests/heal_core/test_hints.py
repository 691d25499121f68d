import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.hints import MAX_SENTENCES, clean_hint


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("Mind the sign.", "Mind the sign."),
        ("  Hint: Mind the sign.\n", "Mind the sign."),
        ("**Hint**: Mind the sign.", "Mind the sign."),
        ("**Hint:** Mind the sign.", "Mind the sign."),  # once kept "** "
        ("hint : Mind the sign.", "Mind the sign."),
        ("Hints are for the weak.", "Hints are for the weak."),
        ("<think>It is 42.</think>\n\nMind the sign.", "Mind the sign."),
        ("It is 42.</think>Mind the sign.", "Mind the sign."),  # opened by the template
        ("<think>a</think>b</think>Hint: c.", "c."),
        ("", ""),
        ("<think>It is 42.</think>", ""),
        ("<think>It is 42. So the hint", ""),  # cut while it thought: once the thoughts were the hint
        ("One. Two! Three? Four. Five.", "One. Two! Three?"),
        ("One is 1.5 times\nthe other.\n\nTwo.", "One is 1.5 times\nthe other. Two."),
        ("Only a clause", "Only a clause"),
    ],
)
def test_what_is_taken_as_the_hint(written: str, hint: str) -> None:
    assert clean_hint(written) == hint


@given(st.lists(st.sampled_from(["A b.", "C!", "D e?"]), max_size=8), st.sampled_from([" ", "\n", "\n\n"]))
def test_a_hint_is_the_first_sentences(sentences: list[str], space: str) -> None:
    assert clean_hint(space.join(sentences)) == " ".join(sentences[:MAX_SENTENCES])


@given(st.text())
def test_cleaning_twice_changes_nothing_for_a_hint_without_label(text: str) -> None:
    once = clean_hint("x " + text.replace("<think>", "").replace("</think>", ""))
    assert clean_hint(once) == once
