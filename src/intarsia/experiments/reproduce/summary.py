"""From finished cells to a page of Markdown with plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from intarsia.errors import require
from intarsia.experiments.pictures import COLOURS
from intarsia.experiments.reproduce.bench import SUMMARY, Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import Spread, markdown, ratio, spread
from intarsia.files import write_atomic


def values_of(rows: Sequence[Row], figure: str) -> dict[str, float]:
    """One figure by seed."""
    return {row.key["seed"]: row.figures[figure] for row in rows}


def paired(rows: Sequence[Row], base: Sequence[Row], figure: str) -> Spread | None:
    """The ratio of a figure to the base's, over the seeds that both have."""
    mine, theirs = values_of(rows, figure), values_of(base, figure)
    both = [seed for seed in mine if seed in theirs]
    return ratio([mine[seed] for seed in both], [theirs[seed] for seed in both]) if both else None


def table(bench: Bench, rows: Sequence[Row], by: str, figure: str, columns: Sequence[str], base: Sequence[Row]) -> str:
    """Rows by one key: a figure, its ratio to the base over paired seeds, and other figures."""
    lines = []
    for name in keys_of(rows, by):
        some = [row for row in rows if row.key[by] == name]
        against = paired(some, base, figure)
        others = [spread([row.figures[column] for row in some]).text() for column in columns]
        shown = "" if against is None else against.text(2)
        lines.append([name, spread([row.figures[figure] for row in some]).text(), shown, *others])
    return markdown([by, figure, "ratio to the monolith", *columns], lines)


def write_summary(bench: Bench, title: str, parts: Sequence[str]) -> Path:
    """The page beside the results."""
    path = bench.out / SUMMARY
    write_atomic(path, "\n".join([f"# {title}\n", *parts]).encode())
    return path


def plot_lines(
    path: Path, curves: Sequence[tuple[str, Sequence[float], Sequence[Spread]]], *, x: str, y: str, log: bool = False
) -> None:
    """A PNG of means with their intervals: (name, places, spreads) per curve.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "experiments")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (name, places, spreads), colour in zip(curves, COLOURS * 2, strict=False):
        means = [s.mean for s in spreads]
        axes.plot(places, means, marker="o", markersize=4, color=colour, label=name)
        if all(s.count > 1 for s in spreads):
            axes.fill_between(places, [s.low for s in spreads], [s.high for s in spreads], color=colour, alpha=0.15)
    if log:
        axes.set_xscale("log", base=2)
        places = sorted({place for _, all_, _ in curves for place in all_})
        axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.set(xlabel=x, ylabel=y)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
