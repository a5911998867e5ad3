"""Work in the background, one after the other: what a forgetting leaves to be trained."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intarsia.errors import VaultError
from intarsia.ledger import Receipt
from intarsia.serving.faults import Fault
from intarsia.serving.work import Work
from intarsia.vault.receipts import ReceiptFolder

log = logging.getLogger("intarsia.serving")

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
MOST = 1000
"""Jobs of which the newest are told."""


@dataclass
class Job:
    """What is told of one. `receipts` are those of what was done before it began, `result` what came of it."""

    id: str
    kind: str
    names: tuple[str, ...]
    receipts: list[dict[str, Any]]
    state: str = WAITING
    progress: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: str | None = None

    def document(self) -> dict[str, Any]:
        return dict(vars(self)) | {"names": list(self.names)}


class Jobs:
    """Of one vault. Those that a service does not finish are finished by the next one, or by `Vault.resume`."""

    def __init__(self, root: Path, handed: ReceiptFolder):
        self._root, self._handed = root, handed
        self._kept: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="intarsia job")
        self._work: Work | None = None
        self._closed = False

    def finished(self, kind: str, names: Sequence[str], receipts: list[dict[str, Any]]) -> Job:
        """Note what was done already."""
        return self._keep(Job(secrets.token_hex(8), kind, tuple(names), receipts, state=DONE))

    def resume(self, kind: str, names: Sequence[str], receipts: list[dict[str, Any]]) -> Job:
        """Go on, in a process of its own, with the unfinished trainings of these sources."""
        job = self._keep(Job(secrets.token_hex(8), kind, tuple(names), receipts))
        self._worker.submit(self._run, job)
        return job

    def later(self, work: Callable[[], None]) -> None:
        """Do something, when those that wait already are through."""
        self._worker.submit(work)

    def get(self, id: str) -> Job:
        """A job by its id.

        Raises:
            Fault: there is none.
        """
        with self._lock:
            if id not in self._kept:
                raise Fault(404, "no such job; the newest are told of until the service ends", code="not_found")
            return self._kept[id]

    def close(self) -> None:
        """End what runs; what it leaves is finished later."""
        with self._lock:
            self._closed = True
            if self._work is not None:
                self._work.stop()
        self._worker.shutdown(cancel_futures=True)

    def _keep(self, job: Job) -> Job:
        with self._lock:
            self._kept[job.id] = job
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return job

    def _run(self, job: Job) -> None:
        try:
            with self._lock:
                if self._closed:
                    return
                self._work, job.state = Work(self._root, "resume", *job.names), RUNNING
            for said in self._work:
                if "result" in said:
                    self._hand_out(job, said["result"])
                    job.result, job.state = said["result"], DONE
                else:
                    job.progress = said
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            log.error("job %s on %s: %s", job.kind, ", ".join(job.names), error)
            job.error, job.state = "it could not be finished; the keeper of this service finds why in the log", FAILED

    def _hand_out(self, job: Job, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Put the receipts of what was trained again into files: beside those of the forgetting that began the job."""
        begun = [Receipt.of(document) for document in job.receipts]
        about = {opening.source for receipt in begun for opening in receipt.openings}
        for outcome in outcomes:
            receipts = [Receipt.of(document) for document in outcome["receipts"]]
            if outcome["source"] in about:
                begun += receipts
            elif receipts and outcome["action"] == "forget":
                self._write(receipts)
        if begun:
            self._write(begun)

    def _write(self, receipts: Sequence[Receipt]) -> None:
        try:
            self._handed.write(receipts)
        except VaultError as error:  # what was owed is trained, and the client has its receipt from the job
            log.error("a receipt was not written: %s", error)
