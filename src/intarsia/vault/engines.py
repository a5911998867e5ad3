"""Where compartments are trained: in this process, or wherever an engine hands them out to.

Compartments have nothing to do with each other, so an engine may train them anywhere and in any order. It is given all
that the bytes of each depend on, and changes nothing but the checkpoints of the runs; whoever called it holds their
folders, puts the compartments in place and tells the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, final

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, TrainStep, train
from intarsia.data import Source
from intarsia.vault.package import Core
from intarsia.vault.training import compartment_of, trainee_of


@dataclass(frozen=True)
class Work:
    """One compartment to train, and nothing of any source that it may not learn from.

    Args:
        name: of the compartment.
        record: with which its run was begun.
        folder: of the run; its checkpoints are there, and go there.
        load: reads the samples with their pixels.
        privacy: what the compartment says of it.
    """

    name: str
    record: Mapping[str, Any]
    folder: Path
    load: Callable[[], Source]
    privacy: Mapping[str, Any] | None = None


class Engine(Protocol):
    """Trains compartments. Wherever it does, the bytes are those of training in this process."""

    @property
    def together(self) -> bool:
        """Whether trainings that need not wait for each other are handed over together, or one after the other."""
        ...

    def train(
        self, works: Sequence[Work], backbone: Backbone, core: Core, *, save_every: int
    ) -> Generator[TrainStep, None, list[Compartment]]:
        """Train to the end, from the newest checkpoint of each; returns the compartments in their order.

        Steps that were lost with a machine, and are taken again, are told of again.

        Raises:
            SettingsError: a training diverges, or cannot be done here.
            CorruptError: a checkpoint or a source is damaged.
            VaultError: the disk is full, or machines fail again and again; checkpoints stay.
        """
        ...


@final
@dataclass(frozen=True)
class Here:
    """In this process: one step of each in turn."""

    together: ClassVar[bool] = False

    def train(
        self, works: Sequence[Work], backbone: Backbone, core: Core, *, save_every: int
    ) -> Generator[TrainStep, None, list[Compartment]]:
        """As `Engine`."""
        trainees = [trainee_of(backbone, work.load(), work.record, work.folder) for work in works]
        yield from train(trainees, save_every=save_every)
        return [
            compartment_of(trainee, core, work.record, privacy=work.privacy)
            for trainee, work in zip(trainees, works, strict=True)
        ]
