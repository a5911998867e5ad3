"""What there is to draw from, for whoever asks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from intarsia.compartments import FullCopy, Lora, TextPrompts
from intarsia.composition import ROUTINGS
from intarsia.serving.callers import Caller, needs
from intarsia.serving.choices import verdicts
from intarsia.serving.faults import Fault
from intarsia.serving.orders import MODEL
from intarsia.serving.service import Service, service_of
from intarsia.serving.settings import SERVED_WEIGHTS
from intarsia.vault import CompartmentInfo
from intarsia.vault.clock import to_text
from intarsia.vault.composing import SOUP

router = APIRouter(tags=["catalogue"])
_NO_PART = frozenset({"prior", "uniform", "ito"})  # weights for which no router part is needed
_AVERAGED = frozenset({Lora.name, FullCopy.name})  # adapters of which there is a mean


@router.get("/v1/models")
def models(request: Request, caller: Annotated[Caller, Depends(needs("read"))]) -> dict[str, Any]:
    """The one model there is, in OpenAI's form; which sources it is made of, every request says."""
    return {"object": "list", "data": [_model(service_of(request))]}


@router.get("/v1/models/{model}")
def model(request: Request, model: str, caller: Annotated[Caller, Depends(needs("read"))]) -> dict[str, Any]:
    """The same by its name."""
    if model != MODEL:
        raise Fault(404, f"no model '{model}' here; the one there is is '{MODEL}'", code="model_not_found")
    return _model(service_of(request))


@router.get("/v1/me")
def me(request: Request, caller: Annotated[Caller, Depends(needs())]) -> dict[str, Any]:
    """Who the key is of, what it is for, and what is left of its quotas."""
    quotas = [] if caller.principal is None else service_of(request).vault.allowances(caller.principal)
    return {
        "principal": caller.principal,
        "scopes": list(caller.scopes),
        "expires": to_text(caller.until),
        "quotas": [
            {"source": each.source, "used": each.used, "limit": each.limit, "per": each.period} for each in quotas
        ],
    }


@router.get("/v1/vault")
def vault(request: Request, caller: Annotated[Caller, Depends(needs("read"))]) -> dict[str, Any]:
    """What images look like, what may be asked for, and what is taken where a request does not say."""
    service = service_of(request)
    permitted = {decision.name for decision in verdicts(service, caller) if decision.allowed}
    members = [info for info in service.vault.compartments() if info.name in permitted]
    labels = {label for info in members for label in info.labels} | set(service.vault.backbone.labels)
    settings = service.settings
    return {
        "name": service.vault.root.name,
        "image_shape": list(service.vault.image_shape),
        "conditioning": {
            "labels": sorted(labels),
            "text": bool(members) and all(_reads(service, info) for info in members),
        },
        "weights": [kind for kind in SERVED_WEIGHTS if _possible(kind, members)],
        "routing": list(ROUTINGS),
        "defaults": {
            "steps": settings.steps,
            "guidance_scale": 1.0,
            "weights": settings.weights,
            "routing": settings.routing,
        },
        "limits": {"images": settings.images, "steps": settings.max_steps},
    }


@router.get("/v1/sources")
def sources(request: Request, caller: Annotated[Caller, Depends(needs("read"))]) -> dict[str, Any]:
    """The sources of which the key may know, with the verdict on each and its reason."""
    service = service_of(request)
    known = {decision.name: decision for decision in verdicts(service, caller)}
    trained = {info.name: info for info in service.vault.compartments()}
    begun = {each.name for each in service.vault.unfinished()}
    found = []
    for info in service.vault.sources():
        if info.name not in known:
            continue
        state = "pending" if info.name in begun else "trained" if info.name in trained else "untrained"
        verdict = known[info.name]
        found.append(
            {
                "name": info.name,
                "owner": info.owner,
                "licence": info.licence,
                "count": info.count,
                "labels": list(info.labels),
                "text": info.name in trained and _reads(service, trained[info.name]),
                "state": state,
                "permitted": verdict.allowed,
                "reason": verdict.reason,
            }
        )
    return {"data": found}


def _model(service: Service) -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": service.vault.root.name}


def _reads(service: Service, member: CompartmentInfo) -> bool:
    """Whether a compartment is asked in words."""
    return service.vault.backbone.text is not None or member.adapter == TextPrompts.name


def _possible(kind: str, members: list[CompartmentInfo]) -> bool:
    if kind == SOUP:
        return all(member.adapter in _AVERAGED for member in members)
    return kind in _NO_PART or all(kind in member.routers for member in members)
