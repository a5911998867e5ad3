"""`intarsia forget`: a source leaves, or some of its images do."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.cli.engines import Engines
from intarsia.cli.output import Output, printable
from intarsia.cli.owed import show_steps
from intarsia.cli.parameters import SourceName, VaultPath, split
from intarsia.cli.train import privacy_of
from intarsia.errors import IntarsiaError, SettingsError, UnknownName, counted

if TYPE_CHECKING:
    from intarsia.vault import ForgetPlan, Outcome, Vault
    from intarsia.vault.receipts import ReceiptFolder

_WHICH = "Which images"
_SHOWN = 5


@dataclass(frozen=True)
class Which:
    """Which images leave; without any of these, the whole source does. Those of all the options leave together."""

    sample: Annotated[
        list[str] | None,
        typer.Option(
            help="Image by its id, or the beginning of it; may be repeated, or hold several with commas between.",
            rich_help_panel=_WHICH,
            metavar="ID",
        ),
    ] = None
    file: Annotated[
        list[str] | None,
        typer.Option(
            help="Image by its file name in the source, or by a file on disk that shows it; may be repeated.",
            rich_help_panel=_WHICH,
            metavar="PATH",
        ),
    ] = None
    match: Annotated[
        list[str] | None,
        typer.Option(
            help="Images whose caption contains a text (caption:TEXT), or that have a label (label:NAME); may be "
            "repeated.",
            rich_help_panel=_WHICH,
            metavar="PATTERN",
        ),
    ] = None

    ticket: Annotated[
        str | None,
        typer.Option(help="What the owner asked for by this erasure ticket.", rich_help_panel=_WHICH, metavar="TICKET"),
    ] = None

    def ids(self, vault: Vault, name: str) -> list[str] | None:
        """The ids of the images that are meant; None for the whole source.

        Raises:
            UnknownName, InputError: an option stands for no image, or for several where one is meant.
            SettingsError: the ticket is of another source, or not open.
        """
        if self.ticket is not None:
            return self._asked_for(vault, name, self.ticket)
        if not (self.sample or self.file or self.match):
            return None
        if next((source.signer for source in vault.sources() if source.name == name), None) is not None:
            if self.file or self.match:
                raise SettingsError(f"the images of '{name}' are with its owner; name them by --sample and whole ids")
            return list(split("--sample", self.sample) or ())
        found = vault.find_samples(
            name, ids=split("--sample", self.sample) or (), files=self.file or (), patterns=self.match or ()
        )
        return [sample.id for sample in found]

    def _asked_for(self, vault: Vault, name: str, id: str) -> list[str] | None:
        if self.sample or self.file or self.match:
            raise typer.BadParameter(
                "a ticket says itself which images leave; give nothing else", param_hint="--ticket"
            )
        ticket = vault.ticket(id)
        if ticket.state != "open":
            raise SettingsError(f"the ticket {id} is {ticket.state} already")
        if ticket.source != name:
            raise SettingsError(f"the ticket {id} is about '{ticket.source}', not '{name}'; name that source")
        return None if ticket.samples is None else list(ticket.samples)


def forget(
    vault: VaultPath,
    name: SourceName,
    which: Which,
    engines: Engines,
    output: Output,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go and what training again would cost; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    receipt: Annotated[
        Path | None,
        typer.Option(
            help="File to make for the receipt, which is for whoever asked; without it a numbered file in the folder "
            "VAULT.receipts beside the vault.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Remove a source, or some of its images, and everything that was learned from them.

    Afterwards the vault is as if they had never come. Images go at once; the compartment is then trained again from its
    last slice that they had no part in. `intarsia train --resume` finishes that if it is interrupted.

    Example: intarsia forget emoji.vault twemoji --sample 3f2a91 --match caption:skull
    """
    from intarsia.vault.receipts import ReceiptFolder

    with engines.opened(vault) as opened:
        place = ReceiptFolder(opened.root, opened.ledger, receipt)
        _forget(opened, name, which, output, place, dry_run=dry_run, yes=yes)


def _forget(
    opened: Vault, name: str, which: Which, output: Output, place: ReceiptFolder, *, dry_run: bool, yes: bool
) -> None:
    for path in place.make_up():
        output.note(f"an earlier forgetting was interrupted before it wrote its receipt: {path}")
    if name not in (known := opened.names()):
        raise UnknownName("source", name, known)
    try:
        ids = which.ids(opened, name)
    except UnknownName:
        if any(run.name == name and run.owed for run in opened.unfinished()):
            output.note(
                f"images of '{name}' are gone already, and its training is not finished: say "
                f"intarsia train {opened.place} {name} --resume"
            )
        raise
    if ids is None:
        _whole(opened, name, output, place, dry_run=dry_run, yes=yes)
    else:
        _samples(opened, name, ids, output, place, dry_run=dry_run, yes=yes)


def _whole(vault: Vault, name: str, output: Output, place: ReceiptFolder, *, dry_run: bool, yes: bool) -> None:
    source = next((source for source in vault.sources() if source.name == name), None)
    count = source.count if source else 0
    learned = [compartment.name for compartment in vault.compartments() if name in compartment.sources]
    images = f" ({counted(count, 'image')} of {source.owner})" if source else ", of which only parts are left"
    doomed = f"the source '{name}'{images}, its training state and " + (
        f"the compartment{'s' if len(learned) > 1 else ''} {', '.join(learned)}" if learned else "no compartment"
    )
    document: dict[str, object] = {"vault": vault.place, "source": name, "images": count}
    plan = vault.plan_forget(name, measure=dry_run)
    document["trained_again"] = [asdict(each) for each in plan.others]
    if dry_run:
        document |= {"compartments": learned, "dry_run": True, "seconds": plan.seconds, "also_in": plan.also_in}
        output.answer(document, f"Would delete for good {doomed}.", *_others(plan), *_kept(plan), *_duration(plan))
        return
    if not yes:
        _ask(" ".join([f"This deletes for good {doomed}.", *_others(plan), *_kept(plan), "Go on?"]))
    place.check()
    job = vault.forgetting(name, announce=place.promise)
    with _telling(vault, [name, *(each.name for each in plan.others)], place.write(job.receipts)):
        outcome = show_steps(job, output)
    path = place.write(outcome.receipts)
    receipts = [receipt.document() for receipt in outcome.receipts]
    account = next((each.values.get("account") for each in outcome.receipts[0].openings if each.source == name), None)
    document |= {"compartments": list(outcome.gone), "receipt": str(path), "receipts": receipts, "account": account}
    document |= {"also_in": plan.also_in}
    earned = f"What it earned is still owed, under account {account}: the receipt alone tells whose that is"
    output.answer(document, f"Forgot {doomed}.", *_kept(plan), f"Receipt: {path}", *([earned] if account else []))


def _samples(
    vault: Vault, name: str, ids: list[str], output: Output, place: ReceiptFolder, *, dry_run: bool, yes: bool
) -> None:
    plan = vault.plan_forget(name, ids, measure=dry_run)
    shown = ", ".join(id[:12] for id in plan.samples[:_SHOWN]) + (", …" if len(plan.samples) > _SHOWN else "")
    doomed = f"{counted(len(plan.samples), 'image')} of '{name}' ({shown}; {plan.left} stay)"
    spends = _privacy(vault, name, "Its images have spent {}; to train it again is another release.")
    cost = [*_cost(plan), *_kept(plan), *spends]
    if dry_run:
        document = {"vault": vault.place, "dry_run": True, **asdict(plan)}
        output.answer(document, f"Would delete for good {doomed}.", *cost)
        return
    if not yes:
        _ask(f"This deletes for good {doomed}. {' '.join(cost)} Go on?")
    place.check()
    job = vault.forgetting(name, plan.samples, announce=place.promise)
    begun = place.write(job.receipts)
    output.note(f"{counted(len(plan.samples), 'image')} gone from '{name}', and what learned from them")
    with _telling(vault, [name, *(each.name for each in plan.others)], begun):
        outcome = show_steps(job, output)
    path = place.write(outcome.receipts)
    document = {"vault": vault.place, **outcome.document(), "receipt": str(path), "also_in": plan.also_in}
    spent = _privacy(vault, name, "  privacy  {}, in all its trainings")
    output.answer(document, f"Forgot {doomed}.", *outcome_lines(outcome), *_kept(plan), *spent, f"Receipt: {path}")


@contextmanager
def _telling(vault: Vault, names: Collection[str], receipt: Path) -> Iterator[None]:
    """Whoever is stopped after the images are gone is told so, where the receipt is, and how the rest is finished."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"what was to be forgotten is gone; receipt: {receipt}")
        with suppress(IntarsiaError):  # a vault that can no longer be read must not hide why it stopped
            if owed := [run.name for run in vault.unfinished() if run.owed and run.name in names]:
                error.add_note(
                    f"out of use until trained again without it: {', '.join(owed)}; once nothing is in the way, say "
                    f"intarsia train {vault.place} {' '.join(owed)} --resume"
                )
        raise


def outcome_lines(outcome: Outcome) -> list[str]:
    """What was done, in words."""
    lines = [f"  manifest  {(outcome.manifest_before or '')[:12]} -> {(outcome.manifest_after or '')[:12]}"]
    for name, before in outcome.before.items():
        after = outcome.after.get(name)
        lines.append(f"  compartment {name}  {(before or 'unreadable')[:12]} -> {after[:12] if after else 'gone'}")
    if outcome.steps:
        lines.append(
            f"  trained again: {_slices(outcome.slices)}, {counted(outcome.steps, 'step')}, and its router part"
        )
    return lines


def _cost(plan: ForgetPlan) -> list[str]:
    if plan.because and not plan.steps:
        return [f"What it learned is out of use at once: {plan.because}."]
    if not plan.compartments and not plan.steps:
        return ["Nothing finished was learned from them, so nothing is trained again."]
    if not plan.steps and plan.source in plan.compartments:
        lost = (
            f"The compartment {plan.source} goes; its record cannot be read, so train it again with `intarsia train`."
        )
        return [lost, *_others(plan), *_duration(plan)]
    if not plan.steps:
        return [*_others(plan), *_duration(plan)]
    share = plan.sample_gradients / plan.whole if plan.whole else 0.0
    again = f"{_slices(plan.slices)}, {counted(plan.steps, 'step')}, {plan.sample_gradients} sample-gradients"
    lines = [
        f"Trained again: {again} ({share:.0%} of training the compartment from its beginning), and its router part."
    ]
    lines += _others(plan)
    if plan.because:
        lines.append(f"More than the images call for, because {plan.because}.")
    return [*lines, *_duration(plan)]


def _kept(plan: ForgetPlan) -> list[str]:
    """Who else holds the same pictures: nobody else says so to whoever asked for them to go."""
    shown = ", ".join(plan.also_in)
    return [f"Other sources hold some of these pictures too, and keep them: {shown}."] if shown else []


def _duration(plan: ForgetPlan) -> list[str]:
    """How long the training of all of them takes, if it was measured."""
    return [] if plan.seconds is None else [f"The training takes about {_time(plan.seconds)} on this machine."]


def _privacy(vault: Vault, name: str, text: str) -> list[str]:
    """What the images of a private compartment have spent, in a text; nothing of any other."""
    return [text.format(privacy_of(each)) for each in vault.compartments() if each.name == name and privacy_of(each)]


def _others(plan: ForgetPlan) -> list[str]:
    """What comes of the compartments of others that learned from the source."""
    again = [
        f"{each.name} ({_slices(each.slices)}, {counted(each.steps, 'step')}, {each.sample_gradients} sample-gradients)"
        for each in plan.others
    ]
    lost = sorted(set(plan.compartments) - {plan.source, *(each.name for each in plan.others)})
    lines = [f"Trained again too, because they learned from it: {', '.join(again)}."] if again else []
    return lines + ([f"Compartments that saw it and cannot be trained again: {', '.join(lost)}."] if lost else [])


def _slices(slices: tuple[int, ...]) -> str:
    if not slices:
        return "no slice"
    return f"slice {slices[0]}" if len(slices) == 1 else f"slices {slices[0]} to {slices[-1]}"


def _time(seconds: float) -> str:
    """Roughly, in words: what a handful of steps can tell.

    >>> _time(0.2), _time(74.0), _time(400.0), _time(8000.0)
    ('1 s', '74 s', '7 min', '2.2 h')
    """
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _ask(question: str) -> None:
    if not _can_ask():
        raise SettingsError(
            f"{question} Nobody can answer here, so nothing was done: say --yes to delete without asking"
        )
    if not typer.confirm(printable(question), err=True):
        raise SettingsError("nothing was deleted, as you asked")


def _can_ask() -> bool:
    return sys.stdin.isatty()
