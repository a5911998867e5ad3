"""The check of who was trained on: attacks with held-out images, and LiRA with shadow models where they are wanted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TypeVar

import torch
from torch import Tensor

from intarsia.audit import Attack, attack, denoising_scores, halves_of, lira_scores, look, loss_scores
from intarsia.audit.membership import DENOISING, ENOUGH_OTHERS, FALSE_POSITIVES, LIRA, LOSS
from intarsia.compartments import Compartment, TrainData, Trainee, train
from intarsia.composition import BackboneMember, CompartmentMember
from intarsia.data import Source
from intarsia.experiments.auditing.finding import FAILED, NOTED, PASSED, SKIPPED, Finding, attack_row, first_of
from intarsia.experiments.auditing.subject import Subject
from intarsia.vault.training import Recipe, run_of

T = TypeVar("T")
_HALVED = 2  # images at least, of which shadows see some


def membership(subject: Subject) -> Finding:
    """Whether members can be told, and whether by more than a privacy budget allows."""
    every = {
        source.name: [*_with_held_out(subject, source), *_with_shadows(subject, source)]
        for source in subject.held_trained
    }
    attacks = {name: found for name, found in every.items() if found}
    if not attacks:
        said = (
            "Needs real images like those of the sources that nothing was trained on (--held-out), or shadow models "
            "(--shadows), which are trained for sources of two images at least that are not under a privacy budget."
        )
        return Finding(SKIPPED, said)
    figures = {name: [asdict(each) for each in found] for name, found in attacks.items()}
    rows = [attack_row(f"{name}, {each.name}", each) for name, found in attacks.items() for each in found]
    columns = ("compartment and attack", "area under the curve", "caught at 1 % accused", "members and others")
    fewest = min(each.others for found in attacks.values() for each in found)
    note = "" if fewest >= ENOUGH_OTHERS else f"{ENOUGH_OTHERS:,} others would tell what is caught at 1 % well."
    tables = [first_of("Attacks", columns, rows, note)]
    if beyond := [name for name, found in attacks.items() if _beyond_budget(subject, name, found)]:
        said = f"More members of {', '.join(beyond)} are caught than the privacy budget allows."
        return Finding(FAILED, said, figures, tables)
    if telling := [name for name, found in attacks.items() if any(each.tells for each in found)]:
        said = f"Whoever has the compartment tells members of {', '.join(telling)} better than chance does."
        return Finding(NOTED, said, figures, tables)
    return Finding(PASSED, "No attack told members from others better than chance does.", figures, tables)


def _with_held_out(subject: Subject, source: Source) -> list[Attack]:
    held_out = subject.given.held_out
    if held_out is None:
        return []
    subject.on_phase(f"attack '{source.name}' with held-out images")
    groups, schedule = (subject.data(source).latents, subject.encoded(held_out)), subject.vault.backbone.schedule
    seen = [look(subject.member(source.name), schedule, group) for group in groups]
    plain = [look(BackboneMember(subject.vault.backbone, 1), schedule, group) for group in groups]
    (ours, theirs), (our_plain, their_plain) = seen, plain
    return [
        attack(LOSS, loss_scores(ours), loss_scores(theirs)),
        attack(DENOISING, denoising_scores(ours, our_plain), denoising_scores(theirs, their_plain)),
    ]


def _with_shadows(subject: Subject, source: Source) -> list[Attack]:
    """LiRA among models that are trained as the compartment was, on random halves; each is attacked by the others."""
    count, compartment = subject.settings.shadows, subject.compartment(source.name)
    if not count or compartment.record()["privacy"] is not None:  # private trainings are not repeated for a test
        return []
    backbone, recipe = subject.vault.backbone, Recipe.read(run_of(compartment))
    data = subject.data(source, recipe.settings.adapter)
    if len(data.ids) < _HALVED:
        return []
    inside = halves_of(len(data.ids), count, seed=subject.settings.seed)
    trainees = [
        Trainee(backbone, part(data, rows, f"shadow-{k}"), recipe.settings, extensions=recipe.extensions)
        for k, rows in enumerate(inside)
    ]
    subject.on_phase(f"train {count} shadow models of '{source.name}'")
    steps = sum(trainee.slicing.total for trainee in trainees)
    for done, _ in enumerate(train(trainees), start=1):
        subject.on_step(f"shadows of {source.name}", done, steps)
    public = look(BackboneMember(backbone, 1), backbone.schedule, data.latents)
    looks = [look(member_of(trainee, compartment), backbone.schedule, data.latents) for trainee in trainees]
    return [each_by_the_others(torch.stack([denoising_scores(seen, public) for seen in looks]), inside)]


def part(data: TrainData, rows: Tensor, name: str) -> TrainData:
    """The samples of these rows, bool (N,), under another name."""
    chosen = rows.nonzero()[:, 0].tolist()

    def some(values: Sequence[T]) -> list[T]:
        return [values[k] for k in chosen] if values else []

    return replace(
        data,
        name=name,
        latents=data.latents[rows],
        ids=some(data.ids),
        labels=some(data.labels),
        batches=some(data.batches),
        risky=some(data.risky),
        captions=some(data.captions),
    )


def member_of(trainee: Trainee, like: Compartment) -> CompartmentMember:
    """What a trainee has learned, without a record of how."""
    labels = Counter(label for label in trainee.data.labels if label is not None)
    learned = replace(like, name=trainee.data.name, params=trainee.average, classes=dict(sorted(labels.items())))
    return CompartmentMember(trainee.backbone, learned)


def each_by_the_others(scores: Tensor, inside: Tensor) -> Attack:
    """LiRA on each of K models with the others as its shadows, all taken together; both (K, N)."""
    members, strangers = [], []
    for k, rows in enumerate(inside):
        others = torch.arange(len(inside)) != k
        found = lira_scores(scores[k], scores[others], inside[others])
        members.append(found[rows])
        strangers.append(found[~rows])
    return attack(LIRA, torch.cat(members), torch.cat(strangers))


# Kairouz et al. 2015: under (epsilon, delta)-privacy, true positives <= e^epsilon false positives + delta
def _beyond_budget(subject: Subject, name: str, found: Sequence[Attack]) -> bool:
    spent = subject.compartment(name).record()["privacy"]
    if spent is None:
        return False
    most = math.exp(spent["spent"]) * FALSE_POSITIVES + spent["delta"]
    return any(each.caught is not None and each.caught.low > most for each in found)
