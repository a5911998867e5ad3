"""A table in the making: its cells are computed once, kept line by line, and never computed again.

settings.json   what every cell depends on; another run into the same folder must have the same
results.csv     one line per cell: its key, then its figures
README.md       the summary; plots beside it
work/           compartments, from which an interrupted run goes on
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intarsia.errors import CorruptError, SettingsError, counted
from intarsia.files import disk_errors, read_json, write_atomic, write_json

SETTINGS, RESULTS, SUMMARY, WORK = "settings.json", "results.csv", "README.md", "work"

Cell = Mapping[str, str | int]
Figures = Mapping[str, float]
OnPhase = Callable[[str], None]
OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One finished cell: what was varied, and what was measured."""

    key: Mapping[str, str]
    figures: Figures


@dataclass
class Bench:
    """The folder of one table, and who is told of progress.

    Args:
        out: a new folder, or one that keeps a run with the same settings.
        settings: JSON-able; everything that the figures depend on but the cells' keys.

    Raises:
        SettingsError: the folder keeps a run with other settings, or other things.
        CorruptError: what it keeps cannot be read.
    """

    out: Path
    settings: Mapping[str, Any]
    on_phase: OnPhase
    on_step: OnStep
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_place(self.out)
        with disk_errors(self.out):
            (self.out / WORK).mkdir(parents=True, exist_ok=True)
        path = self.out / SETTINGS
        if path.exists():
            self._check(read_json(path))
        else:
            write_json(path, dict(self.settings))
        self.rows = self._read()

    @property
    def work(self) -> Path:
        return self.out / WORK

    def cell(self, key: Cell, compute: Callable[[], Figures]) -> Figures:
        """The figures of a cell: those that are kept, or computed now and kept."""
        text = {name: str(value) for name, value in key.items()}
        for row in self.rows:
            if row.key == text:
                return row.figures
        self.on_phase(", ".join(f"{name} {value}" for name, value in text.items()))
        figures = {name: float(value) for name, value in compute().items()}
        self.rows.append(Row(text, figures))
        write_atomic(self.out / RESULTS, self._csv())
        return figures

    def has(self, key: Cell) -> bool:
        """Whether the cell is finished, so that what only it needs can be spared."""
        text = {name: str(value) for name, value in key.items()}
        return any(row.key == text for row in self.rows)

    def where(self, **key: str | int) -> list[Row]:
        """The finished cells whose key holds these values."""
        wanted = {name: str(value) for name, value in key.items()}
        return [row for row in self.rows if wanted.items() <= row.key.items()]

    def _csv(self) -> bytes:
        keys = list(dict.fromkeys(name for row in self.rows for name in row.key))
        figures = list(dict.fromkeys(name for row in self.rows for name in row.figures))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*keys, *(f"={name}" for name in figures)])
        for row in self.rows:
            values = (repr(row.figures[name]) if name in row.figures else "" for name in figures)
            writer.writerow([*(row.key.get(name, "") for name in keys), *values])
        return text.getvalue().encode()

    def _read(self) -> list[Row]:
        path = self.out / RESULTS
        if not path.exists():
            return []
        try:
            head, *lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
            rows = []
            for line in lines:
                named = [pair for pair in zip(head, line, strict=True) if pair[1]]
                figures = {name[1:]: float(value) for name, value in named if name.startswith("=")}
                rows.append(Row({name: value for name, value in named if not name.startswith("=")}, figures))
        except ValueError as error:
            raise CorruptError(f"{path}: not a table of results ({error}); remove it to compute it again") from error
        return rows

    def _check(self, found: Mapping[str, Any]) -> None:
        found, wanted = _flat(found), _flat(self.settings)
        differing = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
        if differing:
            shown = ", ".join(f"{name} {found.get(name)!r} there, {wanted.get(name)!r} here" for name in differing)
            raise SettingsError(f"{self.out} keeps a run with other settings ({shown}); name another folder with --out")


def check_place(out: Path, recipe: str | None = None) -> None:
    """Refuse a folder in which a table would overwrite what is none of its own.

    Args:
        recipe: the table's, where that is known already.

    Raises:
        SettingsError: the folder holds other things, or a run of another recipe.
        CorruptError: the settings that it keeps cannot be read.
    """
    if not out.is_dir():
        return
    if (out / SETTINGS).is_file():
        kept = read_json(out / SETTINGS).get("recipe")
        if recipe not in (None, kept):
            raise SettingsError(f"{out} keeps a run of '{kept}', not of '{recipe}'; name another folder with --out")
        return
    empty = [] if not (out / WORK).is_dir() or any((out / WORK).iterdir()) else [WORK]
    others = sorted(path.name for path in out.iterdir() if path.name not in empty and not path.name.startswith("."))
    if others:
        raise SettingsError(
            f"{out} keeps no {SETTINGS} of a run, but {counted(len(others), 'other thing')} such as {others[0]}; "
            "name a new folder with --out"
        )


def _flat(settings: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Settings within settings by their whole names, such as `sampling.steps`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{within}{name}.") if isinstance(value, Mapping) else {f"{within}{name}": value}
    return flat


def keys_of(rows: Sequence[Row], name: str) -> list[str]:
    """The values of one key among rows, in the order of their first appearance."""
    return list(dict.fromkeys(row.key[name] for row in rows if name in row.key))
