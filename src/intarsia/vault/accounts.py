"""Accumulated credit: what each source has earned by the images that were drawn, kept as whole numbers for payouts.

ledger/credit/<digest>.json   one record per set of images: units of credit by account

An account stands for a source and is made from the source's secret, which goes when the source goes. From then on the
account is a number that nobody can tie to a name but those who hold the receipt of the forgetting; what it had earned
stays, as it is still owed. The ledger's entry of a set holds the digest of its record, which is salted: so no record
can be changed or left out unnoticed, and the entry alone says nothing about it.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from intarsia.composition import Result
from intarsia.credit import Credit
from intarsia.credit.apportion import UNITS, units_of
from intarsia.errors import CorruptError, ForbiddenError, SettingsError
from intarsia.files import disk_errors, read_bytes, sync_folder
from intarsia.ledger import Entry, Receipt, Secrets
from intarsia.vault.events import CREDIT, SAMPLE, Parts, credited
from intarsia.vault.records import read_record, record_digest, write_record
from intarsia.vault.store import Store

ACCOUNTS = "ledger/credit"
REALISED = "realised"
"""How credit is accumulated while images are drawn: by the weights of the last step, which cost nothing."""
_SUFFIX = ".json"
_ACCOUNT = 16  # bytes


def account_of(known: Secrets) -> str:
    """The account of the source whose secrets these are: it stays the same when samples come or go."""
    return hmac.digest(known.name, b"credit account", "sha256")[:_ACCOUNT].hex()


def account_in(store: Store, name: str) -> str | None:
    """The account of a source of the vault; None if it has no secrets."""
    known = store.salts.of(name)
    return None if known is None else account_of(known)


@dataclass(frozen=True)
class Accrual:
    """What the accounts earned by one set of images, in `UNITS` per image; `by` says how it was reckoned."""

    images: int
    by: str
    units: Mapping[str, int]
    salt: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @classmethod
    def of(cls, store: Store, shares: Mapping[str, int], images: int, by: str) -> Accrual:
        """From units by the names of sources.

        Raises:
            ForbiddenError: a source was forgotten meanwhile.
        """
        accounts = {name: account_in(store, name) for name in shares}
        if gone := [name for name, account in accounts.items() if account is None]:
            raise ForbiddenError(f"'{gone[0]}' was forgotten while images were drawn from it; draw again without it")
        return cls(images, by, {str(accounts[name]): units for name, units in shares.items()})

    def write(self, store: Store) -> str:
        """Put it beside the ledger; returns its digest. It counts once an entry of the ledger names that."""
        record = {"images": self.images, "by": self.by, "units": dict(self.units), "salt": self.salt}
        digest = record_digest(record)
        folder = store.root / ACCOUNTS
        with disk_errors(store.root):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                sync_folder(folder.parent)
            write_record(folder / f"{digest}{_SUFFIX}", record)
        return digest

    @classmethod
    def read(cls, store: Store, digest: str) -> Accrual:
        """The record of this digest.

        Raises:
            CorruptError: it is missing, damaged, or another one.
        """
        path = store.root / ACCOUNTS / f"{digest}{_SUFFIX}"
        read_bytes(path, missing="what was earned by a set of images is lost; restore the ledger from a backup")
        record = read_record(path)
        try:
            found = cls(int(record["images"]), str(record["by"]), dict(record["units"]), str(record["salt"]))
            whole = sum(found.units.values()) == UNITS * found.images and min(found.units.values()) >= 0
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(f"{path}: no record of credit ({error}); restore the ledger from a backup") from error
        if record_digest(record) != digest or not whole:
            raise CorruptError(f"{path}: not the record that the ledger names; restore the ledger from a backup")
        return found


@dataclass(frozen=True)
class Drawn:
    """A set of images in the ledger: the number and time of its entry, and the digest of what was earned by it."""

    entry: int
    time: str
    digest: str


def drawn_sets(entries: Iterable[Entry]) -> list[Drawn]:
    """All sets of images for which credit is kept, in their order; of one that was reckoned again the last counts."""
    found: dict[int, Drawn] = {}
    for number, entry in enumerate(entries):
        digest = entry.about.get("credit") if entry.kind in (SAMPLE, CREDIT) else None
        if isinstance(digest, str):
            first = found.get(entry.about.get("set", number), Drawn(number, entry.time, digest))
            found[first.entry] = Drawn(first.entry, first.time, digest)
    return list(found.values())


def tell_drawn(
    store: Store, parts: Parts, prior: Mapping[str, float], result: Result, *, unrecorded: bool
) -> Receipt | None:
    """Tell the ledger of images that were drawn, and keep what their sources earned; as `Store.tell`.

    The record is written first: one that no entry names counts for nothing, and images are handed out after both.

    Args:
        prior: of the sources that were composed, by name; where their networks were averaged it is their credit.
    """
    if not store.ledger.writable:
        return store.tell(parts.sampled(result), unrecorded=unrecorded)
    accrual = Accrual.of(store, _earned(result, prior), len(result.images), REALISED)
    digest = accrual.write(store)
    return store.tell(parts.sampled(result, credit=digest), beside=[_place(digest)])


def _earned(result: Result, prior: Mapping[str, float]) -> dict[str, int]:
    """Units by source."""
    if set(result.names) <= set(prior):
        return dict(zip(result.names, units_of(result.weights[-1]), strict=True))
    shares = result.weights.new_tensor(list(prior.values())).expand(len(result.images), -1)
    return dict(zip(prior, units_of(shares), strict=True))


def keep_credit(store: Store, receipt: Receipt, found: Credit) -> None:
    """Let shares of all images of a set count in place of what was earned when they were drawn.

    Args:
        receipt: of the images, as the ledger gave it.

    Raises:
        CorruptError: the receipt is not of this vault's ledger.
        SettingsError: no credit is kept for these images.
        VaultError: the vault cannot be written.
    """
    receipt.check()
    number, entries = receipt.proof.index, store.ledger.entries()
    if number >= len(entries) or entries[number].line != receipt.entry.line:
        raise CorruptError("the receipt beside these images is not of this vault's ledger; they were drawn elsewhere")
    if number not in {each.entry for each in drawn_sets(entries)}:
        raise SettingsError("no credit is kept for these images; they were drawn by an earlier version")
    units = dict(zip(found.names, units_of(found.values), strict=True))
    accrual = Accrual.of(store, units, len(found.values), found.method)
    digest = accrual.write(store)
    store.tell(credited(number, digest, found), beside=[_place(digest)])


def _place(digest: str) -> str:
    """Where a record is, by its path in the vault."""
    return f"{ACCOUNTS}/{digest}{_SUFFIX}"


def credit_problems(store: Store) -> list[tuple[str, str]]:
    """What is wrong with the accounts: by the place in the vault, what. Records that no entry names do no harm."""
    problems = []
    for each in drawn_sets(store.ledger.entries()):
        place = _place(each.digest)
        try:
            Accrual.read(store, each.digest)
        except CorruptError as error:
            problems.append((place, str(error)))
    folder = store.root / ACCOUNTS
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not _is_ours(path):
            problems.append((f"{ACCOUNTS}/{path.name}", "does not belong here; remove it"))
    return problems


def _is_ours(path: Path) -> bool:
    """A record, or what a process that is writing one, or was killed over it, has beside it."""
    return path.name.endswith((_SUFFIX, ".part"))
