"""Sources of different domains against sources of one: how soon the weights settle, and what naive averaging costs.

The paper's Figures 1, 3 and 5 show weights over time. Where sources differ, one weight goes to 1 early and averaging
the rest in ruins the image; where they are alike, the weights stay near the prior and averaging does no harm.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from intarsia.composition import Result
from intarsia.data import Source
from intarsia.errors import CorruptError
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.figures import Spread, markdown, spread
from intarsia.experiments.reproduce.plots import Curve, Panel, plot
from intarsia.experiments.reproduce.study import Study, measured
from intarsia.experiments.reproduce.summary import distance_of, paired, slug, text_of, write_summary
from intarsia.experiments.reproduce.world import World, at_random, by_class
from intarsia.experiments.reproduce.worlds import among
from intarsia.files import write_atomic

SOURCES = 8
NEAR = ("fluent3d", "fluentflat")
COMPARED = ("gaussian", "naive", "ancestral")
SETTLED = 0.9
RANKS = ("largest weight", "second", "third", "fourth")


@dataclass(frozen=True)
class Domain:
    """A set of sources, and the world that they are judged in."""

    name: str
    world: World
    sources: Sequence[Source]


def domains_of(world: World, *, seed: int) -> list[Domain]:
    """Sources that differ, and sources that do not: by class and at random; or by owner, half an owner's each."""
    if not world.owners:
        parts = {"by class": by_class(world.images, SOURCES), "at random": at_random(world.images, SOURCES, seed=seed)}
        return [Domain(name, world, sources) for name, sources in parts.items()]

    def between(*names: str) -> World:
        chosen = [owner for owner in world.owners if owner.name in names]
        return among("-".join(names), chosen, world.package, world.network)

    first, second = (owner.name for owner in world.owners[-2:])
    both, one = between(first, second), between(second)
    found = [
        Domain("two owners", both, [owner.kept for owner in both.owners]),
        Domain("one owner in halves", one, at_random(one.images, 2, seed=seed)),
    ]
    if {owner.name for owner in world.owners} >= set(NEAR):
        near = between(*NEAR)
        found.append(Domain("one owner, two renderings", near, [owner.kept for owner in near.owners]))
    return found


def domains(study: Study) -> None:
    """Fill the table."""
    for seed in study.scale.seeds:
        for domain in domains_of(study.world, seed=seed):
            _domain(replace(study, world=domain.world), domain, seed)


def _domain(study: Study, domain: Domain, seed: int) -> None:
    key: dict[str, str | int] = {"seed": seed, "domain": domain.name}
    if all(study.bench.has({**key, "method": method}) for method in COMPARED):
        return
    settings = study.scale.trained(1, len(domain.sources), seed=seed)
    team = study.team(f"seed-{seed}-{slug(domain.name)}", domain.sources, settings, ["gaussian"])
    yardstick = domain.world.yardstick()

    def compute(method: str) -> Mapping[str, float]:
        result = study.draw(team, list(team.sources), method, seed)
        figures = measured(result, yardstick)
        if method != "gaussian":
            return figures
        _keep(_series(study.bench, domain.name, seed), result)
        return {**figures, **settling(result.weights, result.times)}

    for method in COMPARED:
        study.bench.cell({**key, "method": method}, partial(compute, method))


def settling(weights: Tensor, times: Tensor) -> dict[str, float]:
    """When the largest weight of an image first passes 0.9, of weights (steps, N, n) at falling times (steps,).

    Returns:
        The mean time over the images where it does, if there are any, and the share of those where it never does.
    """
    passed = weights.amax(dim=2) > SETTLED
    ever = passed.any(dim=0)
    first = times[passed.double().argmax(dim=0)]
    settled = {"settled at t": first[ever].double().mean().item()} if bool(ever.any()) else {}
    return {**settled, "never settled": 1 - ever.double().mean().item()}


def report_domains(bench: Bench, asks: str) -> Path:
    """A line per domain, and the mean sorted weights over time."""
    figure = distance_of(bench)
    names = keys_of(bench.rows, "domain")
    lines, panels = [], []
    for name in names:
        ours, naive, ancestral = (bench.where(domain=name, method=method) for method in COMPARED)
        against = paired(naive, ours, figure)
        distances = [text_of(rows, figure) for rows in (ours, naive, ancestral)]
        ratio = "" if against is None else against.text()
        lines.append([name, *distances, ratio, *(text_of(ours, f) for f in ("settled at t", "never settled", "calls"))])
        panels.append(_panel(bench, name))
    plot(bench.out / "weights.png", panels)
    columns = ["sources", *(f"{figure}, {method}" for method in COMPARED), "naive / gaussian"]
    parts = [
        asks + "\n",
        markdown([*columns, "settled at t", "never settled", "calls"], lines),
        "Settled: the largest of an image's weights has passed 0.9, at a time between 1, noise, and 0, the image.\n",
        "![mean sorted weights over time](weights.png)\n",
    ]
    return write_summary(bench, "domains", parts)


def _panel(bench: Bench, name: str) -> Panel:
    x, y = "t, from noise to the image", "mean weight"
    return Panel(curves=_curves(bench, name), x=x, y=y, title=name, backwards=True, top=1.02)


def _curves(bench: Bench, name: str) -> list[Curve]:
    """The mean over images of each image's largest, second largest, … weight, over seeds, along time."""
    seeds = keys_of(bench.where(domain=name, method="gaussian"), "seed")
    tables = [_kept(_series(bench, name, seed)) for seed in seeds]
    times = [line[0] for line in tables[0]]
    shown = RANKS[: len(tables[0][0]) - 1]

    def along(rank: int) -> list[Spread]:
        return [spread([table[step][rank] for table in tables]) for step in range(len(times))]

    return [Curve(name, times, along(rank)) for rank, name in enumerate(shown, start=1)]


def _series(bench: Bench, name: str, seed: str | int) -> Path:
    return bench.out / f"weights-{slug(name)}-seed-{seed}.csv"


def _keep(path: Path, result: Result) -> None:
    means = result.weights.double().sort(dim=2, descending=True).values.mean(dim=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["t", *(f"rank {k + 1}" for k in range(means.shape[1]))])
    writer.writerows(torch.cat([result.times.double()[:, None], means], dim=1).tolist())
    write_atomic(path, text.getvalue().encode())


def _kept(path: Path) -> list[list[float]]:
    """Lines of a time and the mean sorted weights."""
    try:
        _, *lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
        return [[float(value) for value in line] for line in lines]
    except (OSError, ValueError) as error:
        raise CorruptError(
            f"{path} cannot be read ({error}); take the lines of this domain and seed out of results.csv"
        ) from error
