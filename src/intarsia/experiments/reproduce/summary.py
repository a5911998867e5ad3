"""From finished cells to a page of Markdown with plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from intarsia.errors import require
from intarsia.experiments.pictures import COLOURS
from intarsia.experiments.reproduce.bench import SUMMARY, Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import Spread, markdown, ratio, spread
from intarsia.files import write_atomic


def distance_of(bench: Bench) -> str:
    """The name of the Fréchet distance that the cells hold."""
    return next(name for row in bench.rows for name in row.figures if name.startswith("FD-"))


def values_of(rows: Sequence[Row], figure: str) -> dict[str, float]:
    """One figure by seed."""
    return {row.key["seed"]: row.figures[figure] for row in rows}


def paired(rows: Sequence[Row], base: Sequence[Row], figure: str) -> Spread | None:
    """The ratio of a figure to the base's, over the seeds that both have."""
    mine, theirs = values_of(rows, figure), values_of(base, figure)
    both = [seed for seed in mine if seed in theirs]
    return ratio([mine[seed] for seed in both], [theirs[seed] for seed in both]) if both else None


def table(rows: Sequence[Row], by: str, figures: Sequence[str], base: Sequence[Row]) -> str:
    """One line per value of a key: figures, and the ratio of the first to the base's over paired seeds."""
    first, *others = figures
    lines = []
    for name in keys_of(rows, by):
        some = [row for row in rows if row.key[by] == name]
        against = paired(some, base, first)
        shown = [text_of(some, each) for each in (first, *others)]
        lines.append([name, shown[0], "" if against is None else against.text(), *shown[1:]])
    return markdown([by, first, "ratio to the monolith", *others], lines)


def text_of(rows: Sequence[Row], figure: str) -> str:
    """The mean over the rows that have the figure; nothing where none has."""
    values = [row.figures[figure] for row in rows if figure in row.figures]
    return spread(values).text() if values else ""


def write_summary(bench: Bench, title: str, parts: Sequence[str]) -> Path:
    """The page beside the results."""
    path = bench.out / SUMMARY
    write_atomic(path, "\n".join([f"# {title}\n", *parts]).encode())
    return path


@dataclass(frozen=True)
class Curve:
    """Means with their intervals, at places along x."""

    name: str
    places: Sequence[float]
    spreads: Sequence[Spread]


def curve_of(name: str, rows: Sequence[Row], along: str, figure: str) -> Curve:
    """A figure along a key that holds numbers, over the seeds of each."""
    places = keys_of(rows, along)
    spreads = [spread([row.figures[figure] for row in rows if row.key[along] == place]) for place in places]
    return Curve(name, [float(place) for place in places], spreads)


def plot_lines(path: Path, curves: Sequence[Curve], *, x: str, y: str, log: bool = False) -> None:
    """A PNG of curves.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "experiments")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve, colour in zip(curves, COLOURS * 2, strict=False):
        axes.plot(curve.places, [s.mean for s in curve.spreads], "o-", markersize=4, color=colour, label=curve.name)
        if all(s.count > 1 for s in curve.spreads):
            low, high = [s.low for s in curve.spreads], [s.high for s in curve.spreads]
            axes.fill_between(curve.places, low, high, color=colour, alpha=0.15)
    if log:
        axes.set_xscale("log", base=2)
        places = sorted({place for curve in curves for place in curve.places})
        axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.set(xlabel=x, ylabel=y)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
