"""Who can tell what was trained on, before and after forgetting; and how soon what was forgotten comes back.

One source of some hundred images, of which a fifth is forgotten; all other images are non-members. Four models:
`before` saw all of the source; `forgotten` is what `intarsia forget` leaves, which is what never saw them, byte for
byte; `never` was trained like that from another seed; `fine-tuned` is `before`, trained on a little without them, as
those do who cannot retrain. LiRA's shadow models are trained on random sets of images of the same size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from intarsia.audit import Looks, LookSettings, attack, denoising_scores, lira_scores, look, loss_scores
from intarsia.audit.membership import DENOISING, LIRA, LOSS
from intarsia.compartments import Compartment, Trainee
from intarsia.compartments.training import deterministic
from intarsia.composition import BackboneMember, CompartmentMember
from intarsia.composition.member import Member
from intarsia.data import Source
from intarsia.diffusion import keyed_generator
from intarsia.experiments.recipes import merged
from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.figures import Spread, markdown, spread
from intarsia.experiments.reproduce.plots import Curve, Panel, plot
from intarsia.experiments.reproduce.scale import Scale
from intarsia.experiments.reproduce.study import Study
from intarsia.experiments.reproduce.summary import text_of, write_summary
from intarsia.vault.training import data_of

IMAGES, FORGOTTEN = 300, 60
SHADOWS = 6
TUNED = 50  # steps without what is to be forgotten, from `before` on
RELEARN, EVERY = 24, 4  # steps with what was forgotten alone, and how often it is looked at
BEFORE, AFTER, NEVER, FINE_TUNED = "before", "forgotten", "never", "fine-tuned"
MODELS = (BEFORE, AFTER, NEVER, FINE_TUNED)
KEPT, REMOVED = "kept", "removed"
ATTACKS = (LOSS, DENOISING, LIRA)
_NEVER_SEED = 1000  # beside the seed of the others
_ERROR = f"error / that of {BEFORE}"


def membership(study: Study) -> None:
    """Fill the table."""
    for seed in study.scale.seeds:
        suspects = Suspects(study, seed)
        for model in MODELS:
            for group in (KEPT, REMOVED):
                for name in ATTACKS:
                    key: dict[str, str | int] = {"seed": seed, "model": model, "group": group, "attack": name}
                    study.bench.cell(key, partial(suspects.attacked, model, group, name))
            study.bench.cell({"seed": seed, "model": model, "relearned": "yes"}, partial(suspects.relearned, model))


def brief(scale: Scale) -> Scale:
    """The budget: one small source is learned by heart in few steps. That of the paper stays as it is."""
    return scale if scale.epochs else replace(scale, steps=min(scale.steps, 240))


@dataclass(frozen=True, eq=False)
class Suspects:
    """The models of one seed, and what each of them makes of every image."""

    study: Study
    seed: int

    @cached_property
    def pool(self) -> Source:
        """All images, members or not."""
        return merged("all", [self.study.world.images, self.study.world.reference])

    @cached_property
    def groups(self) -> Mapping[str, Tensor]:
        """Rows of the pool, by what became of them; the rest nobody trained on."""
        order = torch.from_numpy(keyed_generator("members", self.seed).permutation(len(self.pool)))
        members, removed = self._sizes
        return {REMOVED: order[:removed], KEPT: order[removed:members], "others": order[members:]}

    @property
    def _sizes(self) -> tuple[int, int]:
        """How many images are trained on, and how many of them are forgotten: fewer where there are few."""
        members = min(IMAGES, len(self.pool) // 4)
        return members, members * FORGOTTEN // IMAGES

    @cached_property
    def models(self) -> Mapping[str, Compartment]:
        everything = torch.cat([self.groups[REMOVED], self.groups[KEPT]])
        before = self._trained(BEFORE, self._source("source", everything), self.seed)
        kept = self._source("source", self.groups[KEPT])
        return {
            BEFORE: before,
            AFTER: self._trained(AFTER, kept, self.seed),
            NEVER: self._trained(NEVER, kept, self.seed + _NEVER_SEED),
            FINE_TUNED: self._tuned(before, kept),
        }

    @cached_property
    def latents(self) -> Tensor:
        return self.study.workshop.latents.of(self.pool)

    @cached_property
    def public(self) -> Looks:
        """What the backbone by itself makes of every image."""
        return self._looks(BackboneMember(self.study.world.backbone, 1))

    @cached_property
    def looks(self) -> Mapping[str, Looks]:
        return {name: self._looks(self._member(compartment)) for name, compartment in self.models.items()}

    @cached_property
    def shadows(self) -> tuple[Tensor, Tensor]:
        """Scores (K, N) of shadow models, and what each of them saw, bool (K, N)."""
        inside = torch.zeros(SHADOWS, len(self.pool), dtype=torch.bool)
        scores = []
        for number in range(SHADOWS):
            order = torch.from_numpy(keyed_generator("shadow", self.seed, number).permutation(len(self.pool)))
            rows = order[: self._sizes[0]]
            inside[number, rows] = True
            source = self._source(f"shadow-{number}", rows)
            member = self._member(self._trained("shadows", source, self.seed + 1 + number))
            scores.append(denoising_scores(self._looks(member), self.public))
        return torch.stack(scores), inside

    def attacked(self, model: str, group: str, name: str) -> dict[str, float]:
        """How well one attack tells a group from those that nobody trained on."""
        scores = self._scores(model, name)
        found = attack(name, scores[self.groups[group]], scores[self.groups["others"]])
        figures = {"area": found.area.value, "low": found.area.low, "high": found.area.high}
        if found.caught is None:
            return figures
        caught = found.caught
        return {**figures, "caught": caught.value, "caught low": caught.low, "caught high": caught.high}

    def _scores(self, model: str, name: str) -> Tensor:
        looks = self.looks[model]
        if name == LOSS:
            return loss_scores(looks)
        found = denoising_scores(looks, self.public)
        return lira_scores(found, *self.shadows) if name == LIRA else found

    def relearned(self, model: str) -> dict[str, float]:
        """The error on what was forgotten in that of `before`, while the model is trained on it."""
        rows = self.groups[REMOVED]
        trainee = self._again(self.models[model], self._source("source", rows), RELEARN)
        found = {0: self._log_error(self._member(self.models[model]), rows)}
        with deterministic(1):
            for step in range(1, RELEARN + 1):
                trainee.step()
                if step % EVERY == 0:
                    learned = replace(self.models[model], params=trainee.params)
                    found[step] = self._log_error(self._member(learned), rows)
        goal = self._log_error(self._member(self.models[BEFORE]), rows)
        ratios = {step: math.exp(error - goal) for step, error in found.items()}
        reached = next((step for step, ratio in ratios.items() if ratio <= 1), RELEARN + EVERY)
        return {"steps": reached, **{f"after {step}": ratio for step, ratio in ratios.items()}}

    def _log_error(self, member: Member, rows: Tensor) -> float:
        few = LookSettings(draws=1)
        looks = look(member, self.study.world.backbone.schedule, self.latents[rows], settings=few)
        return looks.log_error.mean().item()

    def _looks(self, member: Member) -> Looks:
        return look(member, self.study.world.backbone.schedule, self.latents)

    def _member(self, compartment: Compartment) -> CompartmentMember:
        return CompartmentMember(self.study.world.backbone, compartment)

    def _source(self, name: str, rows: Tensor) -> Source:
        ids = {self.pool.manifest.ids[row] for row in rows.tolist()}
        return self.pool.select(lambda sample: sample.id in ids, name=name)

    def _trained(self, place: str, source: Source, seed: int) -> Compartment:
        settings = self.study.scale.trained(1, 1, seed=seed)
        team = self.study.team(f"seed-{self.seed}-{place}", [source], settings, ())
        return team.compartments[source.name]

    def _tuned(self, before: Compartment, kept: Source) -> Compartment:
        trainee = self._again(before, kept, TUNED)
        with deterministic(1):
            for _ in range(TUNED):
                trainee.step()
        return replace(before, params=trainee.params)

    def _again(self, compartment: Compartment, source: Source, steps: int) -> Trainee:
        """Training that goes on from a compartment's parameters, at a rate that stays as it is."""
        settings = self.study.scale.trained(1, 1, seed=self.seed + 2 * _NEVER_SEED)
        gentle = replace(settings, steps=steps, warmup=0, lr=settings.first_lr / 5, threads=1)
        trainee = Trainee(self.study.world.backbone, data_of(source, self.study.workshop.latents.of(source)), gentle)
        for name, p in compartment.params.items():
            trainee.params[name].copy_(p)
        return trainee


def report_membership(bench: Bench, asks: str) -> Path:
    """Areas under the curve per model, group and attack; steps of relearning; plots of both."""
    told = [row for row in bench.rows if "attack" in row.key]
    parts = [asks + "\n"]
    for group in (KEPT, REMOVED):
        lines = [[model, *(_area(bench, model, group, name) for name in ATTACKS)] for model in keys_of(told, "model")]
        parts += [f"## The {group} images\n", markdown(["model", *ATTACKS], lines)]
    caught = [[model, *(_caught(bench, model, group) for group in (KEPT, REMOVED))] for model in keys_of(told, "model")]
    back = [
        [model, text_of(rows, "after 0"), ", ".join(_steps(row) for row in rows)]
        for model in MODELS
        if (rows := bench.where(model=model, relearned="yes"))
    ]
    panel = Panel(curves=_curves(bench), x="steps with what was forgotten", y=_ERROR, bottom=0.9)
    plot(bench.out / "relearned.png", [panel])
    parts += [
        "The probability that an image of the group has a higher score than one that nobody trained on, 0.5 for "
        "chance: means over the seeds of the area and of the ends of its bootstrap interval; in brackets, in how many "
        "of the seeds that covers 0.5.\n",
        "## Caught by LiRA where one in a hundred others is accused\n",
        markdown(["model", KEPT, REMOVED], caught),
        "Means over the seeds of the share and of the ends of its exact interval, for the threshold as it was found.\n",
        "## Relearning\n",
        markdown(["model", f"{_ERROR}, at first", f"steps until it is that of `{BEFORE}`"], back),
        "Each model is trained on what was forgotten and on nothing else; errors are geometric means over images and "
        "moderate noise. One number for each seed.\n",
        "![error on what was forgotten, while it is learned again](relearned.png)\n",
    ]
    return write_summary(bench, "membership", parts)


def _area(bench: Bench, model: str, group: str, name: str) -> str:
    rows = bench.where(model=model, group=group, attack=name)
    covering = sum(row.figures["low"] <= 0.5 <= row.figures["high"] for row in rows)
    area, low, high = (fmean(row.figures[name] for row in rows) for name in ("area", "low", "high"))
    return f"{area:.3f} [{low:.3f}, {high:.3f}] ({covering} of {len(rows)})"


def _caught(bench: Bench, model: str, group: str) -> str:
    rows = [row for row in bench.where(model=model, group=group, attack=LIRA) if "caught low" in row.figures]
    if not rows:
        return "too few others"
    share, low, high = (fmean(row.figures[name] for row in rows) for name in ("caught", "caught low", "caught high"))
    return f"{share:.3f} [{low:.3f}, {high:.3f}]"


def _steps(row: Row) -> str:
    steps = row.figures["steps"]
    return f"{steps:.0f}" if steps <= RELEARN else f"more than {RELEARN}"


def _curves(bench: Bench) -> Sequence[Curve]:
    steps = range(0, RELEARN + 1, EVERY)
    curves = []
    for model in (BEFORE, AFTER, NEVER, FINE_TUNED):
        rows = bench.where(model=model, relearned="yes")
        spreads: list[Spread] = [spread([row.figures[f"after {step}"] for row in rows]) for step in steps]
        curves.append(Curve(model, list(steps), spreads))
    return curves
