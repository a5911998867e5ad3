"""What would be drawn from: sources joined for a caller, before anything is drawn."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from intarsia.serving.callers import Caller, needs
from intarsia.serving.choices import composed
from intarsia.serving.orders import mixing
from intarsia.serving.schemas import CompositionRequest
from intarsia.serving.service import service_of

router = APIRouter(tags=["images"])


@router.post("/v1/compositions")
async def composition(
    request: Request, body: CompositionRequest, caller: Annotated[Caller, Depends(needs("sample"))]
) -> dict[str, Any]:
    """Join the sources that are named, or all that the key may use, as drawing does, and say what came of it.

    `left_out` says of what was granted, and not named, why it is not there; `isolated` whether each source's part of
    the weights saw that source and public data only.
    """
    service = service_of(request)
    weights, routing = mixing(service, body.weights, body.routing)
    precision = service.settings.precision
    with service.place():
        made = await service.wait_for(
            composed, service, caller, body.sources, weights=weights, routing=routing, precision=precision
        )
    return {
        "sources": list(made.names),
        "left_out": dict(made.left_out),
        "licences": dict(made.licences),
        "prior": dict(zip(made.names, made.model.prior.tolist(), strict=True)),
        "weights": weights,
        "routing": routing,
        "isolated": made.isolated,
    }
