"""The paper's Table 1: one data set in 2, 4 and 8 sources, composed by every rule, beside the monolith.

All methods have the monolith's sample-gradients: n sources train for a n-th of its steps each. Adapters are counted
too: the monolith is trained once with an adapter of the size of one source's, and once with one n times as large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from intarsia.compartments import DeepPrompts, Lora, TrainSettings
from intarsia.data import Source
from intarsia.errors import SettingsError
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.figures import spread
from intarsia.experiments.reproduce.study import Study
from intarsia.experiments.reproduce.summary import Curve, plot_lines, table, write_summary
from intarsia.experiments.reproduce.world import Yardstick, at_random, by_class


def splits(study: Study, *, counts: Sequence[int] = (2, 4, 8)) -> None:
    """Fill the table."""
    yardstick = study.world.yardstick()
    study.bench.cell({"seed": "-", "split": "-", "sources": 0, "method": "real"}, yardstick.floor)
    for seed in study.scale.seeds:
        for size in (1, max(counts)):
            _monolith(study, yardstick, seed, size)
        for count in counts:
            _split(study, yardstick, seed, "class", by_class(study.world, count))
            _split(study, yardstick, seed, "random", at_random(study.world, count, seed=seed))


def _monolith(study: Study, yardstick: Yardstick, seed: int, size: int) -> None:
    """All images in one source; the adapter `size` times as large as a source's."""
    key: dict[str, str | int] = {"seed": seed, "split": "-", "sources": 1, "method": f"monolith x{size}"}

    def compute() -> Mapping[str, float]:
        settings = study.scale.trained(share=1, seed=seed)
        settings = replace(settings, adapter=larger(settings, size).adapter)
        source = replace(study.world.images, name="all")
        vault = study.vault(f"seed-{seed}-all-x{size}", [source], settings, ["gaussian"])
        return study.measured(study.draw(vault, ["all"], "ancestral", study.scale.sampled(seed)), yardstick)

    study.bench.cell(key, compute)


def larger(settings: TrainSettings, times: int) -> TrainSettings:
    """The settings with an adapter of `times` as many parameters.

    Raises:
        SettingsError: an adapter that cannot grow.
    """
    adapter = settings.adapter
    if times == 1:
        return settings
    if isinstance(adapter, Lora):
        # The scale stays: a rank times as large with the same scale has the same step at the start.
        return replace(settings, adapter=replace(adapter, rank=adapter.rank * times))
    if isinstance(adapter, DeepPrompts):
        return replace(settings, adapter=replace(adapter, tokens=adapter.tokens * times))
    raise SettingsError(f"an adapter of the kind '{adapter.name}' cannot be made {times} times as large")


def _split(study: Study, yardstick: Yardstick, seed: int, kind: str, sources: Sequence[Source]) -> None:
    key: dict[str, str | int] = {"seed": seed, "split": kind, "sources": len(sources)}
    wanted = [*study.scale.methods, "best single"]
    if all(study.bench.has({**key, "method": method}) for method in wanted):
        return
    settings = study.scale.trained(share=len(sources), seed=seed)
    vault = study.vault(f"seed-{seed}-{kind}-{len(sources)}", sources, settings, study.scale.routers)
    names = [source.name for source in sources]
    drawing = study.scale.sampled(seed)

    def composed(method: str) -> Callable[[], Mapping[str, float]]:
        return lambda: study.measured(study.draw(vault, names, method, drawing), yardstick)

    def best_single() -> Mapping[str, float]:
        alone = (study.measured(study.draw(vault, [name], "ancestral", drawing), yardstick) for name in names)
        return min(alone, key=lambda figures: figures[yardstick.distance])

    for method in study.scale.methods:
        study.bench.cell({**key, "method": method}, composed(method))
    study.bench.cell({**key, "method": "best single"}, best_single)


def report_splits(bench: Bench, asks: str) -> Path:
    """Tables per kind of split and number of sources, and a plot of the distance against that number."""
    figure = next(name for row in bench.rows for name in row.figures if name.startswith("FD-"))
    quality = (figure, "KID", "precision", "recall")
    base = bench.where(method="monolith x1")
    parts = [asks + "\n", table(bench.where(split="-"), "method", quality, base)]
    for kind in keys_of(bench.rows, "split")[1:]:
        for count in keys_of(bench.where(split=kind), "sources"):
            rows = table(bench.where(split=kind, sources=count), "method", (*quality, "calls", "share gap"), base)
            parts += [f"## {count} sources, split by {kind}\n", rows]
        plot_lines(bench.out / f"{kind}.png", _curves(bench, kind, figure), x="sources", y=figure, log=True)
        parts.append(f"![{figure} against the number of sources, split by {kind}]({kind}.png)\n")
    return write_summary(bench, "splits", parts)


def _curves(bench: Bench, kind: str, figure: str) -> list[Curve]:
    curves = []
    for method in keys_of(bench.where(split=kind), "method"):
        places = keys_of(bench.where(split=kind, method=method), "sources")
        rows = [bench.where(split=kind, sources=count, method=method) for count in places]
        spreads = [spread([row.figures[figure] for row in some]) for some in rows]
        curves.append(Curve(method, [float(count) for count in places], spreads))
    return curves
