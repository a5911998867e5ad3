"""Forgetting and continual learning: eight sources taken away one by one, beside the monolith retrained each time.

Going down is forgetting, going up continual learning. A composition is the same whichever way it was reached, as every
compartment saw its own source alone; so each set of sources is composed once. The monolith is trained anew on the same
images with the same sample-gradients: a source's part for each source that is left. Images are compared with held-out
real images of the labels that are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from intarsia.data import Source
from intarsia.diffusion import keyed_generator
from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import Spread, markdown
from intarsia.experiments.reproduce.plots import Panel, curve_of, plot
from intarsia.experiments.reproduce.study import Study, measured
from intarsia.experiments.reproduce.summary import distance_of, paired, text_of, write_summary
from intarsia.experiments.reproduce.world import by_class

SOURCES = 8
COMPOSED, ANCESTRAL, RETRAINED, REAL = "composed", "ancestral", "retrained monolith", "real"
CLAIM = 1.01


def curves(study: Study) -> None:
    """Fill the table."""
    sources = by_class(study.world.images, SOURCES)
    for seed in study.scale.seeds:
        order = arrivals(seed)
        for count in range(SOURCES, 0, -1):
            _stage(study, seed, sources, sorted(order[:count]))


def arrivals(seed: int) -> list[int]:
    """The order in which the sources come, and backwards go."""
    return [int(place) for place in keyed_generator("arrivals", seed).permutation(SOURCES)]


def _stage(study: Study, seed: int, sources: Sequence[Source], kept: Sequence[int]) -> None:
    """All cells of one set of sources, given by their places."""
    count = len(kept)
    key: dict[str, str | int] = {"seed": seed, "sources": count}
    methods = (COMPOSED, ANCESTRAL, RETRAINED, REAL)
    if all(study.bench.has({**key, "method": method}) for method in methods):
        return
    left = [sources[place] for place in kept]
    labels = {label for source in left for label in source.labels}
    yardstick = study.world.yardstick(labels)
    settings = study.scale.trained(1, SOURCES, seed=seed)

    def composed(method: str) -> Mapping[str, float]:
        team = study.team(f"seed-{seed}-sources", sources, settings, ["gaussian"])
        return measured(study.draw(team, [source.name for source in left], method, seed), yardstick)

    def retrained() -> Mapping[str, float]:
        images = study.world.images.select(lambda sample: sample.label in labels)
        anew = study.scale.trained(count, SOURCES, seed=seed)
        return measured(study.monolith(f"seed-{seed}-retrained-{count}", images, anew), yardstick)

    study.bench.cell({**key, "method": COMPOSED}, lambda: composed("gaussian"))
    study.bench.cell({**key, "method": ANCESTRAL}, lambda: composed("ancestral"))
    study.bench.cell({**key, "method": RETRAINED}, retrained)
    study.bench.cell({**key, "method": REAL}, partial(yardstick.floor, study.scale.images))


def report_curves(bench: Bench, asks: str) -> Path:
    """Distances and both readings of the claim for every number of sources, and a plot."""
    figure = distance_of(bench)
    counts = sorted(map(int, keys_of(bench.rows, "sources")))
    beside = {count: paired(_of(bench, count, COMPOSED), _of(bench, count, RETRAINED), figure) for count in counts}
    before = {
        count: paired(_of(bench, count, COMPOSED), _of(bench, count + 1, COMPOSED), figure) for count in counts[:-1]
    }
    lines = [
        [
            str(count),
            *(text_of(_of(bench, count, method), figure) for method in (COMPOSED, ANCESTRAL, RETRAINED, REAL)),
            _shown(beside[count]),
            _shown(before.get(count)),
        ]
        for count in counts
    ]
    columns = ["sources left", *(f"{m}, {figure}" for m in (COMPOSED, ANCESTRAL)), RETRAINED, REAL]
    drawn = [
        curve_of(method, bench.where(method=method), "sources", figure)
        for method in (COMPOSED, ANCESTRAL, RETRAINED, REAL)
    ]
    plot(bench.out / "curves.png", [Panel(curves=drawn, x="number of sources left", y=figure)])
    parts = [
        asks + "\n",
        markdown([*columns, "composed / retrained", "composed / with one source more"], lines),
        f"![{figure} against the number of sources left](curves.png)\n",
        "Down the table, sources come; up, they are forgotten. A composition does not depend on the order in which "
        "its sources came. The distance of real images (of the training set) is the floor: it changes with the labels "
        "that are left and with their number of images, and the last column holds that change too. "
        "With one source left, composition and monolith are the same model.\n",
        "## At most 1 % worse by forgetting?\n",
        _verdict("Against the retrained monolith", {k: s for k, s in beside.items() if 1 < k < SOURCES}),
        _verdict("Against the composition before", before),
    ]
    return write_summary(bench, "curves", parts)


def _of(bench: Bench, count: int, method: str) -> list[Row]:
    return bench.where(sources=count, method=method)


def _shown(found: Spread | None) -> str:
    return "" if found is None else found.text()


def _verdict(against: str, ratios: Mapping[int, Spread | None]) -> str:
    """For how many sources left the ratio is within the claim, beyond it, or not known well enough."""
    said: dict[str, list[str]] = {"holds": [], "fails": [], "is open": []}
    for count, found in ratios.items():
        if found is not None:
            within, beyond = found.high <= CLAIM, found.low > CLAIM
            said["holds" if within else "fails" if beyond else "is open"].append(str(count))
    parts = [f"it {verdict} with {', '.join(counts)} left" for verdict, counts in said.items() if counts]
    return f"- {against}: {'; '.join(parts) or 'nothing to compare'}.\n"
