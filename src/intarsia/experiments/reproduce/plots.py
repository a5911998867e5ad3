"""Plots of figures with their intervals, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from intarsia.errors import require
from intarsia.experiments.pictures import COLOURS
from intarsia.experiments.reproduce.bench import Row, keys_of
from intarsia.experiments.reproduce.figures import Spread, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKED = 10  # points of a curve that are still shown one by one
_ABREAST = 3  # frames of stacked areas
HATCHES = ("", "//", "..", "xx")  # tell areas apart where colours come again
_NAMES = 0.8  # inches for names below the frames
_APART = 0.01  # of the axis, between the whiskers of curves at the same place
_DRAWN = (("-", "o"), ("--", "s"), (":", "^"))  # lines and marks, one after the other as colours come again


@dataclass(frozen=True)
class Curve:
    """Means with their intervals, at places along x."""

    name: str
    places: Sequence[float]
    spreads: Sequence[Spread]


def curve_of(name: str, rows: Sequence[Row], along: str, figure: str) -> Curve:
    """A figure along a key that holds numbers, over the seeds of each; rows without the figure are left out."""
    told = [row for row in rows if figure in row.figures]
    places = keys_of(told, along)
    spreads = [spread([row.figures[figure] for row in told if row.key[along] == place]) for place in places]
    return Curve(name, [float(place) for place in places], spreads)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves in one frame.

    Args:
        title: above it.
        x, y: what the axes show.
        log: whether x doubles from tick to tick.
        log_y: whether y is logarithmic; otherwise it starts at `bottom`.
        backwards: whether x falls from left to right, as time does while an image is drawn.
        top: where y ends; None where the curves do.
        ticks: names of the places 1, 2, … along x, where these are no quantity.
    """

    curves: Sequence[Curve]
    x: str
    y: str
    title: str = ""
    log: bool = False
    log_y: bool = False
    backwards: bool = False
    bottom: float = 0.0
    top: float | None = None
    ticks: tuple[str, ...] = ()


def plot(path: Path, panels: Sequence[Panel]) -> None:
    """A PNG of panels side by side, two in a row where there are four; several curves are named beside them.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "experiments")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if len(panels) == 4 else len(panels)
    rows = -(-len(panels) // columns)
    width = 6.4 if columns == 1 else 4.4 * columns
    height = (3.8 if rows == 1 else 3.2 * rows) + (_NAMES if any(panel.ticks for panel in panels) else 0)
    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _fill(axes, panel)
        if number == 1 and len(panel.curves) > 1:  # beside the frames: within one, names hide whiskers
            figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Software": None})


def _fill(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import NullLocator

    places = sorted({place for curve in panel.curves for place in curve.places})
    for number, curve in enumerate(_side_by_side(panel.curves, places, log=panel.log)):
        line, mark = _DRAWN[number // len(COLOURS) % len(_DRAWN)]
        _draw(axes, curve, COLOURS[number % len(COLOURS)], line, mark)
    if panel.log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(places, [f"{place:g}" for place in places])
    if panel.ticks:
        axes.set_xticks(range(1, len(panel.ticks) + 1), panel.ticks, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.set_title(panel.title, fontsize=10, loc="left")
    if panel.log_y:
        axes.set_yscale("log")
        _plain_numbers(axes)
    else:
        axes.set_ylim(bottom=panel.bottom, top=panel.top)
    if panel.backwards:
        axes.invert_xaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _side_by_side(curves: Sequence[Curve], places: Sequence[float], *, log: bool) -> list[Curve]:
    """The curves, moved a little along the axis of these places, so that no whisker hides another; bands stay."""
    if not 0 < len(places) <= _MARKED:
        return list(curves)
    middle = (len(curves) - 1) / 2
    span = (math.log(places[-1] / places[0]) if log else places[-1] - places[0]) or 1.0

    def moved(place: float, number: int) -> float:
        by = _APART * span * (number - middle)
        return place * math.exp(by) if log else place + by

    return [
        replace(curve, places=[moved(place, number) for place in curve.places]) for number, curve in enumerate(curves)
    ]


def _plain_numbers(axes: Axes) -> None:
    """Ticks of a logarithmic y as numbers, and some between powers of ten."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        """Shows what LogFormatter shows, 0.9 and not 9e-01."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(Plain(minor_thresholds=(2, 0.6)))


def _draw(axes: Axes, curve: Curve, colour: str, line: str, mark: str) -> None:
    """A curve with its intervals: as whiskers where points are few, as a band where they are many."""
    means = [s.mean for s in curve.spreads]
    known = all(s.count > 1 for s in curve.spreads)
    low, high = [s.low for s in curve.spreads], [s.high for s in curve.spreads]
    if len(curve.places) > _MARKED:
        axes.plot(curve.places, means, line, color=colour, label=curve.name)
        if known:
            axes.fill_between(curve.places, low, high, color=colour, alpha=0.15, linewidth=0)
        return
    axes.plot(curve.places, means, line, marker=mark, markersize=4, color=colour, label=curve.name)
    if known:
        axes.vlines(curve.places, low, high, color=colour, alpha=0.5, linewidth=1)


Rows = Sequence[Sequence[float]]


def plot_areas(path: Path, names: Sequence[str], times: Sequence[float], frames: Mapping[str, Rows]) -> None:
    """A PNG of stacked areas, three frames in a row, by their titles: each has a row per time and a weight per name.

    Time falls from left to right.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "experiments")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(frames), _ABREAST)
    rows = -(-len(frames) // columns)
    figure = Figure(figsize=(2.2 + 2.6 * columns, 0.6 + 2.1 * rows), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    for number, (title, weights) in enumerate(frames.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        _stack(axes, names, times, weights)
        axes.set_title(title, fontsize=10, loc="left")
    handles, shown = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], shown[::-1], loc="outside right upper", fontsize=8, frameon=False)
    figure.supxlabel("t, from noise to the image", fontsize=9)
    figure.savefig(path, metadata={"Software": None})


def _stack(axes: Axes, names: Sequence[str], times: Sequence[float], weights: Rows) -> None:
    hatches = [HATCHES[k // len(COLOURS) % len(HATCHES)] for k in range(len(names))]
    areas = axes.stackplot(
        times,
        list(zip(*weights, strict=True)),
        labels=names,
        colors=[COLOURS[k % len(COLOURS)] for k in range(len(names))],
        edgecolor="white",
        linewidth=0.4,
    )
    for area, hatch in zip(areas, hatches, strict=True):
        area.set_hatch(hatch)
    axes.set(xlim=(max(times), min(times)), ylim=(0, 1), ylabel="weight")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def plot_bars(path: Path, names: Sequence[str], spreads: Sequence[Spread], *, x: str) -> None:
    """A PNG of one bar per name, the first on top, with its interval.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "experiments")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.9 + 0.3 * len(names)), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    known = [s if s.count > 1 else Spread(s.mean, s.mean, s.mean, 1) for s in spreads]
    reach = [[s.mean - s.low for s in known], [s.high - s.mean for s in known]]
    axes.barh(range(len(names)), [s.mean for s in spreads], xerr=reach, height=0.65, color=COLOURS[0], capsize=2)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    if min(s.low for s in known) >= 0:
        axes.set_xlim(left=0)
    else:
        axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(x)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
