from __future__ import annotations

from heal_core.engines.remote.breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def broken(num: int = 5) -> tuple[CircuitBreaker, Clock]:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    for index in range(num):
        breaker.fail(f"failure {index}")
    return breaker, clock


def test_it_opens_after_five_failures_in_a_row() -> None:
    assert not broken(4)[0].is_open
    breaker, _ = broken(5)
    assert breaker.is_open
    assert breaker.seconds_to_trial == 2.0
    assert breaker.last_failure == "failure 4"


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker, _ = broken(4)
    breaker.succeed()
    breaker.fail("another")
    assert not breaker.is_open


def test_each_trial_that_fails_doubles_the_pause_up_to_a_minute() -> None:
    breaker, clock = broken()
    pauses = []
    for _ in range(7):
        pauses.append(breaker.seconds_to_trial)
        clock.now += breaker.seconds_to_trial
        breaker.fail("again")
    assert pauses == [2, 4, 8, 16, 32, 60, 60]


def test_failures_of_what_was_asked_before_do_not_lengthen_the_pause() -> None:
    breaker, clock = broken()
    clock.now += 1.0
    breaker.fail("one that was on its way")
    assert breaker.seconds_to_trial == 1.0


def test_a_trial_that_succeeds_closes_it_and_the_next_pause_is_short_again() -> None:
    breaker, clock = broken()
    clock.now += 2.0
    breaker.fail("trial")
    clock.now += 4.0
    breaker.succeed()
    assert not breaker.is_open
    assert breaker.seconds_to_trial == 0.0
    for _ in range(5):
        breaker.fail("anew")
    assert breaker.seconds_to_trial == 2.0
