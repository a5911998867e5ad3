"""What is handed to a machine that trains one compartment, and what comes back from there.

A task is given the public backbone and core, the record of one run, the samples that this run may learn from and
nothing else. It writes no file: its checkpoints come back through Ray's object store, and whoever sent it keeps them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, SecretNoise, TrainStep, train
from intarsia.data import Source
from intarsia.digests import code_digest
from intarsia.errors import IncompatibleError
from intarsia.files import parse_sealed, read_sealed
from intarsia.vault.engines import Work
from intarsia.vault.package import BASIS_FILE, CORE_FILE, SAMPLES_FILE, Core, read_core
from intarsia.vault.store import BACKBONE, CORE
from intarsia.vault.training import MECHANISM, STATE_FILE, Recipe, compartment_of, trainee_of

_TELL = 1.0  # seconds between two messages, where no checkpoint comes between


@dataclass(frozen=True)
class Parcel:
    """One training to go on with.

    Args:
        record: with which the run was begun.
        source: its samples with their pixels.
        noise: of a private training.
        state: the newest checkpoint; None begins at the beginning.
        privacy: what the compartment says of it.
        code: the digest of the code that sent this.
    """

    record: Mapping[str, Any]
    source: Source = field(repr=False)
    noise: SecretNoise | None = field(repr=False)
    state: bytes | None = field(repr=False)
    privacy: Mapping[str, Any] | None
    save_every: int
    code: str

    @classmethod
    def of(cls, work: Work, save_every: int) -> Parcel:
        """What stands in the folder of a run now.

        Raises:
            CorruptError: a checkpoint or the source is damaged.
        """
        path = work.folder / STATE_FILE
        return cls(
            record=work.record,
            source=work.load(),
            noise=SecretNoise.read(work.folder) if MECHANISM in work.record else None,
            state=read_sealed(path) if path.exists() else None,
            privacy=work.privacy,
            save_every=save_every,
            code=code_digest(),
        )


@dataclass(frozen=True)
class Progress:
    """Steps that were taken, and the checkpoints among them, by name and in their order."""

    steps: Sequence[TrainStep]
    saved: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Public:
    """The files of a backbone and of a core, as far as training reads them, by their paths in a vault."""

    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, backbone: Backbone, core: Core) -> Public:
        """Those of a backbone and core that are in memory."""
        with tempfile.TemporaryDirectory() as scratch:
            backbone.save(Path(scratch))
            files = {f"{BACKBONE}/{path.name}": path.read_bytes() for path in Path(scratch).iterdir()}
        names = [CORE_FILE, BASIS_FILE, *([SAMPLES_FILE] if core.kept else [])]
        return cls(files | {f"{CORE}/{name}": (core.folder / name).read_bytes() for name in names})

    def unpacked(self) -> tuple[Backbone, Core]:
        """The same as it was; all that is read of it later is in memory."""
        with tempfile.TemporaryDirectory() as scratch:
            for name, data in self.files.items():
                path = Path(scratch) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            backbone, core = Backbone.load(Path(scratch) / BACKBONE), read_core(Path(scratch))
            _ = core.basis, core.samples
        return backbone, core


def train_parcel(parcel: Parcel, public: Sequence[Any]) -> Iterator[Progress | Compartment]:
    """The task: train to the end; the compartment comes last.

    Args:
        public: holds the reference of a `Public`, so that it is fetched once by every process and not for every task.

    Raises:
        IncompatibleError: this machine would make other bytes than the one that began the run.
        As `Engine.train`.
    """
    backbone, core = _unpacked(public[0])
    _check_alike(parcel, backbone)
    yield from messages(parcel, backbone, core)


def messages(parcel: Parcel, backbone: Backbone, core: Core) -> Iterator[Progress | Compartment]:
    """Steps and checkpoints as they come, and the compartment at the end."""
    saved: dict[str, bytes] = {}
    trainee = trainee_of(backbone, parcel.source, parcel.record, None, noise=parcel.noise, keep=saved.__setitem__)
    if parcel.state is not None:
        trainee.stand_at(parse_sealed(Path(STATE_FILE), parcel.state), Path(STATE_FILE))
    steps, told = [], time.monotonic()
    for step in train([trainee], save_every=parcel.save_every):
        steps.append(step)
        if saved or time.monotonic() - told >= _TELL:
            yield Progress(tuple(steps), dict(saved))
            steps.clear()
            saved.clear()
            told = time.monotonic()
    yield compartment_of(trainee, core, parcel.record, privacy=parcel.privacy)


def _check_alike(parcel: Parcel, backbone: Backbone) -> None:
    began = dict(parcel.record["environment"]) | {"code": parcel.code}
    here = Recipe.read(parcel.record).environment(backbone, began["threads"]) | {"code": code_digest()}
    differing = [name for name in sorted({*began, *here}) if began.get(name) != here.get(name)]
    if differing:
        shown = ", ".join(
            f"{name} {str(here.get(name))[:16]} there, {str(began.get(name))[:16]} here" for name in differing
        )
        raise IncompatibleError(
            f"a node of the Ray cluster ({ray.util.get_node_ip_address()}) would make other bytes than this machine "
            f"({shown}); install the same there, or leave it out of the cluster"
        )


_held: dict[Any, tuple[Backbone, Core]] = {}


def _unpacked(reference: Any) -> tuple[Backbone, Core]:
    """What a reference is of; a process keeps the newest, as it is given one task after the other."""
    if reference not in _held:
        _held.clear()
        _held[reference] = ray.get(reference).unpacked()
    return _held[reference]
