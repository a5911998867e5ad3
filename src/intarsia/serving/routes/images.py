"""Drawing: OpenAI's `POST /v1/images/generations`, at once or streamed with previews."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from intarsia.serving.callers import Caller, needs
from intarsia.serving.drawing import Message, draw
from intarsia.serving.faults import Fault, fault_of
from intarsia.serving.metrics import GONE
from intarsia.serving.schemas import ImageRequest
from intarsia.serving.service import service_of

router = APIRouter(tags=["images"])
_LOOK = 1.0  # seconds between looks whether the client is still there


@router.post(
    "/v1/images/generations",
    response_model=None,
    responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}},
)
async def generate(
    request: Request, body: ImageRequest, caller: Annotated[Caller, Depends(needs("sample"))]
) -> Response:
    """Draw images from the sources that the key may use, or those among them that are named.

    With `stream` the answer is a stream of server-sent events: previews, then every image.
    """
    service = service_of(request)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(service.place())
        drawn = service.replicas.draw if service.replicas else draw
        messages = await stack.enter_async_context(contextlib.aclosing(drawn(service, caller, body)))
        await anext(messages)  # whatever is wrong with the request is said before anything is sent
        if body.stream:
            events = _events(messages, stack.pop_all())
            return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        return JSONResponse((await _last(request, messages)).document)


async def _last(request: Request, messages: AsyncGenerator[Message, None]) -> Message:
    """The one that is left.

    Raises:
        Fault: the client has gone.
    """
    coming = asyncio.ensure_future(anext(messages))
    try:
        while not (await asyncio.wait([coming], timeout=_LOOK))[0]:
            if await request.is_disconnected():
                raise Fault(GONE, "whoever asked for these images has gone", code="gone")
        return await coming
    finally:
        if not coming.done():
            coming.cancel()
            await asyncio.wait([coming])


async def _events(messages: AsyncGenerator[Message, None], held: contextlib.AsyncExitStack) -> AsyncIterator[str]:
    """One event per message, or one that says why there are no more."""
    async with held:
        try:
            async for message in messages:
                yield _event(message.kind, message.document)
        except Exception as error:  # noqa: BLE001 - the status is sent already; the client is told in the stream
            yield _event("error", fault_of(error).document())
    yield "data: [DONE]\n\n"


def _event(kind: str, document: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | document, allow_nan=False)}\n\n"
