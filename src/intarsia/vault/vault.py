"""The vault: a folder with one backbone, its sources and their compartments."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, TrainSettings, TrainStep
from intarsia.composition import Routing, Weights
from intarsia.data import Columns, ReadOptions, Source, check_name
from intarsia.data.images import Resize
from intarsia.errors import CorruptError, SettingsError, VaultError
from intarsia.vault.adding import compare, read_into
from intarsia.vault.composing import Composition, compose
from intarsia.vault.founding import VaultRecord, found
from intarsia.vault.index import Catalogue
from intarsia.vault.package import Core, read_core
from intarsia.vault.parts import PartSettings, check_parts, chosen_parts
from intarsia.vault.records import CompartmentInfo, SourceInfo
from intarsia.vault.runs import Runs
from intarsia.vault.selecting import Rules, Selection, decide
from intarsia.vault.shelf import Shelf
from intarsia.vault.sources import write_source
from intarsia.vault.store import BACKBONE, COMPARTMENTS, SOURCES, TRAINING, Store
from intarsia.vault.training import Recipe
from intarsia.vault.verify import VerifyReport, verify

Names = str | Iterable[str]


class Vault:
    """A project folder: the public backbone and core, the sources, and one compartment for each that was trained.

    Between calls it holds nothing open and nothing locked: several processes may read one vault, one at a time may
    change it, and different sources may be trained in different processes. What a killed process left half done is
    finished or undone before anything else happens. Made by `Vault.create` or `Vault.open`.
    """

    def __init__(self, root: Path, record: VaultRecord):
        self.root, self.record = root, record
        self._catalogue = Catalogue(root, record.id, record.index_url)
        self._store = Store(root, self._rebuild_index)
        self._shelf = Shelf(self._store)

    @classmethod
    def create(
        cls, path: str | Path, *, backbone: str | Path | tuple[Backbone, Source], url: str | None = None
    ) -> Self:
        """Make a new vault.

        Args:
            backbone: a backbone package, by the name of one that comes with intarsia or by its folder; or a backbone
                and the core source it was trained on.
            url: a database for the index, in SQLAlchemy's form; None keeps it in the folder.

        Raises:
            VaultError: the place is taken, or the disk is full.
            UnknownName: no such package.
            CorruptError: the package is damaged.
            IncompatibleError: the core's images are not of the backbone's shape.
            SettingsError: the URL cannot be used.
        """
        found(Path(path).expanduser(), backbone, url)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a vault; what an interrupted change left is finished or undone first.

        Raises:
            VaultError: the folder is no vault, or cannot be read.
            CorruptError: its record is damaged.
        """
        root = Path(path).expanduser()
        vault = cls(root, VaultRecord.read(root))
        vault._store.settle()
        if not vault._catalogue.exists():
            vault.reindex()
        return vault

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
        self._store.settle()
        return self._catalogue.sources()

    def compartments(self) -> list[CompartmentInfo]:
        """All trained compartments, by name."""
        self._store.settle()
        return self._catalogue.compartments()

    def source(self, name: str) -> Source:
        """A source with all its pixels.

        Raises:
            UnknownName: no such source.
            CorruptError: it is damaged.
        """
        self._store.settle()
        return self._shelf.source(name)

    def compartment(self, name: str) -> Compartment:
        """A trained compartment. Nothing but its own folder is opened.

        Raises:
            UnknownName: no such source.
            SettingsError: it is not trained yet.
            CorruptError: it is damaged.
        """
        self._store.settle()
        return self._shelf.compartment(name)

    def add_source(
        self,
        name: str,
        data: str | Path | Source,
        *,
        owner: str | None = None,
        licence: str | None = None,
        attribution: str | None = None,
        resize: Resize = "error",
        columns: Columns | None = None,
        allow_near: bool = True,
    ) -> SourceInfo:
        """Add a source: its images, captions, labels and terms.

        Args:
            data: a folder of images, a Parquet table, a WebDataset tar, or a `Source`, whose terms then hold.
            owner, licence: needed unless `data` is a `Source`.
            resize: "fit" scales images of other sizes, "error" refuses them.
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
        others = (self._shelf.source(other) for other in self._store.names(SOURCES))
        found = compare(source, self.core, others, allow_near=allow_near)
        with self._store.change() as change:
            self._check_free(name)
            info = write_source(change.put(f"{SOURCES}/{name}"), source)
        return replace(info, overlaps=found)

    def training(
        self,
        names: Names,
        settings: TrainSettings | None = None,
        *,
        routers: Sequence[str | PartSettings] = ("gaussian",),
        restart: bool = False,
        save_every: int = 100,
    ) -> Iterator[TrainStep]:
        """Train compartments, one step of each in turn; when the iterator ends they are in place.

        A run that was interrupted goes on where its last checkpoint stands, and ends with the same bytes. What was
        trained with the same settings before is left as it is.

        Args:
            routers: the router parts to fit, by kind or by their settings.
            restart: train afresh, whatever is there.
            save_every: steps between checkpoints.

        Raises:
            UnknownName: no such source or router part.
            SettingsError: begun or finished with other settings; every field is named.
            IncompatibleError: the samples have changed since.
            VaultError: another process trains it, or the disk is full.
        """
        self._store.settle()
        recipe = Recipe(settings or TrainSettings(), chosen_parts(routers))
        check_parts(recipe.routers, self.core)
        runs = Runs(self._store, self.backbone, self.core)
        begun = [(name, runs.begin(name, recipe, restart=restart)) for name in _listed(names)]
        return runs.steps(
            [(name, record) for name, record in begun if record is not None], recipe, save_every=save_every
        )

    def train(
        self,
        names: Names,
        settings: TrainSettings | None = None,
        *,
        routers: Sequence[str | PartSettings] = ("gaussian",),
        restart: bool = False,
    ) -> tuple[CompartmentInfo, ...]:
        """`training`, to its end; returns what is in place then, in the order of the names.

        Raises:
            As `training`.
        """
        listed = _listed(names)
        for _ in self.training(listed, settings, routers=routers, restart=restart):
            pass
        return tuple(self._shelf.info(name) for name in listed)

    def select(
        self,
        *,
        licences: Collection[str] | None = None,
        owners: Collection[str] | None = None,
        share_alike: bool = True,
    ) -> Selection:
        """Which sources meet all the rules, with the reason for each verdict; `.names` goes into `compose`.

        Args:
            licences: SPDX expressions of which the source's must be one; None admits any.
            owners: of which the source's must be one; None admits any.
            share_alike: whether share-alike licences are admitted.

        Raises:
            InputError: a licence is no SPDX expression.
        """
        rules = Rules(licences=licences, owners=owners, share_alike=share_alike)
        return decide(self.sources(), self._store.names(COMPARTMENTS), rules)

    def compose(
        self,
        names: Names | None = None,
        *,
        weights: str | Weights = "gaussian",
        routing: str | Routing = "threshold",
        prior: Mapping[str, float] | None = None,
        precision: str = "auto",
    ) -> Composition:
        """Join trained compartments; None takes all. No folder of any other source is opened.

        Args:
            weights: `gaussian`, `uniform`, `prior`, or another of `composing.WEIGHTS`. `joint` is fitted when asked
                for, on the images of the named sources together, and is not isolated; it is kept nowhere.
            routing: `full`, `top_k:2`, `threshold:0.05`, `ancestral`, `random`.
            prior: one positive number per source; None takes the numbers of samples.

        Raises:
            UnknownName: no such source, weights or routing.
            SettingsError: a source is not trained yet, nothing is, or the prior is none.
            IncompatibleError: compartments of another backbone or basis, or without the part that the weights need.
            CorruptError: a compartment is damaged.
        """
        self._store.settle()
        wanted = self._store.names(COMPARTMENTS) if names is None else _listed(names)
        if not wanted:
            raise SettingsError("a composition needs at least one source; train one, or name those to compose")
        members = [self._shelf.compartment(name) for name in wanted]
        seen = sorted({name for member in members for name in member.sources})
        licences = {name: self._shelf.licence(name) for name in seen}
        model = compose(
            members,
            self.backbone,
            self.core,
            weights=weights,
            routing=routing,
            prior=prior,
            precision=precision,
            source=self.source,
        )
        return Composition(model, self.backbone, licences)

    def forget(self, name: str) -> tuple[str, ...]:
        """Remove a source and everything that was learned from it. Afterwards the vault is as if it had never come.

        Returns:
            The compartments that went: its own, and any other that saw it.

        Raises:
            UnknownName: no such source.
            VaultError: it is being trained, another process is writing, or the disk fails; then it is either untouched,
                or forgotten to the end before the vault is next used.
        """
        with contextlib.ExitStack() as stack, self._store.change() as change:
            if name not in self._store.names(COMPARTMENTS):  # one whose source was lost can be forgotten too
                self._shelf.check_known(name)
            gone = self._shelf.saw(name)
            for each in sorted({name, *gone}):
                if self._store.training(each).exists():
                    stack.enter_context(self._store.sole_trainer(each))
                change.remove(f"{COMPARTMENTS}/{each}")
                change.remove(f"{TRAINING}/{each}")
            change.remove(f"{SOURCES}/{name}")
        return tuple(gone)

    def verify(self) -> VerifyReport:
        """Read and check everything that is stored; all problems are reported, not the first.

        Raises:
            VaultError: another process is writing.
        """
        with self._store.locked():
            return verify(self._store, self.record, self._catalogue)

    def reindex(self) -> None:
        """Make the index again from the folders; the same folders give the same bytes."""
        with self._store.change():
            pass

    def _rebuild_index(self, scratch: Path) -> None:
        self._catalogue.rebuild(scratch, *self._shelf.readable())

    def _check_free(self, name: str) -> None:
        if name in self._store.names(SOURCES):
            raise VaultError(f"source '{name}' is in the vault already; forget it first, or choose another name")


def _listed(names: Names) -> list[str]:
    """Names as a list; one name may be given by itself."""
    return [names] if isinstance(names, str) else list(names)
