"""Erasure tickets: worked off by forgetting, in the same step, and then without anything of what was forgotten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from intarsia.errors import InputError, SettingsError, UnknownName
from intarsia.vault import Vault

from .helpers import grown, traces

Fresh = Callable[[Path], Vault]
DAY = datetime(2026, 1, 31, tzinfo=UTC)


def draw(vault: Vault, *names: str) -> int:
    """Draws two images; the number of the ledger's entry."""
    vault.compose(list(names), precision="float32").sample(2, steps=1)
    return len(vault.ledger.entries()) - 1


def test_forgetting_the_samples_closes_the_ticket(pair: Vault) -> None:
    first, second, third = pair.source("elm").manifest.ids[:3]
    drawn = [draw(pair, "elm"), draw(pair, "oak", "elm")]
    draw(pair, "oak")
    ticket = pair.open_ticket("elm", [first[:12], second], received=DAY)
    assert (ticket.due, ticket.count, ticket.samples) == (DAY + timedelta(days=30), 2, (first, second))
    assert pair.affected(ticket) == ["elm"]
    assert traces(pair.root, [second])
    drawn.append(draw(pair, "elm"))
    assert pair.ticket(ticket.id).images == tuple(drawn)

    pair.forget("elm", samples=[first, third])
    (partly,) = pair.tickets()
    assert (partly.state, partly.samples, partly.count) == ("open", (second,), 2)
    assert not traces(pair.root, [first, third])
    pair.forget("elm", samples=partly.samples)
    (done,) = pair.tickets()
    assert (done.state, done.source, done.samples, done.count, done.images) == ("done", None, (), 2, tuple(drawn))
    assert done.evidence is not None
    entry = pair.entry_with(done.evidence)
    assert entry is not None
    assert pair.history()[entry][1].kind == "forget"
    assert not traces(pair.root, [first, second, third])
    assert [each["entry"] for each in pair.ticket_images(done)] == drawn
    assert {each["count"] for each in pair.ticket_images(done)} == {2}
    assert pair.verify().ok


def test_forgetting_the_source_closes_all_its_tickets(pair: Vault) -> None:
    whole, one = pair.open_ticket("elm"), pair.open_ticket("elm", pair.source("elm").manifest.ids[:1])
    other = pair.open_ticket("oak")
    pair.forget("elm")
    assert {each.id: each.state for each in pair.tickets()} == {whole.id: "done", one.id: "done", other.id: "open"}
    assert pair.tickets()[0] == other
    assert not traces(pair.root, ["elm"])
    grown(pair, "elm", train=False)
    assert pair.ticket(whole.id).state == "done"


def test_a_ticket_about_the_source_outlives_samples(pair: Vault) -> None:
    ticket = pair.open_ticket("elm")
    pair.forget("elm", samples=pair.source("elm").manifest.ids[:1])
    assert (pair.ticket(ticket.id).state, pair.ticket(ticket.id).samples) == ("open", None)


def test_a_ticket_that_is_closed_says_why_and_not_whose(pair: Vault) -> None:
    sample = pair.source("elm").manifest.ids[0]
    ticket = pair.open_ticket("elm", sample, due=datetime.now(UTC) + timedelta(days=1))
    assert not ticket.overdue(ticket.received)
    assert ticket.overdue(ticket.due + timedelta(seconds=1))
    closed = pair.close_ticket(ticket.id, "withdrawn")
    assert (closed.state, closed.reason, closed.source, closed.samples) == ("closed", "withdrawn", None, ())
    assert not closed.overdue(ticket.due + timedelta(seconds=1))
    assert not traces(pair.root / "ledger", [sample])
    kinds = [(entry.kind, entry.about["state"]) for entry in pair.ledger.entries()[-2:]]
    assert kinds == [("ticket", "open"), ("ticket", "closed")]
    with pytest.raises(SettingsError, match="is closed already"):
        pair.close_ticket(ticket.id, "again")


def test_a_forgetting_that_fails_leaves_the_ticket_open(pair: Vault) -> None:
    ticket = pair.open_ticket("elm", pair.source("elm").manifest.ids)
    with pytest.raises(InputError, match="all samples"):
        pair.forget("elm", samples=pair.source("elm").manifest.ids)
    assert pair.ticket(ticket.id).state == "open"


def test_a_moment_of_whatever_year_is_read_again(pair: Vault) -> None:
    """One that could not be would stand in the way of every later forgetting."""
    ticket = pair.open_ticket("elm", received=datetime(1, 1, 1, tzinfo=UTC))
    assert pair.tickets() == [ticket]
    pair.forget("elm")
    assert [each.state for each in pair.tickets()] == ["done"]
    assert pair.verify().ok
    east = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    with pytest.raises(SettingsError, match="no calendar has"):
        pair.open_ticket("oak", received=east)


WRONG = {
    "unknown source": (lambda v: v.open_ticket("fir"), UnknownName, "unknown source 'fir'"),
    "unknown sample": (lambda v: v.open_ticket("elm", "0000"), UnknownName, "unknown sample"),
    "no sample": (lambda v: v.open_ticket("elm", []), InputError, "no sample of 'elm' is named"),
    "due too soon": (
        lambda v: v.open_ticket("elm", received=DAY, due=DAY - timedelta(days=1)),
        SettingsError,
        "before it was received",
    ),
    "received tomorrow": (
        lambda v: v.open_ticket("elm", received=datetime.now(UTC) + timedelta(days=2)),
        SettingsError,
        "has not come yet",
    ),
    "no time zone": (lambda v: v.open_ticket("elm", received=datetime(2027, 1, 1)), SettingsError, "time zone"),
    "unknown ticket": (lambda v: v.ticket("../elm"), UnknownName, "unknown ticket"),
    "no reason": (lambda v: v.close_ticket(v.open_ticket("elm").id, " "), SettingsError, "say which"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_says_so(what: str, pair: Vault) -> None:
    action, error, text = WRONG[what]
    with pytest.raises(error, match=text):
        action(pair)


def test_a_damaged_ticket_is_found_and_stops_a_forgetting(pair: Vault) -> None:
    ticket = pair.open_ticket("elm")
    path = pair.root / f"ledger/tickets/{ticket.id}.json"
    path.write_bytes(path.read_bytes().replace(b'"open"', b'"done"'))
    assert [problem.where for problem in pair.verify().problems] == [f"ledger/tickets/{ticket.id}.json"]
    with pytest.raises(Exception, match="digest does not fit"):
        pair.forget("elm")
    assert "elm" in pair.names()
