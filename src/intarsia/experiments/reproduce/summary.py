"""From finished cells to a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from intarsia.experiments.reproduce.bench import SUMMARY, Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import Spread, markdown, ratio, spread
from intarsia.files import write_atomic

_LARGE = 1000  # numbers from here on are shown without decimals


def distance_of(bench: Bench) -> str:
    """The name of the Fréchet distance that the cells hold."""
    return next(name for row in bench.rows for name in row.figures if name.startswith("FD-"))


def values_of(rows: Sequence[Row], figure: str) -> dict[str, float]:
    """One figure by seed."""
    return {row.key["seed"]: row.figures[figure] for row in rows}


def paired(rows: Sequence[Row], base: Sequence[Row], figure: str) -> Spread | None:
    """The ratio of a figure to the base's, over the seeds that both have; of 0 there is none."""
    mine, theirs = values_of(rows, figure), values_of(base, figure)
    both = [seed for seed in mine if mine[seed] > 0 and theirs.get(seed, 0) > 0]
    return ratio([mine[seed] for seed in both], [theirs[seed] for seed in both]) if both else None


def table(
    rows: Sequence[Row], by: str, figures: Sequence[str], base: Sequence[Row], *, against: str = "the monolith"
) -> str:
    """One line per value of a key: figures, and the ratio of the first to the base's over paired seeds."""
    first, *others = figures
    lines = []
    for name in keys_of(rows, by):
        some = [row for row in rows if row.key[by] == name]
        quotient = paired(some, base, first)
        shown = [text_of(some, each) for each in (first, *others)]
        lines.append([name, shown[0], "" if quotient is None else quotient.text(), *shown[1:]])
    return markdown([by, first, f"ratio to {against}", *others], lines)


def text_of(rows: Sequence[Row], figure: str) -> str:
    """The mean over the rows that have the figure; nothing where none has."""
    values = [row.figures[figure] for row in rows if figure in row.figures]
    if not values:
        return ""
    found = spread(values)
    return found.text(digits=0 if abs(found.mean) >= _LARGE else 3)


def slug(name: str) -> str:
    """A name as part of a file's."""
    return name.replace(",", "").replace(" ", "-")


def write_summary(bench: Bench, title: str, parts: Sequence[str]) -> Path:
    """The page beside the results."""
    path = bench.out / SUMMARY
    write_atomic(path, "\n".join([f"# {title}\n", *parts]).encode())
    return path
