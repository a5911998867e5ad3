"""Sources whose owners keep the images: taking in what they trained at home, and giving up what they withdraw."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from intarsia.backbone import Backbone
from intarsia.checks import check_whole
from intarsia.compartments import Compartment, TrainStep
from intarsia.composition import CompartmentMember
from intarsia.data import check_licence, check_name
from intarsia.data.source import check_owner
from intarsia.errors import CorruptError, ForbiddenError, IncompatibleError, InputError, SettingsError, VaultError
from intarsia.ledger.note import VerifierKey
from intarsia.vault.bound import check_bound
from intarsia.vault.change import Announce
from intarsia.vault.events import imported, samples_forgotten
from intarsia.vault.outcomes import ForgetPlan, Job, Outcome
from intarsia.vault.package import Core
from intarsia.vault.packs import Pack, handed_root, pack_files, read_pack
from intarsia.vault.records import CompartmentInfo, SourceInfo, compartment_info
from intarsia.vault.shelf import Shelf
from intarsia.vault.sources import Handed, handed_in, shape_of, source_info, write_away
from intarsia.vault.store import COMPARTMENTS, SOURCES
from intarsia.vault.tickets import fulfil

_PATIENCE = 60.0  # seconds to wait for another writer
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Imported:
    """What came: the source, its compartment, and how often each router part claims the core (1 is a density's)."""

    source: SourceInfo
    compartment: CompartmentInfo
    claims: Mapping[str, float]


@dataclass(frozen=True)
class Importing:
    """Packs for one vault, of its backbone and core."""

    shelf: Shelf
    backbone: Backbone
    core: Core

    def admit(self, path: Path, signer: str) -> Imported:
        """Take in a pack, or one in place of an earlier one of the same owner.

        Raises:
            As `Vault.import_pack`.
        """
        key = VerifierKey.parse(signer)
        pack = read_pack(path, key)
        info = replace(_checked(pack.info), signer=str(key))
        channels, height, width = self.backbone.image_shape
        if pack.image_shape != (height, width, channels):
            raise IncompatibleError(
                f"'{info.name}' is of images of {pack.image_shape}, not {(height, width, channels)}"
            )
        with self.shelf.store.change(patience=_PATIENCE) as change:
            handed = self._check_place(info, pack.number)
            folder = change.put(f"{COMPARTMENTS}/{info.name}")
            compartment = pack.unpack(folder)
            claims = self._check(compartment, info)
            write_away(change.put(f"{SOURCES}/{info.name}"), info, pack.image_shape, handed)
            found = compartment_info(folder)
            change.salt(info.name)
            change.record(imported(info, found))
        return Imported(info, found, claims)

    def _check_place(self, info: SourceInfo, number: int) -> Handed:
        """What is to be kept of this pack; refuses what would take somebody else's place, or bring back what went."""
        store, name = self.shelf.store, info.name
        if not store.holds(SOURCES, name):
            if name in store.everyone():
                raise VaultError(f"a compartment of an earlier source '{name}' is in the vault; forget '{name}' first")
            return Handed(number)
        there = source_info(store.source(name))
        if there.signer != info.signer:
            whose = "holds its images itself" if there.signer is None else f"has it of another owner ({there.signer})"
            raise ForbiddenError(f"'{name}' is in the vault already, which {whose}; forget it first")
        handed = handed_in(store.source(name))
        if handed.refuses(info.manifest_root):
            raise ForbiddenError(
                f"this pack of '{name}' learned from the samples of which some were forgotten; its owner must train "
                "without them and pack again"
            )
        if number < handed.number:
            raise ForbiddenError(
                f"this pack of '{name}' is older than the one that came last (number {number} of its owner, "
                f"{handed.number} came); ask the owner for a new one"
            )
        return replace(handed, number=number)

    def _check(self, compartment: Compartment, info: SourceInfo) -> dict[str, float]:
        """Refuse a compartment that is not what was signed, does not fit this vault, or claims too much."""
        stated = (info.name, (info.name,), info.manifest_root, info.count, info.labels)
        classes = compartment.classes
        found = (
            compartment.name,
            compartment.sources,
            compartment.manifest_root,
            compartment.count,
            tuple(sorted(classes)),
        )
        if found != stated:
            raise CorruptError(f"the compartment in the pack is not what was signed: found {found}, stated {stated}")
        if any(not isinstance(n, int) or n < 1 for n in classes.values()) or sum(classes.values()) > info.count:
            raise CorruptError(
                f"the pack of '{info.name}' counts its labels as {dict(classes)}, of {info.count} images"
            )
        tensors = [*compartment.params.values(), *compartment.router.values()]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point()):
            raise IncompatibleError(
                f"the pack of '{info.name}' has numbers that are not finite; its owner must train again"
            )
        CompartmentMember(self.backbone, compartment, precision="float32")
        return check_bound(compartment, self.backbone, self.core)


def withdrawal(shelf: Shelf, name: str, samples: Sequence[str]) -> ForgetPlan:
    """What `withdrawn` would do, without doing it.

    Raises:
        InputError: as `withdrawn`.
    """
    gone = whole_ids(name, samples)
    left = max(0, source_info(shelf.store.source(name)).count - len(gone))
    because = "the images are with the owner, who must hand in a pack that learned without these"
    return ForgetPlan(name, gone, left, tuple(shelf.saw(name)), (), 0, 0, 0, 0, because)


def withdrawn(shelf: Shelf, name: str, samples: Sequence[str], announce: Announce) -> Job[Outcome]:
    """Take what learned from samples that an owner keeps out of use, at once, until the owner hands in a replacement.

    Returns:
        Work of no steps, for whoever forgets.

    Raises:
        InputError: a sample is not named by its whole id: nobody here can tell which one is meant.
        VaultError: another process is writing, or the disk fails.
    """
    gone, folder = whole_ids(name, samples), shelf.store.source(name)
    with shelf.store.change(patience=_PATIENCE) as change:
        change.announce = announce
        info, before = source_info(folder), shelf.digests(shelf.saw(name))
        change.remove(f"{COMPARTMENTS}/{name}")
        handed = handed_in(folder).refusing(info.manifest_root)
        write_away(change.put(f"{SOURCES}/{name}"), info, shape_of(folder), handed)
        outcome = Outcome("forget", name, len(gone), info.manifest_root, info.manifest_root, before, {})
        change.renew_salts([name])
        change.record(samples_forgotten(outcome))
        fulfil(shelf.store, change, name, gone)
    return Job(_no_steps(replace(outcome, receipts=change.receipts)), change.receipts)


def whole_ids(name: str, samples: Sequence[str]) -> tuple[str, ...]:
    """The ids of samples that an owner keeps, each once, sorted.

    Raises:
        InputError: one is not whole, or there are none.
    """
    wrong = [id for id in samples if not _DIGEST.fullmatch(id)]
    if wrong or not samples:
        raise InputError(
            f"the images of '{name}' are with its owner, so that a sample is named by the 64 digits of its id; found "
            f"{', '.join(map(repr, wrong)) or 'none'}"
        )
    return tuple(sorted(set(samples)))


def _no_steps(outcome: Outcome) -> Generator[TrainStep, None, Outcome]:
    yield from ()
    return outcome


def _checked(info: SourceInfo) -> SourceInfo:
    """The terms of a pack, in their canonical spelling.

    Raises:
        InputError, SettingsError: one of them makes no sense.
    """
    check_name(info.name)
    texts = (info.owner, info.licence, info.attribution, info.manifest_root, *info.labels)
    if not all(isinstance(text, str) for text in texts) or not _DIGEST.fullmatch(info.manifest_root):
        raise InputError(f"the pack of '{info.name}' states terms that are none; its owner must pack again")
    check_owner(info.name, info.owner)
    check_whole("count", info.count)
    return replace(info, licence=check_licence(info.licence))


def hand_over(shelf: Shelf, name: str, path: Path) -> None:
    """Write and sign what an owner hands over of a source; it does not outlive what is forgotten meanwhile.

    Raises:
        ForbiddenError: the compartment was forgotten or replaced meanwhile; then no file is there.
        VaultError: the disk is full, or the place cannot be written.
        UnknownName, SettingsError, IncompatibleError, CorruptError: as `pack_of`.
    """
    before = shelf.record_digest(name)
    pack = pack_of(shelf, name)
    pack.write(path, shelf.store.ledger.sign(pack.text))
    if shelf.record_digest(name) != before:
        path.unlink(missing_ok=True)
        raise ForbiddenError(f"'{name}' was forgotten or trained again while it was packed; no pack is kept, try again")


def pack_of(shelf: Shelf, name: str) -> Pack:
    """What an owner hands over of a source.

    Raises:
        UnknownName: no such source.
        SettingsError: it is not trained; or the compartment learned from other sources too, or not from all samples.
        IncompatibleError: it learned from other samples than the source holds.
        CorruptError: the source's record is damaged.
    """
    number = len(shelf.store.ledger.entries())  # before the compartment is read: what goes meanwhile makes a new number
    compartment, folder = shelf.compartment(name), shelf.store.source(name)
    shelf.licences([compartment])
    info = source_info(folder)
    if compartment.manifest_root != info.manifest_root:
        raise SettingsError(
            f"the compartment of '{info.name}' has not yet learned from all that the source holds; finish its training "
            "first, with `intarsia train --resume`"
        )
    if compartment.privacy is not None:
        info = replace(info, count=compartment.count, manifest_root=handed_root(compartment))
    return Pack(info, shape_of(folder), number, pack_files(compartment))
