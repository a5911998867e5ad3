"""The vault as those see it who read: nothing here changes it, but for finishing what a killed process had decided."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Self, TypeVar

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment
from intarsia.composition import Operator, Routing, Weights
from intarsia.data import Sample, Source
from intarsia.errors import CorruptError, VaultError
from intarsia.ledger import Entry, Ledger
from intarsia.vault.accounts import tell_drawn
from intarsia.vault.bucket import url_of
from intarsia.vault.choosing import choose
from intarsia.vault.clock import Clock, utc_now
from intarsia.vault.composing import compose
from intarsia.vault.composition import Composition
from intarsia.vault.engines import Engine, Here
from intarsia.vault.entitlement import Entitlement, load_principal, permitted
from intarsia.vault.events import Parts, compartments_by_source
from intarsia.vault.founding import VaultRecord, copy_of, origin_of
from intarsia.vault.index import Catalogue
from intarsia.vault.keyring import Identity, Keyring
from intarsia.vault.lease import Lease
from intarsia.vault.loaded import Loaded
from intarsia.vault.meter import read_used
from intarsia.vault.missing import left_out, nothing_to_join, what_is_left, with_reasons
from intarsia.vault.operators import manner
from intarsia.vault.package import Core, read_core
from intarsia.vault.principals import Principal, read_principal
from intarsia.vault.records import CompartmentInfo, SourceInfo, Unfinished
from intarsia.vault.runs import unfinished
from intarsia.vault.selecting import Rules, Selection, decide
from intarsia.vault.shelf import Shelf
from intarsia.vault.sources import read_manifest
from intarsia.vault.store import BACKBONE, COMPARTMENTS, PRINCIPALS, SOURCES, Store
from intarsia.vault.training import train_data

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

    def select(
        self,
        *,
        licences: Collection[str] | None = None,
        owners: Collection[str] | None = None,
        refuse: Collection[str] = (),
    ) -> Selection:
        """Which sources meet all the rules, with the reason for each verdict; `.names` goes into `compose`.

        Args:
            licences: SPDX expressions of which the source's must be one; None admits any.
            owners: of which the source's must be one; None admits any.
            refuse: obligations that no source's licence may bring: `share-alike`, `non-commercial`, `no-derivatives`,
                `attribution`.

        Raises:
            InputError: a licence is no SPDX expression.
            UnknownName: no such obligation.
        """
        rules = Rules(licences=licences, owners=owners, refuse=refuse)
        return with_reasons(self._store, decide(self.sources(), self._store.names(COMPARTMENTS), rules))

    def principals(self) -> list[Principal]:
        """All principals, by name, with their grants and rules; of keys there are digests only.

        Raises:
            CorruptError: a record is damaged.
        """
        self._store.settle()
        return [read_principal(self._store.principal(name)) for name in self._store.names(PRINCIPALS)]

    def authenticate(self, key: str) -> str:
        """The name of the principal whose API key this is.

        Raises:
            ForbiddenError: it is nobody's, or has ended.
        """
        return self.identify(key).principal

    def identify(self, key: str) -> Identity:
        """Whose API key this is, and what it is for.

        Raises:
            ForbiddenError: it is nobody's, or has ended.
        """
        self._store.settle()
        return self._keyring.identify(key)

    def decide(self, principal: str, names: Names | None = None) -> Selection:
        """What a principal may use, with the rule that decided and the reason for each source; None asks for all.

        Nothing is allowed unless it was granted. Of what was not granted nothing is opened.

        Raises:
            UnknownName: no such principal.
            CorruptError: its record is damaged, or that of a source or a compartment that was granted.
        """
        self._store.settle()
        known = load_principal(self._store, principal)
        every = {*self._store.names(SOURCES), *self._store.names(COMPARTMENTS)}
        used = read_used(self._store.principal(principal))
        entitled = Entitlement(known, self._shelf, self._clock(), used)
        return entitled.select(sorted(every) if names is None else listed(names))

    def compose(
        self,
        names: Names | None = None,
        *,
        weights: str | Weights = "gaussian",
        routing: str | Routing = "threshold",
        operator: str | Operator = "mixture",
        prior: Mapping[str, float] | None = None,
        precision: str = "auto",
        principal: str | None = None,
        unrecorded: bool = False,
        loaded: Loaded | None = None,
    ) -> Composition:
        """Join trained compartments; None takes all. No folder of any source that is not among the names is opened.

        What is composed may be drawn from as long as nothing of it is forgotten, retrained or, from the principal,
        revoked: every step looks (`docs/grants.md` says what is promised). Of None, `left_out` of the composition says
        which sources are missing and why, and a `LeftOut` warning if a forgetting has taken one out of use. A source
        that is forgotten while all are joined is left out, too.

        Args:
            weights: `gaussian`, `uniform`, `prior`, or another of `composing.WEIGHTS`. `joint` is fitted when asked
                for, on the images of the named sources together, and is not isolated; it is kept nowhere. `ito` needs
                `full` routing. `soup` averages the networks in place of composing them.
            routing: `full`, `top_k:2`, `threshold:0.05`, `ancestral`, `random`, `posterior`.
            operator: `mixture`, or `protected`: images that no source explains alone (docs/protection.md). An
                `Operator` sets its particles and a limit, `cp_k`.
            prior: one positive number per source; None takes the numbers of samples. Of the protected operator they are
                the exponents, equal by default.
            principal: for whom; what it may not use is refused if it was named, and left out otherwise. None is the
                vault's owner, who may use all.
            unrecorded: compose and draw also from a vault that cannot be written; then the ledger says nothing of it,
                and there is no receipt. Otherwise that is refused.
            loaded: where members stay in memory for other compositions; None reads them for this one.

        Raises:
            ForbiddenError: the principal may not use a source that was named, or may use none; with the reasons.
            UnknownName: no such source, weights, routing or principal.
            SettingsError: a source is not trained yet, nothing is, or the prior is none.
            IncompatibleError: compartments of another backbone or basis, of other samples than their sources hold, or
                without the part that the weights need.
            CorruptError: a compartment, the record of its source, or the ledger is damaged.
            VaultError: the vault cannot be written.
        """
        join = partial(
            self._join,
            None if names is None else listed(names),
            weights=weights,
            routing=routing,
            operator=operator,
            prior=prior,
            precision=precision,
            principal=principal,
            unrecorded=unrecorded,
            loaded=loaded,
        )
        return what_is_left(join) if names is None else join()

    def _join(
        self,
        names: list[str] | None,
        *,
        weights: str | Weights,
        routing: str | Routing,
        operator: str | Operator,
        prior: Mapping[str, float] | None,
        precision: str,
        principal: str | None,
        unrecorded: bool,
        loaded: Loaded | None,
    ) -> Composition:
        """As `compose`, of what there is at this moment."""
        self._store.settle()
        wanted = self._store.names(COMPARTMENTS) if names is None else names
        selection = None if principal is None else self.decide(principal, names)
        if selection is not None and principal is not None:
            wanted = list(permitted(selection, principal, named=names is not None))
        absent = left_out(self._store, wanted, selection) if names is None else {}
        if not wanted:
            raise nothing_to_join(absent)
        # Before they are read: should one be replaced meanwhile, the digest is not that of what was read. Of what is no
        # name of a compartment no path is made.
        there = set(self._store.names(COMPARTMENTS))
        digests = {name: (self._shelf.record_digest(name) if name in there else None) or "" for name in wanted}
        how = manner(operator, wanted, weights=weights, routing=routing, prior=prior, precision=precision)
        members = (loaded or Loaded()).members(wanted, digests, self._shelf, self.backbone, precision=how.precision)
        compartments = [member.compartment for member in members]
        named, licences = {each.name: each for each in compartments}, self._shelf.licences(compartments)
        lease = Lease(self._shelf, digests, tuple(licences), principal, self._clock)
        lease.check()
        model = compose(
            members,
            self.backbone,
            self.core,
            weights=how.weights,
            routing=how.routing,
            prior=how.prior,
            precision=how.precision,
            data=lambda name: train_data(self.backbone, self._shelf.learned(named[name])),
            guard=lease,
        )
        seen = compartments_by_source(compartments, digests)
        parts = Parts(model.weights.name, model.routing.name, model.weights.isolated, principal, seen, how.operator)
        self._store.tell(parts.composed(), unrecorded=unrecorded)
        sizes = {member.name: float(member.count) for member in members}
        record = partial(tell_drawn, self._store, parts, how.prior or sizes, unrecorded=unrecorded)
        return Composition(model, self.backbone, licences, record, how.operator, absent)

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
