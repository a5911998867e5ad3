"""Training in a vault: begun, resumed, and put in place when it is finished. One trainer per source, many per vault."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, TextPrompts, TrainStep
from intarsia.digests import canonical_json, digest_of
from intarsia.errors import CorruptError, IntarsiaError, SettingsError, UnknownName, VaultError
from intarsia.files import read_sealed, write_atomic
from intarsia.ledger import Receipt
from intarsia.vault.budgets import begin_private, read_budget, refuse_plain, spent_of
from intarsia.vault.captions import check_captions
from intarsia.vault.causes import Cause
from intarsia.vault.engines import Engine, Work
from intarsia.vault.events import trained
from intarsia.vault.material import load_material, neighbours_in, read_material, roots_of
from intarsia.vault.package import Core
from intarsia.vault.permits import check_permitted
from intarsia.vault.records import Unfinished, compartment_info, write_record
from intarsia.vault.sources import check_here, source_info
from intarsia.vault.store import COMPARTMENTS, SOURCES, TRAINING, Store
from intarsia.vault.training import (
    AGAIN,
    EXTENSIONS,
    GO_ON,
    SLICES,
    TRAINING_FILE,
    Recipe,
    check_same,
    read_run,
    steps_done,
)

_PATIENCE = 60.0  # seconds to wait for another writer when work of hours is to be stored

Run = tuple[str, dict[str, Any]]  # the name of a source, and the record with which its training was begun


@dataclass(frozen=True)
class Runs:
    """Training runs of one vault; `engine` does the training, and all writing but of checkpoints is done here."""

    store: Store
    backbone: Backbone
    core: Core
    engine: Engine

    def begin(
        self, names: Sequence[str], recipe: Recipe, *, neighbours: Sequence[str] = (), restart: bool
    ) -> list[Run]:
        """Make the folders of runs, all or none, or check that those that are there are of the same runs.

        A run that has saved no step is nothing to keep to: it is begun anew, whatever its settings.

        Returns:
            What there is to train; what is finished already is left out.

        Raises:
            UnknownName: no such source.
            SettingsError: a source is named twice, or was begun or finished with other settings.
            ForbiddenError: a neighbour does not permit that a source learns from it.
            IncompatibleError: it was begun or finished with other samples, or on another backbone.
            CorruptError: what is there cannot be read.
            VaultError: somebody else trains one of them, or another process is writing for too long.
        """
        for some in (names, neighbours, (*names, *neighbours)):
            if len(set(some)) < len(some):
                raise SettingsError(f"sources to train are named twice: {', '.join(some)}; name each source once")
        # The folders stay locked until the change is carried out.
        with contextlib.ExitStack() as held, self.store.change(patience=_PATIENCE) as change:
            self._check_private(recipe, names, neighbours)
            extended = {name: recipe if restart else self._extended(name, recipe) for name in names}
            runs = {name: self._wanted(name, self._sized(name, extended[name]), neighbours) for name in names}
            for name, wanted in list(runs.items()):
                if not restart and self._is_under_way(name, wanted):
                    continue
                if begun := self.store.training(name).exists():
                    held.enter_context(self.store.sole_trainer(name))
                if restart or not self._is_finished(name, wanted):
                    folder = change.put(f"{TRAINING}/{name}")
                    write_record(folder / TRAINING_FILE, wanted)
                    begin_private(change, self.store, name, wanted, folder, owed=False)
                    continue
                del runs[name]
                if begun:
                    change.remove(f"{TRAINING}/{name}")
        return list(runs.items())

    def steps(
        self, runs: Sequence[Run], *, save_every: int, apart: bool = False
    ) -> Generator[TrainStep, None, tuple[Receipt, ...]]:
        """Train what was begun, from wherever each stands, and put the compartments in place; the ledger's receipts.

        All of them come in place in one change; `apart`, each in one of its own.
        """
        self.store.settle()
        with contextlib.ExitStack() as held:
            for name, record in runs:
                held.enter_context(self.store.sole_trainer(name))
                self._check_current(name, record)
            works = [self._work(name, record) for name, record in runs]
            finished = yield from self.engine.train(works, self.backbone, self.core, save_every=save_every)
            pairs = list(zip(finished, runs, strict=True))
            groups = [[pair] for pair in pairs] if apart else [pairs] if pairs else []
            return tuple(receipt for group in groups for receipt in self._store(group))

    def one_by_one(self, runs: Sequence[Run], *, save_every: int) -> Generator[TrainStep, None, tuple[Receipt, ...]]:
        """The same for runs that have nothing to do with each other, and come in place each for itself."""
        receipts: tuple[Receipt, ...] = ()
        for group in [list(runs)] if self.engine.together else [[run] for run in runs]:
            receipts += yield from self.steps(group, save_every=save_every, apart=True)
        return receipts

    def _check_private(self, recipe: Recipe, names: Sequence[str], neighbours: Sequence[str]) -> None:
        """Refuse what would spend more of the privacy of images than anybody counts."""
        if recipe.settings.privacy is None:
            for name in (*names, *neighbours):
                refuse_plain(self.store, name)
        elif neighbours:
            raise SettingsError(
                f"private training learns from one source alone; leave out {', '.join(neighbours)}, whose budgets it "
                "would spend too"
            )

    def _sized(self, name: str, recipe: Recipe) -> Recipe:
        """With the mechanism for the public number of its images: as it was declared, once and for all."""
        if recipe.settings.privacy is None or not self.store.holds(SOURCES, name):
            return recipe
        budget = read_budget(self.store, name)
        declared = next((each.size for each in budget.releases.values()), None) if budget else None
        return recipe.of_source(declared or source_info(self.store.source(name)).count)

    def _privacy(self, name: str, recipe: Recipe) -> dict[str, Any] | None:
        privacy, mechanism = recipe.settings.privacy, recipe.mechanism
        budget = read_budget(self.store, name) if privacy else None
        if privacy is None or mechanism is None or budget is None:
            return None
        return spent_of(budget, privacy, mechanism)

    def _extended(self, name: str, recipe: Recipe) -> Recipe:
        """With the slices that later samples have in the run under way, if there is one."""
        if self.store.holds(TRAINING, name):
            with contextlib.suppress(CorruptError):
                return replace(recipe, extensions=Recipe.read(read_run(self.store.training(name))).extensions)
        return recipe

    def _wanted(self, name: str, recipe: Recipe, neighbours: Sequence[str]) -> dict[str, Any]:
        for each in (name, *neighbours):
            if not self.store.holds(SOURCES, each):
                raise UnknownName("source", each, self.store.names(SOURCES))
            check_here(self.store.source(each))
        check_permitted(self.store, name, neighbours)
        if isinstance(adapter := recipe.settings.adapter, TextPrompts):
            check_captions(name, read_material(self.store, name, neighbours).manifest, adapter, self.backbone)
        return recipe.record(self.backbone, self.core, roots_of(self.store, name, neighbours))

    def _is_under_way(self, name: str, wanted: dict[str, Any]) -> bool:
        """Whether the run that is there is the one that is wanted; another is refused once it has saved a step."""
        folder = self.store.training(name)
        if not self.store.holds(TRAINING, name):
            return False
        done = steps_done(folder)
        try:
            found = read_run(folder)
        except CorruptError as error:
            if done:
                raise CorruptError(f"{error}; or {AGAIN}") from error
            return False
        if done or Cause.read(folder) is not None:
            of = Recipe.read(found).slicing.total
            check_same(f"an unfinished training of '{name}' ({done} of {of} steps)", found, wanted, advice=GO_ON)
        return _same(found, wanted)

    def _check_current(self, name: str, record: dict[str, Any]) -> None:
        """Refuse to train, or to store, what is not the source's any more: it may have been forgotten and come again.

        Raises:
            VaultError: the run, the source or a neighbour is gone or another.
            ForbiddenError: a neighbour does not permit any more that the source learns from it.
        """
        neighbours = neighbours_in(record)
        there = all(self.store.holds(SOURCES, each) for each in (name, *neighbours))
        there = there and self.store.holds(TRAINING, name)
        if there:
            roots = roots_of(self.store, name, neighbours)
            there = _same(read_run(self.store.training(name)), record) and roots.items() <= record.items()
            check_permitted(self.store, name, neighbours)
        if not there:
            raise VaultError(f"source '{name}', or its training, has changed since this run was begun; begin again")

    def _work(self, name: str, record: dict[str, Any]) -> Work:
        load = partial(load_material, self.store, name, neighbours_in(record))
        privacy = self._privacy(name, Recipe.read(record))
        return Work(name, record, self.store.training(name), load, privacy=privacy)

    def _store(self, finished: Sequence[tuple[Compartment, Run]]) -> tuple[Receipt, ...]:
        stored = []
        with self.store.change(patience=_PATIENCE) as change:
            for compartment, (name, record) in finished:
                self._check_current(name, record)  # a killed process may have left a change that was made just now
                folder = change.put(f"{COMPARTMENTS}/{compartment.name}")
                count = Recipe.read(record).slicing.count
                slices = _copy_slices(self.store.training(compartment.name), folder / SLICES, count)
                with_slices(compartment, slices).save(folder)
                change.remove(f"{TRAINING}/{compartment.name}")
                stored.append((compartment_info(folder), record))
            change.record(trained(stored))
        return change.receipts

    def _is_finished(self, name: str, wanted: dict[str, Any]) -> bool:
        """Whether the compartment is there; another is refused, but one of another environment is as good."""
        if not self.store.holds(COMPARTMENTS, name):
            return False
        try:
            compartment = Compartment.load(self.store.compartment(name))
        except CorruptError as error:
            raise CorruptError(f"{error}; {AGAIN}") from error
        found = dict(compartment.training) | {"manifest_root": compartment.manifest_root}
        for what_came_later in (SLICES, EXTENSIONS):
            found.pop(what_came_later, None)
        check_same(f"the compartment of '{name}'", found, {k: v for k, v in wanted.items() if k != "environment"})
        return True


def unfinished(store: Store) -> list[Unfinished]:
    """The runs that were begun and not finished, by name; damaged ones are left out, `verify` names them."""
    found = []
    for name in store.names(TRAINING):
        with contextlib.suppress(IntarsiaError):
            folder = store.training(name)
            cause = Cause.read(folder)
            steps = Recipe.read(read_run(folder)).slicing.total
            found.append(Unfinished(name, steps_done(folder), steps, cause.action if cause else None))
    return found


def with_slices(compartment: Compartment, slices: Mapping[str, str]) -> Compartment:
    """With the digests of the checkpoints at the ends of its slices, by their names."""
    return replace(compartment, training={**compartment.training, SLICES: dict(slices)})


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Equal as JSON, which knows no tuples."""
    return canonical_json(found) == canonical_json(wanted)


def _copy_slices(training: Path, folder: Path, count: int) -> dict[str, str]:
    """Copy the checkpoints at the ends of slices; the digests of the copies by name.

    Raises:
        CorruptError: one is missing or damaged.
    """
    folder.mkdir()
    digests = {}
    for name in (f"slice-{number}" for number in range(1, count + 1)):
        data = read_sealed(training / f"{name}.safetensors")
        write_atomic(folder / f"{name}.safetensors", data)
        digests[name] = digest_of(data)
    return digests
