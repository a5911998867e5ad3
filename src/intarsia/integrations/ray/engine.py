"""Compartments as tasks of a Ray cluster: each is trained on one machine, with its source and the public part alone.

Nothing is shared but Ray's object store. The process that asked for the trainings keeps every checkpoint that comes
back, and is the only one that writes to the vault. Where a machine is lost, its training goes on elsewhere from the
newest of them.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, final

import ray
from ray.exceptions import RayError, RayTaskError

from intarsia.backbone import Backbone
from intarsia.checks import check_number
from intarsia.compartments import Compartment, TrainStep
from intarsia.errors import IntarsiaError, MissingExtra, SettingsError, VaultError
from intarsia.files import check_seal, write_atomic
from intarsia.integrations.ray.cluster import connected
from intarsia.integrations.ray.task import Parcel, Progress, Public, train_parcel
from intarsia.vault.engines import Work
from intarsia.vault.package import Core

_LOOK = 1.0  # seconds between looks at the cluster while nothing comes back
_LOSSES = 3  # of a training in a row, without a checkpoint between them


@dataclass(frozen=True)
class _Flight:
    """A training that waits for a machine or is on one; `losses` were suffered since its newest checkpoint."""

    number: int
    work: Work
    losses: int = 0


@dataclass(frozen=True)
class _Lost:
    """What came back in place of a message."""

    reason: str


@final
@dataclass(frozen=True)
class RayEngine:
    """An engine for whoever is connected to a cluster; see `connected`.

    Args:
        cpus_per_task: processors that each training is given by Ray; None takes as many as it has threads.

    Raises:
        SettingsError: not a number above 0.
    """

    cpus_per_task: float | None = None
    together: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.cpus_per_task is not None:
            check_number("cpus_per_task", self.cpus_per_task, above=0)

    @classmethod
    @contextlib.contextmanager
    def connected(cls, address: str | None = None, *, cpus_per_task: float | None = None) -> Iterator[Self]:
        """An engine on the cluster at an address, as long as the block runs.

        Raises:
            As `cluster.connected`.
        """
        engine = cls(cpus_per_task)
        with connected(address):
            yield engine

    def train(
        self, works: Sequence[Work], backbone: Backbone, core: Core, *, save_every: int
    ) -> Generator[TrainStep, None, list[Compartment]]:
        """As `vault.engines.Engine`; steps come in the order in which machines tell of them.

        Raises:
            SettingsError: no machine of the cluster has so many processors, or a training diverges.
            IncompatibleError: a machine is unlike the one that began the run, so that the bytes would differ.
            MissingExtra: a machine has no intarsia.
            CorruptError: a checkpoint or a source is damaged.
            VaultError: machines fail again and again, or the disk is full; checkpoints stay.
        """
        public = [ray.put(Public.of(backbone, core))] if works else []
        waiting = deque(_Flight(number, work) for number, work in enumerate(works))
        flying: dict[Any, _Flight] = {}
        finished: dict[int, Compartment] = {}
        try:
            while waiting or flying:
                while waiting and len(flying) < self._room(waiting[0].work):
                    flight = waiting.popleft()
                    flying[self._launched(flight.work, public, save_every)] = flight
                for stream in ray.wait(list(flying), timeout=_LOOK, fetch_local=False)[0]:
                    match _received(stream):
                        case Progress() as progress:
                            flying[stream] = _kept(flying[stream], progress)
                            yield from progress.steps
                        case Compartment() as compartment:
                            finished[flying.pop(stream).number] = compartment
                        case _Lost(reason):
                            waiting.append(_again(flying.pop(stream), reason))
        finally:
            for stream in flying if ray.is_initialized() else ():  # a driver that ended took its tasks with it
                ray.cancel(stream, force=True)
        return [finished[number] for number in range(len(works))]

    def _cpus(self, work: Work) -> float:
        return self.cpus_per_task or float(work.record["environment"]["threads"])

    def _room(self, work: Work) -> int:
        """How many such trainings to hand over: as many as run at once, and one that shows Ray that more is wanted."""
        cpus = self._cpus(work)
        there = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        if not (room := sum(int(have / cpus) for have in there)):
            raise SettingsError(
                f"a training asks for {cpus:g} processors, and the largest machine of the Ray cluster has "
                f"{max(there, default=0):g}; ask for fewer (--cpus-per-task, --threads), or add a larger one"
            )
        return room + 1

    def _launched(self, work: Work, public: Sequence[Any], save_every: int) -> Any:
        # A task that Ray began again by itself would begin at the checkpoint of then, and tell of its steps twice.
        task = ray.remote(num_cpus=self._cpus(work), max_retries=0, num_returns="streaming")(train_parcel)
        return task.remote(Parcel.of(work, save_every), public)


def _received(stream: Any) -> Progress | Compartment | _Lost:
    """The next message of a task.

    Raises:
        Whatever it raised.
    """
    try:
        return ray.get(next(stream))
    except RayTaskError as error:
        if isinstance(error.cause, IntarsiaError):
            raise error.cause from None
        if "No module named 'intarsia" in str(error):
            raise MissingExtra(
                "a machine of the Ray cluster has no intarsia; install it on every one: pip install 'intarsia[ray]'"
            ) from error
        raise
    except (RayError, StopIteration) as error:
        return _Lost(" ".join(str(error).split())[:200])


def _kept(flight: _Flight, progress: Progress) -> _Flight:
    """Keep the checkpoints that came back, in the order in which they were made."""
    for name, data in progress.saved.items():
        path = flight.work.folder / f"{name}.safetensors"
        check_seal(path, data)
        write_atomic(path, data)
    return replace(flight, losses=0) if progress.saved else flight


def _again(flight: _Flight, reason: str) -> _Flight:
    """To be handed over once more.

    Raises:
        VaultError: it was lost too often.
    """
    if flight.losses + 1 == _LOSSES:
        raise VaultError(
            f"the training of '{flight.work.name}' was lost {_LOSSES} times in a row with the machine or process that "
            f"ran it ({reason}); its checkpoints stay: give it more memory, or smaller steps, and resume it"
        )
    return replace(flight, losses=flight.losses + 1)
