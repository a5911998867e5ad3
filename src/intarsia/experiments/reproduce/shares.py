"""Why random shares of one data set lose: for want of images, or of steps?

A random eighth of the images has, at equal sample-gradients, an eighth of the steps too. One model alone is trained on
all images or on such a share, in all the steps or in an eighth of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from intarsia.data import Source
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.figures import spread
from intarsia.experiments.reproduce.plots import plot_bars
from intarsia.experiments.reproduce.study import Study, measured
from intarsia.experiments.reproduce.summary import distance_of, table, write_summary
from intarsia.experiments.reproduce.world import Yardstick, at_random

SHARES = 8
ALL, SHARE = "all", "an eighth"
REAL = "real"


def model_of(images: str, steps: str) -> str:
    """A model's name in the table."""
    return f"{images} of the images, {steps} of the steps"


def shares(study: Study) -> None:
    """Fill the table."""
    images, yardstick = study.world.images, study.world.yardstick()
    study.bench.cell({"seed": "-", "model": REAL}, partial(yardstick.floor, study.scale.images))
    for seed in study.scale.seeds:
        some = {ALL: images, SHARE: at_random(images, SHARES, seed=seed)[0]}
        for seen, source in some.items():
            for trained, of in ((ALL, 1), (SHARE, SHARES)):
                compute = partial(_alone, study, yardstick, source, of, seed)
                study.bench.cell({"seed": seed, "model": model_of(seen, trained)}, compute)


def _alone(study: Study, yardstick: Yardstick, source: Source, of: int, seed: int) -> Mapping[str, float]:
    settings = study.scale.trained(1, of, seed=seed)
    place = f"seed-{seed}-{len(source)}-images-{settings.steps}-steps"
    return measured(study.monolith(place, source, settings), yardstick)


def report_shares(bench: Bench, asks: str) -> Path:
    """One table, and the distances as bars."""
    figure, models = distance_of(bench), keys_of(bench.rows, "model")
    spreads = [spread([row.figures[figure] for row in bench.where(model=model)]) for model in models]
    plot_bars(bench.out / "shares.png", models, spreads, x=figure)
    base = bench.where(model=model_of(ALL, ALL))
    parts = [
        asks + "\n",
        table(bench.rows, "model", (figure, "KID", "precision", "recall"), base, against="all of both"),
        f"![{figure} of every model](shares.png)\n",
    ]
    return write_summary(bench, "shares", parts)
