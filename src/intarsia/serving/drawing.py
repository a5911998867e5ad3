"""Drawing, told as it goes on: wherever it happens, a request is answered by the same messages."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import torch

from intarsia.composition import CompositeRun
from intarsia.data import to_uint8
from intarsia.serving.callers import Caller
from intarsia.serving.orders import Answer, Order, previews
from intarsia.serving.pictures import as_field, encoded
from intarsia.serving.schemas import ImageRequest
from intarsia.serving.service import Service

ACCEPTED, PARTIAL, COMPLETED, ANSWER = (
    "accepted",
    "image_generation.partial_image",
    "image_generation.completed",
    "answer",
)


@dataclass(frozen=True)
class Message:
    """`ACCEPTED` comes first, then previews and images as they are ready, or where nothing is streamed one `ANSWER`."""

    kind: str
    document: dict[str, Any]


async def draw(service: Service, caller: Caller, request: ImageRequest) -> AsyncGenerator[Message, None]:
    """Draw here. Whoever closes this before its end does not want the images any more.

    Raises:
        As `Order.of`, before the first message, and `Order.draw`.
    """
    order = await service.wait_for(Order.of, service, caller, request)
    yield Message(ACCEPTED, {})
    loop, gone = asyncio.get_running_loop(), threading.Event()
    queue: asyncio.Queue[_Preview | None] = asyncio.Queue()

    def tell(number: int, step: int, run: CompositeRun, x0_hat: torch.Tensor) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, _Preview(number, step, run, x0_hat, run.trace[-1]))

    look = previews(request.partial_images, order.settings.steps, tell) if request.stream else None
    drawing = asyncio.ensure_future(service.wait_for(order.draw, service, gone=gone, on_step=look))
    drawing.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (preview := await queue.get()) is not None:
            for document in await service.wait_for(preview.documents, order):
                yield Message(PARTIAL, document)
        answer = await drawing
        if not request.stream:
            yield Message(ANSWER, answer.document())
            return
        for index in range(request.n):
            yield Message(COMPLETED, answer.document_of(index) | {"usage": None})
    finally:
        gone.set()
        drawing.add_done_callback(_heard)


def _heard(drawing: asyncio.Future[Answer]) -> None:
    """Take note of how it ended: nobody else does where the client has gone."""
    if not drawing.cancelled():
        drawing.exception()


class _Preview:
    """A moment of a batch: the estimates (B, *latent_shape) and weights (B, n) at a step."""

    def __init__(self, number: int, step: int, run: CompositeRun, x0_hat: torch.Tensor, weights: torch.Tensor):
        self.number, self.step, self.run, self.x0_hat, self.weights = number, step, run, x0_hat, weights

    def documents(self, order: Order) -> list[dict[str, Any]]:
        """One event for each image."""
        images, names = to_uint8(order.composition.backbone.decode(self.x0_hat)), self.run.model.names
        form, quality = order.request.output_format, order.request.output_compression
        return [
            {
                "partial_image_index": self.number,
                "index": index,
                "step": self.step + 1,
                "steps": order.settings.steps,
                "weights": dict(zip(names, weights, strict=True)),
                "size": f"{image.shape[1]}x{image.shape[0]}",
                "output_format": form,
                **as_field(encoded(image, form, quality, {"preview": True}), form, "b64_json"),
            }
            for index, image, weights in zip(self.run.indices, images, self.weights.tolist(), strict=True)
        ]
