"""What an interrupted command left to be trained, and going on with it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from intarsia.cli.output import Output
from intarsia.errors import LeftOut, VaultError

if TYPE_CHECKING:
    from intarsia.vault import Composition, Job, Outcome, Vault

T = TypeVar("T")


def show_steps(job: Job[T], output: Output) -> T:
    """Carry work on to its end, with progress bars."""
    with output.progress() as bars:
        for step in job:
            bars.show(step.name, step.step, step.steps, "" if step.loss is None else f"loss {step.loss:.4f}")
    return job.outcome


def finish_owed(vault: Vault, names: Collection[str] | None, output: Output) -> None:
    """Finish what was decided about these sources, or all, before anything is drawn from them.

    Raises:
        VaultError: another process is at it right now.
    """
    trained = {compartment.name for compartment in vault.compartments()}
    owed = [run.name for run in vault.unfinished() if run.owed and run.name not in trained]
    for name in owed:
        if names is None or name in names:
            output.note(f"finishing what was interrupted: '{name}' is trained again without the images it forgot")
            outcomes = show_steps(vault.resuming(name), output)
            keep_receipts(vault, outcomes, output)


def keep_receipts(vault: Vault, outcomes: Sequence[Outcome], output: Output) -> list[Path]:
    """Write the receipts of trainings that a forgetting owed, which it would have written had it not been interrupted.

    The work is done: where one cannot be written that is said, and nothing else is held up.
    """
    from intarsia.vault.receipts import ReceiptFolder

    places = []
    for outcome in outcomes:
        if outcome.action != "forget" or not outcome.receipts:
            continue
        try:
            places.append(ReceiptFolder(vault.root, vault.ledger).write(outcome.receipts))
        except VaultError as error:
            output.note(f"the receipt of training '{outcome.source}' without what was forgotten is lost: {error}")
        else:
            output.note(f"receipt of training '{outcome.source}' without what was forgotten: {places[-1]}")
    return places


@contextmanager
def quietly() -> Iterator[None]:
    """Compose without Python's warnings of what is left out: `note_left_out` says it as commands do."""
    with warnings.catch_warnings(action="ignore", category=LeftOut):
        yield


def note_left_out(composition: Composition, output: Output) -> None:
    """Say which sources are not in a composition that nobody chose by name, and why."""
    for name, reason in composition.left_out.items():
        output.note(f"left out {name}: {reason}")
