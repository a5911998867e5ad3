"""Training in a vault: begun, resumed, and put in place when it is finished. One trainer per source, many per vault."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, Trainee, TrainStep, train
from intarsia.errors import UnknownName
from intarsia.files import digest_of
from intarsia.vault.package import Core
from intarsia.vault.records import read_record, write_record
from intarsia.vault.sources import load_source, source_info
from intarsia.vault.store import COMPARTMENTS, SOURCES, TRAINING, Store
from intarsia.vault.training import SLICES, TRAINING_FILE, Recipe, check_same, compartment_of, trainee_of

_PATIENCE = 60.0  # seconds to wait for another writer when work of hours is to be stored


@dataclass(frozen=True)
class Runs:
    """Training runs of one vault."""

    store: Store
    backbone: Backbone
    core: Core

    def begin(self, name: str, recipe: Recipe, *, restart: bool) -> dict[str, Any] | None:
        """Make the folder of a run, or check that the one that is there is of the same run.

        Returns:
            The record of the run, or None if it is finished and the compartment in place.

        Raises:
            UnknownName: no such source.
            SettingsError, IncompatibleError: it was begun or finished otherwise.
            VaultError: somebody else trains it.
        """
        if name not in self.store.names(SOURCES):
            raise UnknownName("source", name, self.store.names(SOURCES))
        wanted = recipe.record(self.backbone, self.core, source_info(self.store.source(name)).manifest_root)
        begun, finished = (name in self.store.names(kind) for kind in (TRAINING, COMPARTMENTS))
        if begun and not restart:
            found = read_record(self.store.training(name) / TRAINING_FILE)
            check_same(name, "the training under way", {k: v for k, v in found.items() if k != "format"}, wanted)
        elif finished and not restart:
            self._check_finished(name, wanted)
            return None
        else:
            with self.store.change(patience=_PATIENCE) as change, self._unless_new(name):
                write_record(change.put(f"{TRAINING}/{name}") / TRAINING_FILE, wanted)
        return wanted

    def steps(
        self, records: Sequence[tuple[str, dict[str, Any]]], recipe: Recipe, *, save_every: int
    ) -> Iterator[TrainStep]:
        """Train what was begun, from wherever each stands, and put the compartments in place."""
        with contextlib.ExitStack() as stack:
            for name, _ in records:
                stack.enter_context(self.store.sole_trainer(name))
            trainees = [self._trainee(name, recipe) for name, _ in records]
            yield from train(trainees, save_every=save_every)
            finished = [
                compartment_of(trainee, self.core, record, recipe)
                for trainee, (_, record) in zip(trainees, records, strict=True)
            ]
            if finished:
                self._store(finished)

    def _trainee(self, name: str, recipe: Recipe) -> Trainee:
        source = load_source(self.store.source(name))
        return trainee_of(self.backbone, source, recipe.settings, self.store.training(name))

    def _store(self, finished: Sequence[Compartment]) -> None:
        with self.store.change(patience=_PATIENCE) as change:
            for compartment in finished:
                folder = change.put(f"{COMPARTMENTS}/{compartment.name}")
                slices = _copy_slices(self.store.training(compartment.name), folder / SLICES)
                replace(compartment, training={**compartment.training, "slices": slices}).save(folder)
                change.remove(f"{TRAINING}/{compartment.name}")

    def _check_finished(self, name: str, wanted: dict[str, Any]) -> None:
        """A finished compartment may be of another environment: its bytes are there and need not be made again."""
        compartment = Compartment.load(self.store.compartment(name))
        found = dict(compartment.training) | {"manifest_root": compartment.manifest_root}
        found.pop(SLICES, None)
        check_same(name, "the compartment", found, {k: v for k, v in wanted.items() if k != "environment"})

    @contextlib.contextmanager
    def _unless_new(self, name: str) -> Iterator[None]:
        """Nobody trains `name` while its folder is replaced."""
        with self.store.sole_trainer(name) if self.store.training(name).exists() else contextlib.nullcontext():
            yield


def _copy_slices(training: Path, folder: Path) -> dict[str, str]:
    """Copy the checkpoints at the ends of slices; their digests by name."""
    folder.mkdir()
    digests = {}
    for path in sorted(training.glob("slice-*.safetensors")):
        shutil.copyfile(path, folder / path.name)
        digests[path.stem] = digest_of(path.read_bytes())
    return digests
