"""How a vault comes to be, and how its record is read again."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from intarsia.backbone import Backbone
from intarsia.data import Source
from intarsia.errors import CorruptError, VaultError
from intarsia.ledger import Ledger
from intarsia.vault.database import check_url
from intarsia.vault.events import begun
from intarsia.vault.index import Catalogue
from intarsia.vault.package import copy_package, find_package, read_core, write_package
from intarsia.vault.records import read_record, write_record
from intarsia.vault.store import (
    BACKBONE,
    COMPARTMENTS,
    LEDGER,
    LOCK_FILE,
    PERMITS,
    PRINCIPALS,
    RECORD_FILE,
    SOURCES,
    TRAINING,
    WORK,
    new_folder,
)


@dataclass(frozen=True)
class VaultRecord:
    """What `vault.json` says: a random id, which backbone (digest) and basis (fingerprint) everything hangs on, and the
    key that the ledger's checkpoints are verified with.
    """

    id: str
    image_shape: tuple[int, ...]
    backbone: str
    basis: str
    ledger: str
    index_url: str | None = None

    def write(self, root: Path) -> None:
        values = {
            "id": self.id,
            "image_shape": list(self.image_shape),
            "backbone": self.backbone,
            "basis": self.basis,
            "ledger": self.ledger,
            "index_url": self.index_url,
        }
        write_record(root / RECORD_FILE, values)

    @classmethod
    def read(cls, root: Path) -> VaultRecord:
        """Read what `write` wrote.

        Raises:
            VaultError: the folder is no vault.
            CorruptError: the record is damaged.
        """
        path = root / RECORD_FILE
        if not path.is_file():
            what = "is no vault" if root.is_dir() else "does not exist"
            raise VaultError(f"{root} {what}: expected a folder with {RECORD_FILE}; make one with `intarsia init`")
        record = read_record(path)
        try:
            shape = tuple(record["image_shape"])
            if "ledger" not in record:
                raise VaultError(
                    f"{root} was made by an earlier version and keeps no ledger; make a new vault with `intarsia init` "
                    "and add its sources again"
                )
            public = record["backbone"], record["basis"]
            return cls(record["id"], shape, *public, record["ledger"], record["index_url"])
        except (KeyError, TypeError) as error:
            raise CorruptError(f"{path}: not a vault's record ({error}); restore it from a backup") from error


def found(root: Path, backbone: str | Path | tuple[Backbone, Source], url: str | None) -> None:
    """Make the folder of a new vault, whole or not at all.

    Raises:
        As `Vault.create`.
    """
    if url is not None:
        url = str(check_url(url))
    fill = _filler(backbone)
    with new_folder(root) as folder:
        fill(folder)
        for part in (SOURCES, COMPARTMENTS, TRAINING, PRINCIPALS, PERMITS, WORK):
            (folder / part).mkdir()
        (folder / LOCK_FILE).touch()
        public, basis = Backbone.load(folder / BACKBONE), read_core(folder).record["basis"]
        id = secrets.token_hex(16)
        ledger = Ledger.create(folder / LEDGER, f"intarsia/{id}")
        record = VaultRecord(id, public.image_shape, public.digest, basis, str(ledger.key), url)
        record.write(folder)
        ledger.append([begun(public.digest, basis).entry({}, ledger.clock())[0]])
        Catalogue(folder, record.id, url).rebuild(folder / WORK, [], [])


def _filler(backbone: str | Path | tuple[Backbone, Source]) -> Callable[[Path], None]:
    """What puts backbone and core into a folder; an unknown name is refused before a folder is made."""
    if isinstance(backbone, tuple):
        network, core = backbone
        return lambda folder: write_package(folder, network, core)
    package = find_package(backbone)
    return lambda folder: copy_package(package, folder)
