"""How much of an image is owed to whom."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from intarsia.serving.callers import Caller, needs
from intarsia.serving.claims import claimed
from intarsia.serving.schemas import CreditRequest
from intarsia.serving.service import service_of

router = APIRouter(tags=["credit"])


@router.post("/v1/credit")
async def credit(
    request: Request, body: CreditRequest, caller: Annotated[Caller, Depends(needs("credit"))]
) -> dict[str, Any]:
    """Shares of one image among the sources that the key may use: of a file, or of an image drawn lately."""
    service = service_of(request)
    return await service.claim(claimed, service, caller, body)
