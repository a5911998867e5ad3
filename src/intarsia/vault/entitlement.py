"""What a principal may draw from, source by source: default deny, and a reason for each verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from intarsia.errors import CorruptError, ForbiddenError, UnknownName
from intarsia.vault.clock import to_text
from intarsia.vault.meter import Used, left
from intarsia.vault.missing import missing
from intarsia.vault.principals import Principal, read_principal
from intarsia.vault.records import SourceInfo
from intarsia.vault.selecting import Decision, Selection
from intarsia.vault.shelf import Shelf
from intarsia.vault.sources import source_info
from intarsia.vault.store import COMPARTMENTS, PRINCIPALS, SOURCES, Store


def load_principal(store: Store, name: str) -> Principal:
    """A principal of the vault.

    Raises:
        UnknownName: no such principal.
        CorruptError: its record is damaged.
    """
    if not store.holds(PRINCIPALS, name):
        raise UnknownName("principal", name, store.names(PRINCIPALS))
    return read_principal(store.principal(name))


@dataclass(frozen=True)
class Entitlement:
    """A principal before the shelf, at a moment.

    Args:
        used: what was drawn; None for one who has paid already, so that quotas do not matter.
    """

    principal: Principal
    shelf: Shelf
    now: datetime
    used: Used | None = None

    def select(self, names: Iterable[str]) -> Selection:
        """The verdict on each name. Only what was granted is opened, and of that the records alone."""
        return Selection(tuple(self.decide(name) for name in names))

    def decide(self, name: str) -> Decision:
        """Allowed only if no rule objects; the reason names the first that does, or what was granted."""
        objection = self._objection(name)
        return Decision(name, False, *objection) if objection else Decision(name, True, "admitted", self._terms(name))

    def _objection(self, name: str) -> tuple[str, str] | None:
        if (objection := self._ungranted(name)) is not None:
            return objection
        if not self.shelf.store.holds(COMPARTMENTS, name):
            return "trained", missing(self.shelf.store, name).reason
        seen = sorted({name, *self.shelf.info(name).sources})
        for source in seen:
            # The name alone until its own grant is there: nothing of another source is opened.
            if (objection := self._ungranted(source)) is not None:
                return "seen", f"its compartment also learned from '{source}': {objection[1]}"
        for source in seen:
            if (objection := self.principal.rules.objection(self._source(name, source))) is not None:
                rule, reason = objection
                return (rule, reason) if source == name else ("seen", f"its compartment saw '{source}': {reason}")
        return None

    def _ungranted(self, source: str) -> tuple[str, str] | None:
        grant = self.principal.grants.get(source)
        if grant is None:
            return "grant", f"it was not granted to '{self.principal.name}'"
        if grant.until is not None and self.now >= grant.until:
            return "expiry", f"its grant ended at {to_text(grant.until)}"
        if self.used is not None and left(grant, self.used, self.now) == 0:
            return "quota", f"its quota of {grant.quota} is used up"
        return None

    def _source(self, compartment: str, source: str) -> SourceInfo:
        if not self.shelf.store.holds(SOURCES, source):
            raise CorruptError(
                f"compartment '{compartment}' learned from '{source}', which is not in the vault; forget "
                f"'{compartment}'"
            )
        return source_info(self.shelf.store.source(source))

    def _terms(self, source: str) -> str:
        grant = self.principal.grants[source]
        until = f", until {to_text(grant.until)}" if grant.until is not None else ""
        quota = ""
        if grant.quota is not None:
            rest = "" if self.used is None else f", {left(grant, self.used, self.now)} left"
            quota = f", {grant.quota}{rest}"
        return f"granted to '{self.principal.name}'{until}{quota}"


def permitted(selection: Selection, principal: str, *, named: bool) -> tuple[str, ...]:
    """The names to compose: all of those that were named, or all that are allowed.

    Raises:
        ForbiddenError: a source that was named is not allowed, with the reason; or none is.
    """
    refused = [each for each in selection.decisions if not each.allowed]
    if named and refused:
        raise ForbiddenError("; ".join(f"'{each.name}' may not be used: {each.reason}" for each in refused))
    if not named and not selection.names:
        # Of a source that was never granted not even the name is told.
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in refused if each.rule != "grant")
        raise ForbiddenError(f"'{principal}' may use no source ({reasons or 'none is granted'})")
    return selection.names
