"""Credit against the truth: does an image owe most to the source without which retrained models like it least?

Images are drawn from a composition of four sources, and credited by every method. Then a monolith is trained anew on
every subset of the sources, and asked how likely the same images are (`retrained.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from torch import Tensor

from intarsia.composition import BackboneMember, sample
from intarsia.credit import FlowSettings, Trace
from intarsia.data import Source
from intarsia.errors import SettingsError
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.credited import METHODS, Flows, composed_values, credited, log_q_of
from intarsia.experiments.reproduce.domains import NEAR
from intarsia.experiments.reproduce.figures import markdown, spread
from intarsia.experiments.reproduce.plots import plot_bars
from intarsia.experiments.reproduce.retrained import AGREEMENT, SUBSETS, Truth, agreement, pooled, same
from intarsia.experiments.reproduce.scale import Scale
from intarsia.experiments.reproduce.study import Study
from intarsia.experiments.reproduce.summary import slug, text_of, write_summary
from intarsia.experiments.reproduce.world import World, at_random, by_class

SOURCES = 4
OWNERS = (*NEAR, "openmoji", "twemoji")
IMAGES = 48
SHARE = 16  # of the usual steps, of half as many images: there are nineteen models for each kind of sources and seed
FLOWS = Flows(FlowSettings(steps=10, probes=1), repeats=2)
_FRESH = 1000  # seeds of the retrained models are none of the compartments'

COMPOSED, AGAIN = "composition", "trained again"
SHOWN: tuple[str, ...] = ("path", "responsibility", "leave-one-out", "shapley", "divergence")
OWED = (*SHOWN, "retrained without it", "retrained, Shapley")


def domains_of(world: World) -> dict[str, list[Source]]:
    """Sources that differ, and sources that do not; or four owners, two of whom render the same drawings.

    Raises:
        SettingsError: an owner is missing.
    """
    if not world.owners:
        return {"by class": by_class(world.images, SOURCES), "at random": at_random(world.images, SOURCES, seed=0)}
    kept = {owner.name: owner.kept for owner in world.owners}
    if missing := [name for name in OWNERS if name not in kept]:
        raise SettingsError(f"the emoji of {', '.join(missing)} are missing; make them with intarsia data emoji")
    return {"two renderings and two owners": [kept[name] for name in OWNERS]}


def credit_scale(scale: Scale) -> Scale:
    """Fewer images, and smaller budgets, which are the same for every model whatever it is trained on."""
    steps, rows = max(1, scale.steps // SHARE), max(1, scale.training.rows // 2)
    training = replace(scale.training, steps=steps, rows=rows, warmup=min(scale.training.warmup, steps // 5))
    return replace(scale, steps=steps, training=training, images=min(IMAGES, scale.images))


def credits_table(study: Study) -> None:
    """Fill the table."""
    for seed in study.scale.seeds:
        for name, sources in domains_of(study.world).items():
            _domain(study, name, sources, seed)


def _domain(study: Study, domain: str, sources: Sequence[Source], seed: int) -> None:
    key: dict[str, str | int] = {"seed": seed, "domain": domain}
    judged = cache(partial(_judged, study, domain, sources, seed))
    for method in (*METHODS, COMPOSED, *([AGAIN] if len(study.scale.seeds) > 1 else [])):
        study.bench.cell({**key, "method": method}, partial(_agreement, judged, method))
    for number, source in enumerate(sources):
        study.bench.cell({**key, "source": source.name}, partial(_owed, judged, number))


def _agreement(judged: Callable[[], Judged], method: str) -> Mapping[str, float]:
    return judged().agreement(method)


def _owed(judged: Callable[[], Judged], source: int) -> Mapping[str, float]:
    return judged().owed(source)


@dataclass(frozen=True)
class Judged:
    """Images of one composition: their credit (N, n) by every method, and the truth from two sets of models."""

    credit: Mapping[str, Tensor]
    composed: Tensor
    truth: Truth
    again: Truth

    def agreement(self, method: str) -> Mapping[str, float]:
        """Of a method's credit with the truth."""
        if method == COMPOSED:
            return {SUBSETS: same(self.composed, self.truth.of_subsets())}
        if method == AGAIN:
            return self.truth.agreement(self.again)
        return agreement(self.credit[method], self.truth)

    def owed(self, source: int) -> dict[str, float]:
        """What the images owe to one source, by the methods and by the truth; means over the images."""
        told = [*(self.credit[method] for method in SHOWN), self.truth.leave_one_out(), self.truth.shapley()]
        return {name: each[:, source].mean().item() for name, each in zip(OWED, told, strict=True)}


def _judged(study: Study, domain: str, sources: Sequence[Source], seed: int) -> Judged:
    place = f"seed-{seed}-{slug(domain)}"
    team = study.team(place, sources, study.scale.trained(1, 1, seed=seed), ["gaussian"])
    model = team.compose([source.name for source in sources], "gaussian", "full", precision="float32")
    result = sample(
        model,
        study.scale.images,
        study.scale.sampled(seed),
        decode=team.backbone.decode,
        labels=study.world.asked(study.scale.images, model.labels | model.vocabulary),
        on_progress=lambda done, total: study.bench.on_step("draw", done, total),
    )
    log_q = log_q_of(model, BackboneMember(team.backbone, 1, precision="float32"), result.latents)
    return Judged(
        credited(model, result.latents, Trace.of(result), log_q, FLOWS),
        composed_values(log_q, model.prior),
        _truth(study, domain, sources, seed, result.latents),
        _truth(study, domain, sources, partner(seed), result.latents),
    )


def partner(seed: int) -> int:
    """The seed whose truth a seed's is compared with: three by three in a ring, however many seeds there are."""
    return seed // 3 * 3 + (seed + 1) % 3


def _truth(study: Study, domain: str, sources: Sequence[Source], seed: int, x0: Tensor) -> Truth:
    settings = study.scale.trained(1, 1, seed=seed + _FRESH)
    team = study.team(f"seed-{seed}-{slug(domain)}-retrained", pooled(sources), settings, ())
    return Truth.of(team, len(sources), x0)


def report_credits(bench: Bench, asks: str) -> Path:
    """Per kind of sources: how each method agrees with the truth, and what each source is owed."""
    parts = [asks + "\n", _LEGEND]
    for domain in keys_of(bench.rows, "domain"):
        methods = keys_of(bench.where(domain=domain), "method")
        agreed = [[m, *(text_of(bench.where(domain=domain, method=m), f) for f in AGREEMENT)] for m in methods]
        parts += [f"## Sources {domain}\n", markdown(["method", *AGREEMENT], agreed)]
        spreads = [spread([r.figures[SUBSETS] for r in bench.where(domain=domain, method=m)]) for m in methods]
        picture = f"{slug(domain)}.png"
        plot_bars(bench.out / picture, methods, spreads, x=f"rank correlation with retrained models, {SUBSETS}")
        parts += [f"![agreement with retrained models]({picture})\n", "What the images owe to each source:\n"]
        sources = keys_of(bench.where(domain=domain), "source")
        owed = [[s, *(text_of(bench.where(domain=domain, source=s), f) for f in OWED)] for s in sources]
        parts.append(markdown(["source", *OWED], owed))
    return write_summary(bench, "credit", parts)


_LEGEND = f"""`{SUBSETS}`: rank correlation, over the subsets of sources, between the credit of a subset's members
together and the log-density of the image under a monolith that was trained on that subset alone (the linear
datamodelling score); of `{COMPOSED}` between what the composition of the subset says itself and that. `leave-one-out`,
`Shapley`: rank correlation over the four sources with what retraining without each changes, and with the Shapley values
of the retrained models. `top source`: how often the source that is credited most is the one whose absence costs most;
chance is one quarter. `negative`: share of credit below 0. All are means over the images. `{AGAIN}` is what other
monoliths, trained with another seed, say of the same images: no method can be expected to agree better. `prior` credits
by size alone.
"""
