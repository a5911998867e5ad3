"""The secrets behind the ledger's commitments, one file per source, which goes when the source goes."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from intarsia.errors import CorruptError
from intarsia.ledger import Secrets
from intarsia.vault.records import read_record, write_record

SALTS = "ledger/salts"
_SUFFIX = ".json"
KEY_BYTES = 32


@dataclass(frozen=True)
class Salts:
    """The secrets of the sources of one vault."""

    root: Path

    @staticmethod
    def place(name: str) -> str:
        """Where the secrets of a source are, by their path in the vault."""
        return f"{SALTS}/{name}{_SUFFIX}"

    def of(self, name: str) -> Secrets | None:
        """The secrets of a source; None if it has none.

        Raises:
            CorruptError: they are damaged.
        """
        found = self.with_key(name)
        return None if found is None else found[0]

    def with_key(self, name: str) -> tuple[Secrets, bytes] | None:
        """The secrets of a source and, as they were at the same moment, the key that receipts of its images need.

        The key goes when the source goes or samples of it do; the secrets also when something of another is forgotten.

        Raises:
            CorruptError: they are damaged.
        """
        path = self.root / self.place(name)
        if not path.exists():
            return None
        record = read_record(path)
        try:
            if record["source"] != name:
                raise CorruptError(f"{path}: the salts of '{record['source']}'; restore the ledger from a backup")
            found = Secrets(bytes.fromhex(record["name"]), bytes.fromhex(record["data"]))
            # Early salts have none; it stays what it was when they are renewed.
            key = bytes.fromhex(record["key"]) if "key" in record else hmac.digest(found.data, b"key", "sha256")
            return found, key
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(f"{path}: no salts ({error}); restore the ledger from a backup") from error

    def all(self, names: Iterable[str]) -> dict[str, Secrets]:
        """Those of these sources that have some."""
        found = {name: self.of(name) for name in names}
        return {name: each for name, each in found.items() if each is not None}

    def names(self) -> list[str]:
        """Every source that has some, sorted."""
        folder = self.root / SALTS
        return sorted(path.name.removesuffix(_SUFFIX) for path in folder.iterdir()) if folder.is_dir() else []

    @staticmethod
    def write(path: Path, name: str, secrets: Secrets, key: bytes) -> None:
        """Write the secrets of a source and its key to a file, for its owner's eyes only."""
        values = {"source": name, "name": secrets.name.hex(), "data": secrets.data.hex(), "key": key.hex()}
        write_record(path, values)
        path.chmod(0o600)
