"""How many images a principal has drawn: counted before they are drawn, so that no quota is ever passed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from intarsia.errors import CorruptError, ForbiddenError, IntarsiaError
from intarsia.vault.clock import Clock
from intarsia.vault.locks import folder_lock
from intarsia.vault.principals import Grant, Principal, Quota, read_principal
from intarsia.vault.records import read_record, write_record
from intarsia.vault.store import PRINCIPALS, Store

USED_FILE = "used.json"
_PATIENCE = 60.0  # seconds to wait for another process that counts, or changes the grants

Used = Mapping[str, tuple[str, int]]
"""By source: the period that was counted last, and the images drawn in it."""


def read_used(folder: Path) -> dict[str, tuple[str, int]]:
    """What was drawn by a principal, from its folder.

    Raises:
        CorruptError: the record is damaged.
    """
    path = folder / USED_FILE
    if not path.exists():
        return {}
    record = read_record(path)
    try:
        return {name: (str(window), int(images)) for name, (window, images) in record["used"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: not a record of what was drawn ({error}); remove it to count from 0") from error


def write_used(folder: Path, used: Used, grants: Mapping[str, Grant]) -> None:
    """Write what was drawn from sources that have a quota, and nothing where none has."""
    kept = {name: list(count) for name, count in used.items() if name in grants and grants[name].quota is not None}
    if kept:
        write_record(folder / USED_FILE, {"used": kept})
    else:
        (folder / USED_FILE).unlink(missing_ok=True)


def left(grant: Grant, used: Used, now: datetime) -> int | None:
    """Images that may still be drawn in this period; None if there is no quota."""
    if grant.quota is None:
        return None
    window, images = used.get(grant.source, ("", 0))
    return max(0, grant.quota.images - (images if window == grant.quota.window(now) else 0))


@dataclass(frozen=True)
class Allowance:
    """A quota, and how many images of it are drawn in the period that runs."""

    source: str
    used: int
    limit: int
    period: str


def allowances(principal: Principal, used: Used, now: datetime) -> tuple[Allowance, ...]:
    """The quotas of a principal, by source."""
    found = []
    for grant, quota in _metered(principal, list(principal.grants)):
        spent = quota.images - (left(grant, used, now) or 0)
        found.append(Allowance(grant.source, spent, quota.images, quota.period))
    return tuple(found)


@dataclass(frozen=True)
class Meter:
    """Counts the images of one principal, whose folder it locks meanwhile."""

    store: Store
    name: str
    clock: Clock

    @property
    def folder(self) -> Path:
        return self.store.principal(self.name)

    @contextlib.contextmanager
    def reserved(self, sources: Sequence[str], count: int) -> Iterator[None]:
        """Count `count` images of each source now; they are given back if the block raises.

        A process that is killed in the block has drawn them. Where no source has a quota nothing is written, so that a
        vault on a medium that cannot be written can be drawn from.

        Raises:
            ForbiddenError: they are more than a quota leaves; nothing is counted then.
            VaultError: the principal is gone, or the disk fails.
        """
        if not _metered(read_principal(self.folder), sources):
            yield
            return
        now = self.clock()
        self._take(sources, count, now)
        try:
            yield
        except BaseException:
            with contextlib.suppress(IntarsiaError):  # the principal may be what has gone
                self._give_back(sources, count, now)
            raise

    def _take(self, sources: Sequence[str], count: int, now: datetime) -> None:
        with self._counting() as (principal, used):
            for grant, quota in _metered(principal, sources):
                rest = left(grant, used, now) or 0
                if count > rest:
                    raise ForbiddenError(
                        f"'{principal.name}' may draw {rest} more images with '{grant.source}' this {quota.period} "
                        f"(quota {quota}), asked for {count}; ask for fewer, or wait"
                    )
                used[grant.source] = (quota.window(now), quota.images - rest + count)

    def _give_back(self, sources: Sequence[str], count: int, then: datetime) -> None:
        with self._counting() as (principal, used):
            for grant, quota in _metered(principal, sources):
                window, images = used.get(grant.source, ("", 0))
                if window == quota.window(then):
                    used[grant.source] = (window, max(0, images - count))

    @contextlib.contextmanager
    def _counting(self) -> Iterator[tuple[Principal, dict[str, tuple[str, int]]]]:
        """What was drawn, to be changed; it is written when the block ends."""
        busy = f"{self.folder}: is being changed; try again"
        with self.store.sharing(f"{PRINCIPALS}/{self.name}"), folder_lock(self.folder, busy, patience=_PATIENCE):
            for scratch in self.folder.glob(".*.part"):  # of a process that was killed while it wrote
                scratch.unlink()
            principal, used = read_principal(self.folder), read_used(self.folder)
            yield principal, used
            write_used(self.folder, used, principal.grants)


def _metered(principal: Principal, sources: Sequence[str]) -> list[tuple[Grant, Quota]]:
    grants = (principal.grants.get(name) for name in sources)
    return [(grant, grant.quota) for grant in grants if grant is not None and grant.quota is not None]
