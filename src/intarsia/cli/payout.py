"""`intarsia payout`: an amount split among the sources by what they earned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import VaultPath
from intarsia.errors import counted

if TYPE_CHECKING:
    from intarsia.vault import Statement

STATEMENT_FILE, TABLE_FILE, RECEIPT_FILE = "statement.json", "statement.csv", "receipt.json"
_LEFT = "(left)"


def payout(
    vault: VaultPath,
    output: Output,
    amount: Annotated[str, typer.Option(help="What is split, in decimal digits such as 1000.00.", show_default=False)],
    period: Annotated[
        str,
        typer.Option(
            help="Of which drawings: a year, month or day in UTC such as 2027-01, or two of them with .. between.",
            show_default=False,
        ),
    ],
    currency: Annotated[str, typer.Option(help="Code of ISO 4217, which sets the smallest unit.")] = "EUR",
    out: Annotated[
        Path | None, typer.Option(help=f"Folder to make for {STATEMENT_FILE}, {TABLE_FILE} and {RECEIPT_FILE}.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the split: the ledger is not told, and there is no receipt.")
    ] = False,
) -> None:
    """Split an amount among the sources by the credit that they accumulated in a period; the parts sum exactly.

    Every image that was drawn counts once, shared out by the weights with which it was drawn, or as `intarsia credit
    --record` reckoned it since. Who left is still owed for what was drawn before, under the account that the receipt of
    the forgetting names.

    Example: intarsia payout art.vault --amount 1000.00 --period 2027-01 --out january
    """
    from intarsia.vault import Vault
    from intarsia.vault.folders import new_folder

    opened = Vault.open(vault)
    if out is None:
        statement = opened.payout(amount, period, currency=currency, record=not dry_run)
    else:
        with new_folder(out) as scratch:  # before the ledger hears of it
            statement = opened.payout(amount, period, currency=currency, record=not dry_run)
            _write(statement, scratch)
    _note(statement, output)
    receipt = {"receipt": None if statement.receipt is None else statement.receipt.document()}
    document = statement.document() | receipt | {"vault": str(vault), "out": None if out is None else str(out)}
    code, total = statement.currency.code, statement.currency.text(statement.amount)
    drawn = f"{counted(statement.images, 'image')} in {counted(statement.sets, 'set')}"
    rows = [
        (line.source or f"{_LEFT} {line.account}", line.owner or "", line.images, statement.currency.text(line.amount))
        for line in statement.lines
    ]
    table = Table(("source", "owner", "credit in images", code), [*rows, ("in all", "", f"{statement.images}", total)])
    output.answer(document, f"{total} {code} for {statement.period.text}: {drawn}", table)


def _write(statement: Statement, folder: Path) -> None:
    from intarsia.files import write_atomic, write_json

    write_json(folder / STATEMENT_FILE, statement.document())
    write_atomic(folder / TABLE_FILE, statement.csv().encode())
    if statement.receipt is not None:
        write_json(folder / RECEIPT_FILE, statement.receipt.document())


def _note(statement: Statement, output: Output) -> None:
    """What whoever pays should know."""
    if not statement.closed:
        output.note(f"{statement.period.text} is not over: what is still drawn in it is not in this statement")
    if statement.earlier:
        numbers = ", ".join(map(str, statement.earlier))
        output.note(f"the ledger tells of payouts for a period that overlaps already: entries {numbers}")
    if any(line.source is None for line in statement.lines):
        output.note("who left is told by account; the receipt of the forgetting says whose it was")
