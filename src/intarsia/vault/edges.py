"""Along the edges of the shard graph: what learned from a source that changes or leaves, and how it goes on without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from intarsia.data import Manifest
from intarsia.errors import CorruptError
from intarsia.vault.causes import Cause
from intarsia.vault.change import Change
from intarsia.vault.material import Material, neighbours_in, read_material
from intarsia.vault.rollback import Learned, Rollback, learned_by_compartment, learned_by_run, roll_back
from intarsia.vault.runs import Run, Runs
from intarsia.vault.shelf import Shelf
from intarsia.vault.store import COMPARTMENTS, TRAINING, Store
from intarsia.vault.training import read_run


@dataclass(frozen=True)
class Learner:
    """A source whose compartment, or unfinished training, learned from another source.

    `material` is what it learns from after the change. `rollback` says from where; None where nothing of it can be
    read. `cause` is that of a training that is owed, because there was a compartment; None where there was none.
    """

    name: str
    material: Material | None
    rollback: Rollback | None
    cause: Cause | None

    @property
    def run(self) -> Run | None:
        """The training that is owed."""
        return (self.name, self.rollback.record) if self.rollback and self.cause else None

    def stage(self, store: Store, change: Change, held: contextlib.ExitStack) -> None:
        """Take what it learned out of use, and put the training that is owed in place.

        Raises:
            VaultError: it is being trained.
        """
        if store.training(self.name).exists():
            held.enter_context(store.sole_trainer(self.name))
        change.remove(f"{COMPARTMENTS}/{self.name}")
        if self.rollback is None:
            change.remove(f"{TRAINING}/{self.name}")
        else:
            folder = change.put(f"{TRAINING}/{self.name}")
            self.rollback.write(folder)
            if self.cause is not None:
                self.cause.write(folder)


def learned_of(store: Store, name: str) -> Learned | None:
    """What is to be rolled back: the run under way, or else the compartment; None if neither can be read."""
    if store.holds(TRAINING, name):
        with contextlib.suppress(CorruptError):
            return learned_by_run(store, name)
    if store.holds(COMPARTMENTS, name):
        with contextlib.suppress(CorruptError):
            return learned_by_compartment(store.compartment(name))
    return None


def earlier_cause(store: Store, name: str) -> Cause | None:
    """Why a training is owed already; None if it is not, or nobody can tell."""
    with contextlib.suppress(CorruptError):
        return Cause.read(store.training(name))
    return None


def learners_of(shelf: Shelf, source: str) -> list[str]:
    """The other sources whose compartment or unfinished training learned from this one, sorted.

    Raises:
        CorruptError: the record of one cannot be read, so that it might have seen the source.
    """
    runs = [name for name in shelf.store.names(TRAINING) if name != source]
    saw = [name for name in runs if source in neighbours_in(read_run(shelf.store.training(name)))]
    return sorted({*saw, *shelf.saw(source)} - {source})


def follow(
    shelf: Shelf, runs: Callable[[], Runs], action: str, source: str, left: Manifest | None
) -> tuple[Learner, ...]:
    """What comes of the others when `left` is all that is left of a source; None: it is not theirs any more.

    Args:
        runs: called only if there are others.

    Raises:
        CorruptError: as `learners_of`.
    """
    return tuple(learner(shelf, runs(), action, name, source, left) for name in learners_of(shelf, source))


def learner(shelf: Shelf, runs: Runs, action: str, name: str, source: str, left: Manifest | None) -> Learner:
    """One of them."""
    store = shelf.store
    before = shelf.digests({name}.intersection(store.names(COMPARTMENTS)))
    earlier, learned = earlier_cause(store, name), learned_of(store, name)
    material = rollback = None
    if learned is not None:
        with contextlib.suppress(CorruptError):
            whole = read_material(store, name, neighbours_in(learned.record))
            material = whole.having(source, left)
            rollback = roll_back(learned, whole, material, backbone=runs.backbone, core=runs.core)
    if not (before or earlier) or rollback is None or material is None:
        return Learner(name, material, rollback, None)
    cause = Cause(action, 0, material.own.root, before, rollback.again, rollback.steps).after(earlier)
    return Learner(name, material, rollback, cause)
