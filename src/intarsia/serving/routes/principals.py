"""Who may draw from what: principals, their keys and their grants."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from intarsia.errors import UnknownName
from intarsia.serving.callers import Caller, needs
from intarsia.serving.faults import Fault, found
from intarsia.serving.schemas import KeyTerms, NewGrants, NewKey, NewPrincipal, NewRules
from intarsia.serving.service import service_of
from intarsia.vault import Decision, Principal, Quota
from intarsia.vault.clock import end_of

router = APIRouter(tags=["admin"])
Admin = Annotated[Caller, Depends(needs("admin"))]


@router.get("/v1/principals")
def principals(request: Request, caller: Admin) -> dict[str, Any]:
    """All principals with their rules, keys (never in clear) and grants."""
    return {"data": [_document(each) for each in service_of(request).vault.principals()]}


@router.get("/v1/principals/{name}")
def principal(request: Request, name: str, caller: Admin) -> dict[str, Any]:
    """One principal; of each grant also what is used of its quota, and whether it may be drawn from now, or why not."""
    vault = service_of(request).vault
    with found():
        verdicts = {each.name: each for each in vault.decide(name).decisions}
        used = {each.source: each.used for each in vault.allowances(name)}
        known = {each.name: each for each in vault.principals()}
        if name not in known:
            raise UnknownName("principal", name, known)  # removed in between
    record = _document(known[name])
    for grant in record["grants"]:
        verdict = verdicts.get(grant["source"], Decision(grant["source"], False, "trained", "it is not in the vault"))
        grant |= {"used": used.get(grant["source"]), "permitted": verdict.allowed, "reason": verdict.reason}
    return record


@router.post("/v1/principals", status_code=201)
def add(request: Request, body: NewPrincipal, caller: Admin) -> dict[str, Any]:
    """Add somebody who may draw from what will be granted; `key` is shown for the only time."""
    vault = service_of(request).vault
    if body.name in [each.name for each in vault.principals()]:
        message = f"principal '{body.name}' is in the vault already; remove it first, or choose another name"
        raise Fault(409, message, code="taken", param="name")
    key = vault.add_principal(
        body.name,
        licences=body.licences,
        owners=body.owners,
        refuse=body.refuse,
        until=None if body.until is None else end_of("until", body.until),
        scopes=body.scopes,
    )
    return {"principal": body.name, "key": key}


@router.put("/v1/principals/{name}/rules")
def rules(request: Request, name: str, body: NewRules, caller: Admin) -> dict[str, Any]:
    """Rules in place of those it had; once this has answered nothing is drawn for it that they do not admit."""
    vault = service_of(request).vault
    with found():
        changed = vault.change_rules(name, licences=body.licences, owners=body.owners, refuse=body.refuse)
    return _document(changed)


@router.delete("/v1/principals/{name}")
def remove(request: Request, name: str, caller: Admin) -> dict[str, Any]:
    """Take a principal's keys and grants for good; runs under way for it end without images."""
    with found():
        service_of(request).vault.remove_principal(name)
    return {"principal": name, "removed": True}


@router.post("/v1/principals/{name}/keys", status_code=201)
def new_key(request: Request, name: str, body: NewKey, caller: Admin) -> dict[str, Any]:
    """Another key, or with `replace` one in place of all; `key` is shown for the only time."""
    until = None if body.until is None else end_of("until", body.until)
    with found():
        key = service_of(request).vault.new_key(name, until=until, scopes=body.scopes, replace=body.replace)
    return {"principal": name, "key": key}


@router.put("/v1/principals/{name}/keys/{id}")
def key_terms(request: Request, name: str, id: str, body: KeyTerms, caller: Admin) -> dict[str, Any]:
    """When a key ends and what it is for, in place of what was said before; whoever has it keeps it."""
    until = None if body.until is None else end_of("until", body.until)
    with found():
        key = service_of(request).vault.change_key(name, id, until=until, scopes=body.scopes)
    return {"principal": name} | _without_digest(key.record())


@router.delete("/v1/principals/{name}/keys/{id}")
def remove_key(request: Request, name: str, id: str, caller: Admin) -> dict[str, Any]:
    """Withdraw one key, by its id."""
    with found():
        service_of(request).vault.remove_key(name, id)
    return {"principal": name, "key": id, "removed": True}


@router.post("/v1/grants", status_code=201)
def grant(request: Request, body: NewGrants, caller: Admin) -> dict[str, Any]:
    """Let a principal draw from sources; a grant that is there already is replaced."""
    until = None if body.until is None else end_of("until", body.until)
    quota = None if body.quota is None else Quota.parse(body.quota)
    with found():
        grants = service_of(request).vault.grant(body.sources, body.principal, until=until, quota=quota)
    return {"principal": body.principal, "grants": [{"source": each.source, **each.terms()} for each in grants]}


@router.delete("/v1/grants/{principal}/{source}")
def revoke(request: Request, principal: str, source: str, caller: Admin) -> dict[str, Any]:
    """Take a grant; once this has answered no image is drawn with the source for that principal any more."""
    with found():
        service_of(request).vault.revoke(source, principal)
    return {"principal": principal, "source": source, "revoked": True}


def _document(principal: Principal) -> dict[str, Any]:
    record = principal.record()
    record["keys"] = [_without_digest(key) for key in record["keys"]]
    return record


def _without_digest(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "sha256"}
