"""The vault: a folder with one backbone, its sources and their compartments."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from intarsia.backbone import Backbone
from intarsia.checks import check_whole
from intarsia.compartments import TrainSettings, TrainStep
from intarsia.data import Columns, ReadOptions, Source, check_name
from intarsia.data.images import Resize
from intarsia.errors import VaultError
from intarsia.ledger import Receipt
from intarsia.vault.adding import compare, read_into
from intarsia.vault.bucket import url_of
from intarsia.vault.crediting import VaultCredits
from intarsia.vault.events import ingested
from intarsia.vault.founding import found, found_shared
from intarsia.vault.importing import Imported, Importing, hand_over
from intarsia.vault.jobs import VaultJobs
from intarsia.vault.outcomes import Job, Outcome
from intarsia.vault.parts import PartSettings, check_parts, chosen_parts
from intarsia.vault.reading import Names, listed
from intarsia.vault.records import CompartmentInfo, SourceInfo
from intarsia.vault.replay import Replay, replay
from intarsia.vault.sources import write_source
from intarsia.vault.store import SOURCES
from intarsia.vault.training import Recipe, trainable
from intarsia.vault.verify import Problem, VerifyReport, verify


class Vault(VaultJobs, VaultCredits):
    """A project folder: the public backbone and core, the sources, and one compartment for each that was trained.

    Between calls it holds nothing open and nothing locked: several processes may read one vault, one at a time may
    change it, and different sources may be trained in different processes. What a killed process left half done is
    finished or undone before anything else happens. Made by `Vault.create` or `Vault.open`.
    """

    @classmethod
    def create(
        cls, path: str | Path, *, backbone: str | Path | tuple[Backbone, Source], url: str | None = None
    ) -> Self:
        """Make a new vault.

        Args:
            path: a folder; or `s3://bucket/name.vault`, which all machines share that reach the bucket and the
                database, and of which this one keeps a copy in a folder of its own (docs/sharing.md).
            backbone: a backbone package, by the name of one that comes with intarsia or by its folder; or a backbone
                and the core source it was trained on.
            url: a database for the index, of SQLite or PostgreSQL, in SQLAlchemy's form; None keeps it in the folder.

        Raises:
            VaultError: the place is taken, or the disk is full; or bucket or database cannot be reached.
            UnknownName: no such package.
            CorruptError: the package is damaged.
            IncompatibleError: the core's images are not of the backbone's shape.
            SettingsError: the URL cannot be used.
            MissingExtra: it is PostgreSQL's, and its client is not installed.
        """
        if (bucket := url_of(path)) is not None:
            found_shared(bucket, backbone, url)
        else:
            found(Path(path).expanduser(), backbone, url)
        return cls.open(path)

    def add_source(
        self,
        name: str,
        data: str | Path | Source,
        *,
        owner: str | None = None,
        licence: str | None = None,
        attribution: str | None = None,
        risk: str | None = None,
        resize: Resize = "error",
        columns: Columns | None = None,
        allow_near: bool = True,
    ) -> SourceInfo:
        """Add a source: its images, captions, labels and terms.

        Args:
            data: a folder of images, a Parquet table, a WebDataset tar, or a `Source`, whose terms then hold.
            owner, licence: needed unless `data` is a `Source`.
            risk: of deletion, "high" or "normal", of samples of which the data says nothing; those of high risk join
                training in the last slice, so that forgetting them costs least.
            resize: "fit" scales images of other sizes, "crop" cuts them to a square first, "error" refuses them.
            columns: names of the fields, where they are not the usual ones.
            allow_near: take pictures that look nearly like one of the core (they are reported); otherwise refuse them.

        Returns:
            What was added; its `overlaps` list near duplicates of the core, and pictures that other sources hold too.

        Raises:
            IngestError: images that cannot be read, or that the core holds; all are listed, nothing is added.
            InputError: owner, licence or name is missing or malformed, or there are no images.
            IncompatibleError: images of another shape than the backbone's.
            VaultError: the name is taken, another process is writing, or the disk is full.
        """
        self._store.settle()
        self._check_free(check_name(name))
        source = read_into(
            name,
            data,
            image_shape=self.image_shape,
            owner=owner,
            licence=licence,
            attribution=attribution,
            options=ReadOptions(resize=resize, columns=columns or Columns()),
        )
        source = source.declared(risk) if risk is not None else source
        others = (self._shelf.source(other) for other in self._shelf.held())
        found = compare(source, self.core, others, allow_near=allow_near)
        with self._store.change() as change:
            self._check_free(name)
            info = write_source(change.put(f"{SOURCES}/{name}"), source)
            change.salt(name)
            change.record(ingested(info))
        return replace(info, overlaps=found)

    def pack(self, name: str, path: str | Path) -> str:
        """Write what an owner hands over in place of images: a trained compartment, its terms and a signature, no data.

        Returns:
            The key that it is signed by, as whoever imports it needs it: that of this vault's ledger.

        Raises:
            UnknownName: no such source.
            SettingsError: it is not trained, or not to its end; or it learned from other sources too.
            CorruptError: something is damaged.
            ForbiddenError: the compartment was forgotten or replaced meanwhile.
            VaultError: the file is there already, or cannot be written.
        """
        self._store.settle()
        target = Path(path).expanduser()
        if target.exists():
            raise VaultError(f"{target} exists already; choose another file, or remove it")
        hand_over(self._shelf, name, target)
        return str(self.ledger.key)

    def import_pack(self, path: str | Path, *, signer: str) -> Imported:
        """Take in the compartment of an owner who keeps the images, or one in place of an earlier one.

        Signature, digests, backbone and basis are checked, and that no router part claims more than a density can.

        Args:
            signer: the owner's key, as `pack` returned it and the owner told you, by another way than the file itself.

        Raises:
            InputError: the key is none, or the terms make no sense.
            CorruptError: the file is no pack, was changed, or is not signed by that key.
            IncompatibleError: of another backbone, basis or size of images; or its router part claims too much.
            ForbiddenError: the source is there as somebody else's, the pack is older than the one that came last, or
                it still learned from what was forgotten.
            VaultError: what is left of another source has that name, another process is writing, or the disk is full.
        """
        self._store.settle()
        return Importing(self._shelf, self.backbone, self.core).admit(Path(path).expanduser(), signer)

    def training(
        self,
        names: Names,
        settings: TrainSettings | None = None,
        *,
        neighbours: Names = (),
        routers: Sequence[str | PartSettings] = ("gaussian",),
        restart: bool = False,
        save_every: int = 100,
    ) -> Iterator[TrainStep]:
        """Train compartments, one step of each in turn; when the iterator ends they are in place.

        A run that was interrupted goes on where its last checkpoint stands, and ends with the same bytes; one that has
        saved no step is begun anew, whatever its settings. What was trained with the same settings before is left as it
        is. All of them begin, or none.

        Args:
            neighbours: sources that permit it, from which each of the compartments learns too.
            routers: the router parts to fit, by kind or by their settings.
            restart: train afresh, whatever is there.
            save_every: steps between checkpoints.

        Raises:
            UnknownName: no such source or router part.
            ForbiddenError: a neighbour does not permit it.
            SettingsError: begun or finished with other settings, every one of which is named; or it diverges.
            IncompatibleError: the samples have changed since.
            CorruptError: a checkpoint is damaged.
            VaultError: another process trains it, the source was forgotten or replaced meanwhile, or the disk is full.
        """
        check_whole("save_every", save_every)
        self._store.settle()
        trained = trainable(settings or TrainSettings(), self.backbone)
        recipe = Recipe(trained, chosen_parts(routers))
        check_parts(
            recipe.routers, self.backbone, self.core, private=trained.privacy is not None, adapter=trained.adapter
        )
        runs = self._runs()
        begun = runs.begin(listed(names), recipe, neighbours=listed(neighbours), restart=restart)
        return runs.steps(begun, save_every=save_every)

    def train(
        self,
        names: Names,
        settings: TrainSettings | None = None,
        *,
        neighbours: Names = (),
        routers: Sequence[str | PartSettings] = ("gaussian",),
        restart: bool = False,
    ) -> tuple[CompartmentInfo, ...]:
        """`training`, to its end; returns what is in place then, in the order of the names.

        Raises:
            As `training`.
        """
        wanted = listed(names)
        for _ in self.training(wanted, settings, neighbours=neighbours, routers=routers, restart=restart):
            pass
        return tuple(self._shelf.info(name) for name in wanted)

    def forget(self, name: str, samples: Names | None = None) -> Outcome:
        """Remove a source, or some of its samples, and everything that was learned from them.

        Afterwards the vault is as if they had never come: without the source, nothing of it is left, and its grants go
        with it; without samples, its compartment is trained again from the last slice that they had no part in (see
        `forgetting`). So are the compartments of others that learned from it too; `plan_forget` names them. A run under
        way that draws from it, in whatever process, ends without images.

        Args:
            samples: ids, or beginnings of ids that fit one sample alone; None forgets the source.

        Raises:
            UnknownName: no such source, or no such sample.
            InputError: an id fits several samples, or all samples are named.
            CorruptError: the record of another compartment cannot be read, so that it might have seen the source, or
                that of a principal.
            VaultError: it is being trained, another process is writing, or the disk fails; then it is either untouched,
                or forgotten to the end before the vault is next used.
        """
        return self.forgetting(name, samples).finish()

    def verify(self) -> VerifyReport:
        """Read and check everything that is stored; all problems are reported, not the first.

        Raises:
            VaultError: another process is writing.
        """
        if not os.access(self.root, os.W_OK):  # a copy on a medium that cannot be written cannot change either
            return verify(self._store, self.record, self._catalogue)
        with self._store.locked():
            if not self._index_stands():
                self._store.refresh_index()
            report = verify(self._store, self.record, self._catalogue)
            elsewhere = [] if self._origin is None else self._origin.problems()
        return replace(report, problems=(*report.problems, *(Problem(name, what) for name, what in elsewhere)))

    def replay(self, receipts: Sequence[Receipt]) -> tuple[Replay, ...]:
        """`replaying`, to its end.

        Raises:
            As `replaying`.
        """
        return self.replaying(receipts).finish()

    def replaying(self, receipts: Sequence[Receipt]) -> Job[tuple[Replay, ...]]:
        """Train again, from the beginning and in memory, what receipts say was trained; compare the bytes.

        That can be done until the samples change again, also while it goes on: nobody who changes the vault waits for
        it.

        Raises:
            CorruptError: a receipt is not of this vault's ledger, or says something else than was signed.
            InputError: nothing in it was trained or forgotten.
            ForbiddenError: a neighbour does not permit any more that a source learns from it.
            VaultError: another process is writing for too long.
        """
        return Job(self._replaying(receipts))

    def _replaying(self, receipts: Sequence[Receipt]) -> Generator[TrainStep, None, tuple[Replay, ...]]:
        self._store.settle()
        return (yield from replay(receipts, self._shelf, self._runs()))

    def reindex(self) -> None:
        """Make the index again from the folders; the same folders give the same bytes."""
        with self._store.locked():
            self._store.refresh_index()

    def _check_free(self, name: str) -> None:
        if self._store.holds(SOURCES, name):
            raise VaultError(f"source '{name}' is in the vault already; forget it first, or choose another name")
        if name in self._store.everyone():
            raise VaultError(
                f"a compartment or training of an earlier source '{name}' is still in the vault; forget '{name}' "
                "first, or choose another name"
            )
