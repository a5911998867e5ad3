"""`intarsia ticket`: what owners asked to be forgotten."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import SourceName, VaultPath, split
from intarsia.errors import counted

if TYPE_CHECKING:
    from datetime import datetime

    from intarsia.vault import Ticket, Vault

HELP = "What owners asked to be forgotten: when, until when it is due, what it affects, and how it ended."

TicketId = Annotated[
    str, typer.Argument(help="A ticket, as `ticket list` shows it.", metavar="TICKET", show_default=False)
]


def open_ticket(
    vault: VaultPath,
    name: SourceName,
    output: Output,
    sample: Annotated[
        list[str] | None,
        typer.Option(
            help="Image by its id, or the beginning of it; may be repeated, or hold several with commas between. "
            "Without any image the ticket is about the whole source.",
            metavar="ID",
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            help="Image by its file name in the source, or by a file on disk that shows it; may be repeated.",
            metavar="PATH",
        ),
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(
            help="Images by caption (caption:TEXT) or label (label:NAME); may be repeated.", metavar="PATTERN"
        ),
    ] = None,
    received: Annotated[
        str | None, typer.Option(help="Day or time (UTC) when the request came; without it now.", show_default=False)
    ] = None,
    due: Annotated[
        str | None,
        typer.Option(
            help="Day or time (UTC) until when; without it 30 days after it was received.", show_default=False
        ),
    ] = None,
) -> None:
    """Note that an owner asked for a source, or images of it, to be forgotten. Forgetting them closes the ticket.

    Example: intarsia ticket open emoji.vault twemoji --sample 3f2a91 --received 2027-01-31
    """
    from intarsia.vault import Vault
    from intarsia.vault.clock import end_of, start_of

    opened = Vault.open(vault)
    ids = None
    if sample or file or match:
        found = opened.find_samples(name, ids=split("--sample", sample) or (), files=file or (), patterns=match or ())
        ids = [each.id for each in found]
    ticket = opened.open_ticket(
        name,
        ids,
        received=None if received is None else start_of("--received", received),
        due=None if due is None else end_of("--due", due),
    )
    how = f"intarsia forget {shlex.quote(str(vault))} {shlex.quote(name)} --ticket {ticket.id}"
    line = f"Ticket {ticket.id}: {counted(ticket.count, 'image')} of '{name}', due {_moment(ticket.due)}"
    output.answer(_document(opened, ticket), line, f"Next: {how}")


def list_tickets(vault: VaultPath, output: Output) -> None:
    """List all tickets: the open ones first, by when they are due.

    Example: intarsia ticket list emoji.vault
    """
    from intarsia.vault import Vault

    opened = Vault.open(vault)
    tickets = opened.tickets()
    rows = [
        (each.id, _state(each), each.source or "", each.count, _moment(each.received), _moment(each.due))
        for each in tickets
    ]
    document = {"vault": str(vault), "tickets": [_record(each) for each in tickets]}
    output.answer(document, Table(("ticket", "state", "source", "images", "received (UTC)", "due (UTC)"), rows))


def show(vault: VaultPath, id: TicketId, output: Output) -> None:
    """Show a ticket: what it affects, how it ended, and which images were drawn from the source before.

    For each set of these images the number of the ledger's entry is given, by which its receipt is recognised: so those
    who have the images can be told.

    Example: intarsia ticket show emoji.vault 5f0c2a91
    """
    from intarsia.vault import Vault

    opened = Vault.open(vault)
    ticket = opened.ticket(id)
    document = _document(opened, ticket)
    lines = [
        f"Ticket {ticket.id}: {_state(ticket)}",
        f"  received     {_moment(ticket.received)}",
        f"  due          {_moment(ticket.due)}",
        f"  asked for    {'a whole source, ' if ticket.whole else ''}{counted(ticket.count, 'image')}",
    ]
    if ticket.source is not None:
        lines.append(f"  source       {ticket.source}")
        lines += [f"  image        {sample}" for sample in ticket.samples or ()]
        lines.append(f"  compartments {', '.join(opened.affected(ticket)) or 'none'}")
    if document["entry"] is not None:
        lines.append(f"  evidence     entry {document['entry']} of the ledger")
    if ticket.reason:
        lines.append(f"  reason       {ticket.reason}")
    images = opened.ticket_images(ticket)
    lines.append(f"Drawn from the source before: {counted(len(images), 'set')} of images")
    rows = [(each["entry"], each["time"], each["count"]) for each in images]
    output.answer(document, *lines, *([Table(("ledger entry", "time (UTC)", "images"), rows)] if rows else []))


def close(
    vault: VaultPath,
    id: TicketId,
    output: Output,
    reason: Annotated[str, typer.Option(help="Why nothing is forgotten; kept in clear.", show_default=False)],
) -> None:
    """Close a ticket without forgetting anything, such as one that was withdrawn. `intarsia forget` closes the others.

    Example: intarsia ticket close emoji.vault 5f0c2a91 --reason "withdrawn by the owner"
    """
    from intarsia.vault import Vault

    opened = Vault.open(vault)
    ticket = opened.close_ticket(id, reason)
    output.answer(_document(opened, ticket), f"Ticket {id} is closed: {reason}")


def _document(vault: Vault, ticket: Ticket) -> dict[str, object]:
    entry = None if ticket.evidence is None else vault.entry_with(ticket.evidence)
    sets = vault.ticket_images(ticket)
    affected = vault.affected(ticket)
    return {"vault": vault.place, **_record(ticket), "compartments": affected, "entry": entry, "drawn": sets}


def _record(ticket: Ticket) -> dict[str, object]:
    from intarsia.vault.clock import utc_now

    return {**ticket.record(), "overdue": ticket.overdue(utc_now())}


def _state(ticket: Ticket) -> str:
    return f"{ticket.state}, overdue" if _record(ticket)["overdue"] else ticket.state


def _moment(value: datetime) -> str:
    from intarsia.vault.clock import to_text

    return to_text(value) or ""
