"""Forgetting samples: first they go, and what learned from them is out of use; then it is trained without them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from intarsia.compartments import TrainStep
from intarsia.data import Manifest
from intarsia.errors import CorruptError, InputError, UnknownName, counted
from intarsia.ledger import Receipt
from intarsia.vault.accounts import account_in
from intarsia.vault.budgets import begin_private
from intarsia.vault.causes import Cause
from intarsia.vault.change import Announce, Change, nobody
from intarsia.vault.choosing import choose
from intarsia.vault.edges import Learner, earlier_cause, follow, learned_of
from intarsia.vault.events import forgotten, samples_forgotten
from intarsia.vault.granting import withdraw
from intarsia.vault.material import load_material, neighbours_in, read_material
from intarsia.vault.outcomes import Again, ForgetPlan, Job, Outcome
from intarsia.vault.permits import withdraw_permits
from intarsia.vault.rollback import Rollback, roll_back
from intarsia.vault.runs import Run, Runs
from intarsia.vault.shelf import Shelf
from intarsia.vault.sources import copy_without, read_manifest, roots_in, source_info
from intarsia.vault.store import BUDGETS, COMPARTMENTS, SOURCES, TRAINING
from intarsia.vault.tickets import fulfil
from intarsia.vault.training import seconds_per_step

_FORGET = "forget"


@dataclass(frozen=True)
class _Foreseen:
    """What there is to do: `rollback` is None where nothing was learned, or nothing of it can be read.

    `owed` says that the compartment must be trained to its end: there was one, or one was owed already. `learners` are
    the others that learned from the source.
    """

    before: Manifest
    gone: tuple[str, ...]
    compartments: dict[str, str | None]
    rollback: Rollback | None
    owed: bool
    learners: tuple[Learner, ...]

    @property
    def left(self) -> Manifest:
        return self.before.without(self.gone)

    @property
    def cause(self) -> Cause:
        again, steps = (self.rollback.again, self.rollback.steps) if self.rollback and self.owed else ((), 0)
        return Cause(_FORGET, len(self.gone), self.before.root, self.compartments, again, steps)


@dataclass(frozen=True)
class Forgetting:
    """Forgetting in one vault; `save_every` is the number of steps between checkpoints of what follows.

    `announce` is told what receipts are made of, before anything is decided.
    `make_runs` is called where there is something to train; a source can go also where the backbone cannot be read.
    """

    shelf: Shelf
    make_runs: Callable[[], Runs]
    save_every: int
    announce: Announce = nobody

    @cached_property
    def runs(self) -> Runs:
        return self.make_runs()

    def plan(self, name: str, samples: Sequence[str] | None) -> ForgetPlan:
        """What `begin` would do, or `begin_whole` for None, without doing it.

        Raises:
            As these.
        """
        if samples is None:
            return self._plan_whole(name)
        found = self._foresee(name, samples)
        compartments, others = tuple(sorted(found.compartments)), _agains(found.learners)
        rollback = found.rollback
        if rollback is None or not found.owed:
            return ForgetPlan(name, found.gone, len(found.left), compartments, (), 0, 0, 0, 0, others=others)
        gradients, whole = rollback.gradients()
        return ForgetPlan(
            name,
            found.gone,
            len(found.left),
            compartments,
            rollback.again,
            rollback.steps,
            rollback.record["settings"]["rows"],
            gradients,
            whole,
            rollback.because,
            others=others,
        )

    def _plan_whole(self, name: str) -> ForgetPlan:
        others = _agains(follow(self.shelf, self._runs, _FORGET, name, None))
        compartments = tuple(self.shelf.saw(name))
        return ForgetPlan(name, (), 0, compartments, (), 0, 0, 0, 0, others=others)

    def _runs(self) -> Runs:
        return self.runs

    def measure(self, plan: ForgetPlan) -> float | None:
        """About how many seconds the training of a plan takes on this machine now, by a few steps on what stays."""
        rollbacks: dict[str, Rollback] = {}
        if plan.samples:
            found = self._foresee(plan.source, plan.samples)
            rollbacks |= {plan.source: found.rollback} if found.rollback and found.owed else {}
            learners = found.learners
        else:
            learners = follow(self.shelf, self._runs, _FORGET, plan.source, None)
        rollbacks |= {each.name: each.rollback for each in learners if each.rollback and each.cause}
        times = [self._seconds(name, rollback) for name, rollback in rollbacks.items() if rollback.gradients()[0]]
        return sum(times) if times else None

    def _seconds(self, name: str, rollback: Rollback) -> float:
        source = load_material(self.shelf.store, name, neighbours_in(rollback.record))
        rows = int(rollback.record["settings"]["rows"])
        few = frozenset(sample.id for sample in rollback.after.manifest.samples[:rows])
        source = source.select(lambda sample: sample.id in few)
        return seconds_per_step(self.runs.backbone, source, rollback.record) * rollback.gradients()[0] / rows

    def begin(self, name: str, samples: Sequence[str]) -> Job[Outcome]:
        """Remove the samples and whatever learned from them; the job that is returned trains it again.

        Raises:
            UnknownName: no such source or sample.
            InputError: an id fits several samples; none is named, or all are.
            CorruptError: the manifest is damaged, or the record of another compartment, which might have seen them.
            VaultError: the source is being trained, another process is writing, or the disk fails; then nothing was
                done, or the samples go before the vault is next used.
        """
        store = self.shelf.store
        with contextlib.ExitStack() as stack, store.change() as change:
            change.announce = self.announce
            found = self._foresee(name, samples)
            if store.training(name).exists():
                stack.enter_context(store.sole_trainer(name))
            cause = found.cause.after(earlier_cause(self.shelf.store, name))
            self._stage(change, stack, name, found, cause)
            fulfil(store, change, name, found.gone)
        runs = [(name, found.rollback.record)] if found.rollback and found.owed else []
        runs += [each.run for each in found.learners if each.run]
        return Job(self.carry_on(name, cause, runs, change.receipts), change.receipts)

    def begin_whole(self, name: str) -> Job[Outcome]:
        """Remove a source and whatever learned from it; the job that is returned trains the others without it.

        Raises:
            UnknownName: no such source, nor anything that is left of one.
            CorruptError: the record of another compartment or training cannot be read, which might have seen it, or
                that of a principal.
            VaultError: as `begin`.
        """
        store = self.shelf.store
        with contextlib.ExitStack() as stack, store.change() as change:
            change.announce = self.announce
            if name not in store.everyone():  # what lost its source can be forgotten too
                raise UnknownName("source", name, store.everyone())
            cause, learners = self._whole(name), follow(self.shelf, self._runs, _FORGET, name, None)
            change.record(forgotten(name, cause.manifest_before, cause.before, account_in(store, name)))
            if store.training(name).exists():
                stack.enter_context(store.sole_trainer(name))
            change.remove(f"{COMPARTMENTS}/{name}")
            change.remove(f"{TRAINING}/{name}")
            for each in learners:
                each.stage(store, change, stack)
            change.remove(f"{SOURCES}/{name}")
            if store.budget(name).exists():
                change.remove(f"{BUDGETS}/{name}")
            change.unsalt(name)
            change.renew_salts()
            fulfil(store, change, name, None)
            withdraw(store, name, change, stack)
            withdraw_permits(store, name, change)
        runs = [each.run for each in learners if each.run]
        return Job(self.carry_on(name, cause, runs, change.receipts), change.receipts)

    def _whole(self, name: str) -> Cause:
        count = 0
        with contextlib.suppress(CorruptError):
            count = source_info(self.shelf.store.source(name)).count
        return Cause(_FORGET, count, self.shelf.manifest_root(name), self.shelf.digests(self.shelf.saw(name)), (), 0)

    def _learned_root(self, name: str) -> str | None:
        """The manifest root of the samples that a compartment learned from; None if there is none, or none to read."""
        with contextlib.suppress(CorruptError):
            if self.shelf.store.holds(COMPARTMENTS, name):
                return self.shelf.info(name).manifest_root
        return None

    def carry_on(
        self, name: str, cause: Cause, runs: Sequence[Run], receipts: tuple[Receipt, ...] = ()
    ) -> Generator[TrainStep, None, Outcome]:
        """Train what is owed to its end, and say what came of it."""
        if runs:  # without, a source can go also where the backbone cannot be read
            receipts += yield from self.runs.one_by_one(runs, save_every=self.save_every)
        return self.outcome(name, cause, receipts)

    def outcome(self, name: str, cause: Cause, receipts: tuple[Receipt, ...]) -> Outcome:
        """What came of it."""
        there = {each for each in (name, *cause.before) if self.shelf.store.holds(COMPARTMENTS, each)}
        after = self.shelf.digests(sorted(there))
        outcome = cause.outcome(name, manifest_after=self.shelf.manifest_root(name), after=after)
        return replace(outcome, receipts=receipts)

    def _stage(self, change: Change, held: contextlib.ExitStack, name: str, found: _Foreseen, cause: Cause) -> None:
        for compartment in found.compartments:  # first of all: from now on nobody composes them
            change.remove(f"{COMPARTMENTS}/{compartment}")
        for each in found.learners:
            each.stage(self.shelf.store, change, held)
        if found.rollback is None:
            change.remove(f"{TRAINING}/{name}")
        else:
            folder = change.put(f"{TRAINING}/{name}")
            found.rollback.write(folder)
            begin_private(change, self.shelf.store, name, found.rollback.record, folder, owed=True)
            if found.owed:
                cause.write(folder)
        copy_without(self.shelf.store.source(name), change.put(f"{SOURCES}/{name}"), found.left)
        change.renew_salts([name])
        change.record(samples_forgotten(found.cause.outcome(name, manifest_after=found.left.root, after={})))

    def _foresee(self, name: str, samples: Sequence[str]) -> _Foreseen:
        self.shelf.check_known(name)
        manifest = read_manifest(self.shelf.store.source(name))
        gone = tuple(sample.id for sample in choose(manifest, samples))
        if not gone:
            raise InputError(f"no sample of '{name}' is named; give the ids of those to forget")
        if len(gone) == len(manifest):
            raise InputError(
                f"these are all samples of '{name}' ({counted(len(gone), 'image')}), and no source is without any; "
                f"forget the source itself: `intarsia forget VAULT {name}`, vault.forget('{name}') in Python"
            )
        left, compartments = manifest.without(gone), self.shelf.digests(self.shelf.saw(name))
        owed = name in compartments or earlier_cause(self.shelf.store, name) is not None
        learned, rollback = learned_of(self.shelf.store, name), None
        if learned is not None:
            with contextlib.suppress(CorruptError):
                before = read_material(self.shelf.store, name, neighbours_in(learned.record))
                after = replace(before, own=left)
                rollback = roll_back(learned, before, after, backbone=self.runs.backbone, core=self.runs.core)
        if (root := self._learned_root(name)) in roots_in(left):  # it stems from before they came, and stays
            del compartments[name]
            rollback = None if root == left.root else rollback
        learners = follow(self.shelf, self._runs, _FORGET, name, left)
        return _Foreseen(manifest, gone, compartments, rollback, owed, learners)


def _agains(learners: Sequence[Learner]) -> tuple[Again, ...]:
    """What is trained again of the others, as a plan tells it."""
    return tuple(
        Again(each.name, each.rollback.again, each.rollback.steps, each.rollback.gradients()[0], each.rollback.because)
        for each in learners
        if each.rollback is not None and each.cause is not None
    )
