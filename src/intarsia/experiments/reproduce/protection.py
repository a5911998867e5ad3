"""A secret in one of two sources: how often does each rule of composition draw it?

Two random halves of the images, to one of which a picture that is no digit is added so often that every tenth image of
it is that picture. What draws it is judged by the distance in pixels; nothing else comes near. CP-k is given the images
of the ancestral mixture and a k that lets half of them pass. Beside it, two sources that are known (`target.py`): do
the operator's particles come from the geometric mean?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from intarsia.audit import Estimate, share_interval
from intarsia.composition import UNLIMITED, Result, sample
from intarsia.credit import CALLS, log_ratios
from intarsia.data.images import Pixels
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.figures import Spread, markdown
from intarsia.experiments.reproduce.planted import is_secret, plant, reach_of, sprite
from intarsia.experiments.reproduce.plots import plot_bars
from intarsia.experiments.reproduce.rules import SOURCES, Rules
from intarsia.experiments.reproduce.study import Study
from intarsia.experiments.reproduce.summary import distance_of, text_of, write_summary
from intarsia.experiments.reproduce.target import APART, DRAWN, STEPS
from intarsia.experiments.reproduce.world import at_random

SHARE = 0.1  # of the images of the source with the secret
PASSING = 0.5  # of the candidates, under CP-k
CP_K = "cp-k"

Drawn = Callable[[], Result | tuple[Tensor, Mapping[str, float]]]
"""Draws images, and tells what there is to tell of them."""


def protection(study: Study) -> None:
    """Fill the table."""
    for seed in study.scale.seeds:
        rules, secret = _planted(study, seed)
        reach = reach_of(secret, study.world.reference.pixels())
        draws: dict[str, Drawn] = {**rules.draws, CP_K: partial(_limited, rules, secret, reach)}
        for method, draw in draws.items():
            study.bench.cell({"seed": seed, "method": method}, partial(_judged, study, draw, secret, reach))
        for name in DRAWN:
            study.bench.cell({"seed": seed, "known": name}, partial(_known, name, seed))


def _planted(study: Study, seed: int) -> tuple[Rules, Pixels]:
    first, second = at_random(study.world.images, SOURCES, seed=seed)
    secret = sprite(first.images.shape[1], first.images.shape[3], seed=seed)
    times = math.ceil(SHARE / (1 - SHARE) * len(first))
    return Rules(study, [plant(first, [secret], [times], seed=seed), second], seed), secret


def _judged(study: Study, draw: Drawn, secret: Pixels, reach: float) -> dict[str, float]:
    """How many of the images are the secret, and the quality of as many of them as CP-k lets pass."""
    found = draw()
    images, figures = found if isinstance(found, tuple) else (found.images, _figures(found))
    hits = int(is_secret(images, secret, reach).sum())
    some = images[: round(PASSING * study.scale.images)]
    return {**study.world.yardstick().measure(some), "secrets": hits, "images": len(images), **figures}


def _figures(result: Result) -> dict[str, float]:
    calls = {"calls": result.calls.double().mean().item()}
    if result.protection is None:
        return calls
    return {**calls, "k": max(result.bounds.values()), "effective": result.protection.ess.mean().item()}


def _known(name: str, seed: int) -> dict[str, float]:
    draw, images, particles = DRAWN[name]
    return {APART: draw(images, particles, seed), "draws": images * particles}


def _limited(rules: Rules, secret: Pixels, reach: float) -> tuple[Tensor, dict[str, float]]:
    """The half of the ancestral mixture's images that lean least on one source, and the bound that this gives."""
    scale, model = rules.study.scale, rules.model()
    drawn = sample(model, scale.images, scale.sampled(rules.seed), decode=rules.team.backbone.decode)
    largest = log_ratios(model, drawn.latents, None, UNLIMITED).max(dim=1).values
    passing = largest <= largest.quantile(PASSING)
    told = is_secret(drawn.images, secret, reach)
    ratios = {"secret ratio": largest[told].median().item()} if bool(told.any()) else {}
    nu = passing.double().mean().item()
    ratios |= {"other ratio": largest[~told].median().item(), "other ratio, 99 %": largest[~told].quantile(0.99).item()}
    calls = (drawn.calls.double().mean().item() + CALLS * len(model.members)) / nu
    return drawn.images[passing], {**ratios, "calls": calls, "k": largest[passing].max().item() - math.log(nu)}


def report_protection(bench: Bench, asks: str) -> Path:
    """How often each rule drew the secret, its quality, cost and bound, and a plot."""
    figure = distance_of(bench)
    columns = (figure, "precision", "recall", "calls", "k", "effective")
    methods = keys_of(bench.rows, "method")
    rates = {method: _rate(bench, method) for method in methods}
    lines = [
        [method, _shown(rates[method]), *(text_of(bench.where(method=method), each) for each in columns)]
        for method in methods
    ]
    bars = [Spread(rate.value, rate.low, rate.high, 2) for rate in rates.values()]
    plot_bars(bench.out / "secret.png", methods, bars, x="share of the images that are the secret")
    cp = bench.where(method=CP_K)
    parts = [
        asks + "\n",
        markdown(["method", "secret, % of images", *columns], lines),
        "Of all seeds together, with Clopper and Pearson's 95 % interval. `calls` are network calls per image; `k` is "
        "the bound in nats: for `protected` on the mean of log p / q of the worse source, for `cp-k` on that of every "
        f"single image. Distances are those of the first {PASSING:.0%} of the images, as many as CP-k lets pass.\n",
        "![how often each rule drew the secret](secret.png)\n",
        "## What CP-k sees\n",
        f"The larger of log p / q_i, in nats, median over the images: {text_of(cp, 'secret ratio') or 'none'} for the "
        f"secret, {text_of(cp, 'other ratio')} for all others; 99 % of these are below "
        f"{text_of(cp, 'other ratio, 99 %')}.\n",
        *_where_known(bench),
    ]
    return write_summary(bench, "protection", parts)


def _where_known(bench: Bench) -> list[str]:
    """How far each way of drawing is from a target that is known."""
    names = keys_of(bench.rows, "known")
    lines = [[n, *(text_of(bench.where(known=n), figure) for figure in (APART, "draws"))] for n in names]
    return [
        "## Where the target is known\n",
        f"Two Gaussian mixtures on a line, {STEPS} steps: total variation to their geometric mean, over 40 bins. "
        "Chance alone leaves what draws of the target itself have.\n",
        markdown(["drawn by", APART, "draws"], lines),
    ]


def _rate(bench: Bench, method: str) -> Estimate:
    rows = bench.where(method=method)
    hits, count = (int(sum(row.figures[name] for row in rows)) for name in ("secrets", "images"))
    return share_interval(hits, count)


def _shown(rate: Estimate) -> str:
    return f"{100 * rate.value:.2f} [{100 * rate.low:.2f}, {100 * rate.high:.2f}]"
