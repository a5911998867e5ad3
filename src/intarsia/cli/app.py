"""The table of commands. A new command is a file beside this one and a line here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import intarsia.cli.data as data
import intarsia.cli.ledger as ledger
import intarsia.cli.principal as principal
import intarsia.cli.source as source
import intarsia.cli.ticket as ticket
from intarsia.cli.audit import audit
from intarsia.cli.command import MISUSED, command, help_text
from intarsia.cli.convert import convert
from intarsia.cli.copies import copies
from intarsia.cli.credit import credit
from intarsia.cli.demo import demo
from intarsia.cli.doctor import doctor, version_here
from intarsia.cli.evaluate import evaluate
from intarsia.cli.extend import extend
from intarsia.cli.forget import forget
from intarsia.cli.grant import grant, revoke, why
from intarsia.cli.init import init
from intarsia.cli.list import list_members
from intarsia.cli.output import Output
from intarsia.cli.pack import import_, pack
from intarsia.cli.payout import payout
from intarsia.cli.pretrain import pretrain
from intarsia.cli.reproduce import reproduce
from intarsia.cli.sample import sample
from intarsia.cli.serve import serve
from intarsia.cli.train import train
from intarsia.cli.verify import verify

Panel = Mapping[str, Callable[..., None]]

START, SOURCES, RIGHTS, PICTURES, CHECKS = (
    "Getting started",
    "Sources and compartments",
    "Who may draw",
    "Pictures",
    "Checks",
)
COMMANDS: Mapping[str, Panel] = MappingProxyType(
    {
        START: {"demo": demo, "init": init, "pretrain": pretrain, "convert": convert},
        SOURCES: {
            "list": list_members,
            "train": train,
            "extend": extend,
            "forget": forget,
            "pack": pack,
            "import": import_,
        },
        RIGHTS: {"grant": grant, "revoke": revoke, "why": why},
        PICTURES: {
            "sample": sample,
            "serve": serve,
            "credit": credit,
            "payout": payout,
            "evaluate": evaluate,
        },
        CHECKS: {"verify": verify, "audit": audit, "copies": copies, "reproduce": reproduce, "doctor": doctor},
    }
)
GROUPS: Mapping[str, tuple[str, str, Panel]] = MappingProxyType(
    {
        "data": (START, data.HELP, {"digits": data.digits, "letters": data.letters, "emoji": data.emoji}),
        "principal": (
            RIGHTS,
            principal.HELP,
            {
                "add": principal.add,
                "list": principal.list_principals,
                "change": principal.change,
                "key": principal.key,
                "renew": principal.renew,
                "withdraw": principal.withdraw,
                "remove": principal.remove,
            },
        ),
        "ticket": (
            RIGHTS,
            ticket.HELP,
            {
                "open": ticket.open_ticket,
                "list": ticket.list_tickets,
                "show": ticket.show,
                "close": ticket.close,
            },
        ),
        "ledger": (
            CHECKS,
            ledger.HELP,
            {
                "show": ledger.show,
                "checkpoint": ledger.checkpoint,
                "export": ledger.export,
                "prove": ledger.prove,
                "verify": ledger.verify,
            },
        ),
        "source": (
            SOURCES,
            source.HELP,
            {
                "add": source.add,
                "list": source.list_sources,
                "show": source.show,
                "permit": source.permit,
                "forbid": source.forbid,
            },
        ),
    }
)


# Some versions of Typer carry a Click of their own, whose errors are not those of the package named click.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]


class _Root(TyperGroup):
    """Lists commands and groups in the order of the tables above, and says in one line why a call is none."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=list(_places()).index)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        try:
            code = super().main(words, prog_name, complete_var, False, windows_expand_args, **extra)
        except _USAGE_ERROR as error:
            misused(error, Output(json="--json" in words))
            code = MISUSED
        sys.exit(code)


def misused(error: Any, output: Output) -> None:
    """Say why a call is none, and what it should look like."""
    message = error.format_message()
    if not message:  # called without any word, which has shown the help already
        return
    output.fail("UsageError", message)
    if error.ctx is not None:
        output.note(f"{error.ctx.get_usage()}; {error.ctx.command_path} --help says more")


def _places() -> Iterator[str]:
    for panel, commands in COMMANDS.items():
        yield from (name for name, (where, _, _) in GROUPS.items() if where == panel)
        yield from commands


def _typer() -> typer.Typer:
    names = {"help_option_names": ["-h", "--help"]}
    return typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, context_settings=names)


def _fill(target: typer.Typer, commands: Panel, panel: str | None = None) -> None:
    for name, function in commands.items():
        target.command(name, rich_help_panel=panel)(command(function))


def _build() -> typer.Typer:
    built = _typer()
    built.callback(cls=_Root, help=help_text(root))(root)
    for panel, commands in COMMANDS.items():
        _fill(built, commands, panel)
    for name, (panel, text, commands) in GROUPS.items():
        group = _typer()
        _fill(group, commands)
        built.add_typer(group, name=name, help=text, rich_help_panel=panel)
    return built


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"intarsia {version_here()}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Generative models inlaid from compartments: one per source, trained alone, joined only while an image is drawn.

    Every command ends with exit code 0 only if it did what was asked.
    """


app = _build()
