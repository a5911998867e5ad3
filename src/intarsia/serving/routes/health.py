"""Whether the service lives, and whether it can draw: asked in no thread that a slow request could have taken."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from intarsia.serving.faults import Fault
from intarsia.serving.service import service_of

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, str]:
    """It takes requests: it has begun, and is not about to end."""
    if not service_of(request).ready:
        raise Fault(503, "the service is beginning or ending; try again", code="not_ready", retry=1)
    return {"status": "ready"}


@router.get("/metrics", response_model=None, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Figures for Prometheus: requests, waiting, passes and memory; nothing about who asked for what."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
