from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.deadline import Deadline, parse_deadline
from heal_core.errors import ConfigError, TimeIsUpError

pytestmark = pytest.mark.usefixtures("machine_in_zurich")

ZURICH = ZoneInfo("Europe/Zurich")
NOW = datetime(2026, 11, 24, 22, 0, tzinfo=ZURICH)


@pytest.fixture(scope="module")
def machine_in_zurich() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Zurich")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("07:00", datetime(2026, 11, 25, 7, 0, tzinfo=ZURICH)),
        ("7:00", datetime(2026, 11, 25, 7, 0, tzinfo=ZURICH)),
        ("22:00", datetime(2026, 11, 25, 22, 0, tzinfo=ZURICH)),  # now is past it: the next one is meant
        ("23:59", datetime(2026, 11, 24, 23, 59, tzinfo=ZURICH)),
        # 22:00 in Zurich is 21:00 UTC, so that 21:30 UTC is half an hour away
        ("21:30 UTC", datetime(2026, 11, 24, 21, 30, tzinfo=UTC)),
        ("07:00 Asia/Tokyo", datetime(2026, 11, 25, 7, 0, tzinfo=ZoneInfo("Asia/Tokyo"))),
        ("2026-12-01T07:00", datetime(2026, 12, 1, 7, 0, tzinfo=ZURICH)),
        ("2026-12-01 07:00+00:00", datetime(2026, 12, 1, 7, 0, tzinfo=UTC)),
    ],
)
def test_a_time_is_the_next_one_that_a_person_means(text: str, at: datetime) -> None:
    assert parse_deadline(text, NOW).at == at


@pytest.mark.parametrize("text", ["07:00", "07:00 Europe/Zurich"])
@pytest.mark.parametrize(
    ("evening", "hours"),
    # the clock goes back at 3:00 in the night to 2026-10-25, and forward at 2:00 in that to 2027-03-28
    [(datetime(2026, 10, 24, 22, 0), 10), (datetime(2027, 3, 27, 22, 0), 8), (datetime(2026, 11, 24, 22, 0), 9)],
)
def test_a_time_of_day_is_what_the_clock_shows_also_when_it_is_changed(
    text: str, evening: datetime, hours: int
) -> None:
    began = evening.replace(tzinfo=ZURICH)
    at = parse_deadline(text, began.astimezone(UTC)).at  # as a schedule tells when it was to begin
    assert (at.astimezone(ZURICH).hour, at.timestamp() - began.timestamp()) == (7, hours * 3600)


@given(st.times(), st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 1, 1)))
def test_a_time_of_day_is_at_most_a_day_away(clock: datetime, now: datetime) -> None:
    now = now.replace(tzinfo=UTC)
    at = parse_deadline(f"{clock:%H:%M}", now).at
    assert timedelta(0) < at - now <= timedelta(days=1, hours=1)  # a day may have 25 hours


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seven", "Give a time of day"),
        ("", "Give a time of day"),
        ("25:00", "from 00:00 to 23:59"),
        ("07:60", "from 00:00 to 23:59"),
        ("07:00 Mars/Olympus", "no timezone 'Mars/Olympus'"),
        ("07:00 ../../etc/passwd", "no timezone"),
        ("2026-11-24T21:59", "has passed"),
    ],
)
def test_what_is_no_time_to_come_is_refused_with_what_would_be(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_deadline(text, NOW)


def test_it_is_over_from_its_moment_on() -> None:
    Deadline(datetime.now(UTC) + timedelta(minutes=1)).check()
    with pytest.raises(TimeIsUpError, match="2026-01-01 07:00 UTC"):
        Deadline(datetime(2026, 1, 1, 7, tzinfo=UTC)).check()
