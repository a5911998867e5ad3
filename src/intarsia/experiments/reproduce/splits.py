"""The paper's Table 1: one data set in 2, 4 and 8 sources, composed by every rule, beside the monolith.

All methods have the monolith's sample-gradients: n sources train for a n-th of its steps each. Adapters are counted
too: the monolith is trained once with an adapter of the size of one source's, and once with one n times as large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from intarsia.composition import Result
from intarsia.data import Source
from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import spread
from intarsia.experiments.reproduce.plots import Curve, Panel, curve_of, plot, plot_bars
from intarsia.experiments.reproduce.scale import SINGLE, larger
from intarsia.experiments.reproduce.study import MONOLITH, Study, measured
from intarsia.experiments.reproduce.summary import distance_of, table, write_summary
from intarsia.experiments.reproduce.world import at_random, by_class, check_classes

KINDS = {"class": "by class", "random": "at random"}

Judge = Callable[[Result], Mapping[str, float]]
"""The figures of a set of images."""


def splits(study: Study) -> None:
    """Fill the table."""
    images, yardstick = study.world.images, study.world.yardstick()
    for count in study.scale.counts:
        check_classes(images, count)

    def judge(result: Result) -> Mapping[str, float]:
        return measured(result, yardstick)

    study.bench.cell(
        {"seed": "-", "split": "-", "sources": 0, "method": "real"}, partial(yardstick.floor, study.scale.images)
    )
    for seed in study.scale.seeds:
        for size in (1, max(study.scale.counts)):
            monolith(study, judge, seed, size)
        for count in study.scale.counts:
            compared(study, judge, seed, "class", by_class(images, count))
            compared(study, judge, seed, "random", at_random(images, count, seed=seed))


def monolith(study: Study, judge: Judge, seed: int, size: int) -> None:
    """All images in one source; the adapter `size` times as large as a source's."""
    key: dict[str, str | int] = {"seed": seed, "split": "-", "sources": 1, "method": f"monolith x{size}"}

    def compute() -> Mapping[str, float]:
        settings = larger(study.scale.trained(1, 1, seed=seed), size)
        return judge(study.monolith(f"seed-{seed}-all-x{size}", study.world.images, settings))

    study.bench.cell(key, compute)


def compared(study: Study, judge: Judge, seed: int, kind: str, sources: Sequence[Source]) -> None:
    """These sources composed by every method, and the best of them alone."""
    key: dict[str, str | int] = {"seed": seed, "split": kind, "sources": len(sources)}
    if all(study.bench.has({**key, "method": method}) for method in study.scale.methods):
        return
    settings = study.scale.trained(1, len(sources), seed=seed)
    team = study.team(f"seed-{seed}-{kind}-{len(sources)}", sources, settings, study.scale.routers)
    names = [source.name for source in sources]

    def composed(method: str) -> Callable[[], Mapping[str, float]]:
        return lambda: judge(study.draw(team, names, method, seed))

    def best_single() -> Mapping[str, float]:
        able = (source.name for source in sources if study.world.can_ask(source.labels))
        alone = (judge(study.draw(team, [name], "ancestral", seed)) for name in able)
        return min(alone, key=lambda figures: figures[study.world.distance])

    for method in study.scale.methods:
        study.bench.cell({**key, "method": method}, best_single if method == SINGLE else composed(method))


def report_splits(bench: Bench, asks: str) -> Path:
    """Tables per kind of split and number of sources, and a plot of the distance against that number."""
    figure = distance_of(bench)
    quality = (figure, "KID", "precision", "recall")
    base = bench.where(method=MONOLITH)
    parts = [asks + "\n", table(bench.where(split="-"), "method", quality, base)]
    for kind in keys_of(bench.rows, "split")[1:]:
        parts += tables_of(bench, kind, KINDS[kind], quality, base)
        parts.append(_picture(bench, kind, figure))
    return write_summary(bench, "splits", parts)


def _picture(bench: Bench, kind: str, figure: str) -> str:
    """A plot of the distance against the number of sources, or of every method's where there is but one number."""
    path = bench.out / f"{kind}.png"
    if len(keys_of(bench.where(split=kind), "sources")) > 1:
        panel = Panel(curves=curves_of(bench, kind, figure), x="number of sources", y=figure, log=True, log_y=True)
        plot(path, [panel])
        return f"![{figure} against the number of sources {KINDS[kind]}]({path.name})\n"
    shown = [*bench.where(split="-", sources=1), *bench.where(split=kind)]
    found = {
        name: [row.figures[figure] for row in shown if row.key["method"] == name] for name in keys_of(shown, "method")
    }
    plot_bars(path, list(found), [spread(values) for values in found.values()], x=figure)
    return f"![{figure} of every method, sources {KINDS[kind]}]({path.name})\n"


def tables_of(bench: Bench, kind: str, told: str, quality: Sequence[str], base: Sequence[Row]) -> list[str]:
    """For every number of sources a heading, in which `told` says of what kind, and a table of all methods."""
    parts = []
    for count in keys_of(bench.where(split=kind), "sources"):
        rows = table(bench.where(split=kind, sources=count), "method", (*quality, "calls", "share gap"), base)
        parts += [f"## {count} sources {told}\n", rows]
    return parts


def curves_of(bench: Bench, kind: str, figure: str) -> list[Curve]:
    """A figure against the number of sources: one curve for every method, after the monolith's level."""
    methods = keys_of(bench.where(split=kind), "method")
    curves = [curve_of(method, bench.where(split=kind, method=method), "sources", figure) for method in methods]
    level = spread([row.figures[figure] for row in bench.where(method=MONOLITH)])
    places = sorted({place for curve in curves for place in curve.places})
    return [Curve("monolith", places, [level] * len(places)), *curves]
