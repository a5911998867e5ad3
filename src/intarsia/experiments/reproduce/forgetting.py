"""What forgetting costs: K requests against sources trained in slices, beside training the monolith anew.

A request names one image, any with the same probability. A source that is asked goes back to before the first slice of
its images that leave and trains from there, and its router part is fitted again; the monolith has to begin afresh
whatever is asked of it. Costs are shares of the monolith's sample-gradients, counted on the images' own slices, beside
the formula of science.md section 4. What a fit of a router part costs is measured in seconds, and told in
sample-gradients by the seconds that one takes in the same process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, median

from intarsia.compartments import Slicing, TrainSettings
from intarsia.data import Source
from intarsia.diffusion import keyed_generator
from intarsia.errors import counted
from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import markdown, spread
from intarsia.experiments.reproduce.plots import Curve, Panel, curve_of, plot
from intarsia.experiments.reproduce.study import Study, measured
from intarsia.experiments.reproduce.summary import distance_of, paired, text_of, write_summary
from intarsia.experiments.reproduce.world import by_class
from intarsia.vault.parts import PartSettings, chosen_parts, fit_parts
from intarsia.vault.training import Recipe, seconds_per_step, train_data, trainable

SOURCES = 8
SLICES = (1, 2, 4, 8)
REQUESTS = (1, 2, 4, 8, 16)
AIM, AIMED = 12, 4  # one request costs at most 1 / AIM of the monolith, with so many slices
TRAINED = (1, AIMED)  # of which the quality is compared
_DRAWS = 500
_FITTED = 3  # sources whose parts are fitted to tell the time of one


def forgetting_cost(study: Study) -> None:
    """Fill the table."""
    sources = by_class(study.world.images, SOURCES)
    for seed in study.scale.seeds:
        for slices in SLICES:
            for requests in REQUESTS:
                key = {"seed": seed, "slices": slices, "requests": requests}
                study.bench.cell(key, partial(_asked, sources, slices, requests, seed))
        _refits(study, sources, seed)
        for slices in TRAINED:
            key = {"seed": seed, "trained in": slices}
            study.bench.cell(key, partial(_quality, study, sources, slices, seed))


# Bourtoule et al. 2021, for slices of equal cost: slice r is trained again if one of K requests falls into it or below
def expected(sources: int, slices: int, requests: int) -> float:
    """The mean share of the monolith's sample-gradients, for sources and slices of equal size."""
    kept = [(1 - part / (slices * sources)) ** requests for part in range(1, slices + 1)]
    return 1 - sum(kept) / slices


def _asked(sources: Sequence[Source], slices: int, requests: int, seed: int) -> dict[str, float]:
    """Mean and largest cost over draws of as many images, each of which may be any."""
    slicing = Slicing(slices, slices)
    owned = [(place, slicing.of(sample)) for place, source in enumerate(sources) for sample in source.manifest.ids]
    generator, costs, touched = keyed_generator("requests", seed, requests), [], []
    for _ in range(_DRAWS):
        chosen = generator.choice(len(owned), requests, replace=False)
        first: dict[int, int] = {}
        for place, number in (owned[k] for k in chosen):
            first[place] = min(number, first.get(place, slices))
        costs.append(sum(slices - number for number in first.values()) / (slices * len(sources)))
        touched.append(len(first))
    return {
        "counted": fmean(costs),
        "formula": expected(len(sources), slices, requests),
        "most": max(costs),
        "sources asked": fmean(touched),
        "sliced monolith": expected(1, slices, requests),
    }


def _refits(study: Study, sources: Sequence[Source], seed: int) -> None:
    """What fitting each kind of router part to one source takes."""
    for kind, settings in chosen_parts(study.scale.routers).items():
        key: dict[str, str | int] = {"seed": seed, "part": kind}
        study.bench.cell(key, partial(_refit, study, sources[:_FITTED], {kind: settings}, seed))


def _refit(study: Study, sources: Sequence[Source], part: Mapping[str, PartSettings], seed: int) -> dict[str, float]:
    settings, backbone, core = _settings(study, SLICES[0], seed), study.world.backbone, study.world.core
    first = sources[0]
    few = frozenset(first.manifest.ids[: settings.rows])
    record = Recipe(trainable(settings, backbone), {}).record(backbone, core, {"manifest_root": first.manifest.root})
    gradient = seconds_per_step(backbone, first.select(lambda sample: sample.id in few), record) / settings.rows
    seconds = []
    for source in sources:
        data = train_data(backbone, source)
        began = time.perf_counter()
        fit_parts(part, data, backbone, core)
        seconds.append(time.perf_counter() - began)
    gradients = median(seconds) / gradient
    return {
        "seconds": median(seconds),
        "sample-gradients": gradients,
        "share": gradients / (SOURCES * settings.steps * settings.rows),
    }


def _quality(study: Study, sources: Sequence[Source], slices: int, seed: int) -> dict[str, float]:
    """Distances of a composition of compartments that were trained in so many slices."""
    team = study.team(f"seed-{seed}-slices-{slices}", sources, _settings(study, slices, seed), ["gaussian"])
    return measured(study.draw(team, [source.name for source in sources], "gaussian", seed), study.world.yardstick())


def _settings(study: Study, slices: int, seed: int) -> TrainSettings:
    """As many steps for every number of slices: the least that all of them divide."""
    steps = study.scale.trained(1, SOURCES, seed=seed).steps
    return replace(study.scale.training, steps=-(-steps // max(SLICES)) * max(SLICES), slices=slices, seed=seed)


def report_forgetting_cost(bench: Bench, asks: str) -> Path:
    """Costs beside the formula, what router parts add, the distance that slicing costs, and a plot."""
    kinds = keys_of(bench.rows, "part")
    refits = {kind: spread([row.figures["share"] for row in bench.where(part=kind)]).mean for kind in kinds}
    plot(bench.out / "cost.png", [_panel(bench)])
    usual = kinds[0]
    parts = [
        asks + "\n",
        f"Shares of the sample-gradients of training the monolith of {SOURCES} sources anew. `counted`: on the slices "
        f"of the images themselves, mean over {_DRAWS} draws of requests per seed; `most`: the dearest of them.\n",
        "## One request\n",
        markdown(
            ["slices", "counted", "formula", "worst slice", *(f"with a new {kind} part" for kind in kinds)],
            [_one(bench.where(slices=slices, requests=1), slices, refits) for slices in SLICES],
        ),
        _verdict(bench, refits),
        "## Several at once\n",
        markdown(
            ["requests", *(counted(slices, "slice") for slices in SLICES), "formula, 4", f"4, with {usual} parts"],
            [_several(bench, requests, refits[usual]) for requests in REQUESTS],
        ),
        "![cost against the number of requests](cost.png)\n",
        "## A router part\n",
        markdown(
            ["part", "seconds", "sample-gradients", "share"],
            [
                [kind, *(_text(bench.where(part=kind), name) for name in ("seconds", "sample-gradients", "share"))]
                for kind in kinds
            ],
        ),
        "One fit to one source, on the machine of this run; its sample-gradients are those that could have been taken "
        "in the time.\n",
        "## What slices cost in quality\n",
        _quality_table(bench),
    ]
    return write_summary(bench, "forgetting-cost", parts)


def _one(rows: Sequence[Row], slices: int, refits: Mapping[str, float]) -> list[str]:
    mean = spread([row.figures["counted"] for row in rows]).mean
    formula = expected(SOURCES, slices, 1)
    return [str(slices), *map(_share, (mean, formula, 1 / SOURCES, *(mean + refit for refit in refits.values())))]


def _several(bench: Bench, requests: int, refit: float) -> list[str]:
    rows = {slices: bench.where(slices=slices, requests=requests) for slices in SLICES}
    means = {slices: spread([row.figures["counted"] for row in some]).mean for slices, some in rows.items()}
    asked = spread([row.figures["sources asked"] for row in rows[AIMED]]).mean
    shown = [*means.values(), expected(SOURCES, AIMED, requests), means[AIMED] + asked * refit]
    return [str(requests), *(f"{value:.4f}" for value in shown)]


def _verdict(bench: Bench, refits: Mapping[str, float]) -> str:
    """Whether one request stays within the aim, for each kind of router part."""
    mean = spread([row.figures["counted"] for row in bench.where(slices=AIMED, requests=1)]).mean
    said = [
        f"with `{kind}` parts {'reached' if mean + refit <= 1 / AIM else 'missed'}" for kind, refit in refits.items()
    ]
    return f"The aim, at most 1/{AIM} of the monolith for one request with {AIMED} slices: {', '.join(said)}.\n"


def _quality_table(bench: Bench) -> str:
    figure = distance_of(bench)
    base = bench.where(**{"trained in": TRAINED[0]})
    lines = []
    for slices in TRAINED:
        rows = bench.where(**{"trained in": slices})
        ratio = paired(rows, base, figure)
        lines.append([str(slices), text_of(rows, figure), "" if ratio is None else ratio.text()])
    return markdown(["slices", figure, "ratio to one slice"], lines)


def _panel(bench: Bench) -> Panel:
    told = [row for row in bench.rows if "requests" in row.key]
    curves = [
        curve_of(counted(slices, "slice"), [r for r in told if r.key["slices"] == str(slices)], "requests", "counted")
        for slices in SLICES
    ]
    formula = [spread([expected(SOURCES, AIMED, requests)]) for requests in REQUESTS]
    curves.append(Curve(f"formula, {AIMED} slices", list(REQUESTS), formula))
    return Panel(curves=curves, x="requests at once", y="share of the monolith", log=True, top=1.0)


def _share(value: float) -> str:
    return f"{value:.4f} (1/{1 / value:.1f})"


def _text(rows: Sequence[Row], figure: str) -> str:
    mean = spread([row.figures[figure] for row in rows]).mean
    return f"{mean:.5f}" if mean < 1 else f"{mean:.1f}"
