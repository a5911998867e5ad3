"""The vault as those see it who draw: who may use what, and its compartments joined."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from intarsia.composition import Operator, Routing, Weights
from intarsia.vault.accounts import tell_drawn
from intarsia.vault.composing import compose
from intarsia.vault.composition import Composition
from intarsia.vault.entitlement import Entitlement, load_principal, permitted
from intarsia.vault.events import Parts, compartments_by_source
from intarsia.vault.keyring import Identity
from intarsia.vault.lease import Lease
from intarsia.vault.loaded import Loaded
from intarsia.vault.meter import read_used
from intarsia.vault.missing import left_out, nothing_to_join, what_is_left, with_reasons
from intarsia.vault.operators import manner
from intarsia.vault.principals import Principal, read_principal
from intarsia.vault.reading import Names, VaultReader, listed
from intarsia.vault.selecting import Rules, Selection, decide
from intarsia.vault.store import COMPARTMENTS, PRINCIPALS, SOURCES
from intarsia.vault.training import train_data


class VaultJoiner(VaultReader):
    """What `Vault` offers to those who draw."""

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
            routing: `full`, `top_k:2`, `threshold:0.05`, `ancestral`, `random`, `posterior`, `sticky:0.001`.
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
