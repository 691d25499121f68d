"""When a run has to end: read from what a person writes, asked between two pieces of work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from heal_core.errors import ConfigError, TimeIsUpError

_CLOCK = re.compile(r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?:\s+(?P<zone>\S+))?")


@dataclass(frozen=True)
class Deadline:
    """A moment, with its timezone, after which no new work begins."""

    at: datetime

    @property
    def seconds_left(self) -> float:
        """Return the seconds until the moment, negative after it."""
        return self.at.timestamp() - datetime.now().timestamp()

    def check(self) -> None:
        """Raise when the time is over.

        Raises:
            TimeIsUpError: If it is.
        """
        if self.seconds_left <= 0:
            raise TimeIsUpError(f"the time is over: it was to end at {self}")

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M %Z}"


def parse_deadline(text: str, now: datetime | None = None) -> Deadline:
    """Return the deadline that `07:00`, `07:00 Europe/Zurich` or an ISO date and time means.

    A time of day is the next one that the clock shows, in the named timezone or else in the
    machine's.

    Args:
        text: What a person wrote.
        now: From when on the next one counts, with its timezone; the present by default.

    Raises:
        ConfigError: If it is neither, or the moment lies before `now`.
    """
    now = now or datetime.now(UTC)
    if match := _CLOCK.fullmatch(text.strip()):
        return Deadline(_next(match, now, text))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigError(
            f"until = {text!r} is not a time. Give a time of day (07:00), one with a timezone "
            "(07:00 Europe/Zurich), or a date and time (2027-01-31T07:00)."
        ) from error
    moment = moment.astimezone() if moment.tzinfo is None else moment
    if moment <= now:
        raise ConfigError(
            f"until = {text!r} has passed: it is {now.astimezone():%Y-%m-%d %H:%M %Z}. Give a time to come."
        )
    return Deadline(moment)


def _next(match: re.Match[str], now: datetime, text: str) -> datetime:
    try:
        zone = ZoneInfo(match["zone"]) if match["zone"] else None
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(
            f"until = {text!r}: there is no timezone {match['zone']!r}. Give a name such as Europe/Zurich or UTC."
        ) from error
    clock = now.astimezone(zone).replace(tzinfo=None)  # days are counted on the clock, which may be changed at night
    try:
        moment = clock.replace(hour=int(match["hour"]), minute=int(match["minute"]), second=0, microsecond=0)
    except ValueError as error:
        raise ConfigError(f"until = {text!r} is not a time of day: it goes from 00:00 to 23:59.") from error
    if moment <= clock:
        moment += timedelta(days=1)
    return moment.replace(tzinfo=zone) if zone else moment.astimezone()
