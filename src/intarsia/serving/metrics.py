"""What a service tells Prometheus, and its log: how many, how long, how full; never who asked for what.

Every line of the log is one JSON object, whatever a client sent: addresses appear as the route they matched. The key's
id, which is no secret, says who called.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("intarsia.serving.access")
GONE = 499
"""The status of a request whose client has gone before it was answered; not one of HTTP's, but that of nginx."""
_STRANGE = "none"  # the route of an address that matches none, so that guesses make no labels
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self._registry = here = CollectorRegistry()
        by = ["method", "route"]
        self.requests = Counter("intarsia_requests", "Requests answered", [*by, "status"], registry=here)
        self.images = Counter("intarsia_images", "Images drawn and handed out", registry=here)
        self.seconds = Histogram(
            "intarsia_request_seconds", "Of a request, from head to end", by, buckets=_SECONDS, registry=here
        )
        self.rounds = Histogram("intarsia_pass_seconds", "Of a forward pass", buckets=_SECONDS, registry=here)
        self.rows = Histogram("intarsia_pass_rows", "Images in a forward pass", buckets=_ROWS, registry=here)

    def gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Show a value that is asked for when the figures are read."""
        Gauge(name, help, registry=self._registry).set_function(value)

    def on_round(self, rows: int, seconds: float) -> None:
        """Count a pass of the engine."""
        self.rounds.observe(seconds)
        self.rows.observe(rows)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)


class Lines(logging.Formatter):
    """Whatever is logged as one JSON object in one line, its traceback too: no text of a client looks like another.

    What `Watch` writes is one already.
    """

    def format(self, record: logging.LogRecord) -> str:
        if record.name == log.name:
            return record.getMessage()
        line = {"time": _time(record.created), "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Watch:
    """Middleware that counts every request and writes a line about it."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.perf_counter(), GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            self._note(scope, status, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _STRANGE)
        method = scope["method"] if route != _STRANGE else _STRANGE
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        key = scope.get("state", {}).get("key")
        line = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4), "key": key}
        log.info("%s", json.dumps({"time": _time(time.time()), **line}))
