"""`intarsia verify`: read everything that a vault stores."""

from __future__ import annotations

import typer

from intarsia.cli.command import FAILED
from intarsia.cli.output import Output
from intarsia.cli.parameters import VaultPath
from intarsia.errors import counted


def verify(vault: VaultPath, output: Output) -> None:
    """Check every stored byte of a vault against its records; all that is wrong is listed, and makes the exit code 1.

    Example: intarsia verify emoji.vault
    """
    from intarsia.vault import Vault

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
