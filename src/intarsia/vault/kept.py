"""Receipts of images, kept for those who drew them: sealed with keys that go when the data of a source goes.

ledger/receipts/<entry>.sealed   the ledger's entry, which is no secret, and the receipt, encrypted (AES-256-GCM)

It takes the keys of all sources in the entry, which the vault keeps with their salts. So nobody who forgets has to look
here: with a key all that it sealed is gone at that moment, whatever process forgets, and also what is being written.
`sweep` removes what nobody can open any more.
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
from collections.abc import Iterator, Mapping, Sequence
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

    def seal(self, receipt: Receipt, *, fresh: bool = False) -> bytes | None:
        """What a receipt is sealed with; None once a source of it went, another if samples of one did.

        Args:
            fresh: whether it was made just now; then it is None too if anything was forgotten since.

        Raises:
            CorruptError: the salts of a source are damaged.
        """
        nonce, keys = receipt.entry.record["nonce"], []
        for each in receipt.openings:
            found = Salts(self.root).with_key(each.source)
            if found is None or (fresh and found[0].salts(nonce) != (each.tag_salt, each.seal_salt)):
                return None
            keys.append(found[1])
        return _seal(keys, nonce)

    def keep(self, receipt: Receipt, seal: bytes) -> None:
        """Keep the receipt of images; it is as durable as the file system, but for a power cut.

        Args:
            seal: that of a fresh receipt.

        Raises:
            VaultError: it cannot be written.
        """
        number, nonce = receipt.proof.index, secrets.token_bytes(_NONCE)
        box = nonce + AESGCM(seal).encrypt(nonce, canonical_json(receipt.document()), receipt.entry.line)
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

    def _known(self) -> dict[str, tuple[Secrets, bytes]]:
        """The secrets and keys of all sources."""
        salts = Salts(self.root)
        found = {name: salts.with_key(name) for name in salts.names()}
        return {name: each for name, each in found.items() if each is not None}


def _opened(path: Path, known: Mapping[str, tuple[Secrets, bytes]]) -> Receipt | None:
    """What is in a file; None if a source has gone since, or samples of it."""
    record = read_json(path)
    try:
        entry, box = Entry(canonical_json(record["entry"])), base64.b64decode(record["box"], validate=True)
        nonce = entry.record["nonce"]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: no receipt that is kept ({error}); remove it") from error
    names = entry.names({name: salts for name, (salts, _) in known.items()})
    keys = [known[name][1] for name in names if name is not None]
    if len(keys) < len(names):
        return None
    try:
        text = AESGCM(_seal(keys, nonce)).decrypt(box[:_NONCE], box[_NONCE:], entry.line)
    except (InvalidTag, ValueError):
        return None
    document: dict[str, Any] = json.loads(text)
    return Receipt.of(document)


def _seal(keys: Sequence[bytes], nonce: str) -> bytes:
    """From the key of each source of a receipt, in their order, and the nonce of its entry."""
    return hmac.digest(b"".join(keys), nonce.encode(), "sha256")
