"""`intarsia verify`: read everything that a vault stores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.cli.command import FAILED
from intarsia.cli.output import Output
from intarsia.cli.owed import show_steps
from intarsia.cli.parameters import VaultPath
from intarsia.errors import counted

if TYPE_CHECKING:
    from intarsia.vault import Vault


def verify(
    vault: VaultPath,
    output: Output,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Train again what this receipt says was trained, and compare the bytes, in place of checking what is "
            "stored.",
            metavar="RECEIPT",
        ),
    ] = None,
) -> None:
    """Check every stored byte of a vault against its records; all that is wrong is listed, and makes the exit code 1.

    With --replay the training of a receipt is done again, from the samples that the vault holds, without touching what
    is stored. Other bytes make the exit code 1, unless the environment is another one, which is then named.

    Example: intarsia verify emoji.vault
    """
    from intarsia.vault import Vault

    if replay is not None:
        _replay(Vault.open(vault), replay, output)
        return
    report = Vault.open(vault).verify()
    document = {
        "vault": str(vault),
        "ok": report.ok,
        "sources": report.sources,
        "samples": report.samples,
        "compartments": report.compartments,
        "problems": [{"where": problem.where, "what": problem.what} for problem in report.problems],
    }
    held = counted(report.sources, "source"), counted(report.samples, "image")
    counts = f"{' with '.join(held)}, {counted(report.compartments, 'compartment')}"
    verdict = "all is well" if report.ok else counted(len(report.problems), "problem")
    output.answer(document, f"{vault}: {verdict} ({counts})", *(f"  {problem}" for problem in report.problems))
    if not report.ok:
        raise typer.Exit(FAILED)


def _replay(vault: Vault, receipt: Path, output: Output) -> None:
    from intarsia.ledger import read_receipts

    found = show_steps(vault.replaying(read_receipts(receipt)), output)
    document = {
        "vault": vault.place,
        "receipt": str(receipt),
        "ok": all(each.ok for each in found),
        "replays": [asdict(each) for each in found],
    }
    output.answer(document, *(str(each) for each in found))
    if not document["ok"]:
        raise typer.Exit(FAILED)
