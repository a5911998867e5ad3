"""One of several processes that draw for a service, on whatever machine sees the vault's folder: an actor of Ray Serve.

It draws for callers whose keys the service has looked at, under the same grants: the vault decides what a principal may
use, and every step looks again. What it draws goes back as messages, with the receipt; it keeps nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intarsia.errors import VaultError
from intarsia.serving.callers import Caller
from intarsia.serving.drawing import Message, draw
from intarsia.serving.faults import fault_of
from intarsia.serving.receipts import Drawn
from intarsia.serving.schemas import ImageRequest
from intarsia.serving.service import Service
from intarsia.serving.settings import ServeSettings
from intarsia.vault import Vault
from intarsia.vault.store import RECORD_FILE

FAILED = "failed"
_SWEEP = 5.0  # seconds between looks whether another process has forgotten what is in memory

Mark = tuple[int, int, int]
"""What tells a vault's folder from a copy of it, on every machine that has it mounted."""


@dataclass(frozen=True)
class Sent:
    """A message and, with the first that tells of it, the receipt; its number is None where there is none.

    Of kind `FAILED` it holds what `Fault` is made of, and the reason, which is not for clients.
    """

    message: Message
    number: str | None = None
    drawn: Drawn | None = None


def mark_of(root: str | Path) -> Mark | None:
    """Of the vault in a folder; None if there is none here."""
    try:
        found = (Path(root) / RECORD_FILE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class Replica:
    """Draws from a vault.

    Args:
        place: the vault's folder, the same on every machine, or the URL of one that machines share.
        mark: of that folder, as the service sees it; None for a URL.

    Raises:
        VaultError: this machine sees another folder there, or none.
    """

    def __init__(self, place: str, mark: Mark | None, settings: ServeSettings):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no request of a client makes one to somebody else
        if mark is not None and mark_of(place) != mark:
            raise VaultError(f"{place} is not the vault's folder on this machine; mount it there")
        self._service = Service(Vault.open(place), settings)
        threading.Thread(target=self._sweep, name="intarsia sweep", daemon=True).start()

    async def draw(self, caller: Caller, request: ImageRequest) -> AsyncIterator[Sent]:
        """As `drawing.draw`; whatever is raised becomes the last message."""
        try:
            async for message in draw(self._service, caller, request):
                number = message.document.get("intarsia", {}).get("receipt")
                yield Sent(message, number, self._service.receipts.take(number))
        except Exception as error:  # noqa: BLE001 - the service answers it, as its own
            yield Sent(Message(FAILED, _fields(error)))

    def _sweep(self) -> None:
        while True:
            time.sleep(_SWEEP)
            self._service.library.sweep()


def _fields(error: Exception) -> dict[str, Any]:
    fault = fault_of(error)
    told = {"message": str(fault), "code": fault.code, "param": fault.param, "retry": fault.retry}
    return {"status": fault.status, "reason": f"{type(error).__name__}: {error}", **told}
