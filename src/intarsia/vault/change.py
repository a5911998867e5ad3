"""A change in the making: what will be put in place, taken away, and said to the ledger, all in one step."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from intarsia.errors import CorruptError
from intarsia.ledger import Event, Ledger, Promise, Proof, Receipt, Secrets
from intarsia.vault.records import write_record
from intarsia.vault.salts import KEY_BYTES, Salts

Announce = Callable[[Sequence[Promise]], object]
"""Who keeps what receipts are made of before anything is decided."""


def nobody(promises: Sequence[Promise]) -> None:
    """Keep nothing."""


class Change:
    """One change in the making: folders to put in place and folders to take away, by their paths in the vault.

    `recorded` is what it has to say to the ledger; `proofs` follow when the change is made, one for each. `announce` is
    told of what is recorded before anything is decided; if it raises, nothing is done.
    """

    def __init__(self, staging: Path, ledger: Ledger, salts: Salts):
        self.staging, self._ledger, self._salts = staging, ledger, salts
        self.moves: dict[str, str | None] = {}
        self.recorded: list[Promise] = []
        self.proofs: tuple[Proof, ...] = ()
        self.announce: Announce = nobody
        self._new: dict[str, Secrets] = {}

    def put(self, target: str) -> Path:
        """A new, empty folder that will stand at `target`, in place of what is there."""
        staged = self._stage(target)
        staged.mkdir()
        return staged

    def remove(self, target: str) -> None:
        """What stands at `target`, if anything, will be gone."""
        self.moves[target] = None

    def write(self, target: str, record: Mapping[str, Any]) -> None:
        """A record that will stand at `target`, in place of what is there."""
        write_record(self._stage(target), record)

    def salt(self, name: str) -> None:
        """New salts for a source that comes."""
        self._salt(name, secrets.token_bytes(KEY_BYTES))

    def renew_salts(self, gone: Collection[str] = ()) -> None:
        """New secrets behind the seals of all sources, where something is forgotten: no guess of it can be tested.

        Of all of them, as entries about others say with what they were composed, and what learned from them. Salts that
        cannot be read stay as they are; `verify` names them.

        Args:
            gone: sources of which something goes; receipts of images that were drawn from them open no more.
        """
        for name in self._salts.names():
            if name not in self._new and self.moves.get(self._salts.place(name), "") is not None:
                with contextlib.suppress(CorruptError):
                    found = self._salts.with_key(name)
                    self._salt(name, secrets.token_bytes(KEY_BYTES) if name in gone or found is None else found[1])

    def _salt(self, name: str, key: bytes) -> None:
        old = self._salts.of(name)
        self._new[name] = old.renewed() if old else Secrets.generate()
        self._salts.write(self._stage(self._salts.place(name)), name, self._new[name], key)

    def unsalt(self, name: str) -> None:
        """The salts of a source that goes will be gone too."""
        self.remove(self._salts.place(name))

    def record(self, event: Event) -> None:
        """Say something to the ledger: it will stand there if the change is made, and only then.

        Commitments are made with the salts that the sources had before this change, if they had any.
        """
        known = self._new | self._salts.all(event.sources)
        self.recorded.append(Promise(*event.entry(known, self._ledger.clock())))

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """Of each entry, once the change is made."""
        pairs = zip(self.recorded, self.proofs, strict=False)
        return tuple(Receipt(each.entry, each.openings, proof, self._ledger.key) for each, proof in pairs)

    def _stage(self, target: str) -> Path:
        staged = f"new-{len(self.moves)}"
        self.moves[target] = staged
        return self.staging / staged
