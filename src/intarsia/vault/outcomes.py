"""What a change of a source comes to: foreseen, in the making, and done."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from intarsia.compartments import TrainStep
from intarsia.errors import SettingsError
from intarsia.ledger import Receipt

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What was done to a source: all that a receipt can be made of, and nothing that tells what left or came.

    `samples` were forgotten, or added. Manifest roots are None where there is no source, or none that can be read.
    `before` and `after` hold the digests of the compartments that were concerned, by name: None where one could not be
    read; a compartment that is gone is missing in `after`. `slices` (from 1) were trained again, in `steps` steps.
    `receipts` are those of the ledger's entries on it, in their order, as far as they were made in this process.
    """

    action: str
    source: str
    samples: int
    manifest_before: str | None
    manifest_after: str | None
    before: Mapping[str, str | None]
    after: Mapping[str, str | None]
    slices: tuple[int, ...] = ()
    steps: int = 0
    receipts: tuple[Receipt, ...] = ()

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        lists = {"slices": list(self.slices), "receipts": [receipt.document() for receipt in self.receipts]}
        return {**values, "before": dict(self.before), "after": dict(self.after), **lists}

    @property
    def gone(self) -> tuple[str, ...]:
        """The compartments that are there no longer, sorted."""
        return tuple(sorted(set(self.before) - set(self.after)))


@dataclass(frozen=True)
class Again:
    """Another source whose compartment is trained again too, because it learned from the one that changes.

    Args:
        name: the source.
        slices: the slices (from 1) that are trained again, in `steps` steps.
        sample_gradients: gradients of single images that this takes.
        because: why more is trained again than the samples call for, in words; empty otherwise.
    """

    name: str
    slices: tuple[int, ...]
    steps: int
    sample_gradients: int
    because: str = ""


@dataclass(frozen=True)
class ForgetPlan:
    """What forgetting samples, or a whole source, would do, and what it would cost.

    Args:
        source: the source that they leave.
        samples: their ids; none where the whole source leaves.
        left: how many samples stay.
        compartments: those that are taken out of use.
        slices: the slices (from 1) that are trained again, `steps` steps in all, of `rows` images.
        sample_gradients: gradients of single images that this takes, beside those of `others`; a step for which no
            sample is left takes none.
        whole: those of training the compartment from its beginning.
        because: why more is trained again than the samples call for, in words; empty otherwise.
        others: what is trained again besides, along the edges of the shard graph.
        seconds: about how long all training takes on this machine now; None if it was not measured, or for nothing.
        also_in: other sources that hold some of these pictures too, and keep them.
    """

    source: str
    samples: tuple[str, ...]
    left: int
    compartments: tuple[str, ...]
    slices: tuple[int, ...]
    steps: int
    rows: int
    sample_gradients: int
    whole: int
    because: str = ""
    others: tuple[Again, ...] = ()
    seconds: float | None = None
    also_in: tuple[str, ...] = ()


class Job(Generic[T]):
    """Work that is under way: iterate over it to carry it on, step by step; then `outcome` says what came of it.

    Work that is left before its end is not lost; `Vault.resume` goes on with it, in any process. `receipts` are
    those of what was done before the first step, `notes` what there is to say about it, in words.
    """

    def __init__(
        self,
        steps: Generator[TrainStep, None, T],
        receipts: tuple[Receipt, ...] = (),
        *,
        notes: Sequence[str] = (),
    ):
        self._steps, self.receipts, self.notes = steps, receipts, tuple(notes)
        self._outcome: list[T] = []

    def __iter__(self) -> Generator[TrainStep, None, None]:
        self._outcome.append((yield from self._steps))

    @property
    def outcome(self) -> T:
        """Raises SettingsError before the end."""
        if not self._outcome:
            raise SettingsError("this work is not finished; iterate over it to its end, or call finish()")
        return self._outcome[-1]

    def finish(self) -> T:
        """Carry it on to its end."""
        for _ in self:
            pass
        return self.outcome
