"""What a vault offers for the requests of owners: receiving, listing and closing erasure tickets."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from intarsia.errors import InputError, SettingsError
from intarsia.vault.choosing import choose
from intarsia.vault.clock import check_moment, to_text
from intarsia.vault.events import ticket_moved
from intarsia.vault.granting import VaultGrants
from intarsia.vault.importing import whole_ids
from intarsia.vault.reading import Names, listed
from intarsia.vault.sources import read_manifest, source_info
from intarsia.vault.tickets import (
    CLOSED,
    OPEN,
    Ticket,
    drawn_from,
    images_of,
    place,
    read_ticket,
    ticket_ids,
)

USUAL = timedelta(days=30)
"""How long after it was received a ticket is due, if nothing else is said: within the month of Article 12 GDPR."""
_ZONES = timedelta(days=1)  # today begins earlier elsewhere


class VaultTickets(VaultGrants):
    """What `Vault` offers beside reading and granting, for the requests of owners."""

    def open_ticket(
        self,
        name: str,
        samples: Names | None = None,
        *,
        received: datetime | None = None,
        due: datetime | None = None,
    ) -> Ticket:
        """Note that somebody asked for a source, or samples of it, to be forgotten. Forgetting them closes the ticket.

        Args:
            samples: ids, or beginnings of ids that fit one sample alone; None is the whole source.
            received: when; None is now.
            due: until when; None is 30 days after it was received.

        Raises:
            UnknownName: no such source or sample.
            InputError: an id fits several samples, or none is named; of a source at its owner's, one that is not whole.
            SettingsError: a moment says no time zone; or it was received tomorrow, or is due before that.
            VaultError: another process is writing, or the disk is full.
        """
        self._store.settle()
        self._shelf.check_known(name)
        since = check_moment("received", received or self._clock())
        if since > self._clock() + _ZONES:
            raise SettingsError(f"received is {to_text(since)}, which has not come yet; say when the request came")
        until = check_moment("due", due or since + USUAL)
        if until < since:
            raise SettingsError(
                f"the ticket is due at {to_text(until)}, before it was received ({to_text(since)}); give a later moment"
            )
        with self._store.change() as change:
            self._shelf.check_known(name)
            ids = None if samples is None else self._asked_for(name, listed(samples))
            ticket = Ticket(
                id=secrets.token_hex(4),
                received=since,
                due=until,
                count=source_info(self._store.source(name)).count if ids is None else len(ids),
                source=name,
                samples=ids,
                whole=ids is None,
                images=drawn_from(self._store, name),
            )
            change.write(place(ticket.id), ticket.record())
            change.record(ticket_moved(ticket))
        return ticket

    def _asked_for(self, name: str, samples: Sequence[str]) -> tuple[str, ...]:
        """The ids that are meant; of a source whose images its owner keeps, nobody here can complete one."""
        folder = self._store.source(name)
        if source_info(folder).signer is not None:
            return whole_ids(name, samples)
        ids = tuple(each.id for each in choose(read_manifest(folder), samples))
        if not ids:
            raise InputError(f"no sample of '{name}' is named; give some ids, or None for the whole source")
        return ids

    def tickets(self) -> list[Ticket]:
        """All tickets, those first that are open, by when they are due.

        Raises:
            CorruptError: one is damaged.
        """
        self._store.settle()
        found = [read_ticket(self._store, id) for id in ticket_ids(self._store)]
        return sorted(found, key=lambda ticket: (ticket.state != OPEN, ticket.due, ticket.id))

    def ticket(self, id: str) -> Ticket:
        """One ticket; of an open one the images are those that were drawn until now.

        Raises:
            UnknownName: there is none.
            CorruptError: it is damaged.
        """
        self._store.settle()
        ticket = read_ticket(self._store, id)
        if ticket.state != OPEN or ticket.source is None:
            return ticket
        return replace(ticket, images=drawn_from(self._store, ticket.source))

    def affected(self, ticket: Ticket) -> list[str]:
        """The compartments that learned from what an open ticket is about."""
        return [] if ticket.source is None else self._shelf.saw(ticket.source)

    def ticket_images(self, ticket: Ticket) -> list[dict[str, Any]]:
        """Each set of images that was drawn from the source of a ticket: ledger entry, time and number of images.

        Whoever was given such images has the receipt with that entry.
        """
        return images_of(ticket, self.ledger.entries())

    def entry_with(self, nonce: str) -> int | None:
        """The number of the ledger's entry with a nonce, such as the `evidence` of a ticket; None if there is none."""
        entries = enumerate(self.ledger.entries())
        return next((number for number, entry in entries if entry.record["nonce"] == nonce), None)

    def close_ticket(self, id: str, reason: str) -> Ticket:
        """Close an open ticket without forgetting anything, such as one that was withdrawn.

        Raises:
            UnknownName: there is none.
            SettingsError: it is not open, or the reason is empty.
            VaultError: another process is writing, or the disk is full.
        """
        if not reason.strip():
            raise SettingsError("a ticket is closed for a reason; say which")
        with self._store.change() as change:
            ticket = read_ticket(self._store, id)
            if ticket.state != OPEN or ticket.source is None:
                raise SettingsError(f"the ticket {id} is {ticket.state} already")
            closed = ticket.ended(CLOSED, drawn_from(self._store, ticket.source), reason=reason)
            change.write(place(id), closed.record())
            change.record(ticket_moved(closed))
        return closed
