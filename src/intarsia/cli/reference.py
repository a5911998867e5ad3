"""The reference of the command line, made from the help of the commands.

`python -m intarsia.cli.reference docs/cli.md` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from intarsia.cli.app import app
from intarsia.cli.command import EXIT_CODES

_HEAD = """# The command line

<!-- Made by `python -m intarsia.cli.reference docs/cli.md`; a test compares. Change the commands, not this file. -->
"""
_ERRORS = """A reason is one line that begins with `error: `, and one line more for each file that was refused.
With `--json` it is a document on the standard output too,
`{"error": {"type": …, "message": …, "problems": […], "notes": […]}}`, where `problems` is there only if files were
refused, and holds all of them, and `notes` only where a command that stopped left something done, or to be finished:
what, and how.
"""
_COMMON = ("json", "debug", "help")


def reference() -> str:
    """The whole reference, in Markdown."""
    root = get_command(app)
    sections = [_HEAD, f"{root.help}\n", _options(["`--version`: show the version and exit."])]
    common = ["`--json`: answer with one JSON document on the standard output."]
    common += ["`--debug`: show the traceback of an error.", "`--help`, `-h`: show the help of a command."]
    sections += ["Options of every command:\n", _options(common)]
    sections += ["Exit codes:\n", _options([f"{code}: {meaning}." for code, meaning in EXIT_CODES.items()]), _ERRORS]
    sections += [_section(path, command) for path, command in commands()]
    return "\n".join(sections)


def commands() -> Iterator[tuple[str, Any]]:
    """(words after `intarsia`, command) of every command that does something, in the order of the help."""
    return _leaves(get_command(app), ())


def _leaves(node: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not hasattr(node, "commands"):
        yield " ".join(words), node
        return
    for name in node.list_commands(typer.Context(node)):
        yield from _leaves(node.commands[name], (*words, name))


def _section(path: str, command: Any) -> str:
    about, _, example = command.help.rpartition("\n\nExample: ")
    own = [each for each in command.params if each.name not in _COMMON]
    arguments = [each for each in own if each.param_type_name == "argument"]
    options = [each for each in own if each.param_type_name == "option"]
    usage = " ".join(["intarsia", path, *(_place(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"## intarsia {path}\n", f"    {usage}\n", f"{about}\n"]
    if arguments:
        lines += ["Arguments:\n", _options([f"`{_metavar(each)}`: {each.help}" for each in arguments])]
    if options:
        lines += ["Options:\n", _options([_option(each) for each in options])]
    return "\n".join([*lines, f"Example: `{example}`\n"])


def _options(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name).strip("[]").upper()


def _place(argument: Any) -> str:
    name = _metavar(argument) + ("…" if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.required:
        return f"{names}: {option.help} Required."
    shown = not option.is_flag and option.default not in (None, [], ())
    return f"{names}: {option.help}" + (f" Default: `{option.default}`." if shown else "")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m intarsia.cli.reference FILE")
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
