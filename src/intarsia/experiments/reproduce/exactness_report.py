"""The page of the exactness suite: errors of weights, and of what is drawn, one column per world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import markdown, spread
from intarsia.experiments.reproduce.plots import Curve, Panel, plot
from intarsia.experiments.reproduce.summary import write_summary

FLOOR, WEIGHTS, DRAWS = "exact draws", "weights", "draws"
"""The tables that a cell may belong to."""

SCORES = {"exact": "with exact scores", "perturbed": "with perturbed scores"}
FIGURES = {
    "masses": "Masses of the modes",
    "shares": "Shares of the sources, as the result tells them",
    "distance": "Energy distance, in that of exact draws",
}
COMPARED = {
    "exact × full × ddpm": "exact",
    "gaussian:500 × full × ddpm": "gaussian",
    "prototype × full × ddpm": "prototype",
    "ito × full × ddpm": "ito",
    "exact × posterior × ddpm": "posterior",
    "prior × ancestral × ddpm": "ancestral",
    "exact × top_k:1 × ddpm": "top-1",
    "uniform × full × ddpm": "naive",
}
"""Methods in the plot of the draws, and what they are called there."""

PLOTTED = (
    "prior",
    "gaussian:500",
    "gaussian:4000",
    "prototype",
    "diffusion_classifier:4",
    "diffusion_classifier:16",
    "ito × ddim:1",
    "ito × ddim:0.5",
)
SHOWN = ("2-D, overlapping", "2-D, disjoint", "16-D, disjoint", "64-D, overlapping")
"""Weights and worlds in the plot of the errors."""

READING = (
    "`masses` and `shares` are total variations from the truth: 0.1 means that a tenth of the images went to the wrong "
    "modes, or to the wrong sources. `distance` is the energy distance to the mixture, divided by that of exact draws "
    "as many; it sees also what lies between modes. What a result tells is not always what was drawn: `prior` weights "
    "tell the prior, whatever comes out. **Bold** is worse than 99 of 100 sets of exact draws, on the mean "
    "over seeds. A sampler of few steps is not exact either: read a row beside `ancestral`, which runs each image on "
    "one source's own model and so has the sampler's error and no other.\n"
)


def report_exactness(bench: Bench, asks: str) -> Path:
    """Tables of both kinds, with exact and with perturbed scores, and two plots."""
    parts = [
        asks + "\n",
        "## Weights\n",
        "Total variation between estimated and exact weights, averaged over images and noise levels.\n",
    ]
    for scores, title in SCORES.items():
        parts += [f"### {title[0].upper()}{title[1:]}\n", _weights(bench, scores)]
    plot(bench.out / "weights.png", _weight_panels(bench))
    parts += ["![errors of the weights over time](weights.png)\n", "## Draws\n", READING]
    for scores, title in SCORES.items():
        for figure, name in FIGURES.items():
            parts += [f"### {name}, {title}\n", _draws(bench, scores, figure)]
    plot(bench.out / "draws.png", _draw_panels(bench))
    parts.append("![wrong masses against the dimension](draws.png)\n")
    return write_summary(bench, "exactness", parts)


def _weights(bench: Bench, scores: str) -> str:
    rows = bench.where(table=WEIGHTS, scores=scores)
    worlds = keys_of(bench.rows, "world")
    groups = _grouped(rows)
    lines = [[name, *(_mean(_of(some, world), "error") for world in worlds)] for name, some in groups.items()]
    return markdown(["weights", *worlds], lines)


def _draws(bench: Bench, scores: str, figure: str) -> str:
    """A line per method under the two of exact draws."""
    worlds = keys_of(bench.rows, "world")
    floors = {world: bench.where(table=FLOOR, world=world)[0].figures for world in worlds}
    unit = {world: floors[world][figure] if figure == "distance" else 1.0 for world in worlds}
    lines = [
        [name, *(f"{floors[world][key] / unit[world]:.3f}" for world in worlds)]
        for name, key in ((FLOOR, figure), ("99 of 100 of them at most", f"{figure} at most"))
    ]
    for name, rows in _grouped(bench.where(table=DRAWS, scores=scores)).items():
        line = [name]
        for world in worlds:
            mean = fmean(row.figures[figure] for row in _of(rows, world))
            text = f"{mean / unit[world]:.3f}"
            line.append(f"**{text}**" if mean > floors[world][f"{figure} at most"] else text)
        lines.append(line)
    return markdown(["weights × routing × sampler", *worlds], lines)


def _weight_panels(bench: Bench) -> list[Panel]:
    """The error over time, one panel per world."""
    worlds = keys_of(bench.rows, "world")
    shown = [world for world in worlds if world in SHOWN] or worlds
    groups = _grouped(bench.where(table=WEIGHTS, scores="exact"))

    def curve(name: str, rows: Sequence[Row]) -> Curve:
        times = [figure for figure in rows[0].figures if figure.startswith("t=")]
        places = [float(time.removeprefix("t=")) for time in times]
        return Curve(name, places, [spread([row.figures[time] for row in rows]) for time in times])

    return [
        Panel(
            curves=[curve(name, _of(rows, world)) for name, rows in groups.items() if name in PLOTTED],
            x="t, from noise to the image",
            y="total variation from w(x_t, t)",
            title=world,
            backwards=True,
        )
        for world in shown
    ]


def _draw_panels(bench: Bench) -> list[Panel]:
    """Wrong masses along the dimension, for overlapping and disjoint sources, with exact and perturbed scores."""
    worlds = keys_of(bench.rows, "world")
    kinds = list(dict.fromkeys(world.split(", ")[1] for world in worlds))
    panels = []
    for scores, title in SCORES.items():
        groups = _grouped(bench.where(table=DRAWS, scores=scores))
        for kind in kinds:
            some = {world.split("-")[0]: world for world in worlds if world.endswith(kind)}
            floor = _along("exact draws", bench.where(table=FLOOR), some)
            curves = [*(_along(COMPARED[name], groups[name], some) for name in COMPARED if name in groups), floor]
            # An interval of a few seeds may reach beyond what a total variation can be.
            top = 1.1 * max(each.mean for curve in curves for each in curve.spreads)
            told = f"{kind}, {title}"
            panels.append(
                Panel(curves=curves, x="dimensions", y="share in the wrong modes", title=told, log=True, top=top)
            )
    return panels


def _along(name: str, rows: Sequence[Row], worlds: Mapping[str, str]) -> Curve:
    """The wrong masses of a method in worlds by dimension."""
    spreads = [spread([row.figures["masses"] for row in _of(rows, world)]) for world in worlds.values()]
    return Curve(name, [float(dimension) for dimension in worlds], spreads)


def _grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By method, named by what is set of its weights, routing and sampler."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        parts = [row.key[part] for part in ("weights", "routing", "sampler") if part in row.key]
        groups.setdefault(" × ".join(parts), []).append(row)
    return groups


def _of(rows: Sequence[Row], world: str) -> list[Row]:
    return [row for row in rows if row.key["world"] == world]


def _mean(rows: Sequence[Row], figure: str) -> str:
    return f"{fmean(row.figures[figure] for row in rows):.3f}"
