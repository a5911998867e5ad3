"""The vault as those see it who read: nothing here changes it, but for finishing what a killed process had decided."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment
from intarsia.data import Sample, Source
from intarsia.errors import CorruptError, VaultError
from intarsia.ledger import Entry, Ledger
from intarsia.vault.bucket import url_of
from intarsia.vault.choosing import choose
from intarsia.vault.clock import Clock, utc_now
from intarsia.vault.engines import Engine, Here
from intarsia.vault.founding import VaultRecord, copy_of, origin_of
from intarsia.vault.index import Catalogue
from intarsia.vault.keyring import Keyring
from intarsia.vault.package import Core, read_core
from intarsia.vault.records import CompartmentInfo, SourceInfo, Unfinished
from intarsia.vault.runs import unfinished
from intarsia.vault.shelf import Shelf
from intarsia.vault.sources import read_manifest
from intarsia.vault.store import BACKBONE, Store

Names = str | Iterable[str]
T = TypeVar("T")
_PATIENCE = 60.0  # seconds to wait for a writer, if the index cannot be believed until it has finished


class VaultReader:
    """What `Vault` offers to those who read: its members, and what is made of them."""

    def __init__(self, root: Path, record: VaultRecord, *, clock: Clock = utc_now, engine: Engine | None = None):
        self.root, self.record, self._clock = root, record, clock
        self._engine = engine or Here()
        self._catalogue = Catalogue(root, record.id, record.index_url)
        self._origin = origin_of(root, record)
        self._store = Store(root, self._rebuild_index, clock=clock, origin=self._origin)
        self._shelf = Shelf(self._store)
        self._keyring = Keyring(self._store, clock)

    @property
    def place(self) -> str:
        """Where the vault is: its folder, or the URL of one that machines share, of which `root` is a copy."""
        return str(self.root) if self._origin is None else self._origin.url

    @property
    def ledger(self) -> Ledger:
        """The append-only record of what was done with this vault."""
        return self._store.ledger

    @classmethod
    def open(cls, path: str | Path, *, clock: Clock = utc_now, engine: Engine | None = None) -> Self:
        """Open a vault; what an interrupted change left is finished or undone first.

        Args:
            path: a folder, or `s3://bucket/name.vault`, of which a copy is brought up to date.
            clock: what time it is, for grants and keys that end.
            engine: where compartments are trained; None trains in this process.

        Raises:
            VaultError: the place holds no vault, or cannot be read.
            CorruptError: its record is damaged.
        """
        url = url_of(path)
        root = Path(path).expanduser() if url is None else copy_of(url)
        vault = cls(root, VaultRecord.read(root), clock=clock, engine=engine)
        vault._store.settle()
        return vault

    def history(self) -> list[tuple[int, Entry, list[str | None]]]:
        """What was done: number, entry, and the sources concerned, None for one that was forgotten since.

        Raises:
            CorruptError: the ledger is damaged.
        """
        self._store.settle()
        known = self._store.salts.all(self._store.salts.names())
        return [(number, entry, entry.names(known)) for number, entry in enumerate(self.ledger.entries())]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open between calls."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of all images."""
        return self.record.image_shape

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen network, read when it is first asked for.

        Raises:
            CorruptError: it is damaged, or not the one with which the vault was made.
        """
        backbone = Backbone.load(self.root / BACKBONE)
        if backbone.digest != self.record.backbone:
            raise CorruptError(f"{self.root / BACKBONE}: not the backbone with which this vault was made; restore it")
        return backbone

    @cached_property
    def core(self) -> Core:
        """What is known of the core set."""
        core = read_core(self.root)
        if core.record["basis"] != self.record.basis:
            raise CorruptError(f"{core.folder}: not the core with which this vault was made; restore it")
        return core

    def sources(self) -> list[SourceInfo]:
        """All sources, by name."""
        return self._ask(Catalogue.sources)

    def compartments(self) -> list[CompartmentInfo]:
        """All trained compartments, by name."""
        return self._ask(Catalogue.compartments)

    def unfinished(self) -> list[Unfinished]:
        """The trainings that were begun and not finished, by name, also those under way right now."""
        self._store.settle()
        return unfinished(self._store)

    def names(self) -> list[str]:
        """Every name that can be forgotten: of sources, and of compartments and trainings that lost theirs."""
        self._store.settle()
        return self._store.everyone()

    def source(self, name: str) -> Source:
        """A source with all its pixels.

        Raises:
            UnknownName: no such source.
            CorruptError: it is damaged.
        """
        self._store.settle()
        return self._shelf.source(name)

    def find_samples(
        self, name: str, *, ids: Names = (), files: Names = (), patterns: Names = ()
    ) -> tuple[Sample, ...]:
        """The samples of a source that are meant, each once, by id.

        Args:
            ids: ids, or beginnings of ids that fit one sample alone.
            files: file names as the source lists them, or files on disk that show the same pixels.
            patterns: `caption:TEXT`, part of the caption in any case, or `label:NAME`.

        Raises:
            UnknownName: no such source, or an id, file or label of no sample.
            InputError: an id or file of several samples; a pattern that is none, or that nothing fits.
            CorruptError: the manifest is damaged.
        """
        self._store.settle()
        self._shelf.check_known(name)
        manifest, (channels, size, _) = read_manifest(self._store.source(name)), self.image_shape
        return choose(manifest, listed(ids), listed(files), listed(patterns), size=size, channels=channels)

    def compartment(self, name: str) -> Compartment:
        """A trained compartment. Nothing but its own folder is opened.

        Raises:
            UnknownName: no such source.
            SettingsError: it is not trained yet.
            CorruptError: it is damaged.
        """
        self._store.settle()
        return self._shelf.compartment(name)

    def _ask(self, question: Callable[[Catalogue], T]) -> T:
        """Ask the index, which is made again first if it cannot be believed or read.

        Raises:
            VaultError: another process is writing for too long, or the index cannot be made.
        """
        self._store.settle()
        if self._index_stands():
            with contextlib.suppress(VaultError):
                return question(self._catalogue)
        with self._store.locked(patience=_PATIENCE):
            self._store.refresh_index()
            return question(self._catalogue)

    def _index_stands(self) -> bool:
        return not self._store.stale and self._catalogue.exists()

    def _rebuild_index(self, scratch: Path) -> None:
        self._catalogue.rebuild(scratch, *self._shelf.readable())


def listed(names: Names) -> list[str]:
    """Names as a list; one name may be given by itself."""
    return [names] if isinstance(names, str) else list(names)
