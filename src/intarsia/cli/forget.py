"""`intarsia forget`: a source leaves."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from intarsia.cli.output import Output, printable
from intarsia.cli.parameters import SourceName, VaultPath
from intarsia.errors import SettingsError, UnknownName, counted


def forget(
    vault: VaultPath,
    name: SourceName,
    output: Output,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a source and everything that was learned from it; afterwards the vault is as if it had never come.

    Example: intarsia forget emoji.vault twemoji
    """
    from intarsia.vault import Vault

    opened = Vault.open(vault)
    if name not in (known := opened.names()):
        raise UnknownName("source", name, known)
    source = next((source for source in opened.sources() if source.name == name), None)
    count = source.count if source else 0
    learned = [compartment.name for compartment in opened.compartments() if name in compartment.sources]
    images = f" ({counted(count, 'image')} of {source.owner})" if source else ", of which only parts are left"
    doomed = f"the source '{name}'{images}, its training state and " + (
        f"the compartment{'s' if len(learned) > 1 else ''} {', '.join(learned)}" if learned else "no compartment"
    )
    if not yes:
        _ask(f"This deletes for good {doomed}. Go on?")
    gone = opened.forget(name)
    output.answer(
        {"vault": str(vault), "source": name, "images": count, "compartments": list(gone)}, f"Forgot {doomed}."
    )


def _ask(question: str) -> None:
    if not _can_ask():
        raise SettingsError(
            f"{question} Nobody can answer here, so nothing was done: say --yes to delete without asking"
        )
    if not typer.confirm(printable(question), err=True):
        raise SettingsError("nothing was deleted, as you asked")


def _can_ask() -> bool:
    return sys.stdin.isatty()
