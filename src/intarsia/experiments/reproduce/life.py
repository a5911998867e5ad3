"""A vault's life: sources come, one grows, a grant, two images and a source go; beside training anew every time.

After each event a principal who has been granted every source draws from what it may still use. Beside that stands the
monolith, trained anew on the images of the same sources in as many steps as their compartments took. Images are
compared with held-out real images of the labels that are left. What an event costs is counted in the vault, while it
trains. At the end a vault is made of what the first one still holds, whose compartments must have the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from intarsia.compartments import TrainSettings, TrainStep
from intarsia.data import Source
from intarsia.diffusion import keyed_generator
from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import Spread, markdown, spread
from intarsia.experiments.reproduce.lifetime import PRINCIPAL, Lifetime, drawable
from intarsia.experiments.reproduce.plots import Curve, Panel, plot
from intarsia.experiments.reproduce.study import Study, measured
from intarsia.experiments.reproduce.summary import distance_of, paired, text_of, write_summary
from intarsia.experiments.reproduce.world import by_class

SOURCES = 5
SLICES = 4
_SHARE = 20  # of the scale's steps each source trains for one part: ten monoliths are trained as well
VAULT, ANEW, REAL, REMADE = "vault", "monolith anew", "real", "vault made anew"
GRADIENTS = "sample-gradients"


def life(study: Study) -> None:
    """Fill the table."""
    for seed in study.scale.seeds:
        _lifetime(study, seed)


def _lifetime(study: Study, seed: int) -> None:
    """All cells of one vault, event by event; only as much of its life happens again as a cell asks for."""

    def on_step(step: TrainStep) -> None:
        study.bench.on_step(f"train {step.name}", step.step, step.steps)

    lifetime = Lifetime(
        study.bench.work / f"life-{seed}",
        study.world.package,
        arrivals(study.world.images, seed),
        _settings(study, seed),
        ["gaussian"],
        on_step,
    )
    count = len(lifetime.events)
    for number, event in enumerate(lifetime.events, start=1):
        key: dict[str, str | int] = {"seed": seed, "event": event.name}
        study.bench.cell({**key, "method": VAULT}, partial(_drawn, study, lifetime, number))
        study.bench.cell({**key, "method": ANEW}, partial(_anew, study, lifetime, number))
        study.bench.cell({**key, "method": REAL}, partial(_real, study, lifetime, number))
        if number == count:
            study.bench.cell({**key, "method": REMADE}, partial(lifetime.anew, number))
        lifetime.leave(number - 1)


def arrivals(images: Source, seed: int) -> list[Source]:
    """Sources by class, in the order in which they come."""
    sources = by_class(images, SOURCES)
    return [sources[place] for place in keyed_generator("arrivals", seed).permutation(SOURCES)]


def _settings(study: Study, seed: int) -> TrainSettings:
    steps = study.scale.trained(1, _SHARE, seed=seed).steps
    return replace(study.scale.training, steps=-(-steps // SLICES) * SLICES, slices=SLICES, seed=seed)


def _drawn(study: Study, lifetime: Lifetime, number: int) -> Mapping[str, float]:
    """What the event costs, and the distances of what the principal draws after it."""
    cost = lifetime.carry_out(number)
    vault, seed = lifetime.after(number), lifetime.settings.seed
    found = drawable(vault)
    result = vault.compose(principal=PRINCIPAL).draw(
        study.scale.images,
        study.scale.sampled(seed),
        on_progress=lambda done, total: study.bench.on_step("draw", done, total),
    )
    figures = measured(result, study.world.yardstick(found.labels))
    return {**figures, **cost, "sources": len(found.names), "images": len(found.ids)}


def _anew(study: Study, lifetime: Lifetime, number: int) -> Mapping[str, float]:
    """The same of a monolith of the images that the principal may draw from, in the steps of their compartments."""
    found, seed = drawable(lifetime.after(number)), lifetime.settings.seed
    images = study.world.images.select(lambda sample: sample.id in found.ids)
    settings = replace(study.scale.training, steps=found.steps, seed=seed)
    result = study.monolith(f"seed-{seed}-anew-{number}", images, settings)
    return {
        **measured(result, study.world.yardstick(found.labels)),
        GRADIENTS: found.steps * settings.rows,
        "images": len(images),
    }


def _real(study: Study, lifetime: Lifetime, number: int) -> Mapping[str, float]:
    return study.world.yardstick(drawable(lifetime.after(number)).labels).floor(study.scale.images)


def report_life(bench: Bench, asks: str) -> Path:
    """Distances and costs after every event, what a vault made anew comes to, and a plot."""
    figure, events = distance_of(bench), keys_of(bench.rows, "event")
    lines = [_line(bench, number, event, figure) for number, event in enumerate(events, start=1)]
    columns = [
        "event",
        "sources",
        "images",
        f"vault, {figure}",
        ANEW,
        "ratio",
        REAL,
        GRADIENTS,
        "of the monolith",
        "times as many",
    ]
    ticks = tuple(f"{number} {event}" for number, event in enumerate(events, start=1))
    quality = [
        _curve(name, [spread(_values(bench, event, name, figure)) for event in events]) for name in (VAULT, ANEW, REAL)
    ]
    costs = [_curve(name, [spread(values) for values in _summed(bench, events, name)]) for name in (VAULT, ANEW)]
    panels = [
        Panel(curves=quality, x="", y=figure, ticks=ticks),
        Panel(curves=costs, x="", y=f"{GRADIENTS} since the beginning", ticks=ticks),
    ]
    plot(bench.out / "life.png", panels)
    parts = [
        asks + "\n",
        markdown(columns, lines),
        f"![{figure} and costs after every event](life.png)\n",
        f"`vault`: images that a principal draws after the event, who was granted every source when it came. `{ANEW}`: "
        "one model trained anew on the images of the sources that the principal may use, in as many steps as their "
        f"compartments took together. `{REAL}`: training images of the labels that are left, the floor. "
        f"{GRADIENTS}: what the vault took for the event, and what the monolith takes; router parts, which take the "
        "time of five or six each, are not counted.\n",
        "## Is anything left of what went?\n",
        _verdict(bench),
    ]
    return write_summary(bench, "life", parts)


def _line(bench: Bench, number: int, event: str, figure: str) -> list[str]:
    vault, anew, real = (bench.where(event=event, method=method) for method in (VAULT, ANEW, REAL))
    ratio = paired(vault, anew, figure)
    mine, theirs = (spread(_values(bench, event, method, GRADIENTS)).mean for method in (VAULT, ANEW))
    return [
        f"{number} {event}",
        *(_range(vault, name) for name in ("sources", "images")),
        text_of(vault, figure),
        text_of(anew, figure),
        "" if ratio is None else ratio.text(),
        text_of(real, figure),
        f"{mine:.0f}",
        f"{theirs:.0f}",
        f"{theirs / mine:.1f}" if mine else "nothing to train",
    ]


def _range(rows: Sequence[Row], figure: str) -> str:
    """A whole number, or from the least to the largest where seeds differ."""
    values = sorted({int(row.figures[figure]) for row in rows})
    return str(values[0]) if len(values) == 1 else f"{values[0]}–{values[-1]}"


def _values(bench: Bench, event: str, method: str, figure: str) -> list[float]:
    return [row.figures[figure] for row in bench.where(event=event, method=method)]


def _summed(bench: Bench, events: Sequence[str], method: str) -> list[list[float]]:
    """What was spent until each event, by seed."""
    spent = [0.0] * len(keys_of(bench.rows, "seed"))
    sums = []
    for event in events:
        spent = [sum(pair) for pair in zip(spent, _values(bench, event, method, GRADIENTS), strict=True)]
        sums.append(spent)
    return sums


def _curve(name: str, spreads: Sequence[Spread]) -> Curve:
    return Curve(name, range(1, len(spreads) + 1), spreads)


def _verdict(bench: Bench) -> str:
    """How many compartments have the bytes of ones that never knew what went."""
    rows = bench.where(method=REMADE)
    same, of = (int(sum(row.figures[name] for row in rows)) for name in ("identical", "compartments"))
    return (
        f"A vault made anew of what the first one holds at the end, extended likewise, which never had the images and "
        f"the source that were forgotten: {same} of {of} compartments have the same bytes, over "
        f"{len(rows)} {'seed' if len(rows) == 1 else 'seeds'}.\n"
    )
