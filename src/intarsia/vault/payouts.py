"""Payouts: an amount split among sources by the credit that they accumulated in a period."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from intarsia.credit.apportion import UNITS, apportion
from intarsia.credit.money import Currency
from intarsia.errors import SettingsError, VaultError
from intarsia.ledger import Entry, Event, Receipt
from intarsia.vault.accounts import Accrual, account_of, drawn_sets
from intarsia.vault.clock import to_text
from intarsia.vault.events import PAYOUT
from intarsia.vault.sources import source_info
from intarsia.vault.store import SOURCES, Store

_PART = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?", re.ASCII)
_FIRST = "-01-01"
_DIGITS = len(str(UNITS)) - 1


@dataclass(frozen=True)
class Period:
    """Some time of the calendar in UTC: a year, a month, a day, or all from one of them to another.

    Raises:
        SettingsError: it is none, or ends before it begins.
    """

    text: str

    def __post_init__(self) -> None:
        for part in self._ends:
            _check_part(self.text, part)
        first, last = self._ends
        if last < first[: len(last)]:
            raise SettingsError(f"the period {self.text} ends before it begins; turn it round")

    @property
    def _ends(self) -> tuple[str, str]:
        first, dots, last = self.text.partition("..")
        return first, last if dots else first

    def holds(self, time: str) -> bool:
        """Whether a time as the ledger writes it, 2027-01-31T12:00:00Z, lies in it."""
        first, last = self._ends
        return time[: len(first)] >= first and time[: len(last)] <= last

    def is_over(self, now: datetime) -> bool:
        """Whether no time that is yet to come lies in it."""
        last = self._ends[1]
        return str(to_text(now))[: len(last)] > last

    def overlaps(self, other: Period) -> bool:
        """Whether some day lies in both."""
        (first, last), (begin, end) = self._ends, other._ends
        return first[: len(end)] <= end[: len(first)] and begin[: len(last)] <= last[: len(begin)]


def _check_part(text: str, part: str) -> None:
    try:
        if not _PART.fullmatch(part):
            raise ValueError(part)
        date.fromisoformat(part + _FIRST[len(part) - len("2027") :])
    except ValueError:
        raise SettingsError(
            f"the period is {text!r}, expected a year, a month or a day in UTC, such as 2027-01, or two of them with "
            ".. between, such as 2027-01..2027-03"
        ) from None


@dataclass(frozen=True)
class Line:
    """What is owed to one source: `units` of credit, and `amount` in minor units of the currency.

    `source` and `owner` are None where the source was forgotten: whoever holds the receipt of that finds the account
    in it.
    """

    account: str
    source: str | None
    owner: str | None
    units: int
    amount: int

    @property
    def images(self) -> str:
        """The credit in images, to all its digits."""
        return f"{self.units // UNITS}.{self.units % UNITS:0{_DIGITS}d}"


@dataclass(frozen=True)
class Statement:
    """An amount (in minor units) split over the lines, which sum to it, by what `sets` of `images` earned in a period.

    `earlier` are the numbers of the ledger's entries of payouts for a period that overlaps; `closed` says whether the
    period was over. `receipt` proves that the ledger was told.
    """

    period: Period
    currency: Currency
    amount: int
    lines: tuple[Line, ...]
    sets: int
    images: int
    earlier: tuple[int, ...]
    closed: bool
    receipt: Receipt | None = None

    def event(self) -> Event:
        """What the ledger is told: amounts and credit only as commitments, by source."""
        about = {
            "period": self.period.text,
            "currency": self.currency.code,
            "sets": self.sets,
            "images": self.images,
        }
        total = self.currency.text(self.amount)
        told = {
            line.source or line.account: {
                "account": line.account,
                "units": line.units,
                "amount": self.currency.text(line.amount),
                "of": total,
            }
            for line in self.lines
        }
        return Event(PAYOUT, about, told)

    def owners(self) -> dict[str, str]:
        """The sum of each owner who is known, as text, by name."""
        sums: Counter[str] = Counter()
        for line in self.lines:
            if line.owner is not None:
                sums[line.owner] += line.amount
        return {owner: self.currency.text(sums[owner]) for owner in sorted(sums)}

    def document(self) -> dict[str, Any]:
        """JSON-able; amounts are text."""
        lines = [
            {
                "source": line.source,
                "owner": line.owner,
                "account": line.account,
                "images": line.images,
                "amount": self.currency.text(line.amount),
                "minor": line.amount,
            }
            for line in self.lines
        ]
        return {
            "period": self.period.text,
            "closed": self.closed,
            "currency": self.currency.code,
            "exponent": self.currency.exponent,
            "amount": self.currency.text(self.amount),
            "minor": self.amount,
            "sets": self.sets,
            "images": self.images,
            "lines": lines,
            "owners": self.owners(),
            "earlier": list(self.earlier),
            "recorded": self.receipt is not None,
        }

    def csv(self) -> str:
        """One line per source, under names of columns."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["source", "owner", "account", "images", "amount", "currency", "period"])
        for line in self.lines:
            shown = (line.source or "", line.owner or "", line.account, line.images, self.currency.text(line.amount))
            writer.writerow([*shown, self.currency.code, self.period.text])
        return text.getvalue()


def reckon(store: Store, period: Period, currency: Currency, amount: int, now: datetime) -> Statement:
    """Split an amount in minor units by what was earned in a period.

    Raises:
        SettingsError: nothing was drawn in it.
        CorruptError: the ledger is damaged, or a record of credit.
    """
    entries = store.ledger.entries()
    drawn = [each for each in drawn_sets(entries) if period.holds(each.time)]
    accruals = [Accrual.read(store, each.digest) for each in drawn]
    earned: Counter[str] = Counter()
    for accrual in accruals:
        earned.update(accrual.units)
    if not earned.total():
        raise SettingsError(f"nothing was drawn in {period.text}, so nobody earned anything then")
    parts = apportion(amount, earned)
    names = {account_of(known): name for name, known in store.salts.all(store.salts.names()).items()}
    lines = [_line(store, account, names.get(account), earned[account], parts[account]) for account in earned]
    return Statement(
        period,
        currency,
        amount,
        tuple(sorted(lines, key=lambda line: (-line.units, line.source or "", line.account))),
        sets=len(accruals),
        images=sum(accrual.images for accrual in accruals),
        earlier=_earlier(entries, period),
        closed=period.is_over(now),
    )


def _line(store: Store, account: str, name: str | None, units: int, amount: int) -> Line:
    known = name is not None and store.holds(SOURCES, name)
    owner = source_info(store.source(name)).owner if known and name is not None else None
    return Line(account, name if known else None, owner, units, amount)


def _earlier(entries: Sequence[Entry], period: Period) -> tuple[int, ...]:
    payouts = ((number, entry.about) for number, entry in enumerate(entries) if entry.kind == PAYOUT)
    return tuple(number for number, about in payouts if _is_of(about, period))


def _is_of(about: Mapping[str, Any], period: Period) -> bool:
    return Period(str(about["period"])).overlaps(period)


def told(store: Store, statement: Statement) -> Statement:
    """The statement with the receipt of the ledger's entry on it.

    Raises:
        VaultError: the vault cannot be written.
    """
    if not store.ledger.writable:
        raise VaultError(
            f"{store.root}: cannot be written, so that its ledger cannot be told of a payout; make it writable, or "
            "only look (--dry-run, record=False in Python)"
        )
    return replace(statement, receipt=store.tell(statement.event()))
