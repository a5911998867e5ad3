"""Going on with what is unfinished, with the settings it was begun with."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from intarsia.compartments import TrainStep
from intarsia.errors import SettingsError, UnknownName
from intarsia.vault.budgets import begin_private
from intarsia.vault.causes import Cause
from intarsia.vault.forgetting import Forgetting
from intarsia.vault.material import neighbours_in, read_material
from intarsia.vault.outcomes import Outcome
from intarsia.vault.rollback import Rollback, learned_by_run, roll_back
from intarsia.vault.runs import Run
from intarsia.vault.store import COMPARTMENTS, TRAINING
from intarsia.vault.training import AGAIN


@dataclass(frozen=True)
class Resuming:
    """Going on with the unfinished trainings of one vault."""

    forgetting: Forgetting

    def steps(self, names: Sequence[str]) -> Generator[TrainStep, None, tuple[Outcome, ...]]:
        """To the end of each, one after the other unless the engine takes them all.

        Raises:
            As `Vault.resuming`.
        """
        store = self.forgetting.shelf.store
        for name in names:
            if not store.holds(TRAINING, name):
                raise UnknownName("unfinished training", name, store.names(TRAINING))
        outcomes: tuple[Outcome, ...] = ()
        for group in [list(names)] if self.forgetting.runs.engine.together else [[name] for name in names]:
            outcomes += yield from self._steps(group)
        return outcomes

    def _steps(self, names: Sequence[str]) -> Generator[TrainStep, None, tuple[Outcome, ...]]:
        forgetting = self.forgetting
        begun = [(name, *self._begin(name)) for name in names]
        runs = [run for _, _, run in begun]
        receipts = yield from forgetting.runs.steps(runs, save_every=forgetting.save_every, apart=True)
        return tuple(
            forgetting.outcome(name, cause, (receipt,))
            for (name, cause, _), receipt in zip(begun, receipts, strict=True)
        )

    def _begin(self, name: str) -> tuple[Cause, Run]:
        """Where the run stands; one that is owed, and cannot go on as it is, is begun again as far as it must."""
        store = self.forgetting.shelf.store
        with store.change() as change:
            cause, found = Cause.read(store.training(name)), self._rollback(name)
            if cause is None and found.because:
                raise SettingsError(f"the unfinished training of '{name}' cannot go on: {found.because}; {AGAIN}")
            if cause is not None and found.because:
                with store.sole_trainer(name):
                    folder = change.put(f"{TRAINING}/{name}")
                    found.write(folder)
                    begin_private(change, store, name, found.record, folder, owed=True)
                    cause.write(folder)
        return cause or self._plain(name, found), (name, found.record)

    def _rollback(self, name: str) -> Rollback:
        shelf, runs = self.forgetting.shelf, self.forgetting.runs
        shelf.check_known(name)
        learned = learned_by_run(shelf.store, name)
        material = read_material(shelf.store, name, neighbours_in(learned.record))
        return roll_back(learned, material, material, backbone=runs.backbone, core=runs.core)

    def _plain(self, name: str, found: Rollback) -> Cause:
        """What an unfinished training comes to when nothing else was decided."""
        shelf = self.forgetting.shelf
        before = {name}.intersection(shelf.store.names(COMPARTMENTS))
        root = found.record["manifest_root"]
        return Cause("train", 0, root, shelf.digests(before), found.again, found.steps)
