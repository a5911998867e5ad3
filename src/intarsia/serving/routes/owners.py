"""The requests of owners: tickets, forgetting, and what is trained again afterwards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from intarsia.errors import SettingsError, UnknownName, VaultError
from intarsia.ledger import Promise
from intarsia.serving.callers import Caller, needs
from intarsia.serving.faults import Fault, found
from intarsia.serving.jobs import Job
from intarsia.serving.schemas import CloseTicket, ForgetRequest, NewTicket
from intarsia.serving.service import Service, service_of
from intarsia.serving.work import result_of
from intarsia.vault import Ticket
from intarsia.vault.clock import end_of, start_of, utc_now
from intarsia.vault.tickets import OPEN

router = APIRouter(tags=["owners"])
log = logging.getLogger("intarsia.serving")
Eraser = Annotated[Caller, Depends(needs("erase"))]


@router.post("/v1/sources/{name}/forget", status_code=202)
def forget(request: Request, name: str, body: ForgetRequest, caller: Eraser) -> Any:
    """Forget a source, or samples of it: they are gone when this answers, and a job trains again without them.

    With `dry_run` nothing is changed, and the answer (200) says what would be trained again and how long that takes.
    """
    service = service_of(request)
    with found():
        if name not in (known := service.vault.names()):
            raise UnknownName("source", name, known)
    if body.dry_run:
        with found():
            service.vault.plan_forget(name, body.samples, measure=False)
        return JSONResponse(result_of(service.vault.root, "plan", name, *(body.samples or ())))
    with found():
        return {"job": _forgotten(service, name, body.samples).id}


@router.get("/v1/jobs/{id}")
def job(request: Request, id: str, caller: Eraser) -> dict[str, Any]:
    """How far a job is; at its end `result` holds what was done, with receipts."""
    return service_of(request).jobs.get(id).document()


@router.get("/v1/tickets")
def tickets(request: Request, caller: Eraser) -> dict[str, Any]:
    """All tickets, those first that are open, by when they are due."""
    return {"data": [_document(ticket) for ticket in service_of(request).vault.tickets()]}


@router.post("/v1/tickets", status_code=201)
def new_ticket(request: Request, body: NewTicket, caller: Eraser) -> dict[str, Any]:
    """Note that an owner asked for a source, or samples of it, to be forgotten."""
    received = None if body.received is None else start_of("received", body.received)
    due = None if body.due is None else end_of("due", body.due)
    with found():
        ticket = service_of(request).vault.open_ticket(body.source, body.samples, received=received, due=due)
    return _document(ticket)


@router.get("/v1/tickets/{id}")
def ticket(request: Request, id: str, caller: Eraser) -> dict[str, Any]:
    """One ticket, with the compartments that it affects and the images that were drawn from its source."""
    vault = service_of(request).vault
    with found():
        asked = vault.ticket(id)
    return _document(asked) | {"compartments": vault.affected(asked), "drawn": vault.ticket_images(asked)}


@router.post("/v1/tickets/{id}/answer", status_code=202)
def answer(request: Request, id: str, caller: Eraser) -> dict[str, Any]:
    """Forget what an open ticket asks for, which closes it; a job trains again what learned from it."""
    service = service_of(request)
    with found():
        asked = service.vault.ticket(id)
    if asked.state != OPEN or asked.source is None:
        raise SettingsError(f"the ticket {id} is {asked.state} already")
    return {"job": _forgotten(service, asked.source, asked.samples).id}


@router.post("/v1/tickets/{id}/close")
def close(request: Request, id: str, body: CloseTicket, caller: Eraser) -> dict[str, Any]:
    """Close an open ticket without forgetting anything, for a reason."""
    with found():
        return _document(service_of(request).vault.close_ticket(id, body.reason))


def _forgotten(service: Service, name: str, samples: Sequence[str] | None) -> Job:
    """Take samples, or all of a source, out of the vault; returns the job of what is to be trained again.

    Nothing goes without a receipt: what it is made of is written before anything is done.
    """
    done = service.vault.forgetting(name, samples, announce=partial(_promise, service))
    try:
        service.handed.write(done.receipts)
    except VaultError as error:  # it is made from what was promised when the service next begins
        log.error("the receipt of a forgetting is not written yet: %s", error)
    service.receipts.forget()
    service.library.forget(name)
    service.jobs.later(service.receipts.sweep)
    receipts = [receipt.document() for receipt in done.receipts]
    owed = [each.name for each in service.vault.unfinished() if each.owed]
    if owed:
        return service.jobs.resume("forget", owed, receipts)
    return service.jobs.finished("forget", [name], receipts)


def _promise(service: Service, promises: Sequence[Promise]) -> None:
    try:
        service.handed.promise(promises)
    except VaultError as error:
        log.error("nothing was forgotten, as its receipt cannot be written: %s", error)
        message = "nothing was forgotten, as its receipt cannot be written here; the keeper finds why in the log"
        raise Fault(503, message, code="no_receipt") from error


def _document(ticket: Ticket) -> dict[str, Any]:
    return ticket.record() | {"overdue": ticket.overdue(utc_now())}
