"""Who may draw from what: principals, keys and grants, given and taken."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import replace as changed
from datetime import datetime
from pathlib import Path

from intarsia.errors import CorruptError, SettingsError, UnknownName, VaultError
from intarsia.vault.change import Change
from intarsia.vault.clock import check_moment, to_text
from intarsia.vault.entitlement import load_principal
from intarsia.vault.events import granted, revoked
from intarsia.vault.joining import VaultJoiner
from intarsia.vault.locks import folder_lock
from intarsia.vault.meter import Allowance, allowances, read_used, write_used
from intarsia.vault.principals import (
    KEEP,
    USUAL_SCOPES,
    Grant,
    Keep,
    Key,
    Principal,
    Quota,
    read_principal,
    write_principal,
)
from intarsia.vault.reading import Names, listed
from intarsia.vault.selecting import Rules
from intarsia.vault.store import PRINCIPALS, Store

_PATIENCE = 60.0  # seconds to wait for another writer: what is revoked must not wait for a second try


class VaultGrants(VaultJoiner):
    """What `Vault` offers to those who say who may draw. Without a grant nothing may be drawn."""

    def add_principal(
        self,
        name: str,
        *,
        licences: Collection[str] | None = None,
        owners: Collection[str] | None = None,
        refuse: Collection[str] = (),
        until: datetime | None = None,
        scopes: Collection[str] = USUAL_SCOPES,
    ) -> str:
        """Add somebody who may draw from what will be granted, as long as these rules admit it.

        Args:
            licences, owners, refuse: as in `select`.
            until: when the key ends.
            scopes: what the key is for, where a service asks: names of `SCOPES`.

        Returns:
            The API key, in clear, for the only time: the vault keeps a digest of it.

        Raises:
            InputError: the name is no lower-case slug, or a licence is no SPDX expression.
            UnknownName: no such obligation or scope.
            SettingsError: `until` has passed, or says no time zone; or there are no scopes.
            VaultError: the name is taken, another process is writing for too long, or the disk is full.
        """
        principal = Principal(name, rules=Rules(licences=licences, owners=owners, refuse=refuse))
        text, key = Key.make(self._future(until), scopes)
        with self._store.change(patience=_PATIENCE) as change:
            if self._store.holds(PRINCIPALS, name):
                raise VaultError(f"principal '{name}' is in the vault already; remove it first, or choose another name")
            write_principal(change.put(f"{PRINCIPALS}/{name}"), principal.with_keys([key]))
        return text

    def change_rules(
        self,
        principal: str,
        *,
        licences: Collection[str] | Keep | None = KEEP,
        owners: Collection[str] | Keep | None = KEEP,
        refuse: Collection[str] | Keep = KEEP,
    ) -> Principal:
        """Change the rules of a principal; its keys and grants stay, and so does each rule that is not given.

        Once this has returned, nothing is drawn for it any more that the new rules do not admit: a run under way ends.

        Raises:
            UnknownName: no such principal or obligation.
            InputError: a licence is no SPDX expression.
            VaultError: another process is writing for too long, or the disk is full; then its rules stay.
        """
        with self._changing(principal) as (change, found):
            old = found.rules
            rules = Rules(
                licences=old.licences if licences is KEEP else licences,
                owners=old.owners if owners is KEEP else owners,
                refuse=old.refuse if refuse is KEEP else refuse,
            )
            self._put(change, found.with_rules(rules))
        return found.with_rules(rules)

    def remove_principal(self, name: str) -> None:
        """Take a principal's keys and grants for good; once this has returned, nothing is drawn for it any more.

        Raises:
            UnknownName: no such principal.
            VaultError: another process is writing for too long, or the disk fails.
        """
        with contextlib.ExitStack() as held, self._store.change(patience=_PATIENCE) as change:
            if not self._store.holds(PRINCIPALS, name):  # one that is damaged can be removed too
                raise UnknownName("principal", name, self._store.names(PRINCIPALS))
            held.enter_context(_sole_counter(self._store, name))
            with contextlib.suppress(CorruptError):
                if grants := read_principal(self._store.principal(name)).grants:
                    change.record(revoked(name, grants))
            change.remove(f"{PRINCIPALS}/{name}")

    def new_key(
        self,
        principal: str,
        *,
        until: datetime | None = None,
        scopes: Collection[str] = USUAL_SCOPES,
        replace: bool = False,
    ) -> str:
        """Another API key of a principal, or one in place of all that it has.

        Returns:
            The key, in clear, for the only time.

        Raises:
            UnknownName: no such principal or scope.
            SettingsError: `until` has passed, or says no time zone; or there are no scopes.
            VaultError: another process is writing for too long, or the disk is full.
        """
        text, key = Key.make(self._future(until), scopes)
        with self._changing(principal) as (change, found):
            self._put(change, found.with_keys([*([] if replace else found.keys), key]))
        return text

    def change_key(
        self,
        principal: str,
        id: str,
        *,
        until: datetime | Keep | None = KEEP,
        scopes: Collection[str] | Keep = KEEP,
    ) -> Key:
        """Change when a key ends and what it is for, from its next use on; the key itself stays.

        Args:
            id: the second part of the key in clear.
            until: None lets it have no end.

        Raises:
            UnknownName: no such principal, key or scope.
            SettingsError: `until` has passed, or says no time zone; or there are no scopes.
            VaultError: another process is writing for too long, or the disk is full; then the key stays as it was.
        """
        with self._changing(principal) as (change, found):
            old = found.key(id)
            key = changed(
                old,
                until=old.until if until is KEEP else self._future(until),
                scopes=old.scopes if scopes is KEEP else tuple(scopes),
            )
            self._put(change, found.with_keys(key if each.id == id else each for each in found.keys))
        return key

    def remove_key(self, principal: str, id: str) -> None:
        """Withdraw one key of a principal, by its id, which is the second part of the key in clear.

        Raises:
            UnknownName: no such principal or key.
            VaultError: another process is writing for too long, or the disk fails.
        """
        with self._changing(principal) as (change, found):
            gone = found.key(id)
            self._put(change, found.with_keys(key for key in found.keys if key is not gone))

    def grant(
        self,
        names: Names,
        principal: str,
        *,
        until: datetime | None = None,
        quota: Quota | str | None = None,
    ) -> tuple[Grant, ...]:
        """Let a principal draw from sources; a grant that is there already is replaced.

        Args:
            until: when the grants end; None: when they are revoked.
            quota: images in which each source may take part, such as "100/day"; None: any number.

        Raises:
            UnknownName: no such source or principal.
            SettingsError: `until` has passed or says no time zone, the quota is none, or no source is named.
            VaultError: another process is writing for too long, or the disk is full; then nothing is granted.
        """
        ends = self._future(until)
        limit = Quota.parse(quota) if isinstance(quota, str) else quota
        grants = tuple(Grant(name, ends, limit) for name in _some(names))
        with self._changing(principal) as (change, found):
            for grant in grants:
                self._shelf.check_known(grant.source)
            self._put(change, found.granted(grants))
            change.record(granted(principal, grants))
        return grants

    def revoke(self, names: Names, principal: str) -> None:
        """Take grants from a principal; once this has returned, no image is drawn for it with these sources any more.

        A run under way in another process ends without images: its next step notices.

        Raises:
            UnknownName: no such principal, or it was not granted one of the sources; then all its grants stay.
            SettingsError: no source is named.
            VaultError: another process is writing for too long, or the disk fails; then the grants stand, or they are
                gone before the vault is next used.
        """
        wanted = _some(names)
        with self._changing(principal) as (change, found):
            for name in wanted:
                if name not in found.grants:
                    raise UnknownName(f"source granted to '{principal}'", name, found.grants)
            self._put(change, found.without(wanted))
            change.record(revoked(principal, wanted))

    def allowances(self, principal: str) -> tuple[Allowance, ...]:
        """The quotas of a principal, and what is used of them in the periods that run.

        Raises:
            UnknownName: no such principal.
            CorruptError: its record is damaged.
        """
        self._store.settle()
        known = load_principal(self._store, principal)
        return allowances(known, read_used(self._store.principal(principal)), self._clock())

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[tuple[Change, Principal]]:
        """Change a principal's record while nobody else does, nor counts its images."""
        with contextlib.ExitStack() as held, self._store.change(patience=_PATIENCE) as change:
            load_principal(self._store, name)
            held.enter_context(_sole_counter(self._store, name))
            yield change, load_principal(self._store, name)

    def _put(self, change: Change, principal: Principal) -> None:
        _put(change, self._store.principal(principal.name), principal)

    def _future(self, until: datetime | None) -> datetime | None:
        if until is None:
            return None
        moment = check_moment("until", until)
        if moment <= self._clock():
            raise SettingsError(f"until is {to_text(moment)}, which has passed; give a later moment, in UTC")
        return moment


def withdraw(store: Store, source: str, change: Change, held: contextlib.ExitStack) -> None:
    """Take all grants of a source that is being forgotten, as if there had never been one.

    Raises:
        CorruptError: a principal's record cannot be read, so that it might name the source.
        VaultError: somebody counts images for too long.
    """
    for name in store.names(PRINCIPALS):
        if source in read_principal(store.principal(name)).grants:
            held.enter_context(_sole_counter(store, name))
            _put(change, store.principal(name), read_principal(store.principal(name)).without([source]))


def _put(change: Change, current: Path, principal: Principal) -> None:
    """Stage a principal in place of what there is, with what was drawn so far."""
    folder = change.put(f"{PRINCIPALS}/{principal.name}")
    write_principal(folder, principal)
    write_used(folder, read_used(current), principal.grants)


def _sole_counter(store: Store, name: str) -> contextlib.AbstractContextManager[None]:
    busy = f"images of principal '{name}' are being counted by another process; try again"
    return folder_lock(store.principal(name), busy, patience=_PATIENCE)


def _some(names: Names) -> list[str]:
    wanted = listed(names)
    if not wanted:
        raise SettingsError("no source is named; name at least one")
    return wanted
