"""Receipts of images, kept for those who drew them: sealed with salts that go when the data of a source goes.

ledger/receipts/<entry>.sealed   the ledger's entry, which is no secret, and the receipt, encrypted (AES-256-GCM)

The key is made from the salts of every source in the entry, which the vault keeps with the samples. So nobody who
forgets has to look here: with the salts the key is gone at that moment, whatever process forgets, and also for a
receipt that is being written. `sweep` removes what nobody can open any more.
"""

from __future__ import annotations

import base64
import heapq
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from intarsia.digests import canonical_json
from intarsia.errors import CorruptError
from intarsia.files import disk_errors, json_to_bytes, read_json, write_atomic
from intarsia.ledger import Entry, Receipt, Secrets
from intarsia.vault.salts import Salts

KEPT = "ledger/receipts"
MOST = 10_000
"""Receipts that are kept; the oldest go first."""
_FORMAT = 1
_NONCE = 12  # bytes, as AES-GCM wants it
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,14})\.sealed")


@dataclass
class KeptReceipts:
    """The newest receipts of images that were drawn from the vault in the folder `root`, by the number of their entry.

    Several processes may keep receipts of one vault.
    """

    root: Path
    most: int = MOST
    _held: list[int] = field(default_factory=list, init=False, repr=False)  # a heap
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._held = sorted(number for number, _ in self._files())

    def keep(self, receipt: Receipt) -> None:
        """Keep the receipt of images; it is as durable as the file system, but for a power cut.

        Raises:
            VaultError: it cannot be written.
        """
        number = receipt.proof.index
        key = _key((each.tag_salt, each.seal_salt) for each in receipt.openings)
        nonce = secrets.token_bytes(_NONCE)
        box = nonce + AESGCM(key).encrypt(nonce, canonical_json(receipt.document()), receipt.entry.line)
        record = {"format": _FORMAT, "entry": receipt.entry.record, "box": base64.b64encode(box).decode()}
        with disk_errors(self.root):
            self._folder.mkdir(exist_ok=True)
        write_atomic(self._path(number), json_to_bytes(record), durable=False)
        with self._lock:
            heapq.heappush(self._held, number)
            while len(self._held) > self.most:
                self._path(heapq.heappop(self._held)).unlink(missing_ok=True)

    def get(self, number: int) -> Receipt | None:
        """The receipt of an entry; None if none is kept that can still be opened.

        Raises:
            CorruptError: it, or the salts of a source, are damaged.
            VaultError: it cannot be read.
        """
        path = self._path(number)
        return _opened(path, self._known()) if path.exists() else None

    def stands(self, receipt: Receipt) -> bool:
        """Whether all that a receipt tells of is still there: no source went, and none of their samples changed."""
        nonce, known = receipt.entry.record["nonce"], Salts(self.root).all(each.source for each in receipt.openings)
        return all(
            each.source in known and known[each.source].salts(nonce) == (each.tag_salt, each.seal_salt)
            for each in receipt.openings
        )

    def sweep(self) -> int:
        """Remove what nobody can open any more, and what killed processes left; returns how many were removed.

        Raises:
            CorruptError: salts of a source are damaged.
            VaultError: the disk fails.
        """
        removed, known = 0, self._known()
        with disk_errors(self.root):
            for path in self._folder.glob(".*.part") if self._folder.is_dir() else ():
                path.unlink(missing_ok=True)
            for number, path in self._files():
                try:
                    gone = _opened(path, known) is None
                except CorruptError:
                    gone = True  # what cannot be read is of no use to anybody
                if gone:
                    path.unlink(missing_ok=True)
                    removed += 1
                    with self._lock:
                        self._held = [each for each in self._held if each != number]
        return removed

    @property
    def _folder(self) -> Path:
        return self.root / KEPT

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.sealed"

    def _files(self) -> Iterator[tuple[int, Path]]:
        if not self._folder.is_dir():
            return
        for name in os.listdir(self._folder):
            if (match := _NUMBER.fullmatch(name)) is not None:
                yield int(match[1]), self._folder / name

    def _known(self) -> dict[str, Secrets]:
        salts = Salts(self.root)
        return salts.all(salts.names())


def _opened(path: Path, known: Mapping[str, Secrets]) -> Receipt | None:
    """What is in a file; None if a source has gone since, or its samples are others."""
    record = read_json(path)
    try:
        entry, box = Entry(canonical_json(record["entry"])), base64.b64decode(record["box"], validate=True)
        nonce = entry.record["nonce"]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: no receipt that is kept ({error}); remove it") from error
    names = entry.names(known)
    there = [known[name] for name in names if name is not None]
    if len(there) < len(names):
        return None
    try:
        text = AESGCM(_key(each.salts(nonce) for each in there)).decrypt(box[:_NONCE], box[_NONCE:], entry.line)
    except (InvalidTag, ValueError):
        return None
    document: dict[str, Any] = json.loads(text)
    return Receipt.of(document)


def _key(salts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """That of a receipt, from the salts of each of its sources in their order."""
    return hmac.digest(b"".join(tag + seal for tag, seal in salts), b"kept receipt", "sha256")
