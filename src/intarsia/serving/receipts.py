"""Receipts of images drawn lately, for those to whom they were given.

Those of a while are in memory with their images, for credit; the vault keeps many more, sealed (`vault/kept.py`), which
outlast the service. None is handed out once one of its sources was forgotten, whoever forgot it.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from intarsia.composition import Result
from intarsia.data import to_uint8
from intarsia.data.images import Pixels
from intarsia.errors import CorruptError, VaultError
from intarsia.ledger import Receipt
from intarsia.serving.faults import Fault
from intarsia.vault.kept import KeptReceipts

log = logging.getLogger("intarsia.serving")
_DOCUMENT = 8192  # bytes of a receipt, about
_ID = re.compile(r"0|[1-9][0-9]{0,14}")

MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Drawn:
    """Images (N, H, W, C) that were drawn for a principal from the compartments `names`, and their receipt.

    A principal of None is the vault's owner. `seal` is what the receipt is sealed with.
    """

    principal: str | None
    receipt: Receipt
    seal: bytes
    names: tuple[str, ...]
    images: Pixels

    @property
    def bytes(self) -> int:
        return self.images.nbytes + _DOCUMENT


@dataclass
class Receipts:
    """The newest, by the number of their entry in the ledger; in memory in about `most` bytes."""

    kept: KeptReceipts
    most: int = MOST_BYTES
    _drawn: OrderedDict[str, Drawn] = field(default_factory=OrderedDict, init=False)
    _bytes: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def keep(self, result: Result, principal: str | None) -> str | None:
        """Keep the receipt of what was drawn; returns its number, None if there is no receipt."""
        if result.receipt is None:
            return None
        receipt = Receipt.of(result.receipt)
        id, seal = str(receipt.proof.index), self.kept.seal(receipt, fresh=True)
        if seal is None:
            return id
        self.put(id, Drawn(principal, receipt, seal, _compartments(receipt), to_uint8(result.images)))
        try:
            self.kept.keep(receipt, seal)
        except VaultError as error:  # the client has it in its images, and from memory as long as this runs
            log.warning("the receipt %s will not outlast this service: %s", id, error)
        return id

    def put(self, id: str, drawn: Drawn) -> None:
        """Keep in memory what was drawn here or elsewhere."""
        with self._lock:
            self._drawn[id] = drawn
            self._bytes += drawn.bytes
            while self._bytes > self.most and len(self._drawn) > 1:
                self._bytes -= self._drawn.popitem(last=False)[1].bytes

    def take(self, id: str | None) -> Drawn | None:
        """Hand it over to somebody else who keeps it; None if it is not in memory here."""
        with self._lock:
            drawn = None if id is None else self._drawn.pop(id, None)
            self._bytes -= 0 if drawn is None else drawn.bytes
        return drawn

    def get(self, id: str, principal: str | None) -> Receipt:
        """The receipt of one's own images.

        Raises:
            Fault: there is none, it is another's, or one of its sources was forgotten.
        """
        if not _ID.fullmatch(id):
            raise _none()
        with self._lock:
            drawn = self._drawn.get(id)
        if drawn is not None:
            return self._standing(drawn, principal).receipt
        found = self.kept.get(int(id))
        if found is None or principal not in (None, _principal_of(found)):
            raise _none()
        return found

    def drawn(self, id: str, principal: str | None) -> Drawn:
        """One's own images, which are in memory alone.

        Raises:
            Fault: as `get`; or the images are not there any more.
        """
        with self._lock:
            drawn = self._drawn.get(id)
        if drawn is not None:
            return self._standing(drawn, principal)
        self.get(id, principal)
        message = "the images of this receipt are not in memory any more; send one of them as 'image'"
        raise Fault(404, message, code="not_found", param="receipt")

    def forget(self) -> None:
        """Drop those of which a source was forgotten, or a sample of one."""
        with self._lock:
            drawn = list(self._drawn.items())
        gone = [id for id, each in drawn if self.kept.seal(each.receipt) != each.seal]
        with self._lock:
            for id in gone:
                if (dropped := self._drawn.pop(id, None)) is not None:
                    self._bytes -= dropped.bytes

    def sweep(self) -> None:
        """Remove from the disk what nobody can open any more; it may take a while."""
        try:
            self.kept.sweep()
        except (CorruptError, VaultError) as error:
            log.error("receipts that cannot be opened any more were not removed: %s", error)

    def _standing(self, drawn: Drawn, principal: str | None) -> Drawn:
        """Asked every time: another process may have forgotten a source."""
        if principal not in (None, drawn.principal) or self.kept.seal(drawn.receipt) != drawn.seal:
            raise _none()
        return drawn


def _compartments(receipt: Receipt) -> tuple[str, ...]:
    """Those that images were drawn from, also where their networks were averaged into one."""
    return tuple(sorted({name for each in receipt.openings for name in each.values.get("compartments", {})}))


def _principal_of(receipt: Receipt) -> str | None:
    """For whom images were drawn; every source in their entry says the same."""
    found = receipt.openings[0].values.get("principal") if receipt.openings else None
    return None if found is None else str(found)


def _none() -> Fault:
    message = "no such receipt of yours is kept here: the newest are, while their sources stand; a PNG has its own"
    return Fault(404, message, code="not_found")
