"""Doing again what a receipt says was trained, and comparing the bytes.

It is trained from the beginning, from the samples that the source holds now: no checkpoint and no compartment of the
vault is believed. All of it happens in memory, so that nothing is left of it, and nobody who changes the vault waits.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, TrainStep, train
from intarsia.compartments.compartment import RECORD_FILE
from intarsia.digests import code_digest, digest_of
from intarsia.errors import CorruptError, InputError
from intarsia.files import sealed_to_bytes
from intarsia.ledger import Ledger, Opening, Receipt
from intarsia.vault.events import FORGET, TRAIN
from intarsia.vault.material import NEIGHBOURS, load_material, neighbours_in
from intarsia.vault.permits import check_permitted
from intarsia.vault.runs import Runs, with_slices
from intarsia.vault.shelf import Shelf
from intarsia.vault.training import MECHANISM, Recipe, compartment_of, trainee_of

_PATIENCE = 60.0  # seconds to wait for another writer
SAME, OTHER, ELSEWHERE, CHANGED, GONE, BACK = "same", "other", "elsewhere", "changed", "gone", "back"
APART = "apart"
PRIVATE = "private"
VERDICTS: Mapping[str, str] = {
    SAME: "trained again, with the same bytes",
    OTHER: "trained again in the same environment, with other bytes: the receipt does not tell how they came about",
    ELSEWHERE: "trained again with other bytes, but in another environment, which alone may explain it",
    CHANGED: "cannot be trained again: the source has other samples now, or is gone",
    PRIVATE: "trained privately: its noise was secret and is destroyed, so that it cannot be trained again",
    GONE: "the source went as a whole, and is not in the vault: there is nothing to train again",
    APART: "images of it were forgotten; the training without them, if there was one, has a receipt of its own",
    BACK: "what was forgotten is back: the samples that the source had then are in the vault (again)",
}


@dataclass(frozen=True)
class Replay:
    """What came of replaying one source of a receipt.

    `expected` and `found` are the digests of its compartment, then and now. `environment` names what differs from then,
    as (then, now); the digest of intarsia's own code is one of its fields.
    """

    source: str
    verdict: str
    expected: str | None = None
    found: str | None = None
    environment: Mapping[str, tuple[Any, Any]] | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the receipt."""
        return self.verdict not in (OTHER, BACK)

    def __str__(self) -> str:
        differing = ", ".join(
            f"{name} {then!r} then, {now!r} now" for name, (then, now) in (self.environment or {}).items()
        )
        return f"{self.source}: {VERDICTS[self.verdict]}" + (f" ({differing})" if differing else "")


def replay(receipts: Sequence[Receipt], shelf: Shelf, runs: Runs) -> Generator[TrainStep, None, tuple[Replay, ...]]:
    """Train again what the receipts say was trained; the vault is locked while samples are read, and then no more.

    Raises:
        CorruptError: a receipt is not of this vault's ledger, or says something else than was signed.
        InputError: nothing in it was trained or forgotten, or it does not say which sources.
        ForbiddenError: a neighbour does not permit any more that the source learns from it.
        VaultError: another process is writing for too long.
    """
    _check(receipts, shelf.store.ledger)
    trained = [receipt for receipt in receipts if receipt.entry.kind == TRAIN and receipt.openings]
    if not trained:
        return _whole(receipts, shelf)
    found = []
    for receipt in trained:
        for opening in receipt.openings:
            if "compartment" in opening.values:  # the others are neighbours that it learned from
                found.append((yield from _again(opening, receipt.entry.about, shelf, runs)))
    return tuple(found)


def _check(receipts: Sequence[Receipt], ledger: Ledger) -> None:
    entries = ledger.entries()
    for receipt in receipts:
        receipt.check()
        place = receipt.proof.index
        if receipt.key != ledger.key or place >= len(entries) or entries[place] != receipt.entry:
            raise CorruptError(f"entry {place} of this vault's ledger is another; the receipt is of another vault")


def _whole(receipts: Sequence[Receipt], shelf: Shelf) -> tuple[Replay, ...]:
    """What is to be said of receipts by which nothing was trained."""
    sources = [
        (each, GONE if receipt.entry.about.get("scope") == "source" else APART)
        for receipt in receipts
        if receipt.entry.kind == FORGET
        for each in receipt.openings
    ]
    key = "manifest_root_before"
    roots = {each.source: (each.values[key], verdict) for each, verdict in sources if key in each.values}
    if not roots:
        kinds = ", ".join(receipt.entry.kind for receipt in receipts)
        raise InputError(f"the receipt is of {kinds}, by which nothing was trained; expected one of forget or train")
    there = {name: shelf.manifest_root(name) for name in roots}
    return tuple(Replay(name, BACK if there[name] == root else verdict) for name, (root, verdict) in roots.items())


def _again(opening: Opening, about: Mapping[str, Any], shelf: Shelf, runs: Runs) -> Generator[TrainStep, None, Replay]:
    name, expected = opening.source, str(opening.values["compartment"])
    own = {key: value for key, value in opening.values.items() if key != "compartment"}
    if MECHANISM in own:
        return Replay(name, PRIVATE, expected)
    record = {**about["settings"], **own, "environment": about["environment"]}
    with shelf.store.locked(patience=_PATIENCE):
        if not _is_held(record, name, shelf):
            return Replay(name, CHANGED, expected)
        check_permitted(shelf.store, name, neighbours_in(record))
        source = load_material(shelf.store, name, neighbours_in(record))
    trainee, slices = trainee_of(runs.backbone, source, record, None), {}
    for step in train([trainee]):
        if step.step % trainee.slicing.per_slice == 0:
            slices[f"slice-{step.step // trainee.slicing.per_slice}"] = digest_of(sealed_to_bytes(trainee.state()))
        yield step
        if not _is_held(record, name, shelf):  # what was forgotten meanwhile is not to be trained on any more
            return Replay(name, CHANGED, expected)
    found = _digest(compartment_of(trainee, runs.core, record), slices)
    differing = _differing(record, runs.backbone, str(about["code"]))
    verdict = SAME if found == expected else ELSEWHERE if differing else OTHER
    return Replay(name, verdict, expected, found, differing)


def _is_held(record: Mapping[str, Any], name: str, shelf: Shelf) -> bool:
    """Whether the vault still holds the samples that a run learned from."""
    held = {each: shelf.manifest_root(each) for each in (name, *neighbours_in(record))}
    return held == {name: record["manifest_root"], **record.get(NEIGHBOURS, {})}


def _digest(compartment: Compartment, slices: Mapping[str, str]) -> str:
    """What the digest of a compartment's record would be, if it were put in place with these checkpoints."""
    return digest_of(with_slices(compartment, slices).files()[RECORD_FILE])


def _differing(record: Mapping[str, Any], backbone: Backbone, code: str) -> dict[str, tuple[Any, Any]]:
    """What of the environment is another now: all that the bytes depend on besides samples and settings."""
    then = {**record["environment"], "code": code}
    # The run takes the threads that its record states.
    now = {**Recipe.read(record).environment(backbone, then["threads"]), "code": code_digest()}
    return {name: (then.get(name), now.get(name)) for name in sorted({*then, *now}) if then.get(name) != now.get(name)}
