"""What commands print: results on the standard output, everything else on the standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


_SHOWN = 20  # problems at a terminal
_JOINERS = "\u200c\u200d"  # no letters themselves, but many scripts and emoji are spelt with them


@dataclass(frozen=True)
class Table:
    """Rows under headings: drawn at a terminal, separated by tabs elsewhere."""

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]

    def plain(self) -> str:
        lines = ["\t".join(printable(str(cell)) for cell in row) for row in (self.headings, *self.rows)]
        return "\n".join(lines)


class Bars:
    """Progress bars, one per name, made when first shown; where no terminal shows them, only what begins is said."""

    def __init__(self, progress: Progress | None):
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, name: str, done: int, total: int, note: str = "") -> None:
        """Set the bar of `name` to `done` out of `total`."""
        if self._progress is None:
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note=note)
        self._progress.update(self._tasks[name], completed=done, total=total, note=note)

    def phase(self, text: str) -> None:
        """Say what begins now, above the bars."""
        if self._progress is None:
            typer.echo(printable(text), err=True)
        else:
            self._progress.console.print(printable(text), markup=False, highlight=False)


@dataclass(frozen=True)
class Output:
    """How a command answers; its fields are options of every command."""

    json: Annotated[
        bool,
        typer.Option("--json", help="Answer with one JSON document on the standard output.", rich_help_panel="Output"),
    ] = False
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output")
    ] = False

    def answer(self, document: Mapping[str, object], *parts: str | Table) -> None:
        """Print the result: `document` where JSON is wanted, `parts` for people."""
        if self.json:
            sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        else:
            for part in parts:
                _print(part)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Say something beside the result, on one line."""
        sys.stderr.write(printable(text) + "\n")

    def fail(self, kind: str, message: str, problems: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
        """Say why there is no result: in one line, and one more for each of several problems and for each note."""
        self.note(f"error: {message}")
        for problem in problems[:_SHOWN]:
            self.note(f"  {problem}")
        if len(problems) > _SHOWN:
            self.note(f"  … and {len(problems) - _SHOWN} more; --json lists them all")
        for note in notes:
            self.note(note)
        self.document_error(kind, message, problems, notes)

    def document_error(self, kind: str, message: str, problems: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
        """Where JSON is wanted, the document that stands in place of a result."""
        if self.json:
            more = {name: list(lines) for name, lines in (("problems", problems), ("notes", notes)) if lines}
            self.answer({"error": {"type": kind, "message": message, **more}})

    @contextmanager
    def progress(self) -> Iterator[Bars]:
        """Progress bars while the block runs."""
        if not sys.stderr.isatty():
            yield Bars(None)
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        more = (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, *more, console=Console(stderr=True)) as progress:
            yield Bars(progress)


def printable(text: str) -> str:
    """The text on one line, without anything that a terminal would obey: such characters are shown escaped."""
    return "".join(c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode() for c in text)


def _print(part: str | Table) -> None:
    if isinstance(part, str):
        sys.stdout.write(printable(part) + "\n")
    elif not sys.stdout.isatty():
        sys.stdout.write(part.plain() + "\n")
    else:
        from rich import box
        from rich.console import Console
        from rich.table import Table as Drawn
        from rich.text import Text

        drawn = Drawn(*part.headings, box=box.SIMPLE_HEAD)
        for row in part.rows:
            drawn.add_row(*(Text(printable(str(cell))) for cell in row))
        Console().print(drawn)
