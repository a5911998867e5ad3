"""What all routes of a service share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from fastapi import Request

from intarsia.errors import IntarsiaError, SettingsError
from intarsia.serving.engine import Busy, Engine
from intarsia.serving.jobs import Jobs
from intarsia.serving.library import Library
from intarsia.serving.metrics import Metrics
from intarsia.serving.receipts import Receipts
from intarsia.serving.settings import ServeSettings
from intarsia.serving.transparency import Transparency
from intarsia.vault import Key, Vault
from intarsia.vault.kept import KeptReceipts
from intarsia.vault.receipts import ReceiptFolder

if TYPE_CHECKING:
    from intarsia.serving.callers import Caller
    from intarsia.serving.drawing import Message
    from intarsia.serving.schemas import ImageRequest

log = logging.getLogger("intarsia.serving")

P = ParamSpec("P")
T = TypeVar("T")


class Replicas(Protocol):
    """Other processes that draw from the same vault; `most` is how many there may be."""

    @property
    def most(self) -> int: ...

    def draw(self, service: Service, caller: Caller, request: ImageRequest) -> AsyncGenerator[Message, None]:
        """As `drawing.draw`."""
        ...


@dataclass
class Places:
    """For so many requests at once, and no more; for the event loop's thread."""

    most: int
    taken: int = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Raises Busy if all are taken."""
        if self.taken >= self.most:
            raise Busy(self.taken, 1)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


@dataclass
class Service:
    """A vault, and what draws from it.

    `owner` is a key in memory alone, for whoever started the service; None if there is none. `waiters` are the threads
    in which requests wait for the engine. `claims` is the one in which credit is reckoned, of one request after the
    other: it takes many passes, and who draws is not to wait behind it. `handed` is where the receipts of forgettings
    are put. Where there are `replicas`, they draw, and the engine rests.
    """

    vault: Vault
    settings: ServeSettings
    owner: Key | None = None
    replicas: Replicas | None = None
    ready: bool = False
    metrics: Metrics = field(default_factory=Metrics)
    claims: ThreadPoolExecutor = field(init=False)
    transparency: Transparency = field(init=False)
    receipts: Receipts = field(init=False)
    handed: ReceiptFolder = field(init=False)
    jobs: Jobs = field(init=False)
    library: Library = field(init=False)
    engine: Engine = field(init=False)
    waiters: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.transparency = Transparency(self.vault.ledger)
        self.receipts = Receipts(KeptReceipts(self.vault.root))
        self.handed = ReceiptFolder(self.vault.root, self.vault.ledger, folder=self.settings.receipts)
        self.jobs = Jobs(self.vault.root, self.handed)
        self.library = Library(self.vault, self.settings.memory_bytes)
        on_round = self.metrics.on_round
        self.engine = Engine(rows=self.settings.rows, waiting=self.settings.waiting, on_round=on_round)
        self.metrics.gauge("intarsia_requests_waiting", "Requests that wait", lambda: self.engine.waiting)
        self.metrics.gauge("intarsia_images_under_way", "Images being drawn", lambda: self.engine.under_way)
        self.metrics.gauge("intarsia_memory_bytes", "Of compartments in memory", lambda: self.library.loaded.nbytes)
        here = self.settings.waiting + self.settings.rows
        self._drawing = Places(here * (self.replicas.most if self.replicas else 1))
        self._claiming = Places(self.settings.waiting)
        self.claims = ThreadPoolExecutor(1, thread_name_prefix="intarsia credit")
        self.waiters = ThreadPoolExecutor(here, thread_name_prefix="intarsia request")

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request that draws; for the event loop's thread.

        Raises:
            Busy: all are taken, or too many wait for the engine.
        """
        self.engine.check_room()
        with self._drawing.one():
            yield

    async def claim(self, work: Callable[P, T], *arguments: P.args, **settings: P.kwargs) -> T:
        """Reckon credit when those who asked before are through.

        Raises:
            Busy: too many wait already.
        """
        with self._claiming.one():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.claims, partial(work, *arguments, **settings))

    async def wait_for(self, work: Callable[P, T], *arguments: P.args, **settings: P.kwargs) -> T:
        """Run what waits for the engine, or computes, in a thread of its own."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.waiters, partial(work, *arguments, **settings))

    def open(self) -> None:
        """Begin: from now on requests are taken, and what an interrupted forgetting owes is trained and written."""
        try:
            for path in self.handed.make_up():
                log.warning("an earlier forgetting was interrupted before it wrote its receipt: %s", path)
            self.handed.check()
        except SettingsError as error:
            log.warning("nothing can be forgotten here: %s", error)
        except IntarsiaError as error:
            log.error("the receipt of an earlier forgetting could not be made: %s", error)
        self.jobs.later(self.receipts.sweep)
        if owed := [each.name for each in self.vault.unfinished() if each.owed]:
            self.jobs.resume("resume", owed, [])
        self.ready = True

    async def close(self) -> None:
        """End the engine and whatever waits for it."""
        self.ready = False
        await asyncio.to_thread(self.engine.close)
        await asyncio.to_thread(self.jobs.close)
        await asyncio.to_thread(self.claims.shutdown, cancel_futures=True)
        await asyncio.to_thread(self.waiters.shutdown)


def service_of(request: Request) -> Service:
    """The service that a request is made to."""
    found = request.app.state.service
    assert isinstance(found, Service)
    return found
