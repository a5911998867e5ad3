"""Where receipts of what was forgotten are put: in files for whoever asked, also if the process that forgot dies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from intarsia.errors import SettingsError
from intarsia.files import disk_errors
from intarsia.ledger import Ledger, Promise, Receipt, read_promises, write_promises, write_receipts

_PROMISED = ".promised"
_BESIDE = ".receipts"


def folder_beside(vault: Path) -> Path:
    """Where receipts are if nobody says where: `VAULT.receipts` beside the vault.

    Not in it: a receipt says what the ledger only commits to, and of what was forgotten nothing stays in the vault.
    """
    root = vault.absolute()
    return root.with_name(f"{root.name}{_BESIDE}")


@dataclass(frozen=True)
class ReceiptFolder:
    """Numbered files in a folder, for the vault whose ledger this is; or the one `file` that was asked for.

    Args:
        vault: the vault's folder.
        folder: None is `folder_beside` the vault.
    """

    vault: Path
    ledger: Ledger
    file: Path | None = None
    folder: Path | None = None

    @property
    def place(self) -> Path:
        """The folder in which they are."""
        if self.file is not None:
            return self.file.absolute().parent
        return folder_beside(self.vault) if self.folder is None else self.folder.absolute()

    def check(self) -> None:
        """See, before anything is done, that a receipt can be written.

        Raises:
            SettingsError: it cannot.
        """
        if self.file is not None and self.file.exists():
            raise SettingsError(f"{self.file} exists already; choose another file for the receipt")
        existing = self.place if self.place.exists() else self.place.parent
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            how = "--receipt FILE" if self.folder is None else "--receipts FOLDER"
            raise SettingsError(f"{self.place}: no receipt can be written there; say where with {how}")

    def promise(self, promises: Sequence[Promise]) -> None:
        """Keep what the receipt is made of, before anything is done; the vault's only writer calls this.

        Raises:
            VaultError: it cannot be written; then nothing may be done.
        """
        with disk_errors(self.place):
            self.place.mkdir(parents=True, exist_ok=True)
        for path, kept in self._kept():
            if not kept:  # whoever wrote it is not the writer any more, and did nothing
                path.unlink(missing_ok=True)
        write_promises(self._promised(promises[0]), promises)

    def write(self, receipts: Sequence[Receipt]) -> Path:
        """Write them into one file, in place of what was written of the same work before.

        Raises:
            VaultError: it cannot be written.
        """
        first = receipts[0]
        path = self.file or self.place / f"{first.proof.index:06d}-{first.entry.kind}.json"
        with disk_errors(self.place):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_receipts(path, receipts)
        self._promised(first).unlink(missing_ok=True)
        return path

    def make_up(self) -> list[Path]:
        """Make the receipts that killed processes were about to write here.

        Raises:
            CorruptError: what was kept for one cannot be read, or the ledger is damaged.
            VaultError: one cannot be written.
        """
        return [self.write(kept) for _, kept in self._kept() if kept]

    def _kept(self) -> list[tuple[Path, list[Receipt]]]:
        """What was promised here, with the receipts of what was done."""
        promised = {path: read_promises(path) for path in sorted(self.place.glob(f"{self._name}*{_PROMISED}"))}
        made = {path: [each.kept(self.ledger) for each in promises] for path, promises in promised.items()}
        return [(path, [receipt for receipt in receipts if receipt is not None]) for path, receipts in made.items()]

    @property
    def _name(self) -> str:
        """How the names begin under which something is kept for a receipt that is to be here."""
        return f".{self.vault.name if self.file is None else self.file.name}."

    def _promised(self, first: Promise | Receipt) -> Path:
        return self.place / f"{self._name}{first.entry.record['nonce']}{_PROMISED}"
