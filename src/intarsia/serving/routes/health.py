"""Whether the service lives, which is told without a thread that others may have taken, and whether it can draw."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from intarsia.serving.faults import Fault
from intarsia.serving.service import service_of
from intarsia.vault.store import RECORD_FILE

router = APIRouter(tags=["health"])
log = logging.getLogger("intarsia.serving")


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(request: Request) -> dict[str, str]:
    """It takes requests: it has begun, is not about to end, and its vault is there."""
    service = service_of(request)
    if not service.ready:
        raise Fault(503, "the service is beginning or ending; try again", code="not_ready", retry=1)
    if not (service.vault.root / RECORD_FILE).exists():
        log.error("%s is gone, or cannot be read; mount it again, or end this service", service.vault.root)
        raise Fault(
            503, "the vault cannot be reached; the keeper finds in the log what is missing", code="no_vault", retry=5
        )
    return {"status": "ready"}


@router.get("/metrics", response_model=None, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Figures for Prometheus: requests, waiting, passes and memory; nothing about who asked for what."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
