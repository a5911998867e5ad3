"""The owners of emoji as sources: styles that a viewer tells apart, drawn for captions that no owner was trained on.

Beside them the monolith of all owners' images, at equal sample-gradients, with an adapter of one owner's size and with
one as large as all of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from intarsia.composition import Result
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.figures import spread
from intarsia.experiments.reproduce.plots import plot_bars
from intarsia.experiments.reproduce.scale import Scale
from intarsia.experiments.reproduce.splits import compared, monolith
from intarsia.experiments.reproduce.study import MONOLITH, Study, copied, measured
from intarsia.experiments.reproduce.summary import distance_of, table, write_summary
from intarsia.routers import GaussianSettings, HeadSettings, PrototypeSettings


def owners_scale(usual: Scale) -> Scale:
    """Budgets that keep a seed under an hour of one core."""
    return replace(
        usual,
        steps=960,
        training=replace(usual.training, rows=32),
        sampling=replace(usual.sampling, steps=20),
        images=256,
        routers=(GaussianSettings(), HeadSettings(steps=150), PrototypeSettings()),
    )


def owners(study: Study) -> None:
    """Fill the table."""
    sources, yardstick = [owner.kept for owner in study.world.owners], study.world.yardstick()

    def judge(result: Result) -> Mapping[str, float]:
        return {**measured(result, yardstick), "copies": copied(result.images, study.world)}

    study.bench.cell(
        {"seed": "-", "split": "-", "sources": 0, "method": "real"}, partial(yardstick.floor, study.scale.images)
    )
    for seed in study.scale.seeds:
        for size in (1, len(sources)):
            monolith(study, judge, seed, size)
        compared(study, judge, seed, "owner", sources)


def report_owners(bench: Bench, asks: str) -> Path:
    """One table of all methods, and their distances as bars."""
    figure = distance_of(bench)
    shown = (figure, "KID", "precision", "recall", "copies", "calls", "share gap")
    methods = keys_of(bench.rows, "method")
    spreads = [spread([row.figures[figure] for row in bench.where(method=method)]) for method in methods]
    plot_bars(bench.out / "owners.png", methods, spreads, x=figure)
    parts = [
        asks + "\n",
        table(bench.rows, "method", shown, bench.where(method=MONOLITH)),
        f"![{figure} of every method](owners.png)\n",
    ]
    return write_summary(bench, "owners", parts)
