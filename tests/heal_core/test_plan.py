from collections.abc import Callable, Iterable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.plan import Attempt, GradedAttempt, Slot, UsedRow, choose_row, choose_verdict, find_missing, meets
from heal_core.records import FinishReason, Kind

MakeSlot = Callable[..., Slot]


def attempt(num_tokens: int, limit: int, slot_id: str = "s") -> Attempt:
    """Return an attempt; it was cut when it fills its limit, as the end of the turn takes a token too."""
    finish = FinishReason.LENGTH if num_tokens == limit else FinishReason.STOP
    return Attempt(f"{slot_id}@{limit}", slot_id, limit, num_tokens, finish)


def sample(slots: Iterable[Slot], length: int) -> dict[str, list[Attempt]]:
    """Return the attempts of an engine whose texts end after `length` tokens."""
    return {slot.slot_id: [attempt(min(length, slot.limit_tokens), slot.limit_tokens, slot.slot_id)] for slot in slots}


def test_more_generations_need_only_the_new_ones_and_fewer_need_none(make_slot: MakeSlot) -> None:
    attempts = sample([make_slot(index=i) for i in range(16)], length=5)
    missing = find_missing([make_slot(index=i) for i in range(30)], attempts)
    assert [slot.sample_index for slot in missing] == list(range(16, 30))
    assert find_missing([make_slot(index=i) for i in range(4)], attempts) == []


def test_a_raised_limit_needs_only_what_was_cut(make_slot: MakeSlot) -> None:
    old = [make_slot("short", limit=10), make_slot("long", limit=10)]
    attempts = sample(old[:1], length=5) | sample(old[1:], length=50)
    missing = find_missing([make_slot("short", limit=11), make_slot("long", limit=11)], attempts)
    assert [slot.problem_id for slot in missing] == ["long"]
    # the same slot, another row
    assert missing[0].slot_id == old[1].slot_id
    assert missing[0].row_id != old[1].row_id


def test_a_lowered_limit_needs_nothing_and_cuts_what_is_longer() -> None:
    # texts of 4, 5 and 8 tokens that ended, one of 10 that was cut, under a limit that is now 5:
    # the one of 5 counted as finished once, though sampling under 5 leaves no room for its end
    for num_tokens, cut in ((4, False), (5, True), (8, True), (10, True)):
        one = attempt(num_tokens, limit=10)
        assert meets(one, 5)
        assert choose_row([one], 5) == UsedRow("s@10", cut)


def test_the_finished_attempt_is_used_else_the_nearest_to_the_limit() -> None:
    cut_short, cut_long, finished = attempt(10, 10), attempt(40, 40), attempt(60, 80)
    for order in permutations([cut_short, cut_long, finished]):
        assert choose_row(order, 100) == UsedRow("s@80", cut=False)
        assert choose_row(order, 61) == UsedRow("s@80", cut=False)
        # under 60 it would have been cut, though it is used
        assert choose_row(order, 60) == UsedRow("s@80", cut=True)
    for order in permutations([cut_short, cut_long]):
        assert choose_row(order, 40) == UsedRow("s@40", cut=True)


def test_an_attempt_of_another_run_under_a_higher_limit_does_not_change_what_a_run_uses() -> None:
    # a run was killed, another one sampled longer, and the first went on: it once took the longer row as well
    own = attempt(40, limit=40)
    for later in (attempt(55, limit=80), attempt(80, limit=80)):
        assert choose_row([own, later], 40) == choose_row([own], 40) == UsedRow("s@40", cut=True)


def test_a_text_that_was_given_up_answers_every_limit_and_counts_as_cut() -> None:
    hopeless = Attempt("s@40", "s", 40, 25, FinishReason.HOPELESS)
    for limit in (10, 25, 26, 40, 400):
        assert meets(hopeless, limit)
        assert choose_row([hopeless], limit) == UsedRow("s@40", cut=True)
    # a run under the lower limit goes on with the row that it began with
    assert choose_row([hopeless, attempt(20, limit=20)], 20) == UsedRow("s@20", cut=True)
    assert choose_row([hopeless, attempt(20, limit=20)], 30) == UsedRow("s@40", cut=True)


def verdict(name: str, reason: str | None, limit: float | None) -> GradedAttempt:
    return GradedAttempt(name, "t", ("math", "1"), reason, limit)


def test_a_verdict_that_gave_up_is_made_again_only_under_a_higher_limit() -> None:
    gave_up, wrong = verdict("a", "timeout", 5.0), verdict("b", "different", 20.0)
    assert choose_verdict([], 5.0) is None
    assert choose_verdict([gave_up], 5.0) == choose_verdict([gave_up], 4.0) == "a"
    assert choose_verdict([gave_up], 5.1) is None
    assert choose_verdict([verdict("c", "verifier_died", 5.0)], 20.0) is None
    assert choose_verdict([verdict("d", "sandbox_failed", 5.0)], 20.0) is None
    # what another run found with more time is used by those that allow as much, and changes no run that does not
    assert choose_verdict([gave_up, wrong], 20.0) == "b"
    assert choose_verdict([gave_up, wrong], 5.0) == "a"
    assert choose_verdict([wrong], 5.0) == "b"


def test_of_verdicts_from_before_limits_were_noted_only_those_that_gave_up_are_made_again() -> None:
    assert choose_verdict([verdict("a", "timeout", None)], 5.0) is None
    assert choose_verdict([verdict("b", None, None)], 5.0) == "b"


def test_without_an_attempt_there_is_no_row_to_use() -> None:
    with pytest.raises(ValueError):
        choose_row([], 10)


def test_what_is_sampled_identifies_a_slot_and_what_is_demanded_does_not(make_slot: MakeSlot) -> None:
    base = make_slot(kind=Kind.REPAIR, parent_id="t", hint_id="h", cut_tokens=3)
    same = make_slot(kind=Kind.REPAIR, parent_id="t", hint_id="h", cut_tokens=3, limit=7, prefix="x")
    assert same.slot_id == base.slot_id
    # another hint text, failed step or template is another prompt, and so another sample
    other = make_slot(kind=Kind.REPAIR, parent_id="t", hint_id="h", cut_tokens=3, prompt="other")
    assert other.slot_id != base.slot_id
    others = [
        make_slot(kind=Kind.HINT, parent_id="t", hint_id="h", cut_tokens=3),
        make_slot("p1", kind=Kind.REPAIR, parent_id="t", hint_id="h", cut_tokens=3),
        make_slot(index=1, kind=Kind.REPAIR, parent_id="t", hint_id="h", cut_tokens=3),
        make_slot(kind=Kind.REPAIR, parent_id="u", hint_id="h", cut_tokens=3),
        make_slot(kind=Kind.REPAIR, parent_id="t", hint_id="i", cut_tokens=3),
        make_slot(kind=Kind.REPAIR, parent_id="t", hint_id="h", cut_tokens=4),
        make_slot(kind=Kind.REPAIR, parent_id="t", hint_id="h", cut_tokens=0),
        make_slot(kind=Kind.REPAIR, parent_id="t", hint_id="h"),
        make_slot(kind=Kind.REPAIR, parent_id="t", hint_id="h", cut_tokens=3, recipe_id="other"),
    ]
    assert len({base.slot_id, *(slot.slot_id for slot in others)}) == len(others) + 1


def test_a_request_carries_prefix_and_limit_under_the_slots_id(make_slot: MakeSlot) -> None:
    slot = make_slot(limit=7, prefix_token_ids=(4, 5), prefix="ab")
    request = slot.request()
    assert (request.slot_id, request.prompt) == (slot.slot_id, slot.prompt)
    assert (request.prefix_token_ids, request.max_tokens) == ((4, 5), 7)


limits = st.integers(1, 30)


@given(length=st.integers(1, 30), history=st.lists(limits, min_size=1, max_size=6))
def test_any_history_of_limits_ends_with_the_text_of_the_highest(length: int, history: list[int]) -> None:
    """One slot under changing limits: as if it had been sampled once under the highest of them."""
    attempts: dict[str, list[Attempt]] = {}
    for limit in history:
        slot = Slot(Kind.ROLLOUT, "p", "r", 0, "prompt", limit)
        for missing in find_missing([slot], attempts):
            attempts.setdefault(slot.slot_id, []).extend(sample([missing], length)[slot.slot_id])
        assert find_missing([slot], attempts) == []
        used = choose_row(attempts[slot.slot_id], limit)
        assert used.cut == (length >= limit)
    # a text is sampled anew only while it is cut, and each time under a higher limit
    made = [one.limit_tokens for one in attempts[slot.slot_id]]
    assert made == sorted(set(made))
    assert sum(one.finish_reason is FinishReason.STOP for one in attempts[slot.slot_id]) <= 1
