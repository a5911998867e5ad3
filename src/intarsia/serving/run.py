"""A service on a socket, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import signal
import socket
import sys
from collections.abc import Iterator
from typing import cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from intarsia.errors import SettingsError
from intarsia.serving.app import create_app
from intarsia.serving.faults import Fault
from intarsia.serving.limits import HEADERS
from intarsia.serving.metrics import Lines
from intarsia.serving.service import Replicas
from intarsia.serving.settings import ServeSettings
from intarsia.vault import Key, Vault

HEAD_SECONDS = 15.0
_BACKLOG = 512


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens at an address.

    Raises:
        SettingsError: there is no such address here, or another program has it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(
            f"cannot listen at {host}, port {port}: {error.strerror}; choose another address"
        ) from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise SettingsError(
                f"cannot listen at {host}, port {port}: {error.strerror}; choose another with --host and --port"
            ) from error
        listener.listen(_BACKLOG)
        yield listener


class _Patient(H11Protocol):
    """A connection on which the head of a request must arrive within `HEAD_SECONDS`: uvicorn's own waits for ever.

    What is no request at all is answered in the shape of all failures.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))  # those of uvloop only behave like one
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait()
        elif self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        fault = Fault(400, "this is no HTTP request", code="invalid_request")
        body = json.dumps(fault.document()).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        parts = [
            h11.Response(status_code=400, headers=list((HEADERS | headers).items()), reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        for part in parts:
            self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def _wait(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)


class _Server(uvicorn.Server):
    """One for which being told to end, and ending well, is success: uvicorn's own raises the signal once more."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def serve_forever(
    vault: Vault,
    settings: ServeSettings,
    owner: Key | None,
    listener: socket.socket,
    *,
    replicas: Replicas | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are finished, as long as `shutdown_seconds` allow."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.captureWarnings(True)
    config = uvicorn.Config(
        create_app(vault, settings, owner=owner, replicas=replicas),
        log_config=None,
        log_level="warning",
        access_log=False,
        http=_Patient,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        timeout_keep_alive=15,
    )
    _Server(config).run(sockets=[listener])
