"""`intarsia verify`: read everything that a vault stores."""

from __future__ import annotations

import typer

from intarsia.cli.command import FAILED
from intarsia.cli.output import Output
from intarsia.cli.parameters import VaultPath


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
    counts = f"{report.sources} sources with {report.samples} images, {report.compartments} compartments"
    verdict = "all is well" if report.ok else f"{len(report.problems)} problems"
    output.answer(document, f"{vault}: {verdict} ({counts})", *(f"  {problem}" for problem in report.problems))
    if not report.ok:
        raise typer.Exit(FAILED)
