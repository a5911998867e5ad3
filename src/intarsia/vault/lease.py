"""The right of a composition to its members, looked at again at every step: what was revoked is noticed.

Every change of a vault puts whole folders in place or takes them away (`store.py`), so a record that is still the same
file has not changed. A look is one `stat` for each member and one for the principal; only where a file is another one
is anything opened and decided anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from intarsia.compartments.compartment import RECORD_FILE
from intarsia.errors import ForbiddenError, UnknownName
from intarsia.vault.clock import Clock
from intarsia.vault.entitlement import Entitlement, load_principal, permitted
from intarsia.vault.meter import Meter
from intarsia.vault.principals import PRINCIPAL_FILE
from intarsia.vault.shelf import Shelf

Stamp = tuple[int, ...] | None


@dataclass
class Lease:
    """A guard over members that were composed.

    Args:
        members: the digest of each compartment's record, by name, as it was when it was loaded.
        sources: all sources that the members saw.
        principal: for whom; None is the vault's owner, who may use what is there.
    """

    shelf: Shelf
    members: Mapping[str, str]
    sources: tuple[str, ...]
    principal: str | None
    clock: Clock
    _paths: tuple[str, ...] = field(init=False, repr=False)
    # Stamps and end belong together: several threads may look.
    _decided: tuple[tuple[Stamp, ...], datetime | None] = field(default=((), None), init=False, repr=False)

    def __post_init__(self) -> None:
        store = self.shelf.store
        paths = [store.compartment(name) / RECORD_FILE for name in self.members]
        if self.principal is not None:
            paths.append(store.principal(self.principal) / PRINCIPAL_FILE)
        self._paths = tuple(str(path) for path in paths)

    def check(self) -> None:
        """Refuse to go on once a member has gone or was replaced, or a grant has ended.

        Raises:
            ForbiddenError: says which, and why.
            VaultError: machines share the vault, and it cannot be known what they have changed.
        """
        self.shelf.store.follow()
        seen, until = self._decided
        ended = until is not None and self.clock() >= until
        if ended or self._look() != seen:
            self._decide()

    @contextlib.contextmanager
    def drawing(self, count: int) -> Iterator[None]:
        """Finish what an interrupted forget had decided, count the images, and look once more when they are drawn.

        Raises:
            ForbiddenError: as `check`; or a quota does not leave so many.
            VaultError: images are to be counted, and the vault cannot be written.
        """
        self.shelf.store.settle()
        self.check()
        with self._reserved(count):
            yield
            self.check()

    def _reserved(self, count: int) -> contextlib.AbstractContextManager[None]:
        if self.principal is None:
            return contextlib.nullcontext()
        return Meter(self.shelf.store, self.principal, self.clock).reserved(self.sources, count)

    def _decide(self) -> None:
        """Read again what the right hangs on. Stamps come first: what changes while it is read is noticed next time."""
        stamps = self._look()
        for name, digest in self.members.items():
            self._check_member(name, digest)
        self._decided = stamps, None if self.principal is None else self._check_grants(self.principal)

    def _check_member(self, name: str, digest: str) -> None:
        found = self.shelf.record_digest(name)
        if found is None:
            raise ForbiddenError(
                f"'{name}' was forgotten after it was composed, and may not be used any more; compose again without it"
            )
        if found != digest:
            raise ForbiddenError(
                f"compartment '{name}' was replaced after it was composed, and what it learned before may not be used "
                "any more; compose again"
            )

    def _check_grants(self, name: str) -> datetime | None:
        """When the first of the grants ends."""
        try:
            principal = load_principal(self.shelf.store, name)
        except UnknownName:
            raise ForbiddenError(f"the principal '{name}' was removed; nothing may be drawn for it any more") from None
        permitted(Entitlement(principal, self.shelf, self.clock()).select(self.members), name, named=True)
        ends = [principal.grants[each].until for each in self.sources if each in principal.grants]
        return min((until for until in ends if until is not None), default=None)

    def _look(self) -> tuple[Stamp, ...]:
        return tuple(stamp_of(path) for path in self._paths)


def stamp_of(path: str) -> Stamp:
    """What tells a file from another that came in its place; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
