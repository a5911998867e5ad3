"""More and smaller sources, down to one per image: the paper's outlook of compartments becoming retrieval.

The sum of sample-gradients stays the same, so sources of a n-th of the images get a n-th of them each: in smaller
steps, lest there be too few. With one image per source the weights become a search for the nearest image: to x0_hat, as
the paper's nearest neighbours are found (`nearest`), or to x_t in the noise it has (`top-1`; `posterior` draws from the
likely ones). The first is led by what it led to: whoever is called first is near to its own x0_hat.

Models of few images are peaked where the images themselves are not, so weights that know the images (`gaussian`) are no
longer those of the models that are mixed. `ito` goes by the models, and `sticky` and `ancestral` mix none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from intarsia.compartments import TrainSettings
from intarsia.composition import CompositeDenoiser, Routing, Threshold, TopK
from intarsia.diffusion import keyed_generator
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.plots import Panel, curve_of, plot
from intarsia.experiments.reproduce.scale import METHODS, Scale
from intarsia.experiments.reproduce.study import Study, copied, measured
from intarsia.experiments.reproduce.summary import distance_of, table, write_summary
from intarsia.experiments.reproduce.workshop import Team
from intarsia.experiments.reproduce.world import Yardstick, at_random
from intarsia.routers import GaussianSettings, PrototypeSettings

COUNTS = (8, 32, 128)
MOST_SOURCES = 1000  # of one image each; beyond, they are left out
NEAREST = "nearest"
FEWEST_STEPS, FEWEST_ROWS = 200, 8
MOST_FOLLOWED = 32  # sources whose models `ito` asks at every step; beyond, that takes as long as all the rest
UNTIMED = ("ancestral", "sticky", "ito")  # no weights, those of others, and weights that come with the models' answers
RELATIVE_THRESHOLD = 0.08  # of the weight that all sources have at the start; 0.01 for eight, as usual
ROUNDS = 9


def limit(study: Study) -> None:
    """Fill the table."""
    yardstick, images = study.world.yardstick(), len(study.world.images)
    study.bench.cell({"seed": "-", "sources": 0, "method": "real"}, partial(yardstick.floor, study.scale.images))
    for seed in study.scale.seeds:
        for count in (count for count in COUNTS if count < images):
            routing = Threshold(RELATIVE_THRESHOLD / count)
            several = {"gaussian": routing, "prototype": routing, "posterior": None, "ancestral": None, "sticky": None}
            several |= {"ito": None} if count <= MOST_FOLLOWED else {}
            _count(study, yardstick, seed, count, several, PrototypeSettings())
        if images <= MOST_SOURCES:
            alone = {NEAREST: TopK(1), "top-1": None, "posterior": None, "ancestral": None}
            _count(study, yardstick, seed, images, alone, PrototypeSettings(prototypes=1))


def _count(
    study: Study,
    yardstick: Yardstick,
    seed: int,
    count: int,
    methods: Mapping[str, Routing | None],
    prototypes: PrototypeSettings,
) -> None:
    """All cells of one number of sources."""
    key: dict[str, str | int] = {"seed": seed, "sources": count}
    if all(study.bench.has({**key, "method": method}) for method in methods):
        return
    settings, parts = thin(study.scale, count, seed=seed), (GaussianSettings(), prototypes)
    team = study.team(f"seed-{seed}-{count}", at_random(study.world.images, count, seed=seed), settings, parts)

    def compute(name: str, routing: Routing | None) -> Mapping[str, float]:
        method = "prototype" if name == NEAREST else name
        result = study.draw(team, list(team.sources), method, seed, routing=routing)
        figures = {**measured(result, yardstick), "copies": copied(result.images, study.world)}
        if method not in UNTIMED:
            model = team.compose(list(team.sources), *METHODS[method])
            figures["router / call"] = router_cost(model, study.scale.sampling.batch)
        return {**figures, "bytes": _bytes(team)}

    for name, routing in methods.items():
        study.bench.cell({**key, "method": name}, partial(compute, name, routing))


def thin(scale: Scale, count: int, *, seed: int) -> TrainSettings:
    """Training settings with a `count`-th of the sample-gradients, in steps of fewer images if there were too few."""
    share = scale.steps * scale.training.rows // count
    fewest = min(FEWEST_ROWS, scale.training.rows)
    rows = min(scale.training.rows, max(fewest, share // FEWEST_STEPS))
    steps = max(1, share // rows)
    warmup = min(scale.training.warmup, steps // 5)
    return replace(scale.training, steps=steps, rows=rows, warmup=warmup, seed=seed)


def router_cost(model: CompositeDenoiser, batch: int) -> float:
    """Seconds that the weights of a batch take, in those of one network call for it, both measured now."""
    x_t = torch.from_numpy(keyed_generator("router cost").standard_normal((batch, *model.latent_shape))).float()
    t, labels = torch.full((batch,), 0.5), [None] * batch
    evidence = model.weights.start()
    evidence.show(x_t)
    pairs = [
        (_seconds(lambda: evidence(x_t, t, labels)), _seconds(lambda: model.members[0].x0_hat(x_t, t, labels)))
        for _ in range(ROUNDS)
    ]
    return median(router for router, _ in pairs) / median(call for _, call in pairs)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bytes(team: Team) -> float:
    """What one source leaves behind: parameters and router part, on average."""
    tensors = [t for c in team.compartments.values() for t in (*c.params.values(), *c.router.values())]
    return sum(t.numel() * t.element_size() for t in tensors) / len(team.compartments)


def report_limit(bench: Bench, asks: str) -> Path:
    """A table per method along the number of sources, and plots of quality, copies and costs."""
    figure = distance_of(bench)
    shown = (figure, "KID", "precision", "recall", "copies", "calls", "router / call", "bytes")
    parts = [
        asks + "\n",
        "`calls` are network calls per image; `router / call` is the time of the weights of a batch in that of one "
        "network call for it; `bytes` are what one source leaves behind; `copies` is the share of images that are much "
        "nearer to one training image than to its neighbours, at a threshold that flags 1 % of held-out real images.\n",
    ]
    methods = [method for method in keys_of(bench.rows, "method") if method != "real"]
    fewest = keys_of(bench.where(method=methods[0]), "sources")[0]
    base = bench.where(method=methods[0], sources=fewest)
    for method in methods:
        rows = table(bench.where(method=method), "sources", shown, base, against=f"{methods[0]}, {fewest} sources")
        parts += [f"## {method}\n", rows]
    panels = [
        Panel(
            curves=[curve_of(method, bench.where(method=method), "sources", y) for method in methods],
            x="sources",
            y=y,
            log=True,
            log_y=y in (figure, "calls"),
        )
        for y in (figure, "copies", "calls", "router / call")
    ]
    plot(bench.out / "limit.png", panels)
    parts.append("![quality, copies and costs against the number of sources](limit.png)\n")
    return write_summary(bench, "limit", parts)
