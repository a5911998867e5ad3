"""The analytic start: what letting the closed form answer at high noise saves, and from where on it hurts.

Every budget in nats is drawn with the same compartments and noise, under the routing that averages and the one that
draws a source per step; beside them the plain model, one source per image, whose price composing should not exceed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from intarsia.data import Source
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.figures import markdown, spread
from intarsia.experiments.reproduce.plots import Curve, Panel, curve_of, plot
from intarsia.experiments.reproduce.study import Study, measured
from intarsia.experiments.reproduce.summary import distance_of, paired, slug, text_of, write_summary
from intarsia.experiments.reproduce.world import World, at_random, by_class

SOURCES = 8
BELOW = "networks below t"
OFF = "0"
NATS = (OFF, "0.03", "0.1", "0.3", "1", "3", "10")
"""Budgets of the divergence per image; the first is no analytic start."""
METHODS = ("gaussian", "posterior")
PLAIN = "ancestral"


def start(study: Study) -> None:
    """Fill the table."""
    for seed in study.scale.seeds:
        for name, sources in _domains(study.world, seed).items():
            _domain(study, name, sources, seed)


def _domains(world: World, seed: int) -> dict[str, list[Source]]:
    if world.owners:
        return {"owners": [owner.kept for owner in world.owners]}
    return {"by class": by_class(world.images, SOURCES), "at random": at_random(world.images, SOURCES, seed=seed)}


def _domain(study: Study, domain: str, sources: Sequence[Source], seed: int) -> None:
    key: dict[str, str | int] = {"seed": seed, "domain": domain}
    cells = [(PLAIN, OFF), *((method, nats) for method in METHODS for nats in NATS)]
    if all(study.bench.has({**key, "method": method, "nats": nats}) for method, nats in cells):
        return
    settings = study.scale.trained(1, len(sources), seed=seed)
    team = study.team(f"seed-{seed}-{slug(domain)}", sources, settings, ["gaussian"])
    yardstick = study.world.yardstick()

    def compute(method: str, nats: str) -> Mapping[str, float]:
        result = study.draw(team, list(team.sources), method, seed, analytic_start=float(nats) or None)
        figures = measured(result, yardstick)
        return {**figures, BELOW: result.switch.below} if result.switch else figures

    for method, nats in cells:
        study.bench.cell({**key, "method": method, "nats": nats}, partial(compute, method, nats))


def report_start(bench: Bench, asks: str) -> Path:
    """A table per kind of sources, and a plot of distance and calls against the budget."""
    figure = distance_of(bench)
    shown = {figure: figure, "calls": "network calls per image"}
    parts = [
        asks + "\n",
        "`nats` bounds the divergence that the start may bring, per image; 0 is no analytic start. `calls` are network "
        "calls per image.\n",
    ]
    for domain in keys_of(bench.rows, "domain"):
        lines = [
            _line(bench, domain, method, nats, figure)
            for method in (PLAIN, *METHODS)
            for nats in keys_of(bench.where(domain=domain, method=method), "nats")
        ]
        columns = ["method", "nats", figure, "ratio to 0 nats", "KID", "calls", BELOW, "share gap"]
        plot(bench.out / f"{slug(domain)}.png", [_panel(bench, domain, y, told) for y, told in shown.items()])
        parts += [f"## Sources {domain}\n", markdown(columns, lines)]
        parts.append(f"![{figure} and calls against the budget]({slug(domain)}.png)\n")
    return write_summary(bench, "start", parts)


def _line(bench: Bench, domain: str, method: str, nats: str, figure: str) -> list[str]:
    rows, base = (bench.where(domain=domain, method=method, nats=n) for n in (nats, OFF))
    against = None if nats == OFF else paired(rows, base, figure)
    shown = (text_of(rows, name) for name in ("KID", "calls", BELOW, "share gap"))
    return [method, nats, text_of(rows, figure), "" if against is None else against.text(), *shown]


def _panel(bench: Bench, domain: str, y: str, told: str) -> Panel:
    """One curve per method, and the plain model's level; `told` says what `y` is."""
    plain = spread([row.figures[y] for row in bench.where(domain=domain, method=PLAIN)])
    budgets = [float(nats) for nats in NATS[1:]]
    started = {m: [row for row in bench.where(domain=domain, method=m) if row.key["nats"] != OFF] for m in METHODS}
    curves = [curve_of(method, rows, "nats", y) for method, rows in started.items()]
    level = Curve("one source per image", budgets, [plain] * len(budgets))
    return Panel(curves=[*curves, level], x="nats per image that may be lost", y=told, log=True)
