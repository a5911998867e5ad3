"""How a vault comes to be, and how its record is read again."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from intarsia.backbone import Backbone
from intarsia.data import Source
from intarsia.errors import CorruptError, SettingsError, VaultError
from intarsia.files import disk_errors, read_json, write_atomic, write_json
from intarsia.ledger import Ledger
from intarsia.vault.bucket import Bucket, url_of
from intarsia.vault.database import check_url
from intarsia.vault.events import begun
from intarsia.vault.folders import new_folder
from intarsia.vault.heads import Heads
from intarsia.vault.index import Catalogue
from intarsia.vault.origin import ORIGIN_FILE, Origin
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


def is_vault(place: str) -> bool:
    """Whether a place looks like a vault: a folder with a record, or a URL."""
    return url_of(place) is not None or (Path(place).expanduser() / RECORD_FILE).is_file()


def found_shared(url: str, backbone: str | Path | tuple[Backbone, Source], database: str | None) -> None:
    """Make a new vault in a bucket, and a copy of it on this machine.

    Raises:
        As `Vault.create`.
    """
    if database is None:
        raise SettingsError(
            f"{url}: a vault that machines share needs a database that all of them reach, which says who may write; "
            "name it with --index (url= in Python)"
        )
    bucket, copies = Bucket(url), copies_folder()
    scratch = copies / f".{secrets.token_hex(16)}.part"
    with Heads(database, url).sole("make") as alone:
        if alone is None:
            raise VaultError(f"{url}: another machine is making a vault there; choose another place")
        if there := sorted(bucket.sizes()):
            raise VaultError(f"{url} is not empty (it holds {there[0]}); choose another place, or remove what is there")
        try:
            root = scratch / name_of(url)
            found(root, backbone, database)
            write_json(root / ORIGIN_FILE, {"url": url})
            record = VaultRecord.read(root)
            assert record.index_url is not None
            Origin(root, url, record.index_url, record.id).create()
            os.replace(scratch, copies / record.id)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def copy_of(url: str) -> Path:
    """The folder of this machine's copy of a vault in a bucket; made, and empty, if there is none.

    Raises:
        VaultError: there is no vault, or the copy is of one elsewhere.
        CorruptError: its record is damaged.
    """
    data = Bucket(url).read(RECORD_FILE)
    if data is None:
        raise VaultError(f"{url} is no vault, or cannot be seen; make one with `intarsia init {url} --index DATABASE`")
    copies = copies_folder()
    with tempfile.TemporaryDirectory(dir=copies) as scratch:
        (Path(scratch) / RECORD_FILE).write_bytes(data)
        record = VaultRecord.read(Path(scratch))
    root = copies / record.id / name_of(url)
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        (root / LOCK_FILE).touch()
    if not (root / ORIGIN_FILE).exists():
        write_atomic(root / RECORD_FILE, data)
        write_json(root / ORIGIN_FILE, {"url": url})
    if (known := read_json(root / ORIGIN_FILE)["url"]) != url:
        raise VaultError(f"{root} is the copy of this vault at {known}, not at {url}; if it has moved, remove the copy")
    return root


def origin_of(root: Path, record: VaultRecord) -> Origin | None:
    """Where the vault of a folder comes from, if it is a copy of one that machines share.

    Raises:
        CorruptError: what says so is damaged.
    """
    if not (root / ORIGIN_FILE).exists():
        return None
    url = read_json(root / ORIGIN_FILE).get("url")
    if not isinstance(url, str) or record.index_url is None:
        raise CorruptError(f"{root / ORIGIN_FILE}: does not say whose copy this is; remove the copy, {root.parent}")
    return Origin(root, url, record.index_url, record.id)


def name_of(url: str) -> str:
    """What a vault in a bucket is called."""
    return url.rstrip("/").rpartition("/")[2]


def copies_folder() -> Path:
    """Where copies of shared vaults are: `INTARSIA_COPIES`, or a folder of this user."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    folder = Path(os.environ.get("INTARSIA_COPIES") or Path(data) / "intarsia" / "copies").expanduser().absolute()
    with disk_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _filler(backbone: str | Path | tuple[Backbone, Source]) -> Callable[[Path], None]:
    """What puts backbone and core into a folder; an unknown name is refused before a folder is made."""
    if isinstance(backbone, tuple):
        network, core = backbone
        return lambda folder: write_package(folder, network, core)
    package = find_package(backbone)
    return lambda folder: copy_package(package, folder)
