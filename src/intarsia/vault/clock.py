"""Moments in UTC, to the second: when a grant or a key ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from intarsia.errors import SettingsError

Clock = Callable[[], datetime]
"""What time it is, in UTC; tests pass their own."""

_FORM = "%Y-%m-%dT%H:%M:%SZ"
_DAY = "2027-01-31"


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


def check_moment(name: str, value: datetime) -> datetime:
    """The moment in UTC, without its fraction of a second.

    Raises:
        SettingsError: it says no time zone, or lies before or after all that can be counted.
    """
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise SettingsError(
            f"{name} is {value!r}, expected a datetime with a time zone, such as datetime(..., tzinfo=UTC)"
        )
    try:
        return value.astimezone(UTC).replace(microsecond=0)
    except OverflowError:
        raise SettingsError(f"{name} is {value}, which in UTC no calendar has; give another moment") from None


def to_text(value: datetime | None) -> str | None:
    """The moment as records and people read it: 2027-01-31T12:00:00Z."""
    if value is None:
        return None
    # Not strftime: of years before 1000 it leaves out zeros, without which they cannot be read again.
    return value.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def from_text(text: str | None) -> datetime | None:
    """What `to_text` wrote; ValueError otherwise."""
    return None if text is None else datetime.strptime(text, _FORM).replace(tzinfo=UTC)


def start_of(name: str, text: str) -> datetime:
    """The moment that people mean by `--received TEXT`: a day counts from its beginning, else as `end_of`.

    Raises:
        SettingsError: neither a day nor a time.
    """
    return end_of(name, text) if (day := _day(text)) is None else day


def end_of(name: str, text: str) -> datetime:
    """The moment that people mean by `--until TEXT`: a day counts to its end, a time that says no zone is UTC.

    Raises:
        SettingsError: neither a day nor a time.
    """
    try:
        if (day := _day(text)) is not None:
            return day + timedelta(days=1)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{name} is {text!r}, expected a day such as {_DAY}, which counts to its end, or a time such as "
            f"{_DAY}T12:00Z"
        ) from None
    return check_moment(name, moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _day(text: str) -> datetime | None:
    """The beginning of a day, in whichever ISO form; None if it is no day alone."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
