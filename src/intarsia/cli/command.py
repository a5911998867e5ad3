"""What all commands share: options that come in groups, and errors that end as one line and an exit code.

A command may take a frozen dataclass in place of single options: every field becomes an option, so that a command with
twenty options is still a function of a few arguments, and a group such as `Output` is written once.
"""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from inspect import Parameter
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_type_hints

import typer

from intarsia.cli.output import Output
from intarsia.errors import IngestError, IntarsiaError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
EXIT_CODES: Mapping[int, str] = MappingProxyType(
    {
        0: "the command did what was asked",
        FAILED: "something was found wrong, and the reason is on the standard error",
        MISUSED: "the command was called wrongly",
        INTERRUPTED: "it was interrupted",
    }
)
_INTERRUPTED = "interrupted: nothing is half-written"
_AGAIN = "the same command goes on from what is saved"


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A function that Typer can read: its groups spread into options, its errors turned into exit codes.

    The function takes exactly one `Output`.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    place = next(name for name, kind in groups.items() if kind is Output)

    @functools.wraps(function)
    def run(**values: Any) -> None:
        given = _gather(groups, values)
        _guard(lambda: function(**given), given[place])

    parameters = [each.replace(annotation=_named(each.annotation)) for each in _spread(function, hints)]
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = help_text(function)
    return run


def help_text(function: Callable[..., None]) -> str:
    """The docstring as help: every paragraph on one line, for the terminal to wrap."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _spread(function: Callable[..., None], hints: Mapping[str, Any]) -> Iterator[Parameter]:
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if not is_dataclass(kind):
            yield parameter.replace(annotation=kind, kind=Parameter.KEYWORD_ONLY)
            continue
        options = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=options[field.name])


def path(text: str) -> Path:
    """A place that is named on the command line.

    Raises:
        typer.BadParameter: nothing is named: an empty variable must never stand for the current folder.
    """
    if not text:
        raise typer.BadParameter("it is empty; name a place, or say . for the current folder")
    return Path(text)


def _named(annotation: Any) -> Any:
    """The annotation of an option or argument, with places read by `path`."""
    kind = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    if Path not in (kind, *get_args(kind)):
        return annotation
    info = copy(annotation.__metadata__[0])
    info.parser = path
    return Annotated[kind, info]


def _gather(groups: Mapping[str, type], values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the function from the values of single options."""
    left, made = dict(values), {}
    for name, kind in groups.items():
        made[name] = kind(**{field.name: left.pop(field.name) for field in fields(kind)})
    return left | made


def _guard(action: Callable[[], None], output: Output) -> None:
    """Run a command; whatever it raises becomes one line on the standard error and an exit code."""
    try:
        action()
    except (typer.Exit, typer.BadParameter):
        raise
    except (KeyboardInterrupt, typer.Abort) as error:
        notes = _notes(error)
        message = _INTERRUPTED if notes else f"{_INTERRUPTED}, and {_AGAIN}"
        for line in (message, *notes):
            output.note(line)
        output.document_error("Interrupted", message, notes=notes)
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # Whoever read the output has gone (`| head`); the interpreter must not try to flush the rest on its way out.
        sys.stdout = None
        raise typer.Exit(FAILED) from error
    except Exception as error:
        if output.debug:
            traceback.print_exc()
        problems = error.problems if isinstance(error, IngestError) else ()
        output.fail(type(error).__name__, explain(error), problems, _notes(error))
        raise typer.Exit(FAILED) from error


def _notes(error: BaseException) -> list[str]:
    """What a command added to an error on its way: how things stand, and how to go on."""
    return getattr(error, "__notes__", [])


def explain(error: Exception) -> str:
    """What to tell the user about an error, in one line."""
    if isinstance(error, IngestError):
        return error.summary
    if isinstance(error, IntarsiaError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    what = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, MemoryError) or "tried to allocate" in what.lower():  # torch raises a plain RuntimeError
        return "more memory was asked for than there is; ask for fewer steps, or for fewer or smaller images at once"
    return f"a fault in intarsia itself ({what}); run it again with --debug and pass on what it shows"
